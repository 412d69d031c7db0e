// SPDX-License-Identifier: GPL-2.0

//! What goes wrong is said in one line, and has a status of its own.

use crate::common::run::command;
use crate::common::run::run;
use crate::common::server::client;
use crate::common::server::free_address;
use crate::common::server::server;
use crate::common::server::ALL;
use crate::common::Server;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;

#[test]
fn a_wrong_command_line_or_configuration_is_125() {
    let dir = tempfile::tempdir().unwrap();
    let rexec = |address: &str, args: &[&str]| run(client(dir.path(), address).args(args));
    rexec("http://10.0.0.1:7777", &["true"])
        .fails(125, &["unknown scheme \"http\"", "tcp, unix or vsock"]);
    rexec("10.0.0.1:7777", &["true"]).fails(125, &["no scheme"]);
    rexec("tcp://127.0.0.1:1", &[]).fails(125, &["CMD", "--help"]);
    rexec("tcp://127.0.0.1:1", &["--no-such-option", "true"]).fails(125, &["--no-such-option"]);
    rexec("tcp://127.0.0.1:1", &["--config", "/no/such.toml", "true"])
        .fails(125, &["/no/such.toml", "cannot be read"]);
    let mut without = client(dir.path(), "");
    without.env_remove("CMD_NET_ADDR");
    run(without.arg("true")).fails(125, &["no server is named", "--connect", "CMD_NET_ADDR"]);
    for (text, part) in [
        (
            "conect = 'tcp://1.2.3.4:5'",
            "client.toml:1: unknown field `conect`",
        ),
        ("\nconnect = 'x'", "client.toml:2:"),
        (
            "[tls]\ncertificate = 'a'",
            "[tls] needs all of certificate, key and authority",
        ),
        ("[tls]\nshared_key = '/no/such'", "/no/such"),
        ("[[allow]]\nprogram = 'true'", "give an absolute path"),
        ("link_timeout = 0", "link_timeout"),
    ] {
        std::fs::write(dir.path().join("client.toml"), text).unwrap();
        rexec("tcp://127.0.0.1:1", &["true"]).fails(125, &[part]);
    }
}

#[test]
fn help_says_the_statuses() {
    for program in [
        env!("CARGO_BIN_EXE_rexec"),
        env!("CARGO_BIN_EXE_rexec_server"),
        env!("CARGO_BIN_EXE_rexec-ps"),
        env!("CARGO_BIN_EXE_rexec-wrappers"),
    ] {
        let ended = run(command(program).arg("--help"));
        assert!(ended.ok().contains("Usage:"), "{program}");
        assert!(run(command(program).arg("--version"))
            .ok()
            .contains("0.1.0"));
    }
    let ended = run(command(env!("CARGO_BIN_EXE_rexec")).arg("--help"));
    for status in ["125", "126", "127", "253", "254", "255"] {
        assert!(ended.ok().contains(&format!("\n  {status}  ")), "{status}");
    }
}

#[test]
fn nobody_there_is_254() {
    let dir = tempfile::tempdir().unwrap();
    for (address, why) in [
        (free_address(), "Connection refused"),
        ("unix:///no/such.sock".into(), "No such file or directory"),
        (
            "tcp://no-such-name.invalid:1".into(),
            "no-such-name.invalid",
        ),
    ] {
        let mut command = client(dir.path(), &address);
        run(command.args(["--insecure", "true"])).fails(
            254,
            &["cannot connect", "is rexec_server running there?", why],
        );
    }
}

#[test]
fn a_server_that_does_not_answer_is_not_waited_for_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut command = client(dir.path(), &address);
    run(command.args(["--link-timeout", "1", "--connect-timeout", "1", "true"]))
        .fails(254, &["no greeting within 1 s"]);
}

/// What rexec says to a server that answers with these bytes.
fn answered_with(bytes: Vec<u8>) -> crate::common::run::Ended {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let dir = tempfile::tempdir().unwrap();
    let ended = run(client(dir.path(), &address).arg("true"));
    server.join().unwrap();
    ended
}

fn bytes(message: &qtfs_rexec::message::Message) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    message.encode(&mut out);
    out.to_vec()
}

fn hello() -> Vec<u8> {
    bytes(&qtfs_rexec::message::Message::Hello(
        qtfs_rexec::message::Hello {
            oldest: 1,
            newest: 1,
            host: "test".into(),
        },
    ))
}

#[test]
fn what_is_no_rexec_server_is_252() {
    answered_with(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())
        .fails(252, &["this is no rexec_server of this release"]);
    answered_with(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()).fails(252, &["this is no rexec_server"]);
    let with = |more: &[u8]| answered_with([&hello(), more].concat());
    // A DATA of 4 GiB; a message that nobody knows; credit without end; DATA without credit.
    with(&[0xff, 0xff, 0xff, 0xff, 5, 1, 0, 0]).fails(252, &["out of bounds"]);
    with(&[0, 0, 0, 0, 99, 0, 0, 0]).fails(252, &["unknown kind 99"]);
    let started = bytes(&qtfs_rexec::message::Message::Started { session: 1, pid: 1 });
    let credit = [4, 0, 0, 0, 8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    with(&[&started[..], &credit].concat()).fails(252, &["amount of credit"]);
    with(&[4, 0, 0, 0, 8, 1, 0, 0, 1, 0, 0, 0]).fails(252, &["message at this time"]);
    let mut flood = Vec::new();
    for _ in 0..40 {
        flood.extend([0, 0, 1, 0, 5, 1, 0, 0]);
        flood.resize(flood.len() + 65536, b'x');
    }
    let ended = with(&flood);
    assert_eq!(ended.code(), Some(252), "{}", ended.stderr);
    assert!(ended.stderr.contains("amount of data"), "{}", ended.stderr);
}

#[test]
fn a_connection_that_ends_too_early_is_255() {
    answered_with(Vec::new()).fails(255, &["connection lost"]);
    answered_with(hello()).fails(255, &["connection lost"]);
    answered_with([hello(), vec![12, 0, 0]].concat()).fails(255, &["connection lost"]);
}

#[test]
fn the_servers_words_do_not_reach_the_terminal_as_they_are() {
    let refusal =
        qtfs_rexec::message::Refusal::new(qtfs_rexec::message::Reason::CannotRun, "a\x1b[2Jb\nc");
    let message = bytes(&qtfs_rexec::message::Message::Failed(refusal));
    let ended = answered_with([hello(), message].concat());
    assert_eq!(
        (ended.code(), ended.stderr.as_str()),
        (Some(126), "rexec: a [2Jb c\n")
    );
}

#[test]
fn a_server_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let serve = |address: &str, config: &str| {
        let mut command = server(dir.path(), address, config);
        run(command.args(["--log", "error"]))
    };
    serve("tcp://0.0.0.0:7777", ALL).fails(
        125,
        &[
            "tcp://0.0.0.0:7777",
            "without keys",
            "[tls]",
            "insecure = true",
        ],
    );
    serve("vsock://any:7777", ALL).fails(125, &["without keys"]);
    serve("unix:///no/such/dir/x", ALL).fails(
        125,
        &["cannot listen at unix:///no/such/dir/x", "No such file"],
    );
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    serve(&format!("tcp://{}", busy.local_addr().unwrap()), ALL)
        .fails(125, &["cannot listen", "Address already in use"]);
    serve("tcp://127.0.0.1:1", "[[allow]]\nprogram = 'sh'").fails(125, &["give an absolute path"]);
    let mut without = server(dir.path(), "", ALL);
    run(without.env_remove("CMD_NET_ADDR")).fails(125, &["no address to listen at"]);
}

#[test]
fn in_clear_is_said_in_the_log_and_refused_by_callers() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address().replace("127.0.0.1", "0.0.0.0");
    let server = Server::made_in(dir, &address, &format!("insecure = true\n{ALL}"));
    assert!(
        server
            .log()
            .contains("in clear and without keys (insecure = true)"),
        "{}",
        server.log()
    );
    // This machine's own address is not known to be its own.
    run(server.rexec().arg("true")).fails(249, &["in clear", "[tls]", "insecure = true"]);
    let mut command = server.rexec();
    run(command.args(["--insecure", "true"])).ok();
}
