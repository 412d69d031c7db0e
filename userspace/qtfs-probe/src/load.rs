// SPDX-License-Identifier: GPL-2.0

//! Clients that want much at once.

use crate::args::Args;
use crate::conn::Conn;
use crate::conn::Received;
use crate::conn::Server;
use crate::hostile;
use crate::session::At;
use crate::session::Session;
use crate::table;
use crate::text;
use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use qtfs_proto::Kind;
use qtfs_proto::Op;
use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

/// What [`flood`] sends.
#[derive(Clone, Debug)]
pub struct Flood {
    /// Sessions at the same time.
    pub sessions: usize,
    /// Requests of each.
    pub count: usize,
    /// Slots that each asks for and uses.
    pub slots: u16,
    /// Directory to attach to; its node is `$root`.
    pub export: Option<String>,
    /// Regular file in it to open for reading and writing; `$file`.
    pub file: Option<String>,
    /// The request, as in a script.
    pub request: Vec<String>,
}

/// Keeps all slots of all sessions busy.
pub fn flood(server: Server, flood: &Flood) -> Result<()> {
    let start = Instant::now();
    let results: Vec<Result<BTreeMap<u32, usize>>> = std::thread::scope(|scope| {
        let one = || scope.spawn(|| flood_one(server, flood));
        let threads: Vec<_> = (0..flood.sessions).map(|_| one()).collect();
        let panicked = |_| Err(anyhow::anyhow!("a thread panicked"));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(panicked))
            .collect()
    });
    let elapsed = start.elapsed();
    let mut all: BTreeMap<u32, usize> = BTreeMap::new();
    for result in results {
        for (status, count) in result? {
            *all.entry(status).or_default() += count;
        }
    }
    let total: usize = all.values().sum();
    let name = |status: &u32| {
        if *status == 0 {
            "ok".into()
        } else {
            text::errno_name(*status)
        }
    };
    let words: Vec<String> = all
        .iter()
        .map(|(status, count)| format!("{}={count}", name(status)))
        .collect();
    println!(
        "flood: {total} replies in {:.3} s, {:.0} per second, {}",
        elapsed.as_secs_f64(),
        total as f64 / elapsed.as_secs_f64(),
        words.join(" ")
    );
    ensure!(total == flood.sessions * flood.count, "replies are missing");
    hostile::alive(server)
}

/// One session of a flood; returns how many replies had which status.
fn flood_one(server: Server, flood: &Flood) -> Result<BTreeMap<u32, usize>> {
    let mut session = Session::new(server);
    let hello = format!("slots={}", flood.slots).into_bytes();
    let outcome = session.hello(0, Args::new(&[hello])?)?;
    ensure!(outcome.word() == "ok", "HELLO: {outcome}");
    let (op, body, data) = prepare(&mut session, flood)?;
    let slots = session.slots.min(flood.slots);
    ensure!(slots > 0, "the server granted no slots");
    // Slot 0 was used by the preparations.
    let mut sent = 0;
    for slot in 0..slots {
        if sent < flood.count {
            session.send(
                At {
                    slot,
                    ..At::default()
                },
                op as u8,
                &body,
                &data,
            )?;
            sent += 1;
        }
    }
    let mut statuses = BTreeMap::new();
    for _ in 0..flood.count {
        let frame = match session.lane(0)?.receive() {
            Received::Frame(frame) => frame,
            other => bail!("after {sent} requests: {other:?}"),
        };
        ensure!(
            frame.header.kind == Kind::Reply && frame.header.op == op as u8,
            "{:?}",
            frame.header
        );
        *statuses.entry(frame.header.status).or_default() += 1;
        if sent < flood.count {
            session.send(
                At {
                    slot: frame.header.slot,
                    ..At::default()
                },
                op as u8,
                &body,
                &data,
            )?;
            sent += 1;
        }
    }
    Ok(statuses)
}

/// Attaches and opens what the flood wants; returns the request.
fn prepare(session: &mut Session, flood: &Flood) -> Result<(Op, Vec<u8>, Vec<u8>)> {
    let mut root = String::new();
    let mut file = String::new();
    if let Some(export) = &flood.export {
        let mut args = Args::default();
        args.default_value("path", export.as_bytes());
        root = session
            .call(At::default(), Op::Attach, &args, &[])?
            .number("attr.node")?
            .to_string();
    }
    if let Some(name) = &flood.file {
        let name = text::quote(name.as_bytes());
        let line =
            format!("open target.dir={root} target.name={name} flags=READ|WRITE|CREATE mode=0o600");
        file = session.ask(&line)?.number("file")?.to_string();
    }
    let (name, words) = flood.request.split_first().context("a flood of what?")?;
    let op = table::op(name).with_context(|| format!("no message is called {name}"))?;
    let words = words
        .iter()
        .map(|word| word.replace("$root", &root).replace("$file", &file));
    let (data, words): (Vec<String>, Vec<String>) =
        words.partition(|word| word.starts_with("data="));
    let data = data
        .first()
        .map_or(Ok(Vec::new()), |word| text::bytes(&word.as_bytes()[5..]))?;
    let words: Vec<Vec<u8>> = words.into_iter().map(String::into_bytes).collect();
    Ok((op, table::request(op, &Args::new(&words)?)?, data))
}

/// Many connections that do nothing: without HELLO, or each with a session of its own.
pub fn hold(server: Server, count: usize, hello: bool, time: Duration) -> Result<()> {
    let mut conns = Vec::new();
    let mut sessions = Vec::new();
    let mut refused = 0;
    for _ in 0..count {
        if hello {
            match Session::open(server) {
                Ok(session) => sessions.push(session),
                Err(_) => refused += 1,
            }
        } else {
            match Conn::open(server) {
                Ok(conn) => conns.push(conn),
                Err(_) => refused += 1,
            }
        }
    }
    println!(
        "hold: {} held, {refused} refused",
        conns.len() + sessions.len()
    );
    std::thread::sleep(time);
    let result = hostile::alive(server);
    drop((conns, sessions));
    result?;
    hostile::alive(server)
}
