// SPDX-License-Identifier: GPL-2.0

//! Memory that the sessions of one client may make the kernel keep, together.
//!
//! Each kind of object has a limit in each session, but a client may have many sessions. What counts
//! is the address that they come from. Objects are refused beyond the limit. Data that passes through
//! the sessions is counted apart: when there is much of it, each of them takes less at a time.

use core::ptr;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};
use qtfs_bindings as bindings;
use qtfs_net::{
    memory::total_pages,
    Meter, //
};

use crate::refusal::{
    Refusal,
    Result, //
};

/// The part of this machine's memory that one client may use, and how much of a large one's, in
/// bytes; unless `qtfs_client_memory` says otherwise.
const SHARE: u64 = 4;
const MOST: u64 = 8 << 30;
/// The part of that beyond which there is much data of the client on its way.
const CROWDED_SHARE: u64 = 2;

/// See the module.
pub(crate) struct Budget {
    most: u64,
    used: Atomic<u64>,
    passing: Arc<Meter>,
}

/// Memory that is in use, until this is dropped.
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// Nothing is used.
    pub(crate) fn new() -> kernel::error::Result<Arc<Self>> {
        // SAFETY: A module parameter, an aligned integer that the kernel may change at any time.
        let given = unsafe { ptr::read_volatile(&raw const bindings::qtfs_client_memory) };
        let most = match u64::from(given) {
            0 => (total_pages() * PAGE_SIZE as u64 / SHARE).min(MOST),
            mib => mib << 20,
        };
        let this = Self {
            most,
            used: Atomic::<u64>::new(0),
            passing: Meter::new(None)?,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Counts data on its way through all sessions, and what is kept of it.
    pub(crate) fn passing(&self) -> &Arc<Meter> {
        &self.passing
    }

    /// Whether there is much data on its way.
    pub(crate) fn is_crowded(&self) -> bool {
        self.passing.bytes() as u64 > self.most / CROWDED_SHARE
    }

    /// Whether the client uses all that it may.
    pub(crate) fn is_full(&self) -> bool {
        self.used.load(Relaxed) >= self.most
    }

    /// Uses so many bytes, about.
    ///
    /// Fails with [`ENFILE`] when the client uses too much.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge> {
        let charge = Charge {
            budget: self.clone(),
            bytes: bytes as u64,
        };
        let before = self.used.fetch_add(charge.bytes, Relaxed);
        if before.saturating_add(charge.bytes) > self.most {
            let most = self.most >> 20;
            return Err(Refusal::new(
                ENFILE,
                fmt!("what this client knows, and has open, takes {most} MiB of HOST's memory, which is all that it may: see qtfs_client_memory="),
            ));
        }
        Ok(charge)
    }
}

impl Budget {
    /// Uses no bytes yet.
    pub(crate) fn nothing(self: &Arc<Self>) -> Charge {
        Charge {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

impl Charge {
    /// It is for so many bytes now, whatever the client may use.
    pub(crate) fn resize(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        let more = bytes.wrapping_sub(self.bytes);
        self.budget.used.fetch_add(more, Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget
            .used
            .fetch_add(self.bytes.wrapping_neg(), Relaxed);
    }
}
