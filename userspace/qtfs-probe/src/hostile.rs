// SPDX-License-Identifier: GPL-2.0

//! Clients that do not keep the rules, and whether the server survives them.
//!
//! Each input goes to a session of its own. The server may answer or end the connection, but it
//! must do one of them, and serve a new client afterwards.

use crate::args::Args;
use crate::conn;
use crate::conn::Conn;
use crate::conn::Server;
use crate::session::At;
use crate::session::Outcome;
use crate::session::Session;
use crate::table;
use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use qtfs_proto::frame::RawHeader;
use qtfs_proto::frame::HEADER_LEN;
use qtfs_proto::*;
use std::time::Duration;

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.number() as u8).collect()
    }
}

/// How long to wait for a reply that need not come.
const PAUSE: Duration = Duration::from_millis(500);

/// What the server did with the inputs.
#[derive(Debug, Default)]
struct Tally {
    inputs: usize,
    ended: usize,
    replies: usize,
    /// Inputs after which the connection stayed open and nothing came.
    silent: Vec<String>,
}

impl Tally {
    /// Takes what comes after an input.
    fn note(&mut self, conn: &mut Conn, what: impl FnOnce() -> String) {
        let (ended, replies) = conn.receive_all();
        self.inputs += 1;
        self.replies += replies;
        if ended {
            self.ended += 1;
        } else {
            self.silent.push(what());
        }
    }

    /// Takes what comes after an input that may be good, or the beginning of something longer:
    /// only when nothing more comes is the server told that nothing more will.
    fn note_reply(&mut self, conn: &mut Conn, what: impl FnOnce() -> String) {
        if let conn::Received::Frame(_) = conn.receive_within(PAUSE) {
            self.replies += 1;
        }
        conn.finish();
        self.note(conn, what);
    }

    /// Prints the verdict and checks that the server still serves.
    fn finish(self, server: Server, name: &str) -> Result<()> {
        let Self {
            inputs,
            ended,
            replies,
            silent,
        } = self;
        println!(
            "{name}: {inputs} inputs, {ended} connections ended, {replies} replies, {} left open",
            silent.len()
        );
        for what in silent.iter().take(5) {
            println!("  left open after {what}");
        }
        alive(server)?;
        ensure!(
            silent.is_empty(),
            "{name}: the server did not end every connection"
        );
        Ok(())
    }
}

/// Checks that the server serves a client that keeps the rules.
pub fn alive(server: Server) -> Result<()> {
    let outcome = Session::open(server)
        .context("the server does not take a new client")?
        .ask("ping")?;
    ensure!(
        outcome.word() == "ok",
        "the server does not answer a new client: {outcome}"
    );
    println!("the server is alive");
    Ok(())
}

/// Random bytes: instead of HELLO, after it, and behind a good header.
pub fn garbage(server: Server, seed: u64, count: usize) -> Result<()> {
    let mut random = Random(seed);
    let mut tally = Tally::default();
    for number in 0..count {
        let len = 1 + random.below(8192);
        let mut bytes = random.bytes(len);
        let mut session = Session::open(server)?;
        let mut plain = Conn::open(server)?;
        let conn = match number % 3 {
            0 => &mut plain,
            1 => session.lane(0)?,
            _ => {
                let op = 1 + random.below(Op::ALL.len()) as u8;
                let header = Header {
                    seq: 1,
                    ..Header::new(Kind::Request, op)
                };
                bytes.truncate(1 + random.below(200));
                bytes = conn::frame(header, &bytes, &[])?;
                session.lane(0)?
            }
        };
        // It fails when the server has seen enough before the end.
        let _ = conn.send_bytes(&bytes);
        tally.note_reply(conn, || format!("input {number}"));
        session.end();
    }
    tally.finish(server, "garbage")
}

/// Values for a request of any kind, good as far as that is possible without objects.
fn sample(export: &str, root: u64) -> Args {
    let root = root.to_string();
    let target = format!("{root}/qtfs-probe");
    Args::lenient(&[
        ("magic", &MAGIC.to_string()),
        ("version_min", "1"),
        ("version_max", "1"),
        ("slots", "4"),
        ("index", "1"),
        ("groups", "1,2,3"),
        ("files", "1,2"),
        ("nodes", "1:1,2:2"),
        ("dir", &root),
        ("new_dir", &root),
        ("root", &root),
        ("node", &root),
        ("name", "qtfs-probe"),
        ("new_name", "qtfs-probe-2"),
        ("path", export),
        ("target", &target),
        ("text", "somewhere"),
        ("value", "value"),
        ("file", "1"),
        ("source", "1"),
        ("dest", "1"),
        ("len", "100"),
        ("want", "100"),
        ("max", "100"),
    ])
}

/// Every request cut at every length, with bytes too many, and frames whose end does not come.
pub fn truncated(server: Server, only: Option<Op>, step: usize) -> Result<()> {
    let mut tally = Tally::default();
    let args = sample("/", 1);
    for op in Op::ALL
        .iter()
        .filter(|op| only.is_none_or(|only| only == **op))
    {
        let whole = table::request(*op, &args)?;
        let longer = [&whole[..], &[0]].concat();
        let mut lens: Vec<usize> = (0..whole.len()).step_by(step.max(1)).collect();
        lens.push(longer.len());
        for len in lens {
            let mut session = Session::open(server)?;
            let header = Header {
                seq: 1,
                ..Header::new(Kind::Request, *op as u8)
            };
            let conn = session.lane(0)?;
            conn.send(header, &longer[..len], &[])?;
            // Not told that nothing more comes: the message itself has to be refused.
            tally.note(conn, || {
                format!("{} cut to {len} of {} bytes", op.name(), whole.len())
            });
        }
        let header = Header {
            seq: 1,
            ..Header::new(Kind::Request, *op as u8)
        };
        let frame = conn::frame(header, &whole, &[])?;
        for len in [1, HEADER_LEN - 1, HEADER_LEN, frame.len() - 1] {
            if len < frame.len() {
                let mut session = Session::open(server)?;
                let conn = session.lane(0)?;
                conn.send_bytes(&frame[..len])?;
                conn.finish();
                tally.note(conn, || format!("{}: {len} bytes of the frame", op.name()));
                session.end();
            }
        }
    }
    tally.finish(server, "truncated")
}

/// Lengths that are too long, too short, or do not fit each other.
pub fn oversized(server: Server) -> Result<()> {
    let mut tally = Tally::default();
    let (header, body, data) = (HEADER_LEN as u32, MAX_BODY as u32, MAX_DATA as u32);
    let lengths = [
        (0, 0),
        (1, 0),
        (header - 1, 0),
        (header, 1),
        (header, u32::MAX),
        (header + body + 1, 0),
        (header + data + 1, data + 1),
        (header + body + data + 1, data),
        (0x7fff_ffff, 0),
        (0x8000_0000, 0),
        (u32::MAX, 0),
        (u32::MAX, u32::MAX - header),
        (u32::MAX, u32::MAX),
    ];
    for hello in [true, false] {
        for (len, data_len) in lengths {
            let raw = RawHeader {
                len,
                kind: 1,
                op: Op::Ping as u8,
                flags: 0,
                slot: 0,
                credits: 0,
                seq: 1,
                cred: 0,
                status: 0,
                data_len,
                ack: 0,
            };
            let mut session = Session::open(server)?;
            let mut plain = Conn::open(server)?;
            let conn = if hello { session.lane(0)? } else { &mut plain };
            conn.send_bytes(&table::encode(&raw)?)?;
            tally.note(conn, || format!("len={len} data_len={data_len}"));
        }
    }
    tally.finish(server, "oversized")
}

/// Good requests with a few bits changed, each message in turn. They may do anything below `export`.
pub fn mutated(server: Server, export: &str, seed: u64, count: usize) -> Result<()> {
    let mut random = Random(seed);
    let mut tally = Tally::default();
    for number in 0..count {
        let mut session = Session::open(server)?;
        let mut args = Args::default();
        args.default_value("path", export.as_bytes());
        let root = session
            .call(At::default(), Op::Attach, &args, &[])?
            .number("attr.node")?;
        let args = sample(export, root);
        let op = Op::ALL[number % Op::ALL.len()];
        let header = Header {
            seq: 2,
            ..Header::new(Kind::Request, op as u8)
        };
        let data: &[u8] = match op {
            Op::Write | Op::Send => b"data",
            _ => &[],
        };
        let mut frame = conn::frame(header, &table::request(op, &args)?, data)?;
        for _ in 0..1 + random.below(3) {
            let at = random.below(frame.len());
            frame[at] ^= 1 << random.below(8);
        }
        let conn = session.lane(0)?;
        let _ = conn.send_bytes(&frame);
        tally.note_reply(conn, || format!("input {number}: {}", op.name()));
        session.end();
    }
    tally.finish(server, "mutated")
}

/// A request that comes again after a reconnect is executed once.
pub fn replay(server: Server, export: &str) -> Result<()> {
    let mut session = Session::open(server)?;
    let mut args = Args::default();
    args.default_value("path", export.as_bytes());
    let root = session
        .call(At::default(), Op::Attach, &args, &[])?
        .number("attr.node")?;
    let name = format!("qtfs-probe-{}", std::process::id());
    let at = At {
        slot: 1,
        seq: Some(1),
        ..At::default()
    };
    let again = At {
        retransmit: true,
        ..at
    };

    let words = [
        format!("dir={root}"),
        format!("name={name}"),
        "mode=0o755".into(),
    ];
    let words: Vec<Vec<u8>> = words.into_iter().map(String::into_bytes).collect();
    let body = table::request(Op::Mkdir, &Args::new(&words)?)?;
    session.send(at, Op::Mkdir as u8, &body, &[])?;
    session.drop_lane(0);
    let id = session.id;
    session.hello(0, Args::default())?;
    ensure!(session.id == id, "the session was not resumed");
    let first = session.call_body(again, Op::Mkdir as u8, &body, &[])?;
    ensure!(first.word() == "ok", "MKDIR that was sent again: {first}");
    let second = session.call_body(again, Op::Mkdir as u8, &body, &[])?;
    ensure!(second == first, "the kept reply is another: {second}");
    println!("replay: MKDIR was executed once, its reply came twice");

    let next = At {
        slot: 1,
        seq: Some(2),
        ..At::default()
    };
    let words = [
        format!("dir={root}"),
        format!("name={name}"),
        "flags=DIRECTORY".into(),
    ];
    let words: Vec<Vec<u8>> = words.into_iter().map(String::into_bytes).collect();
    let outcome = session.call(next, Op::Unlink, &Args::new(&words)?, &[])?;
    ensure!(outcome.word() == "ok", "UNLINK: {outcome}");

    for (seq, expected) in [
        (1, None),
        (0, None),
        (u32::MAX, None),
        (4, Some(Outcome::Closed)),
        (0x8000_0000, Some(Outcome::Closed)),
    ] {
        out_of_order(server, seq, expected)?;
    }
    println!("replay: numbers of the past are ignored, those of the future end the session");
    alive(server)
}

/// Sends a number behind 2; nothing is `expected` when it has to be ignored.
fn out_of_order(server: Server, seq: u32, expected: Option<Outcome>) -> Result<()> {
    let mut session = Session::open(server)?;
    for _ in 0..2 {
        session.ask("ping")?;
    }
    let at = |seq| At {
        seq: Some(seq),
        ..At::default()
    };
    let (op, next) = (Op::Ping as u8, 3);
    if let Some(expected) = expected {
        let outcome = session.call_body(at(seq), op, &[], &[])?;
        ensure!(outcome == expected, "number {seq} after 2: {outcome}");
        return Ok(());
    }
    session.send(at(seq), op, &[], &[])?;
    let outcome = session.call_body(at(next), op, &[], &[])?;
    ensure!(
        outcome.word() == "ok",
        "number {next} after 2 and {seq}: {outcome}"
    );
    if let conn::Received::Frame(frame) = session.lane(0)?.receive_within(PAUSE) {
        bail!("number {seq} after 2 was answered: {:?}", frame.header);
    }
    Ok(())
}

/// A client that sends a byte now and then is served all the same.
pub fn slow(server: Server, pause: Duration) -> Result<()> {
    let mut session = Session::open(server)?;
    let header = Header {
        seq: 1,
        ..Header::new(Kind::Request, Op::Ping as u8)
    };
    let frame = conn::frame(header, &[], &[])?;
    let conn = session.lane(0)?;
    for byte in frame {
        conn.send_bytes(&[byte])?;
        std::thread::sleep(pause);
    }
    let received = conn.receive();
    ensure!(
        matches!(received, conn::Received::Frame(_)),
        "slow: {received:?}"
    );
    println!("slow: answered");
    alive(server)
}
