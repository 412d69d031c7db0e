// SPDX-License-Identifier: GPL-2.0

//! `--detach`: what the program leaves behind lives on. And what is known of sessions.

use crate::common::eventually;
use crate::common::marked;
use crate::common::processes::kill;
use crate::common::run::command;
use crate::common::run::run;
use crate::common::Process;
use crate::common::Run;
use crate::common::Server;
use nix::libc::SIGKILL;

#[test]
fn a_detached_daemon_outlives_the_program_and_the_server() {
    let mut server = Server::new();
    // As a shim starts: the daemon is a child in another group; it holds no stream.
    let script = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!";
    let mut first = server.start_marked("daemon", &["--detach"], script);
    let daemon: i32 = first.line().parse().unwrap();
    assert_eq!(first.end().code(), Some(0));
    let keeper = Process::look(daemon).unwrap().parent;
    assert_eq!(Process::look(keeper).unwrap().name, "rexec-keeper");
    let session = server.sessions().remove(0);
    assert_eq!((session.state.as_str(), session.detach), ("detached", true));
    server.kill();
    let other = server.into_dir();
    let server = Server::made_in(
        other,
        &crate::common::server::free_address(),
        crate::common::server::ALL,
    );
    assert_eq!(marked("daemon").len(), 1);
    assert_eq!(
        run(server.rexec().args(["kill", &daemon.to_string()])).code(),
        Some(0)
    );
    eventually("its keeper ends with it", || {
        Process::look(keeper).is_none_or(|keeper| keeper.state == 'Z')
    });
}

#[test]
fn a_detached_daemon_ends_its_session_when_it_ends() {
    let server = Server::new();
    let mut run = server.start_marked(
        "leaving",
        &["--detach"],
        "sleep 1000 >/dev/null 2>&1 & echo $!",
    );
    let pid: i32 = run.line().parse().unwrap();
    assert_eq!(run.end().code(), Some(0));
    assert_eq!(server.sessions().len(), 1);
    kill(pid, SIGKILL);
    eventually("the session is gone", || server.sessions().is_empty());
    server.is_idle();
}

#[test]
fn until_the_program_has_ended_nothing_is_detached() {
    let server = Server::new();
    let mut run = server.start_marked(
        "early",
        &["--detach"],
        "setsid sleep 1000 & echo ready; exec sleep 1000",
    );
    assert_eq!(run.line(), "ready");
    run.kill(SIGKILL);
    run.end();
    eventually("no process is left", || marked("early").is_empty());
    server.is_idle();
}

#[test]
fn sessions_are_told_as_json_and_as_a_table() {
    let server = Server::new();
    assert_eq!(server.sessions(), []);
    let mut run_ = server.start("echo $$; exec sleep 1000");
    let pid = run_.line();
    let sessions = server.sessions();
    let session = &sessions[0];
    assert_eq!(sessions.len(), 1);
    assert_eq!(session.pid.to_string(), pid);
    assert_eq!(session.peer, format!("uid:{}", nix::unistd::geteuid()));
    assert_eq!((session.state.as_str(), session.detach), ("running", false));
    assert_eq!(session.arguments[..2], ["sh", "-c"]);
    assert!(session.program.ends_with("/sh"));
    let socket = server.file("status.sock");
    let shown = run(command(env!("CARGO_BIN_EXE_rexec-ps"))
        .arg("--status-socket")
        .arg(&socket));
    let table = shown.ok();
    assert!(table.lines().next().unwrap().contains("SESSION"));
    let row = table.lines().nth(1).unwrap();
    assert!(
        row.contains(&pid) && row.contains("running") && row.ends_with("sleep 1000"),
        "{table}"
    );
    let by_server = |options: &[&str]| {
        let mut command = command(env!("CARGO_BIN_EXE_rexec_server"));
        run(command.args(options).arg("--status-socket").arg(&socket))
            .ok()
            .to_owned()
    };
    assert_eq!(by_server(&["--status"]), table);
    let json: Vec<qtfs_rexec::server::registry::Session> =
        serde_json::from_str(&by_server(&["--status", "--json"])).unwrap();
    assert_eq!(json, sessions);
}

#[test]
fn no_server_is_said_in_one_line() {
    let ended =
        run(command(env!("CARGO_BIN_EXE_rexec-ps")).args(["--status-socket", "/no/such.sock"]));
    ended.fails(254, &["/no/such.sock", "is rexec_server running"]);
}

#[test]
fn the_status_socket_is_its_owners_and_nobody_steals_it() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::new();
    let socket = server.file("status.sock");
    assert_eq!(
        std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&socket, dir.path().join("status.sock")).unwrap();
    let mut second = Server::made_in(
        dir,
        &crate::common::server::free_address(),
        crate::common::server::ALL,
    );
    assert!(second.log().contains("another process answers there"));
    let mut session = server.start("echo ready; exec sleep 1000");
    assert_eq!(session.line(), "ready");
    kill(second.pid(), nix::libc::SIGTERM);
    assert_eq!(second.ended(), Some(0));
    assert_eq!(server.sessions().len(), 1);
}

#[test]
fn the_pid_file_holds_the_pid_there() {
    let server = Server::new();
    let file = server.file("pid");
    std::fs::write(&file, "something longer that was there before").unwrap();
    let mut command = server.rexec();
    command.arg("--pid-file").arg(&file);
    let mut run_ = Run::start(command.args(["sh", "-c", "echo $$; read x"]));
    let pid = run_.line();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{pid}\n"));
    assert_eq!(run_.end().code(), Some(1));
    let mut command = server.rexec();
    run(command.args(["--pid-file", "/no/such/dir/pid", "true"]))
        .fails(125, &["--pid-file /no/such/dir/pid", "give a file"]);
}
