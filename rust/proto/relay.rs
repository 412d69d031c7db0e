// SPDX-License-Identifier: GPL-2.0

//! What goes through a channel: the bytes of one connection of unix sockets, and what there is to
//! say about it.
//!
//! A channel carries messages, each whole and in order. Its ends are the daemon of the DPU and
//! engine on HOST; both speak alike, but for [`Message::Opened`] and [`Message::Incoming`], which
//! come from engine. `Documentation/sockets.md` says when what is sent.

use crate::{
    types::{Bytes, List, OpenFlags},
    wire::{Decode, Encode, Error, Reader, Result, Writer},
    wire_struct,
};

/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most bytes of a [`Message::Data`].
pub const MAX_PAYLOAD: usize = 56 * 1024;
/// Most descriptors of one [`Message::Data`], as Linux's `SCM_MAX_FD`.
pub const MAX_RIGHTS: usize = 253;
/// Longest name of a socket in bytes, as `sun_path` (unix(7)).
pub const MAX_NAME: usize = 108;
/// What the sender of data may have on its way, as [`cost`] counts.
pub const WINDOW: u32 = 256 * 1024;

/// What a message with so many bytes of data takes of the window; small ones take memory too.
pub const fn cost(len: usize) -> u32 {
    // CAST: A message is at most 64 KiB long.
    len as u32 + 1024
}

macro_rules! numbers {
    ($( $(#[$meta:meta])* $name:ident($what:literal) { $( $(#[$fmeta:meta])* $item:ident = $num:literal, )* } )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $( $(#[$fmeta])* $item = $num, )* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$( Self::$item, )*];
        }

        impl Encode for $name {
            fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
                w.put(&(*self as u8))
            }
        }

        impl Decode<'_> for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self> {
                match r.get::<u8>()? {
                    $( $num => Ok(Self::$item), )*
                    _ => Err(Error::Invalid($what)),
                }
            }
        }
    )* };
}

numbers! {
    /// What a channel is for.
    Purpose("purpose of a channel") {
        /// Connect to the socket of HOST that is the channel's object, as the caller; EPROTOTYPE if it
        /// is of another type.
        Connect = 1,
        /// Let HOST's programs connect to the object: a socket of the DPU is bound to it.
        Listen = 2,
        /// Go on with what engine has offered under the channel's token.
        Take = 3,
        /// Offer something to engine under the channel's token, which [`Right::token`] names then.
        Offer = 4,
        /// As `Offer`, of the open file that CHANNEL names.
        File = 5,
        /// As `Connect`, of a caller who does not wait for room in the listener's queue: EAGAIN.
        ConnectNow = 6,
    }

    /// Type of a unix socket.
    SocketType("type of a socket") {
        /// `SOCK_STREAM`
        Stream = 1,
        /// `SOCK_DGRAM`
        Datagram = 2,
        /// `SOCK_SEQPACKET`
        Seqpacket = 5,
    }

    /// What a descriptor that is passed refers to.
    Passed("kind of a descriptor") {
        /// A connected stream socket; a channel goes on with it.
        Stream = 1,
        /// A connected socket of the type seqpacket, likewise.
        Seqpacket = 2,
        /// A pipe or FIFO that is read.
        PipeReader = 3,
        /// A pipe or FIFO that is written.
        PipeWriter = 4,
        /// A regular file or directory that both machines have, to be opened again.
        File = 5,
        /// Nothing that can be passed: stands for it, so that the receiver sees that it was there.
        Lost = 6,
    }
}

wire_struct! {
    /// A descriptor that is passed with data.
    Right<'a> {
        /// What it is.
        passed: Passed,
        /// How a file was opened.
        flags: OpenFlags,
        /// The channel that goes on with it, or that brought the file; 0 if there is none.
        token: u64,
        /// Where a file is read or written next.
        offset: u64,
        /// Inode number of a file.
        ino: u64,
        /// Path of a file on HOST, if that is the sender.
        path: Bytes<'a>,
    }

    /// Who is at the other end of a connection.
    Peer<'a> {
        /// Process, of the machine that it runs on.
        pid: u32,
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Supplementary groups.
        groups: List<'a, u32>,
    }
}

wire_struct! {
    /// User and group of a program.
    #[derive(Default)]
    User {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    }
}

wire_struct! {
    /// Who has sent a datagram.
    Sender<'a> {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// The name that its socket is bound to, at most [`MAX_NAME`] bytes; empty if it is bound to
        /// none that means something to the other machine.
        name: Bytes<'a>,
    }
}

/// Descriptors of a message, decoded one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights<'a> {
    bytes: &'a [u8],
    count: u16,
}

impl<'a> Rights<'a> {
    /// None.
    pub const NONE: Self = Self {
        bytes: &[],
        count: 0,
    };

    /// Writes `rights` to `buf` and makes them a list.
    pub fn pack<'b>(
        rights: impl IntoIterator<Item = Right<'b>>,
        buf: &'a mut [u8],
    ) -> Result<Self> {
        let mut w = Writer::new(buf);
        let mut count = 0;
        for right in rights {
            w.put(&right)?;
            count += 1;
        }
        if usize::from(count) > MAX_RIGHTS {
            return Err(Error::NoSpace);
        }
        let len = w.len();
        Ok(Self {
            bytes: buf.get(..len).unwrap_or_default(),
            count,
        })
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The descriptors in order.
    pub fn iter(&self) -> impl Iterator<Item = Right<'a>> + 'a {
        let mut r = Reader::new(self.bytes);
        core::iter::from_fn(move || r.get().ok())
    }
}

impl Encode for Rights<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.put(&self.count)?;
        w.put_bytes(self.bytes)
    }
}

impl<'a> Decode<'a> for Rights<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let count: u16 = r.get()?;
        if usize::from(count) > MAX_RIGHTS {
            return Err(Error::Invalid("number of descriptors"));
        }
        let mut ahead = *r;
        for _ in 0..count {
            ahead.get::<Right<'_>>()?;
        }
        let len = r.remaining() - ahead.remaining();
        Ok(Self {
            bytes: r.take(len)?,
            count,
        })
    }
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The first that engine sends: whether it has done what the channel is for.
    Opened {
        /// Errno; 0 if it has.
        errno: u32,
        /// Type of the socket that there is.
        kind: SocketType,
        /// User and group of the program that listens, for one that was connected.
        listener: User,
    },
    /// Data, in the order in which it was written.
    Data {
        /// The record goes on in the next message; never so in a stream.
        more: bool,
        /// Descriptors that came with it.
        rights: Rights<'a>,
        /// At most [`MAX_PAYLOAD`] bytes.
        bytes: &'a [u8],
    },
    /// So much of the window is free again.
    Credit(u32),
    /// No data follows: the sender's program has shut down writing.
    End,
    /// No data is taken any more: the sender's program has shut down reading.
    Stop,
    /// The sender's program has closed the connection, or it was reset: with this errno, if it is
    /// not 0.
    Close(u32),
    /// Somebody has connected to the object of the channel; goes on by the one who takes the token.
    Incoming {
        /// What [`Purpose::Take`] names.
        token: u64,
        /// Who.
        peer: Peer<'a>,
    },
    /// The datagrams that follow are of this sender. Without a word of it they are root's.
    Sender(Sender<'a>),
}

impl<'a> Message<'a> {
    const OPENED: u8 = 1;
    const DATA: u8 = 2;
    const CREDIT: u8 = 3;
    const END: u8 = 4;
    const STOP: u8 = 5;
    const CLOSE: u8 = 6;
    const INCOMING: u8 = 7;
    const SENDER: u8 = 8;

    /// Reads a message; bytes left over are an error.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > MAX_MESSAGE {
            return Err(Error::Invalid("length of a message"));
        }
        let mut r = Reader::new(bytes);
        let message = match r.get::<u8>()? {
            Self::OPENED => Self::Opened {
                errno: errno(&mut r)?,
                kind: r.get()?,
                listener: r.get()?,
            },
            Self::DATA => {
                let more = match r.get::<u8>()? {
                    0 => false,
                    1 => true,
                    _ => return Err(Error::Invalid("end of a record")),
                };
                let rights = r.get()?;
                let bytes = r.take(r.remaining())?;
                if bytes.len() > MAX_PAYLOAD {
                    return Err(Error::Invalid("length of data"));
                }
                Self::Data {
                    more,
                    rights,
                    bytes,
                }
            }
            Self::CREDIT => match r.get()? {
                0 => return Err(Error::Invalid("credit")),
                credit => Self::Credit(credit),
            },
            Self::END => Self::End,
            Self::STOP => Self::Stop,
            Self::CLOSE => Self::Close(errno(&mut r)?),
            Self::INCOMING => Self::Incoming {
                token: r.get()?,
                peer: r.get()?,
            },
            Self::SENDER => match r.get::<Sender<'_>>()? {
                sender if sender.name.bytes().len() > MAX_NAME => {
                    return Err(Error::Invalid("name of a socket"))
                }
                sender => Self::Sender(sender),
            },
            _ => return Err(Error::Invalid("kind of a message")),
        };
        r.finish()?;
        Ok(message)
    }
}

/// Linux's errnos are below 4096.
fn errno(r: &mut Reader<'_>) -> Result<u32> {
    match r.get()? {
        errno if errno < 4096 => Ok(errno),
        _ => Err(Error::Invalid("errno")),
    }
}

impl Encode for Message<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            Self::Opened {
                errno,
                kind,
                listener,
            } => {
                w.put(&Self::OPENED)?;
                w.put(errno)?;
                w.put(kind)?;
                w.put(listener)
            }
            Self::Data {
                more,
                rights,
                bytes,
            } => {
                if bytes.len() > MAX_PAYLOAD {
                    return Err(Error::NoSpace);
                }
                w.put(&Self::DATA)?;
                w.put(&u8::from(*more))?;
                w.put(rights)?;
                w.put_bytes(bytes)
            }
            Self::Credit(credit) => {
                w.put(&Self::CREDIT)?;
                w.put(credit)
            }
            Self::End => w.put(&Self::END),
            Self::Stop => w.put(&Self::STOP),
            Self::Close(errno) => {
                w.put(&Self::CLOSE)?;
                w.put(errno)
            }
            Self::Incoming { token, peer } => {
                w.put(&Self::INCOMING)?;
                w.put(token)?;
                w.put(peer)
            }
            Self::Sender(sender) => {
                if sender.name.bytes().len() > MAX_NAME {
                    return Err(Error::NoSpace);
                }
                w.put(&Self::SENDER)?;
                w.put(sender)
            }
        }
    }
}
