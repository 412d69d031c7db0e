// SPDX-License-Identifier: GPL-2.0

//! The messages. `Documentation/rexec.md` says which follow which; [`crate::codec`] has their
//! form on the wire.

use crate::start::Size;
use crate::start::Start;
use crate::wire::Error;
use bytes::Bytes;

/// Most bytes of a stream in one DATA.
pub const MAX_DATA: usize = 64 << 10;
/// Most bytes of a START: the kernel takes no more than 6 MiB of arguments and environment.
pub const MAX_START: usize = (6 << 20) + (256 << 10);
/// Most bytes of any other message.
pub const MAX_OTHER: usize = 4 << 10;
/// What a HELLO begins with.
pub const MAGIC: &[u8; 8] = b"\x00qtrexec";
/// The protocol's version, and the only one that is spoken.
pub const VERSION: u16 = 1;
/// Most credit that a stream can have, in bytes.
pub const MAX_WINDOW: u32 = 16 << 20;

/// One of the program's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stream {
    /// From the caller to the program.
    Stdin = 0,
    /// From the program to the caller; also all output on a terminal.
    Stdout = 1,
    /// From the program to the caller.
    Stderr = 2,
}

impl Stream {
    /// The stream of this number.
    pub fn new(number: u8) -> Result<Self, Error> {
        match number {
            0 => Ok(Self::Stdin),
            1 => Ok(Self::Stdout),
            2 => Ok(Self::Stderr),
            _ => Err(Error::Value("stream")),
        }
    }
}

/// Who is there, and which versions it speaks. The first message of each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version that the sender speaks.
    pub oldest: u16,
    /// Newest version that the sender speaks.
    pub newest: u16,
    /// The sender's host name, for messages to people.
    pub host: Bytes,
}

/// How the program ended, as in wait(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By exit(3) with this status, 0 to 255.
    Exited(u8),
    /// By this signal, 1 to 64.
    Killed(u8),
}

/// Why the program does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// There is no such program.
    NotFound = 1,
    /// The program, its directory or its identity did not let themselves be set up.
    CannotRun = 2,
    /// The policy forbids it.
    NotAllowed = 3,
    /// The server has as many sessions as it may.
    Busy = 4,
    /// The caller's message was not understood.
    Protocol = 5,
    /// The two speak no common version.
    Version = 6,
    /// The server does not talk to this peer, or not without TLS.
    Authentication = 7,
}

/// Why the program does not run, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The class, which decides the exit status.
    pub reason: Reason,
    /// What was refused, why, and what to do: one line.
    pub text: Bytes,
}

impl Reason {
    /// The reason of this number.
    pub fn new(number: u8) -> Result<Self, Error> {
        let all = [
            Self::NotFound,
            Self::CannotRun,
            Self::NotAllowed,
            Self::Busy,
            Self::Protocol,
            Self::Version,
            Self::Authentication,
        ];
        let found = all.into_iter().find(|reason| *reason as u8 == number);
        found.ok_or(Error::Value("reason"))
    }
}

impl Refusal {
    /// Says why; what would not fit into a message is cut off.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        let mut text = text.into().into_bytes();
        text.truncate(MAX_OTHER / 2);
        Self {
            reason,
            text: text.into(),
        }
    }
}

/// A message of either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Both: the first message.
    Hello(Hello),
    /// Caller: run this.
    Start(Box<Start>),
    /// Server: it runs, with this pid; the session's number is for people.
    Started {
        /// Number of the session on this server.
        session: u64,
        /// Process id on the server's machine.
        pid: u32,
    },
    /// Server: it does not run. The connection takes a further START, except after the reasons
    /// that are about the connection.
    Failed(Refusal),
    /// Both: bytes of a stream; at most as many as there is credit.
    Data(Stream, Bytes),
    /// Both: the stream ends here, no DATA follows.
    End(Stream),
    /// The receiver of the stream: nobody reads it any more.
    Closed(Stream),
    /// The receiver of the stream: so many bytes more may be sent.
    Credit(Stream, u32),
    /// Caller: this signal for the program's process group.
    Signal(u8),
    /// Caller: the terminal has this size now.
    Resize(Size),
    /// Server: the program ended. What it had written may still follow, until the End of both
    /// output streams.
    Exit(Outcome),
    /// Both: answer with a PONG of the same number.
    Ping(u64),
    /// Both: the answer.
    Pong(u64),
}
