// SPDX-License-Identifier: GPL-2.0

//! How the program ended is how rexec ends.

use crate::common::eventually;
use crate::common::run::run;
use crate::common::run::write_program;
use crate::common::Process;
use crate::common::Server;
use std::time::Duration;

#[test]
fn every_exit_status_is_passed_on() {
    let server = Server::new();
    for status in [0, 1, 2, 77, 125, 126, 127, 128, 137, 248, 254, 255] {
        let ended = server.run(&format!("exit {status}"));
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(status), ""));
    }
    server.is_idle();
}

#[test]
fn a_death_by_signal_is_one_here_too() {
    use nix::libc::*;
    let server = Server::new();
    for signal in [
        SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGKILL, SIGSEGV, SIGPIPE, SIGTERM, 40,
    ] {
        let ended = server.run(&format!("ulimit -c 0; kill -{signal} $$"));
        assert_eq!(ended.signal(), Some(signal), "{ended:?}");
    }
    // As a shell says it.
    let mut command = crate::common::run::command("sh");
    let rexec = server.rexec();
    command.envs(
        rexec
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command.args(["-c", "\"$0\" sh -c 'kill -9 $$'; echo $?"]);
    assert_eq!(run(command.arg(rexec.get_program())).text(), "137\n");
}

#[test]
fn what_cannot_be_run_says_why() {
    let server = Server::new();
    std::fs::write(server.file("plain"), "").unwrap();
    let plain = server.file("plain");
    let plain = plain.to_str().unwrap();
    run(server.rexec().arg("no-such-program")).fails(127, &["no-such-program", "not found"]);
    run(server.rexec().arg("/no/such")).fails(127, &["/no/such", "No such file or directory"]);
    run(server.rexec().arg(plain)).fails(126, &[plain, "Permission denied"]);
    run(server.rexec().arg("/")).fails(126, &["/"]);
    run(server.rexec().arg("/usr")).fails(126, &["/usr", "Is a directory"]);
    run(server.rexec().args(["-C", "/no/such/dir", "true"])).fails(
        126,
        &[
            "cannot change to the directory",
            "/no/such/dir",
            "No such file or directory",
        ],
    );
    server.is_idle();
}

#[test]
fn a_missing_interpreter_is_127_and_a_plain_script_is_the_shells() {
    let server = Server::new();
    let script = |name: &str, text: &str| {
        let path = server.file(name);
        write_program(&path, text.as_bytes());
        path
    };
    let without = script("without", "#!/no/such/interpreter\n");
    run(server.rexec().arg(without)).fails(127, &["No such file or directory"]);
    let plain = script("plain", "echo \"$1\"; exit 5\n");
    let ended = run(server.rexec().arg(plain).arg("a b"));
    assert_eq!((ended.code(), ended.text()), (Some(5), "a b\n"));
}

#[test]
fn descendants_end_with_the_program() {
    let server = Server::new();
    // In the background, in a session of its own, and as a daemon whose parents are gone.
    let run = server.start_marked(
        "descendants",
        &[],
        "sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) ; exit 4",
    );
    assert_eq!(run.end().code(), Some(4));
    assert_eq!(crate::common::marked("descendants"), []);
    server.is_idle();
}

#[test]
fn rexec_ends_at_once_when_the_program_does() {
    let server = Server::new();
    // A descendant that holds the streams open does not hold up the end.
    let begin = std::time::Instant::now();
    let mut run = server.start_marked("at-once", &["--detach"], "sleep 1000 & echo $!; exit 0");
    let pid: i32 = run.line().parse().unwrap();
    let stdin = run.take_stdin();
    assert_eq!(run.end().code(), Some(0));
    assert!(begin.elapsed().as_secs() < 30);
    drop(stdin);
    crate::common::processes::kill(pid, 9);
    server.is_idle();
}

#[test]
fn a_program_that_was_told_to_end_does_not_wait_for_its_reader() {
    let server = Server::new();
    let run = server.start("exec yes");
    eventually("it runs", || !server.keepers().is_empty());
    let waits = || {
        let below = Process::below(server.pid());
        below
            .iter()
            .any(|process| process.name == "yes" && process.state == 'S')
    };
    // Each time that the server reads, it goes on for a moment.
    eventually("rexec has output that nobody reads", || {
        (0..20).all(|_| {
            std::thread::sleep(Duration::from_millis(5));
            waits()
        })
    });
    // Nobody reads stdout; it ends all the same, and says that something was lost.
    run.kill(nix::libc::SIGTERM);
    let mut run = run;
    let stdout = run.take_stdout();
    let ended = run.end();
    drop(stdout);
    assert_eq!(ended.signal(), Some(nix::libc::SIGTERM));
    assert!(
        ended.stderr.contains("were not taken by their reader"),
        "{}",
        ended.stderr
    );
}
