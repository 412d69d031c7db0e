// SPDX-License-Identifier: GPL-2.0

//! HELLO, slots and lanes.

use crate::args::Args;
use crate::conn::Conn;
use crate::conn::Frame;
use crate::conn::Received;
use crate::conn::Server;
use crate::table;
use crate::table::Fields;
use crate::text;
use anyhow::bail;
use anyhow::Context;
use anyhow::Result;
use qtfs_proto::frame::flag;
use qtfs_proto::frame::HEADER_LEN;
use qtfs_proto::*;
use std::collections::BTreeMap;
use std::fmt;

/// Where and how a request is sent; what is not given follows the rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct At {
    /// The slot.
    pub slot: u16,
    /// The number in the slot; the next one if not given.
    pub seq: Option<u32>,
    /// The lane.
    pub lane: u16,
    /// Index of the caller's credential.
    pub cred: u32,
    /// The number of the last event that took effect.
    pub ack: u32,
    /// With the RETRANSMIT flag.
    pub retransmit: bool,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A reply with status 0: its fields and data.
    Ok(Fields, Vec<u8>),
    /// A reply with an errno and a text.
    Failed(u32, String),
    /// The server ended the connection.
    Closed,
    /// Nothing came in time.
    Silent,
    /// Something came that breaks the rules.
    Bad(String),
}

impl Outcome {
    /// One word for it: `ok`, the errno's name, `closed`, `silent` or `bad`.
    pub fn word(&self) -> String {
        match self {
            Self::Ok(..) => "ok".into(),
            Self::Failed(errno, _) => text::errno_name(*errno),
            Self::Closed => "closed".into(),
            Self::Silent => "silent".into(),
            Self::Bad(_) => "bad".into(),
        }
    }

    /// The value of a field of a reply.
    pub fn field(&self, name: &str) -> Option<&str> {
        let Self::Ok(fields, _) = self else {
            return None;
        };
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// The data of a reply; anything but a good reply is an error.
    pub fn data(self) -> Result<Vec<u8>> {
        match self {
            Self::Ok(_, data) => Ok(data),
            other => bail!("{other}"),
        }
    }

    /// A numeric field of a reply; anything but a good reply is an error.
    pub fn number(&self, name: &str) -> Result<u64> {
        let value = self.field(name).with_context(|| self.to_string())?;
        Ok(text::number(value)? as u64)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word())?;
        match self {
            Self::Ok(fields, data) => {
                fields
                    .iter()
                    .try_for_each(|(name, value)| write!(f, " {name}={value}"))?;
                if data.is_empty() {
                    return Ok(());
                }
                write!(f, " data.len={}", data.len())
            }
            Self::Failed(_, text) if !text.is_empty() => write!(f, " {text:?}"),
            Self::Bad(what) => write!(f, " {what}"),
            _ => Ok(()),
        }
    }
}

/// A session with its lanes.
#[derive(Debug)]
pub struct Session {
    server: Server,
    /// The session's id; all 0 before the first HELLO.
    pub id: [u8; 16],
    /// Slots that the server granted.
    pub slots: u16,
    /// Longest data section that the server takes.
    pub max_data: usize,
    lanes: BTreeMap<u16, Conn>,
    /// Of each slot the last number that was sent, and what it was.
    sent: BTreeMap<u16, (u32, u8)>,
    /// Replies that came while another was waited for.
    waiting: BTreeMap<(u16, u32), Frame>,
}

impl Session {
    /// A session that has said nothing yet.
    pub fn new(server: Server) -> Self {
        Self {
            server,
            id: [0; 16],
            slots: 0,
            max_data: 0,
            lanes: BTreeMap::new(),
            sent: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// A session that follows the rules.
    pub fn open(server: Server) -> Result<Self> {
        let mut session = Self::new(server);
        match session.hello(0, Args::default())? {
            Outcome::Ok(..) => Ok(session),
            other => bail!("HELLO: {other}"),
        }
    }

    /// Connects `lane` and says HELLO on it: makes, resumes or joins the session, unless `args`
    /// say something else.
    pub fn hello(&mut self, lane: u16, mut args: Args) -> Result<Outcome> {
        args.default_value("magic", MAGIC.to_string().as_bytes());
        args.default_value("version_min", VERSION_MIN.to_string().as_bytes());
        args.default_value("version_max", VERSION_MAX.to_string().as_bytes());
        args.default_value("max_data", MAX_DATA.to_string().as_bytes());
        args.default_value("slots", b"64");
        args.default_value("lane", lane.to_string().as_bytes());
        args.default_value("session", text::hex(&self.id).as_bytes());
        args.default_value("machine", text::hex(&[0; 16]).as_bytes());
        args.default_value("client", b"qtfs-probe");
        let body = table::request(Op::Hello, &args)?;
        self.lanes.insert(lane, Conn::open(self.server)?);
        self.sent.entry(0).or_insert((0, Op::Hello as u8));
        let at = At {
            seq: Some(0),
            lane,
            ..At::default()
        };
        self.transmit(at, Kind::Request, Op::Hello as u8, &body, &[])?;
        let outcome = self.await_reply(lane, 0, 0, Op::Hello as u8);
        if let Some(id) = outcome.field("session") {
            self.id = text::unhex(id.as_bytes())?.try_into().unwrap_or_default();
            self.slots = outcome.number("slots")? as u16;
            self.max_data = outcome.number("max_data")? as usize;
        }
        Ok(outcome)
    }

    /// Sends a request without waiting for the reply; returns its number in the slot.
    pub fn send(&mut self, at: At, op: u8, body: &[u8], data: &[u8]) -> Result<u32> {
        let last = self.sent.get(&at.slot).map_or(0, |(seq, _)| *seq);
        let seq = at.seq.unwrap_or(last.wrapping_add(1));
        self.sent.insert(at.slot, (seq, op));
        let at = At {
            seq: Some(seq),
            ..at
        };
        self.transmit(at, Kind::Request, op, body, data)?;
        Ok(seq)
    }

    /// Says that the caller of the last request of a slot gave up.
    pub fn cancel(&mut self, at: At) -> Result<()> {
        let (seq, op) = self.sent.get(&at.slot).copied().unwrap_or_default();
        let at = At {
            seq: Some(at.seq.unwrap_or(seq)),
            ..at
        };
        self.transmit(at, Kind::Cancel, op, &[], &[])
    }

    /// Waits for the reply to the last request of a slot.
    pub fn wait(&mut self, at: At) -> Outcome {
        let (seq, op) = self.sent.get(&at.slot).copied().unwrap_or_default();
        self.await_reply(at.lane, at.slot, at.seq.unwrap_or(seq), op)
    }

    /// Sends a request and waits for the reply.
    pub fn call(&mut self, at: At, op: Op, args: &Args, data: &[u8]) -> Result<Outcome> {
        let body = table::request(op, args)?;
        self.call_body(at, op as u8, &body, data)
    }

    /// Sends a request with any body and waits for the reply.
    pub fn call_body(&mut self, at: At, op: u8, body: &[u8], data: &[u8]) -> Result<Outcome> {
        if self.send(at, op, body, data).is_err() {
            return Ok(Outcome::Closed);
        }
        Ok(self.wait(at))
    }

    /// A request in one line, for commands that are built in.
    pub fn ask(&mut self, line: &str) -> Result<Outcome> {
        let words = text::words(line)?;
        let (name, words) = words.split_first().context("an empty line")?;
        let name = String::from_utf8_lossy(name);
        let op = table::op(&name).with_context(|| format!("no message is called {name}"))?;
        self.call(At::default(), op, &Args::new(words)?, &[])
    }

    /// The connection of a lane, to send what is no request.
    pub fn lane(&mut self, lane: u16) -> Result<&mut Conn> {
        self.lanes
            .get_mut(&lane)
            .with_context(|| format!("lane {lane} is not connected"))
    }

    /// Makes sure that the server has no session of this id any more, also when nothing can be
    /// said on its lanes.
    pub fn end(mut self) {
        self.lanes.clear();
        // With the old session or with a new one, which is ended on drop.
        let _ = self.hello(0, Args::default());
    }

    /// Ends the connection of a lane without a word.
    pub fn drop_lane(&mut self, lane: u16) {
        self.lanes.remove(&lane);
    }

    fn transmit(&mut self, at: At, kind: Kind, op: u8, body: &[u8], data: &[u8]) -> Result<()> {
        let header = Header {
            slot: at.slot,
            seq: at.seq.unwrap_or_default(),
            cred: at.cred,
            ack: at.ack,
            flags: if at.retransmit { flag::RETRANSMIT } else { 0 },
            ..Header::new(kind, op)
        };
        self.lane(at.lane)?.send(header, body, data)
    }

    fn await_reply(&mut self, lane: u16, slot: u16, seq: u32, op: u8) -> Outcome {
        loop {
            if let Some(frame) = self.waiting.remove(&(slot, seq)) {
                return outcome(op, frame);
            }
            let Some(conn) = self.lanes.get_mut(&lane) else {
                return Outcome::Closed;
            };
            match conn.receive() {
                Received::Frame(frame) if frame.header.kind == Kind::Reply => {
                    self.waiting
                        .insert((frame.header.slot, frame.header.seq), frame);
                }
                Received::Frame(frame) => {
                    return Outcome::Bad(format!("a frame of the kind {:?}", frame.header.kind));
                }
                Received::Closed => return Outcome::Closed,
                Received::Silent => return Outcome::Silent,
                Received::Bad(error) => return Outcome::Bad(format!("a header: {error:?}")),
            }
        }
    }
}

/// A server keeps sessions for a while and has room for so many only. The protocol has no good bye,
/// but a bad message ends a session at once.
impl Drop for Session {
    fn drop(&mut self) {
        if let Some(conn) = self.lanes.values_mut().next() {
            let _ = conn.send_bytes(&[0; HEADER_LEN]);
            conn.finish();
        }
    }
}

/// What a reply to the operation `op` says.
fn outcome(op: u8, frame: Frame) -> Outcome {
    let Frame { header, body, data } = frame;
    if header.op != op {
        return Outcome::Bad(format!(
            "a reply to operation {}, {op} was asked",
            header.op
        ));
    }
    if header.status != 0 {
        if body.len() > 512 || !data.is_empty() {
            return Outcome::Bad(format!(
                "a failure with {} + {} bytes",
                body.len(),
                data.len()
            ));
        }
        return match String::from_utf8(body) {
            Ok(text) => Outcome::Failed(header.status, text),
            Err(_) => Outcome::Bad("a failure whose text is no UTF-8".into()),
        };
    }
    match Op::try_from(op).and_then(|op| table::reply(op, &body)) {
        Ok(fields) => Outcome::Ok(fields, data),
        Err(error) => Outcome::Bad(format!("the reply: {error:?}")),
    }
}
