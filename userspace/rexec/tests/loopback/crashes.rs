// SPDX-License-Identifier: GPL-2.0

//! Whoever is killed, at whatever moment: nothing of the session is left on either side.

use crate::common::eventually;
use crate::common::marked;
use crate::common::processes::kill;
use crate::common::Process;
use crate::common::Run;
use crate::common::Server;
use nix::libc::SIGKILL;
use std::time::Duration;

/// A program with descendants of all kinds: in the group, in another session, a daemon.
const FAMILY: &str = "sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & exec sleep 1000' &) ; echo ready; exec sleep 1000";

/// Times from 0 to 40 ms that are the same in each run.
fn moments() -> impl Iterator<Item = Duration> {
    let mut state = 7_u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros((state >> 33) % 40_000)
    })
}

fn nothing_is_left(mark: &str, server: &Server) {
    eventually("no process of the session is left", || {
        marked(mark).is_empty()
    });
    server.is_idle();
}

#[test]
fn a_killed_rexec() {
    let server = Server::new();
    for moment in moments().take(25) {
        let run = server.start_marked("killed-rexec", &[], FAMILY);
        std::thread::sleep(moment);
        run.kill(SIGKILL);
        assert_eq!(run.end().signal(), Some(SIGKILL));
    }
    nothing_is_left("killed-rexec", &server);
}

#[test]
fn a_killed_rexec_whose_program_is_stopped_and_deaf() {
    let server = Server::new();
    let mut run = server.start_marked(
        "deaf",
        &[],
        "trap '' TERM HUP INT; sh -c 'kill -STOP $$' & echo ready; kill -STOP $$",
    );
    assert_eq!(run.line(), "ready");
    run.kill(SIGKILL);
    run.end();
    nothing_is_left("deaf", &server);
}

#[test]
fn a_killed_program() {
    let server = Server::new();
    for moment in moments().take(25) {
        let mut run = server.start_marked("killed-program", &[], FAMILY);
        assert_eq!(run.line(), "ready");
        std::thread::sleep(moment / 4);
        let pid = server.sessions().last().unwrap().pid;
        kill(i32::try_from(pid).unwrap(), SIGKILL);
        assert_eq!(run.end().signal(), Some(SIGKILL));
    }
    nothing_is_left("killed-program", &server);
}

#[test]
fn a_killed_keeper() {
    let server = Server::new();
    for moment in moments().take(25) {
        let run = server.start_marked("killed-keeper", &[], FAMILY);
        let mut keeper = None;
        eventually("there is a keeper", || {
            keeper = server.keepers().first().map(|keeper| keeper.pid);
            keeper.is_some()
        });
        std::thread::sleep(moment);
        kill(keeper.unwrap(), SIGKILL);
        let ended = run.end();
        // Before the program was there it is a failure to start.
        match ended.signal() {
            Some(signal) => assert_eq!(signal, SIGKILL),
            None => ended.fails(126, &["cannot make a process"]),
        }
        eventually("the session is gone", || server.keepers().is_empty());
    }
    nothing_is_left("killed-keeper", &server);
}

#[test]
fn a_killed_server() {
    let mut server = Server::new();
    for moment in moments().take(10) {
        let nursery = server.nursery().unwrap().pid;
        let runs: Vec<Run> = (0..3)
            .map(|_| server.start_marked("killed-server", &[], FAMILY))
            .collect();
        std::thread::sleep(moment);
        server.kill();
        for run in runs {
            let ended = run.end();
            assert!(matches!(ended.code(), Some(254 | 255)), "{ended:?}");
        }
        eventually("no process of the sessions is left", || {
            marked("killed-server").is_empty()
        });
        eventually("the nursery has ended", || {
            Process::look(nursery)
                .is_none_or(|process| process.name != "rexec-nursery" || process.state == 'Z')
        });
        let dir = server.into_dir();
        server = Server::made_in(
            dir,
            &crate::common::server::free_address(),
            crate::common::server::ALL,
        );
    }
    server.is_idle();
}

#[test]
fn a_killed_nursery_ends_the_server_and_all_its_programs() {
    let mut server = Server::new();
    let mut run = server.start_marked("killed-nursery", &[], FAMILY);
    assert_eq!(run.line(), "ready");
    kill(server.nursery().unwrap().pid, SIGKILL);
    assert_ne!(server.ended(), Some(0));
    assert_eq!(run.end().code(), Some(255));
    eventually("no process of the session is left", || {
        marked("killed-nursery").is_empty()
    });
    assert!(server.log().contains("the nursery was killed"));
}

#[test]
fn a_server_that_ends_takes_its_programs_and_sockets_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::made_in(dir, "unix://DIR/rexec.sock", crate::common::server::ALL);
    let mut run = server.start_marked("ended-server", &[], FAMILY);
    assert_eq!(run.line(), "ready");
    kill(server.pid(), nix::libc::SIGTERM);
    assert_eq!(server.ended(), Some(0));
    run.end().fails(255, &["connection lost"]);
    eventually("no process of the session is left", || {
        marked("ended-server").is_empty()
    });
    for socket in ["rexec.sock", "status.sock"] {
        assert!(!server.file(socket).exists(), "{socket}");
    }
}

#[test]
fn a_stopped_server_counts_as_lost() {
    let server = Server::new();
    let mut run = server.start_marked("stopped-server", &["--link-timeout", "1"], FAMILY);
    assert_eq!(run.line(), "ready");
    kill(server.pid(), nix::libc::SIGSTOP);
    run.end().fails(255, &["connection lost", "silent for 1 s"]);
    kill(server.pid(), nix::libc::SIGCONT);
    nothing_is_left("stopped-server", &server);
}

#[test]
fn a_stopped_rexec_keeps_its_program() {
    let server = Server::with(&format!("link_timeout = 1\n{}", crate::common::server::ALL));
    let mut run = server.start("echo ready; read x; head -c 3000000 /dev/zero; exit 6");
    assert_eq!(run.line(), "ready");
    run.write("go\n");
    run.kill(nix::libc::SIGSTOP);
    // Several times as long as the link may be silent, with more to send than may be on the way.
    std::thread::sleep(Duration::from_secs(4));
    run.kill(nix::libc::SIGCONT);
    let ended = run.end();
    assert_eq!(
        (ended.code(), ended.stdout.len()),
        (Some(6), 3_000_000),
        "{}",
        ended.stderr
    );
    server.is_idle();
}
