// SPDX-License-Identifier: GPL-2.0

//! The header in front of every message.
//!
//! A frame is a header of [`HEADER_LEN`] bytes, a body (the fields of the message) and a data
//! section (file contents or directory entries; empty in most messages).

use crate::{
    wire::{Decode, Error, Reader, Result, Writer},
    wire_struct, MAX_BODY, MAX_DATA,
};

/// Bytes of a [`Header`] on the wire.
pub const HEADER_LEN: usize = 32;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client to server: do something; `op` says what.
    Request = 1,
    /// Server to client: the answer to the request of the same slot and sequence number.
    Reply = 2,
    /// Server to client: something happened; `op` says what, see [`crate::event::Event`]. `seq`
    /// numbers events that must be acknowledged from 1; it is 0 in others.
    Event = 3,
    /// Client to server: events up to `seq` have taken effect on the client.
    Ack = 4,
    /// Client to server: the caller of the request in `slot` with number `seq` gave up; the
    /// request is answered all the same, with EINTR when it had not taken effect.
    Cancel = 5,
    /// Client to server: the session is over, with all its files, locks and nodes. Not answered.
    Bye = 6,
}

impl TryFrom<u8> for Kind {
    type Error = Error;

    fn try_from(value: u8) -> Result<Self> {
        Ok(match value {
            1 => Self::Request,
            2 => Self::Reply,
            3 => Self::Event,
            4 => Self::Ack,
            5 => Self::Cancel,
            6 => Self::Bye,
            _ => return Err(Error::Invalid("kind")),
        })
    }
}

/// Bits of [`Header::flags`].
pub mod flag {
    /// The request may have been received before: it is repeated after a reconnect.
    pub const RETRANSMIT: u16 = 1;
    /// All bits that are defined.
    pub const ALL: u16 = RETRANSMIT;
}

wire_struct! {
    /// The header as it is on the wire, unchecked.
    RawHeader {
        /// Bytes of the frame: header, body and data.
        len: u32,
        /// See [`Kind`].
        kind: u8,
        /// Opcode of the message, see [`crate::message::Op`].
        op: u8,
        /// See [`flag`].
        flags: u16,
        /// Slot of the request, the reply or the cancelled request; 0 in other kinds.
        slot: u16,
        /// In replies: number of slots that the client may use from now on; else 0.
        credits: u16,
        /// Sequence number within the slot, or of the event.
        seq: u32,
        /// In requests: index of the caller's credential.
        cred: u32,
        /// In replies: errno (Linux generic numbering), 0 for success; else 0.
        status: u32,
        /// Bytes of the data section at the end of the frame.
        data_len: u32,
        /// In requests: number of the last event that took effect on the client.
        ack: u32,
    }
}

/// The last errno that there is for programs, EHWPOISON.
const MAX_ERRNO: u32 = 133;
const EIO: u32 = 5;

/// The errno that programs are given for one that came from the other machine: EIO for what is none
/// of theirs, since above all the kernel means something by numbers of its own (ERESTARTSYS).
pub const fn errno(number: u32) -> u32 {
    if number > MAX_ERRNO {
        EIO
    } else {
        number
    }
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// Opcode; not yet checked to be one that is known.
    pub op: u8,
    /// See [`flag`].
    pub flags: u16,
    /// Slot of the request or reply.
    pub slot: u16,
    /// Number of slots that the client may use.
    pub credits: u16,
    /// Sequence number.
    pub seq: u32,
    /// Index of the caller's credential.
    pub cred: u32,
    /// Errno of a reply.
    pub status: u32,
    /// Last event that took effect on the client.
    pub ack: u32,
    /// Bytes of the body.
    pub body_len: usize,
    /// Bytes of the data section.
    pub data_len: usize,
}

impl Header {
    /// A header of `kind` for the operation `op`, all other fields 0.
    pub const fn new(kind: Kind, op: u8) -> Self {
        Self {
            kind,
            op,
            flags: 0,
            slot: 0,
            credits: 0,
            seq: 0,
            cred: 0,
            status: 0,
            ack: 0,
            body_len: 0,
            data_len: 0,
        }
    }

    /// Writes the header.
    ///
    /// Fails when body or data are longer than a frame may have.
    pub fn write(&self, out: &mut [u8; HEADER_LEN]) -> Result<()> {
        if self.body_len > MAX_BODY || self.data_len > MAX_DATA {
            return Err(Error::Invalid("length"));
        }
        let len = HEADER_LEN + self.body_len + self.data_len;
        let raw = RawHeader {
            len: u32::try_from(len).map_err(|_| Error::Invalid("length"))?,
            kind: self.kind as u8,
            op: self.op,
            flags: self.flags,
            slot: self.slot,
            credits: self.credits,
            seq: self.seq,
            cred: self.cred,
            status: self.status,
            data_len: u32::try_from(self.data_len).map_err(|_| Error::Invalid("length"))?,
            ack: self.ack,
        };
        Writer::new(out).put(&raw)
    }

    /// Reads and checks a header.
    pub fn read(bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        let raw = RawHeader::decode(&mut Reader::new(bytes))?;
        let len = usize::try_from(raw.len).map_err(|_| Error::Invalid("length"))?;
        let data_len = usize::try_from(raw.data_len).map_err(|_| Error::Invalid("length"))?;
        let body_len = len
            .checked_sub(HEADER_LEN)
            .and_then(|n| n.checked_sub(data_len))
            .ok_or(Error::Invalid("length"))?;
        if body_len > MAX_BODY || data_len > MAX_DATA {
            return Err(Error::Invalid("length"));
        }
        if raw.flags & !flag::ALL != 0 {
            return Err(Error::Invalid("flags"));
        }
        if raw.status > 4095 {
            return Err(Error::Invalid("status"));
        }
        Ok(Self {
            kind: Kind::try_from(raw.kind)?,
            op: raw.op,
            flags: raw.flags,
            slot: raw.slot,
            credits: raw.credits,
            seq: raw.seq,
            cred: raw.cred,
            status: raw.status,
            ack: raw.ack,
            body_len,
            data_len,
        })
    }
}
