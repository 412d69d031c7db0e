// SPDX-License-Identifier: GPL-2.0

//! Slots: how many requests are on their way at once, and which.

use core::mem;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::Completion;

use super::request::Request;

/// One slot.
struct Slot {
    /// Number of the last request.
    seq: u32,
    /// The request whose reply is not there yet.
    request: Option<Arc<Request>>,
}

/// Who waits for a free slot.
pub(crate) enum Waiter {
    /// A caller, who takes one when it is woken.
    Caller(Arc<Completion>),
    /// A request without a caller, which is given one.
    Request(Arc<Request>),
}

/// The slots of a session.
pub(crate) struct Slots {
    slots: KVVec<Slot>,
    /// Numbers of slots without a request.
    free: KVVec<u16>,
    /// Who waits for one, longest first.
    waiting: KVVec<Waiter>,
}

impl Slots {
    /// No slots yet.
    pub(crate) const fn new() -> Self {
        Self {
            slots: KVVec::new(),
            free: KVVec::new(),
            waiting: KVVec::new(),
        }
    }

    /// Begins anew with `count` slots. Returns the requests that had one, or waited for one.
    pub(crate) fn reset(&mut self, count: u16) -> Result<KVVec<Arc<Request>>> {
        let mut slots = KVVec::with_capacity(count.into(), GFP_KERNEL)?;
        let mut free = KVVec::with_capacity(count.into(), GFP_KERNEL)?;
        for slot in (0..count).rev() {
            slots.push(
                Slot {
                    seq: 0,
                    request: None,
                },
                GFP_KERNEL,
            )?;
            free.push(slot, GFP_KERNEL)?;
        }
        let most = self.slots.len() + self.waiting.len();
        let mut old = KVVec::with_capacity(most, GFP_KERNEL)?;
        for slot in self.slots.iter_mut() {
            if let Some(request) = slot.request.take() {
                old.push(request, GFP_KERNEL)?;
            }
        }
        self.slots = slots;
        self.free = free;
        for request in self.end_waiting() {
            old.push(request, GFP_KERNEL)?;
        }
        Ok(old)
    }

    /// Gives a request a slot, if one is free. Returns slot and number.
    pub(crate) fn take(&mut self, request: &Arc<Request>) -> Option<(u16, u32)> {
        let number = self.free.pop()?;
        let slot = self.slots.get_mut(usize::from(number))?;
        slot.seq = slot.seq.wrapping_add(1);
        slot.request = Some(request.clone());
        Some((number, slot.seq))
    }

    /// The request that a reply belongs to.
    pub(crate) fn find(&self, slot: u16, seq: u32) -> Option<&Arc<Request>> {
        let slot = self.slots.get(usize::from(slot))?;
        slot.request.as_ref().filter(|_| slot.seq == seq)
    }

    /// Slot and number of a request.
    pub(crate) fn place_of(&self, request: &Arc<Request>) -> Option<(u16, u32)> {
        self.iter()
            .find(|(_, _, other)| Arc::ptr_eq(other, request))
            .map(|(s, q, _)| (s, q))
    }

    /// All requests that have a slot, with slot and number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, u32, &Arc<Request>)> {
        self.slots.iter().enumerate().filter_map(|(number, slot)| {
            let request = slot.request.as_ref()?;
            Some((u16::try_from(number).ok()?, slot.seq, request))
        })
    }

    /// Number of requests that have a slot.
    pub(crate) fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Ends a request's stay in its slot, which is for the [`Slots::next`] one.
    pub(crate) fn release(&mut self, slot: u16, seq: u32) -> Option<Arc<Request>> {
        self.find(slot, seq)?;
        let request = self.slots.get_mut(usize::from(slot))?.request.take();
        // There is room: the slot was taken out of the vector.
        let _ = self.free.push_within_capacity(slot);
        request
    }

    /// Queues who found no free slot.
    pub(crate) fn wait(&mut self, waiter: Waiter) -> Result {
        Ok(self.waiting.push(waiter, GFP_KERNEL)?)
    }

    /// Wakes who has waited longest for a slot, or returns the request that is to be given one.
    pub(crate) fn next(&mut self) -> Option<Arc<Request>> {
        // Somebody else may have taken the slot.
        if self.free.is_empty() {
            return None;
        }
        match self.waiting.remove(0).ok()? {
            Waiter::Caller(caller) => {
                caller.complete();
                None
            }
            Waiter::Request(request) => Some(request),
        }
    }

    /// Removes a caller that gives up. Whether it was woken already, so that the [`Slots::next`] one
    /// is to be.
    pub(crate) fn give_up(&mut self, caller: &Arc<Completion>) -> bool {
        let is_caller =
            |waiter: &Waiter| matches!(waiter, Waiter::Caller(other) if Arc::ptr_eq(other, caller));
        match self.waiting.iter().position(is_caller) {
            Some(at) => {
                let _ = self.waiting.remove(at);
                false
            }
            None => true,
        }
    }

    /// Wakes all callers that wait: they look for themselves what has changed. Returns the requests
    /// that wait.
    pub(crate) fn end_waiting(&mut self) -> impl Iterator<Item = Arc<Request>> + use<> {
        let waiting = mem::take(&mut self.waiting);
        for waiter in waiting.iter() {
            if let Waiter::Caller(caller) = waiter {
                caller.complete();
            }
        }
        waiting.into_iter().filter_map(|waiter| match waiter {
            Waiter::Caller(_) => None,
            Waiter::Request(request) => Some(request),
        })
    }
}
