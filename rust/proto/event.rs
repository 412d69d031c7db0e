// SPDX-License-Identifier: GPL-2.0

//! What the server tells without being asked, in frames of the kind [`crate::Kind::Event`].

use crate::{
    types::PollEvents,
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

/// A decoded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// See [`Wake`].
    Wake(Wake),
}

impl Event {
    /// `op` of [`Wake`].
    pub const WAKE: u8 = 1;

    /// Reads the body of an event; bytes left over are an error.
    pub fn decode(op: u8, body: &[u8]) -> Result<Self> {
        let mut r = Reader::new(body);
        let event = match op {
            Self::WAKE => Self::Wake(Wake::decode(&mut r)?),
            _ => return Err(Error::Invalid("event")),
        };
        r.finish()?;
        Ok(event)
    }
}
