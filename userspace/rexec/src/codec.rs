// SPDX-License-Identifier: GPL-2.0

//! The form of the messages on the wire.
//!
//! A message is a header of [`HEADER`] bytes and a payload:
//!
//! | bytes | |
//! |---|---|
//! | 0 to 3 | length of the payload |
//! | 4 | kind, see [`kind`] |
//! | 5 | stream for DATA, END, CLOSED and CREDIT, else 0 |
//! | 6, 7 | 0 |
//!
//! A kind bounds the payload's length, which is checked before there is memory for it.

use crate::message::Hello;
use crate::message::Message;
use crate::message::Outcome;
use crate::message::Reason;
use crate::message::Refusal;
use crate::message::Stream;
use crate::message::MAGIC;
use crate::message::MAX_DATA;
use crate::message::MAX_OTHER;
use crate::message::MAX_START;
use crate::start::Size;
use crate::start::Start;
use crate::wire::put_bytes;
use crate::wire::Error;
use crate::wire::Reader;
use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;

/// Bytes of a header.
pub const HEADER: usize = 8;

/// The kinds of messages.
pub mod kind {
    #![allow(missing_docs)]
    pub const HELLO: u8 = 1;
    pub const START: u8 = 2;
    pub const STARTED: u8 = 3;
    pub const FAILED: u8 = 4;
    pub const DATA: u8 = 5;
    pub const END: u8 = 6;
    pub const CLOSED: u8 = 7;
    pub const CREDIT: u8 = 8;
    pub const SIGNAL: u8 = 9;
    pub const RESIZE: u8 = 10;
    pub const EXIT: u8 = 11;
    pub const PING: u8 = 12;
    pub const PONG: u8 = 13;
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the payload.
    pub len: usize,
    kind: u8,
    stream: u8,
}

impl Header {
    /// Reads and checks a header.
    pub fn decode(bytes: [u8; HEADER]) -> Result<Self, Error> {
        let [a, b, c, d, kind, stream, zero @ ..] = bytes;
        let len = u32::from_le_bytes([a, b, c, d]);
        let bounds = match kind {
            kind::HELLO => 16..=MAX_OTHER,
            kind::START => 1..=MAX_START,
            kind::STARTED => 12..=12,
            kind::FAILED => 1..=MAX_OTHER,
            kind::DATA => 1..=MAX_DATA,
            kind::END | kind::CLOSED => 0..=0,
            kind::CREDIT => 4..=4,
            kind::SIGNAL => 1..=1,
            kind::RESIZE | kind::PING | kind::PONG => 8..=8,
            kind::EXIT => 2..=2,
            _ => return Err(Error::Kind(kind)),
        };
        let size = usize::try_from(len).ok().filter(|len| bounds.contains(len));
        let len = size.ok_or(Error::Size(kind, len))?;
        if zero != [0, 0] {
            return Err(Error::Value("header"));
        }
        let has_stream = matches!(kind, kind::DATA | kind::END | kind::CLOSED | kind::CREDIT);
        if !has_stream && stream != 0 {
            return Err(Error::Value("stream"));
        }
        Ok(Self { len, kind, stream })
    }

    /// The header of a DATA of so many bytes.
    ///
    /// # Panics
    ///
    /// With more than [`MAX_DATA`] bytes.
    pub fn of_data(stream: Stream, len: usize) -> [u8; HEADER] {
        assert!(len <= MAX_DATA, "{len} bytes in one DATA");
        // CAST: MAX_DATA fits.
        let [a, b, c, d] = (len as u32).to_le_bytes();
        [a, b, c, d, kind::DATA, stream as u8, 0, 0]
    }

    /// Whether this is the first message of a connection.
    pub fn is_hello(self) -> bool {
        self.kind == kind::HELLO
    }

    /// Reads the payload that belongs to this header.
    pub fn message(self, payload: Bytes) -> Result<Message, Error> {
        let mut reader = Reader::new(payload);
        let message = match self.kind {
            // A later version may say more than is known here.
            kind::HELLO => return hello(&mut reader).map(Message::Hello),
            kind::DATA => return Ok(Message::Data(Stream::new(self.stream)?, reader.rest())),
            kind::FAILED => {
                let reason = Reason::new(reader.u8()?)?;
                let text = reader.rest();
                return Ok(Message::Failed(Refusal { reason, text }));
            }
            kind::START => Message::Start(Box::new(Start::take(&mut reader)?)),
            kind::STARTED => Message::Started {
                session: reader.u64()?,
                pid: reader.u32()?,
            },
            kind::END => Message::End(Stream::new(self.stream)?),
            kind::CLOSED => Message::Closed(Stream::new(self.stream)?),
            kind::CREDIT => Message::Credit(Stream::new(self.stream)?, reader.u32()?),
            kind::SIGNAL => Message::Signal(signal(reader.u8()?)?),
            kind::RESIZE => Message::Resize(Size::take(&mut reader)?),
            kind::EXIT => Message::Exit(match (reader.u8()?, reader.u8()?) {
                (0, status) => Outcome::Exited(status),
                (1, number) => Outcome::Killed(signal(number)?),
                _ => return Err(Error::Value("outcome")),
            }),
            kind::PING => Message::Ping(reader.u64()?),
            kind::PONG => Message::Pong(reader.u64()?),
            other => return Err(Error::Kind(other)),
        };
        reader.end()?;
        Ok(message)
    }
}

fn hello(reader: &mut Reader) -> Result<Hello, Error> {
    let mut magic = [0; MAGIC.len()];
    for byte in &mut magic {
        *byte = reader.u8()?;
    }
    if magic != *MAGIC {
        return Err(Error::Value("greeting"));
    }
    Ok(Hello {
        oldest: reader.u16()?,
        newest: reader.u16()?,
        host: reader.text("host name")?,
    })
}

fn signal(number: u8) -> Result<u8, Error> {
    match number {
        1..=64 => Ok(number),
        _ => Err(Error::Value("signal")),
    }
}

impl Message {
    /// Appends header and payload to `out`.
    ///
    /// # Panics
    ///
    /// When the payload is longer than its kind may be. DATA is cut by the sender, START is
    /// checked by [`Message::fits`].
    pub fn encode(&self, out: &mut BytesMut) {
        let begin = out.len();
        out.put_bytes(0, HEADER);
        let (kind, stream) = self.put(out);
        let len = out.len() - begin - HEADER;
        let mut header = &mut out[begin..begin + HEADER];
        header.put_u32_le(u32::try_from(len).expect("a message of 4 GiB"));
        header.put_u8(kind);
        header.put_u8(stream.map_or(0, |stream| stream as u8));
    }

    /// Whether a message is as short as its kind must be, and so can be sent.
    pub fn fits(&self) -> bool {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        match out.first_chunk() {
            Some(header) => Header::decode(*header).is_ok(),
            None => false,
        }
    }

    /// Appends the payload.
    fn put(&self, out: &mut BytesMut) -> (u8, Option<Stream>) {
        match self {
            Self::Hello(hello) => {
                out.put_slice(MAGIC);
                out.put_u16_le(hello.oldest);
                out.put_u16_le(hello.newest);
                put_bytes(out, &hello.host);
                (kind::HELLO, None)
            }
            Self::Start(start) => {
                start.put(out);
                (kind::START, None)
            }
            Self::Started { session, pid } => {
                out.put_u64_le(*session);
                out.put_u32_le(*pid);
                (kind::STARTED, None)
            }
            Self::Failed(refusal) => {
                out.put_u8(refusal.reason as u8);
                out.put_slice(&refusal.text);
                (kind::FAILED, None)
            }
            Self::Data(stream, bytes) => {
                out.put_slice(bytes);
                (kind::DATA, Some(*stream))
            }
            Self::End(stream) => (kind::END, Some(*stream)),
            Self::Closed(stream) => (kind::CLOSED, Some(*stream)),
            Self::Credit(stream, bytes) => {
                out.put_u32_le(*bytes);
                (kind::CREDIT, Some(*stream))
            }
            Self::Signal(number) => {
                out.put_u8(*number);
                (kind::SIGNAL, None)
            }
            Self::Resize(size) => {
                size.put(out);
                (kind::RESIZE, None)
            }
            Self::Exit(outcome) => {
                out.put_slice(&match outcome {
                    Outcome::Exited(status) => [0, *status],
                    Outcome::Killed(signal) => [1, *signal],
                });
                (kind::EXIT, None)
            }
            Self::Ping(number) => {
                out.put_u64_le(*number);
                (kind::PING, None)
            }
            Self::Pong(number) => {
                out.put_u64_le(*number);
                (kind::PONG, None)
            }
        }
    }
}
