// SPDX-License-Identifier: GPL-2.0

//! Signals for rexec are signals for the program.

use crate::common::eventually;
use crate::common::marked;
use crate::common::Process;
use crate::common::Run;
use crate::common::Server;
use nix::libc;
use std::os::unix::process::CommandExt;

const TOLD: &str = "import os, signal, sys
def tell(number, frame):
    os.write(1, b'%d\\n' % number)
    if number == signal.SIGXCPU:
        sys.exit(9)
for number in range(1, 65):
    if number not in (9, 19, 32, 33, 17):
        signal.signal(number, tell)
os.write(1, b'ready\\n')
while True:
    signal.pause()
";

#[test]
fn the_program_gets_the_signals_that_rexec_gets() {
    let server = Server::new();
    let mut command = server.rexec();
    let mut run = Run::start(command.args(["python3", "-c", TOLD]));
    assert_eq!(run.line(), "ready");
    let named = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGTERM,
        libc::SIGSTKFLT,
        libc::SIGCONT,
        libc::SIGURG,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGWINCH,
        libc::SIGIO,
        libc::SIGPWR,
        libc::SIGXFSZ,
    ];
    for signal in named.into_iter().chain([34, 50, 64]) {
        run.kill(signal);
        assert_eq!(run.line(), signal.to_string());
    }
    run.kill(libc::SIGXCPU);
    assert_eq!(run.line(), libc::SIGXCPU.to_string());
    assert_eq!(run.end().code(), Some(9));
    server.is_idle();
}

#[test]
fn a_program_that_takes_no_measures_dies_by_them() {
    let server = Server::new();
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        35,
    ] {
        let mut run = server.start("ulimit -c 0; echo ready; exec sleep 1000");
        assert_eq!(run.line(), "ready");
        run.kill(signal);
        assert_eq!(run.end().signal(), Some(signal));
    }
}

#[test]
fn the_whole_process_group_is_told() {
    let server = Server::new();
    let mut run = server.start_marked(
        "group",
        &["--detach"],
        "trap 'echo parent; exit 0' TERM; sh -c 'trap \"echo child >&2; exit\" TERM; echo ready; while :; do sleep 0.01; done' & wait",
    );
    assert_eq!(run.line(), "ready");
    run.kill(libc::SIGTERM);
    assert_eq!(run.line(), "parent");
    assert_eq!(run.end().code(), Some(0));
    eventually("the child has ended too", || marked("group").is_empty());
}

#[test]
fn both_stop_and_both_continue() {
    let server = Server::new();
    let mut run = server.start_marked("stop", &[], "echo ready; read x; echo $x; exec sleep 1000");
    assert_eq!(run.line(), "ready");
    let pid = run.pid();
    let states = || {
        let mut states: Vec<char> = marked("stop").iter().map(|process| process.state).collect();
        states.extend(Process::look(pid).map(|rexec| rexec.state));
        states
    };
    run.kill(libc::SIGTSTP);
    eventually("both are stopped", || states() == ['T', 'T']);
    run.kill(libc::SIGCONT);
    eventually("both run", || states() == ['S', 'S']);
    run.write("after\n");
    assert_eq!(run.line(), "after");
    run.kill(libc::SIGTERM);
    assert_eq!(run.end().signal(), Some(libc::SIGTERM));
}

#[test]
fn what_rexec_was_told_to_ignore_the_program_ignores() {
    let server = Server::new();
    let ignored = |command: &mut std::process::Command| {
        let ended = Run::start(command.args(["grep", "SigIgn", "/proc/self/status"])).end();
        let text = ended
            .ok()
            .split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .to_owned();
        u64::from_str_radix(&text, 16).unwrap()
    };
    // Who runs the tests may have signals ignored that no program can have otherwise.
    let here = ignored(&mut crate::common::run::command("env"));
    assert_eq!(ignored(&mut server.rexec()), here);
    let rexec = server.rexec();
    let mut command = crate::common::run::command("nohup");
    command
        .envs(
            rexec
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .arg(rexec.get_program());
    assert_eq!(ignored(&mut command), here | (1 << (libc::SIGHUP - 1)));
}

#[test]
fn a_signal_before_the_program_is_one_for_rexec() {
    // A server that takes the connection and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let mut command = crate::common::server::client(dir.path(), &address);
    let run = Run::start(command.arg("true"));
    let (mut stream, _) = listener.accept().unwrap();
    let mut first = [0];
    std::io::Read::read_exact(&mut stream, &mut first).unwrap();
    run.kill(libc::SIGTERM);
    assert_eq!(run.end().signal(), Some(libc::SIGTERM));
}

#[test]
fn a_ctrl_c_for_a_group_of_rexecs_ends_them_all() {
    let server = Server::new();
    let mut leader = Run::start(server.sh("echo ready; exec sleep 1000").process_group(0));
    let group = leader.pid();
    let mut second = Run::start(
        server
            .sh("echo ready; exec sleep 1000")
            .process_group(group),
    );
    assert_eq!(
        (leader.line(), second.line()),
        ("ready".into(), "ready".into())
    );
    crate::common::processes::kill(-group, libc::SIGINT);
    assert_eq!(leader.end().signal(), Some(libc::SIGINT));
    assert_eq!(second.end().signal(), Some(libc::SIGINT));
    server.is_idle();
}
