// SPDX-License-Identifier: GPL-2.0

//! A relay between a client and a server that keep the rules, which changes what they say.
//!
//! To the client it is a hostile server, to the server a hostile client, and both are in the
//! middle of real work. Every frame that was changed is printed: its message, and how.

use crate::conn::Server;
use crate::hostile::Random;
use anyhow::Context;
use anyhow::Result;
use qtfs_proto::event::Event;
use qtfs_proto::frame::HEADER_LEN;
use qtfs_proto::Header;
use qtfs_proto::Kind;
use qtfs_proto::Op;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// Whose frames are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Side {
    /// What the server says.
    Server,
    /// What the client says.
    Client,
    /// Both.
    Both,
}

/// What to change, and how often.
#[derive(Clone, Debug)]
pub struct Mangle {
    /// Where clients connect to.
    pub listen: String,
    /// Whose frames.
    pub side: Side,
    /// One of so many frames, by chance.
    pub every: usize,
    /// The same seed makes the same choices for the same frames.
    pub seed: u64,
    /// Only messages of this name, and no event.
    pub op: Option<Op>,
    /// The first frames of a connection that stay as they are.
    pub skip: u64,
}

/// Numbers at which lengths, counts and ids may break.
const ODD: [u64; 10] = [
    0,
    1,
    0x7f,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x8000_0000,
    1 << 63,
    u64::MAX,
];

/// How long a side may be silent after the length of its frame may have been changed: who was told of
/// more bytes than come waits for them for ever, and the other side for an answer.
const SILENCE: Duration = Duration::from_secs(2);

/// Relays until it is killed.
pub fn mangle(server: Server, mangle: &Mangle) -> Result<()> {
    let listener = TcpListener::bind(&mangle.listen)
        .with_context(|| format!("cannot listen on {}", mangle.listen))?;
    println!("listens on {}", listener.local_addr()?);
    let connections = AtomicU64::new(0);
    for client in listener.incoming() {
        let client = client.context("accepting")?;
        // The client comes again.
        let Ok(upstream) = TcpStream::connect_timeout(&server.address, server.timeout) else {
            continue;
        };
        let number = connections.fetch_add(2, Ordering::Relaxed);
        let (client, upstream) = (Arc::new(client), Arc::new(upstream));
        for (from, to, side) in [
            (client.clone(), upstream.clone(), Side::Client),
            (upstream, client, Side::Server),
        ] {
            let mut relay = Relay {
                random: Random(mangle.seed.wrapping_mul(0x1_0001) ^ (number + side as u64)),
                changes: mangle.side == Side::Both || mangle.side == side,
                mangle: mangle.clone(),
                side,
                seen: 0,
            };
            std::thread::spawn(move || {
                // The end of one direction is that of both.
                let _ = relay.run(&from, &to);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
    Ok(())
}

/// One direction of a connection.
struct Relay {
    random: Random,
    changes: bool,
    mangle: Mangle,
    side: Side,
    seen: u64,
}

impl Relay {
    fn run(&mut self, mut from: &TcpStream, mut to: &TcpStream) -> std::io::Result<()> {
        loop {
            let mut head = [0; HEADER_LEN];
            from.read_exact(&mut head)?;
            let Ok(header) = Header::read(&head) else {
                // The other end has gone mad: that is for the peer to judge.
                to.write_all(&head)?;
                return std::io::copy(&mut from, &mut to).map(|_| ());
            };
            let mut frame = vec![0; HEADER_LEN + header.body_len + header.data_len];
            frame[..HEADER_LEN].copy_from_slice(&head);
            from.read_exact(&mut frame[HEADER_LEN..])?;
            self.seen += 1;
            if !self.is_chosen(&header) {
                to.write_all(&frame)?;
                continue;
            }
            let (how, bytes, ends) = self.changed(frame);
            println!("{:?} {} {how}", self.side, name(&header));
            if matches!(how, "length" | "noise" | "bits") {
                from.set_read_timeout(Some(SILENCE))?;
            }
            to.write_all(&bytes)?;
            if ends {
                return Ok(());
            }
        }
    }

    fn is_chosen(&mut self, header: &Header) -> bool {
        let wanted = match self.mangle.op {
            None => true,
            Some(op) => header.kind != Kind::Event && header.op == op as u8,
        };
        self.changes
            && wanted
            && self.seen > self.mangle.skip
            && self.random.below(self.mangle.every) == 0
    }

    /// How a frame is changed, its bytes then, and whether the connection ends behind it.
    fn changed(&mut self, mut frame: Vec<u8>) -> (&'static str, Vec<u8>, bool) {
        let random = &mut self.random;
        match random.below(8) {
            0 => {
                let len = random.below(frame.len());
                frame.truncate(len);
                ("cut", frame, true)
            }
            1 => ("twice", [frame.clone(), frame].concat(), false),
            2 => {
                let noise = 1 + random.below(100);
                ("noise", [random.bytes(noise), frame].concat(), false)
            }
            3 => {
                // More or fewer bytes than come.
                let at = if random.below(2) == 0 { 0 } else { 24 };
                put(&mut frame, at, 4, ODD[random.below(ODD.len())]);
                ("length", frame, false)
            }
            4 if frame.len() > HEADER_LEN + 8 => {
                let at = HEADER_LEN + random.below(frame.len() - HEADER_LEN - 8);
                let size = [1, 2, 4, 8][random.below(4)];
                put(&mut frame, at, size, ODD[random.below(ODD.len())]);
                ("number", frame, false)
            }
            kind => {
                let end = match kind {
                    5 => HEADER_LEN,
                    // Attributes, names and the like come first.
                    6 => frame.len().min(HEADER_LEN + 300),
                    _ => frame.len(),
                };
                for _ in 0..1 + random.below(8) {
                    frame[random.below(end)] ^= 1 << random.below(8);
                }
                ("bits", frame, false)
            }
        }
    }
}

/// Writes the low `size` bytes of a number.
fn put(frame: &mut [u8], at: usize, size: usize, number: u64) {
    frame[at..at + size].copy_from_slice(&number.to_le_bytes()[..size]);
}

/// What a frame is called.
fn name(header: &Header) -> String {
    match (header.kind, Op::try_from(header.op)) {
        (Kind::Request | Kind::Reply, Ok(op)) => op.name().to_owned(),
        (Kind::Event, _) if header.op == Event::WAKE => "WAKE".to_owned(),
        (Kind::Event, _) if header.op == Event::NOTIFIED => "NOTIFIED".to_owned(),
        (kind, _) => format!("{kind:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(seed: u64) -> Relay {
        Relay {
            random: Random(seed),
            changes: true,
            mangle: Mangle {
                listen: String::new(),
                side: Side::Both,
                every: 1,
                seed,
                op: None,
                skip: 0,
            },
            side: Side::Server,
            seen: 1,
        }
    }

    #[test]
    fn frames_are_changed_in_every_way_and_the_same_for_the_same_seed() {
        let mut ways = std::collections::BTreeSet::new();
        for seed in 0..200 {
            for len in [HEADER_LEN, HEADER_LEN + 1, HEADER_LEN + 400] {
                let frame = vec![7; len];
                let (how, bytes, ends) = relay(seed).changed(frame.clone());
                assert_eq!((how, bytes.clone(), ends), relay(seed).changed(frame));
                assert_eq!(ends, how == "cut");
                ways.insert(how);
            }
        }
        let all = ["bits", "cut", "length", "noise", "number", "twice"];
        assert_eq!(ways.into_iter().collect::<Vec<_>>(), all);
    }
}
