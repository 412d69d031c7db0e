// SPDX-License-Identifier: GPL-2.0

//! What the server tells without being asked, in frames of the kind [`crate::Kind::Event`].

use crate::{
    types::{NotifyMask, OptName, PollEvents},
    wire::{Decode, Error, Reader, Result},
    wire_struct,
};

wire_struct! {
    /// An open file may be ready; whoever waits for it asks with POLL.
    Wake {
        /// What POLL called it.
        watch: u64,
        /// What for, of what POLL's `wake` said; nothing stands for all of it.
        events: PollEvents,
    }
}

wire_struct! {
    /// Something happened to what NOTIFY watches. Acknowledged by ACK; repeated until it is.
    Notified<'a> {
        /// What NOTIFY called the object, or 0: it happened to that, or to an entry of it.
        watch: u64,
        /// The directory of the object, or 0: it happened to an entry of it.
        parent: u64,
        /// What.
        mask: NotifyMask,
        /// The same in the two events of a move, else 0.
        cookie: u32,
        /// The entry.
        name: OptName<'a>,
    }
}

/// A decoded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// See [`Wake`].
    Wake(Wake),
    /// See [`Notified`].
    Notified(Notified<'a>),
}

impl<'a> Event<'a> {
    /// `op` of [`Wake`].
    pub const WAKE: u8 = 1;
    /// `op` of [`Notified`].
    pub const NOTIFIED: u8 = 3;

    /// Reads the body of an event; bytes left over are an error.
    pub fn decode(op: u8, body: &'a [u8]) -> Result<Self> {
        let mut r = Reader::new(body);
        let event = match op {
            Self::WAKE => Self::Wake(Wake::decode(&mut r)?),
            Self::NOTIFIED => Self::Notified(Notified::decode(&mut r)?),
            _ => return Err(Error::Invalid("event")),
        };
        r.finish()?;
        Ok(event)
    }
}
