// SPDX-License-Identifier: GPL-2.0

//! The agent: one connection for many programs, which notice nothing of it.

use crate::common::eventually;
use crate::common::marked;
use crate::common::run::command;
use crate::common::run::run;
use crate::common::run::run_with;
use crate::common::server::free_address;
use crate::common::server::ALL;
use crate::common::Run;
use crate::common::Server;
use std::process::Command;

/// A server whose callers have an agent, and the agent.
fn with_agent() -> (Server, Run) {
    let server = Server::new();
    let socket = server.file("agent.sock");
    let config = format!(
        "connect = '{}'\nagent = '{}'\n",
        server.address,
        socket.display()
    );
    std::fs::write(server.file("client.toml"), config).unwrap();
    let agent = start_agent(&server);
    (server, agent)
}

fn start_agent(server: &Server) -> Run {
    let mut command = command(env!("CARGO_BIN_EXE_rexec-agent"));
    let agent = Run::start(command.arg("--config").arg(server.file("client.toml")));
    eventually("the agent is there", || server.file("agent.sock").exists());
    agent
}

fn rexec(server: &Server) -> Command {
    let mut command = server.rexec();
    command.env_remove("CMD_NET_ADDR");
    command
}

/// From where the server sees a session come.
fn origin(server: &Server, command: &mut Command) -> String {
    let mut run = Run::start(command.args(["sh", "-c", "echo ready; read x; exit 3"]));
    assert_eq!(run.line(), "ready");
    let origin = server.sessions()[0].origin.clone();
    assert_eq!(run.end().code(), Some(3));
    eventually("the session is over", || server.sessions().is_empty());
    origin
}

#[test]
fn programs_share_a_connection_one_after_another() {
    let (server, _agent) = with_agent();
    let first = origin(&server, &mut rexec(&server));
    for _ in 0..5 {
        assert_eq!(origin(&server, &mut rexec(&server)), first);
    }
    // Also after one that could not be started.
    run(rexec(&server).arg("no-such-program")).fails(127, &["not found"]);
    assert_eq!(origin(&server, &mut rexec(&server)), first);
    // Two at a time need two.
    let mut run = Run::start(rexec(&server).args(["sh", "-c", "echo ready; read x"]));
    assert_eq!(run.line(), "ready");
    let mut other = Run::start(rexec(&server).args(["sh", "-c", "echo ready; read x"]));
    assert_eq!(other.line(), "ready");
    let origins: Vec<String> = server
        .sessions()
        .into_iter()
        .map(|session| session.origin)
        .collect();
    assert_ne!(origins[0], origins[1]);
}

#[test]
fn nothing_of_a_program_reaches_the_next_one() {
    let (server, _agent) = with_agent();
    let bytes: Vec<u8> = (0..700_000_u32)
        .map(|number| number.to_le_bytes()[1])
        .collect();
    for number in 0..20 {
        // Reads a little and leaves: data and credit are on their way in both directions.
        let ended = run_with(rexec(&server).args(["head", "-c", "3"]), &bytes);
        assert_eq!(
            (ended.code(), ended.stdout.as_slice()),
            (Some(0), &bytes[..3]),
            "{number}: {}",
            ended.stderr
        );
        let ended = run_with(rexec(&server).arg("cat"), &bytes);
        assert_eq!(ended.code(), Some(0), "{number}: {}", ended.stderr);
        assert!(
            ended.stdout == bytes,
            "{number}: {} bytes",
            ended.stdout.len()
        );
    }
}

#[test]
fn a_killed_rexec_or_agent_ends_the_program() {
    let (server, agent) = with_agent();
    let start = || {
        let mut command = rexec(&server);
        command.args([
            "-e",
            "MARK=by-agent",
            "sh",
            "-c",
            "setsid sleep 1000 & echo ready; exec sleep 1000",
        ]);
        let mut run = Run::start(&mut command);
        assert_eq!(run.line(), "ready");
        run
    };
    let run = start();
    run.kill(nix::libc::SIGKILL);
    run.end();
    eventually("the program has ended", || marked("by-agent").is_empty());
    let run = start();
    run.kill(nix::libc::SIGTERM);
    assert_eq!(run.end().signal(), Some(nix::libc::SIGTERM));
    let run = start();
    agent.kill(nix::libc::SIGKILL);
    run.end().fails(255, &["connection lost"]);
    eventually("the program has ended", || marked("by-agent").is_empty());
    agent.end();
    server.is_idle();
}

#[test]
fn without_an_agent_or_for_another_server_rexec_goes_itself() {
    let (server, agent) = with_agent();
    let first = origin(&server, &mut rexec(&server));
    let mut named = server.rexec();
    named.args(["--connect", &server.address]);
    assert_eq!(origin(&server, &mut named), first);
    let other = Server::new();
    let mut elsewhere = rexec(&server);
    run(elsewhere.args(["--connect", &other.address, "true"])).ok();
    assert!(other.log().contains("session 1"), "{}", other.log());
    agent.kill(nix::libc::SIGTERM);
    assert_eq!(agent.end().code(), Some(0));
    assert!(!server.file("agent.sock").exists());
    assert_ne!(origin(&server, &mut rexec(&server)), first);
}

#[test]
fn a_server_that_was_restarted_is_found_again() {
    let (server, _agent) = with_agent();
    run(rexec(&server).arg("true")).ok();
    let address = server.address.clone();
    let dir = server.into_dir();
    let server = Server::made_in(dir, &address, ALL);
    run(rexec(&server).arg("true")).ok();
}

#[test]
fn what_the_agent_cannot_reach_rexec_says_itself() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let config = format!(
        "connect = '{}'\nagent = '{}'\n",
        free_address(),
        socket.display()
    );
    std::fs::write(dir.path().join("client.toml"), config).unwrap();
    let mut agent = command(env!("CARGO_BIN_EXE_rexec-agent"));
    let _agent = Run::start(agent.arg("--config").arg(dir.path().join("client.toml")));
    eventually("the agent is there", || socket.exists());
    let mut rexec = crate::common::server::client(dir.path(), "");
    run(rexec.env_remove("CMD_NET_ADDR").arg("true"))
        .fails(254, &["cannot connect", "Connection refused"]);
}
