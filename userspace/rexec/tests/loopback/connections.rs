// SPDX-License-Identifier: GPL-2.0

//! Connections as the protocol has them: addresses, bounds for strangers, one program after another.

use crate::common::eventually;
use crate::common::processes::descriptors;
use crate::common::run::run;
use crate::common::server::ALL;
use crate::common::Server;
use bytes::Bytes;
use bytes::BytesMut;
use qtfs_rexec::codec::Header;
use qtfs_rexec::codec::HEADER;
use qtfs_rexec::message::Hello;
use qtfs_rexec::message::Message;
use qtfs_rexec::message::Outcome;
use qtfs_rexec::message::Reason;
use qtfs_rexec::message::Stream;
use qtfs_rexec::start::Start;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;

/// A caller that can say anything.
struct Raw(TcpStream);

impl Raw {
    fn connect(server: &Server) -> Self {
        let address = server.address.strip_prefix("tcp://").unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(crate::common::LIMIT)).unwrap();
        Self(stream)
    }

    fn send(&mut self, messages: &[Message]) {
        let mut out = BytesMut::new();
        for message in messages {
            message.encode(&mut out);
        }
        self.0.write_all(&out).unwrap();
    }

    /// The next message; `None` at the end.
    fn receive(&mut self) -> Option<Message> {
        let mut header = [0; HEADER];
        self.0.read_exact(&mut header).ok()?;
        let header = Header::decode(header).expect("the server sends what is right");
        let mut payload = vec![0; header.len];
        self.0.read_exact(&mut payload).expect("whole messages");
        Some(
            header
                .message(payload.into())
                .expect("the server sends what is right"),
        )
    }

    /// Expects the end after a refusal for this reason, whose text holds `part`.
    fn is_refused(&mut self, reason: Reason, part: &str) {
        loop {
            match self.receive().expect("a refusal") {
                Message::Failed(refusal) => {
                    let text = String::from_utf8_lossy(&refusal.text);
                    assert_eq!(refusal.reason, reason, "{text}");
                    assert!(text.contains(part), "{text}");
                    assert_eq!(self.receive(), None);
                    return;
                }
                Message::Hello(_) | Message::Credit(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn hello(oldest: u16, newest: u16) -> Message {
    Message::Hello(Hello {
        oldest,
        newest,
        host: "raw".into(),
    })
}

fn start(script: &str) -> Start {
    Start {
        window: 1 << 20,
        umask: 0o22,
        directory: "/".into(),
        arguments: ["sh", "-c", script]
            .map(|text| Bytes::from(text.to_owned()))
            .to_vec(),
        ..Start::default()
    }
}

#[test]
fn one_program_after_another_on_one_connection() {
    let server = Server::new();
    let mut raw = Raw::connect(&server);
    raw.send(&[hello(1, 1)]);
    assert!(matches!(raw.receive(), Some(Message::Hello(_))));
    for number in 0..20_u8 {
        raw.send(&[Message::Start(Box::new(start(&format!(
            "echo {number}; exit {number}"
        ))))]);
        assert!(matches!(raw.receive(), Some(Message::Started { .. })));
        let (mut output, mut ends, mut outcome) = (Vec::new(), 0, None);
        while ends < 2 || outcome.is_none() {
            match raw.receive().unwrap() {
                Message::Data(Stream::Stdout, bytes) => output.extend(bytes),
                Message::End(_) => ends += 1,
                Message::Exit(found) => outcome = Some(found),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            (output, outcome),
            (
                format!("{number}\n").into_bytes(),
                Some(Outcome::Exited(number))
            )
        );
        // What comes too late is for nobody.
        raw.send(&[
            Message::Data(Stream::Stdin, "late".into()),
            Message::Signal(15),
            Message::Credit(Stream::Stdout, 1),
        ]);
    }
    // A refusal does not end the connection.
    let mut missing = start("");
    missing.arguments = vec!["no-such-program".into()];
    raw.send(&[Message::Start(Box::new(missing))]);
    assert!(
        matches!(raw.receive(), Some(Message::Failed(refusal)) if refusal.reason == Reason::NotFound)
    );
    raw.send(&[Message::Start(Box::new(start("exit 0")))]);
    assert!(matches!(raw.receive(), Some(Message::Started { .. })));
    drop(raw);
    server.is_idle();
}

#[test]
fn starting_takes_one_round_trip_and_the_result_needs_no_other() {
    let server = Server::new();
    let mut raw = Raw::connect(&server);
    // All that rexec says is said before the server says anything; nothing more is asked for.
    raw.send(&[hello(1, 1), Message::Start(Box::new(start("echo a")))]);
    let kinds: Vec<&str> = std::iter::from_fn(|| {
        Some(match raw.receive()? {
            Message::Hello(_) => "HELLO",
            Message::Started { .. } => "STARTED",
            Message::Data(..) => "DATA",
            Message::End(_) => "END",
            Message::Exit(_) => "EXIT",
            other => panic!("{other:?}"),
        })
    })
    .take(6)
    .collect();
    assert_eq!(kinds[..2], ["HELLO", "STARTED"]);
    let mut rest = kinds[2..].to_vec();
    rest.sort_unstable();
    assert_eq!(rest, ["DATA", "END", "END", "EXIT"]);
}

#[test]
fn other_versions_are_refused() {
    let server = Server::new();
    let mut raw = Raw::connect(&server);
    raw.send(&[hello(2, 9)]);
    raw.is_refused(Reason::Version, "install the same release on both machines");
    // One that speaks others too is welcome.
    let mut raw = Raw::connect(&server);
    raw.send(&[hello(1, 9)]);
    assert!(matches!(raw.receive(), Some(Message::Hello(_))));
    drop(raw);
    server.is_idle();
}

#[test]
fn rexec_says_that_versions_differ() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut raw = Raw(listener.accept().unwrap().0);
        let refusal = qtfs_rexec::message::Refusal::new(
            Reason::Version,
            "speaks version 7: install the same release",
        );
        raw.send(&[hello(7, 7), Message::Failed(refusal)]);
        let _ = raw.0.read_to_end(&mut Vec::new());
    });
    let dir = tempfile::tempdir().unwrap();
    run(crate::common::server::client(dir.path(), &address).arg("true"))
        .fails(250, &["install the same release"]);
    server.join().unwrap();
}

#[test]
fn what_is_no_message_is_refused_in_words() {
    let server = Server::new();
    let header = |len: u32, kind: u8| [&len.to_le_bytes()[..], &[kind, 0, 0, 0]].concat();
    for (bytes, part) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "did not understand"),
        (header(0xffff_ffff, 1), "out of bounds"),
        (header(5000, 1), "out of bounds"),
        (header(0, 2), "out of bounds"),
        (header(12, 3), "first message"),
        ([header(20, 1), vec![0; 20]].concat(), "greeting"),
    ] {
        let mut raw = Raw::connect(&server);
        raw.0.write_all(&bytes).unwrap();
        raw.is_refused(Reason::Protocol, part);
    }
    for (bytes, part) in [
        (header(0x7fff_ffff, 2), "out of bounds"),
        ([header(4, 2), vec![0xff; 4]].concat(), "impossible flag"),
        (header(0, 77), "unknown kind 77"),
    ] {
        let mut raw = Raw::connect(&server);
        raw.send(&[hello(1, 1)]);
        raw.0.write_all(&bytes).unwrap();
        raw.is_refused(Reason::Protocol, part);
    }
    server.is_idle();
}

#[test]
fn more_than_there_is_credit_for_ends_the_session() {
    let server = Server::new();
    let mut raw = Raw::connect(&server);
    raw.send(&[
        hello(1, 1),
        Message::Start(Box::new(start("exec sleep 1000"))),
    ]);
    assert!(matches!(raw.receive(), Some(Message::Hello(_))));
    assert!(matches!(raw.receive(), Some(Message::Started { .. })));
    let piece = Bytes::from(vec![0; 65536]);
    for _ in 0..8 {
        raw.send(&[Message::Data(Stream::Stdin, piece.clone())]);
    }
    raw.is_refused(Reason::Protocol, "amount of data");
    server.is_idle();
}

#[test]
fn a_program_is_only_its_own_connections() {
    let server = Server::new();
    let mut other = server.start("read x; echo $x");
    eventually("it runs", || {
        server
            .sessions()
            .first()
            .is_some_and(|session| session.pid != 0)
    });
    // There is nothing in the protocol that names a session: what comes without START is nobody's.
    let mut raw = Raw::connect(&server);
    raw.send(&[
        hello(1, 1),
        Message::Signal(9),
        Message::Data(Stream::Stdin, "stolen\n".into()),
        Message::Start(Box::new(start("exit 0"))),
    ]);
    assert!(matches!(raw.receive(), Some(Message::Hello(_))));
    assert!(matches!(raw.receive(), Some(Message::Started { .. })));
    other.write("mine\n");
    assert_eq!(other.line(), "mine");
    assert_eq!(other.end().code(), Some(0));
}

#[test]
fn strangers_hold_a_bounded_number_of_places() {
    let server = Server::new();
    let before = descriptors(server.pid());
    let mut raws: Vec<Raw> = (0..600).map(|_| Raw::connect(&server)).collect();
    for raw in &mut raws {
        // Half a greeting, with the announcement of more.
        raw.0
            .write_all(&[0xff, 0x0f, 0, 0, 1, 0, 0, 0, 0, b'q'])
            .unwrap();
    }
    eventually("as many as may are in", || {
        descriptors(server.pid()) >= before + 256
    });
    let most = descriptors(server.pid());
    // Its threads look into /proc for who is there.
    assert!(most <= before + 260, "{most} descriptors, {before} before");
    assert!(
        resident(server.pid()) < 64 << 20,
        "{} bytes",
        resident(server.pid())
    );
    // As soon as they leave, or were given up, others are served.
    drop(raws);
    run(server.rexec().args(["--link-timeout", "60", "true"])).ok();
    server.is_idle();
}

#[test]
fn who_says_nothing_is_dropped_in_time() {
    let server = Server::new();
    let mut raw = Raw::connect(&server);
    let mut half = Raw::connect(&server);
    half.send(&[hello(1, 1)]);
    assert!(matches!(half.receive(), Some(Message::Hello(_))));
    assert_eq!(raw.receive(), None);
    assert_eq!(half.receive(), None);
    server.is_idle();
}

/// Resident memory of a process, in bytes.
fn resident(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn unix_sockets_serve_as_well_and_a_left_one_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::made_in(dir, "unix://DIR/rexec.sock", ALL);
    run(server.rexec().arg("true")).ok();
    let ended = crate::common::run::run_with(server.rexec().arg("cat"), &vec![b'x'; 3_000_000]);
    assert_eq!(ended.stdout.len(), 3_000_000);
    server.kill();
    let dir = server.into_dir();
    assert!(dir.path().join("rexec.sock").exists());
    let server = Server::made_in(dir, "unix://DIR/rexec.sock", ALL);
    run(server.rexec().arg("true")).ok();
    server.is_idle();
}

#[test]
fn ipv6_and_several_addresses() {
    let own = crate::common::server::free_address();
    let port = own.rsplit(':').next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap().to_owned();
    let mut command = crate::common::server::server(
        dir.path(),
        "",
        &format!("listen = ['tcp://[::1]:{port}', 'unix://{place}/x.sock']\n{ALL}"),
    );
    let _server = crate::common::Run::start(command.env_remove("CMD_NET_ADDR"));
    for address in [
        format!("tcp://[::1]:{port}"),
        format!("unix://{place}/x.sock"),
    ] {
        eventually("it listens", || {
            run(crate::common::server::client(dir.path(), &address).arg("true")).code() == Some(0)
        });
    }
    // The file names the server for callers too.
    std::fs::write(
        dir.path().join("client.toml"),
        format!("connect = 'tcp://[::1]:{port}'\n"),
    )
    .unwrap();
    let mut command = crate::common::server::client(dir.path(), "");
    run(command.env_remove("CMD_NET_ADDR").arg("true")).ok();
}

#[test]
fn a_vsock_address_leads_to_a_server_or_to_one_line() {
    // Without a server there: whether this machine has the transport or not.
    let dir = tempfile::tempdir().unwrap();
    let mut command = crate::common::server::client(dir.path(), "vsock://local:7777");
    run(command.args(["--insecure", "--connect-timeout", "1", "true"]))
        .fails(254, &["vsock://1:7777", "cannot connect"]);
    let mut command = crate::common::server::client(dir.path(), "vsock://local:7777");
    run(command.arg("true")).fails(249, &["vsock://1:7777", "in clear", "insecure = true"]);
}
