// SPDX-License-Identifier: GPL-2.0

//! A request on its way from a connection to a worker.

use kernel::{
    list::{
        impl_list_arc_safe,
        impl_list_item,
        ListArc,
        ListLinks, //
    },
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
};
use qtfs_net::{
    Counted,
    Pages, //
};
use qtfs_proto::Op;

use crate::{
    parking::LockWait,
    queue::ParkKey,
    refusal,
    reply,
    session::Session,
    slot::Kept, //
};

/// Which request an answer is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Opcode as it came.
    pub(crate) op: u8,
    /// Slot of the session.
    pub(crate) slot: u16,
    /// Number within the slot.
    pub(crate) seq: u32,
}

/// A request that was received and not answered yet.
///
/// While it waits the [`crate::queue::Queue`] owns it, then the worker that executes it; its slot
/// refers to it all the time.
#[pin_data]
pub(crate) struct Job {
    /// Whose it is.
    pub(crate) session: Arc<Session>,
    /// Which one it is.
    pub(crate) ticket: Ticket,
    /// What it asks for.
    pub(crate) op: Op,
    /// Index of the caller's credential.
    pub(crate) cred: u32,
    /// Fields of the message, not decoded yet.
    pub(crate) body: KVVec<u8>,
    /// Data section.
    pub(crate) data: Pages,
    /// What it and its answer take.
    #[pin]
    counted: Mutex<Option<Counted>>,
    /// The caller gave up.
    cancelled: Atomic<bool>,
    /// What it waits for while it is parked; written under the lock of the queue.
    parked_for: Atomic<u64>,
    /// A lock of this machine's that it has asked for and not got.
    #[pin]
    pub(crate) awaited: Mutex<Option<LockWait>>,
    #[pin]
    links: ListLinks,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Job { untracked; }
}
impl_list_item! {
    impl ListItem<0> for Job { using ListLinks { self.links }; }
}

impl Job {
    /// A request as it was received.
    pub(crate) fn new(
        session: Arc<Session>,
        ticket: Ticket,
        op: Op,
        cred: u32,
        body: KVVec<u8>,
        data: Pages,
        counted: Option<Counted>,
    ) -> Result<ListArc<Self>> {
        ListArc::pin_init(
            try_pin_init!(Self {
                session,
                ticket,
                op,
                cred,
                body,
                data,
                counted <- new_mutex!(counted),
                cancelled: Atomic::<bool>::new(false),
                parked_for: Atomic::<u64>::new(0),
                awaited <- new_mutex!(None),
                links <- ListLinks::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// It may wait for ever, and is not to keep others from coming meanwhile.
    pub(crate) fn parks(&self) {
        drop(self.counted.lock().take());
    }

    /// Notes what it waits for.
    pub(crate) fn set_parked_for(&self, key: ParkKey) {
        self.parked_for.store(key.0, Relaxed);
    }

    /// Whether it waits for this, while it is parked.
    pub(crate) fn is_parked_for(&self, key: ParkKey) -> bool {
        self.parked_for.load(Relaxed) == key.0
    }

    /// Notes that the caller gave up. The lock of the slots orders this against the execution.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// Whether the caller gave up.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Answers it: with the fields of a reply and its data, or with why there is none.
    pub(crate) fn answer(&self, result: refusal::Result<(&[u8], Pages)>) {
        let session = &self.session;
        let credits = session.credits();
        let frame = match result {
            Ok((body, data)) => reply::success(&self.ticket, credits, body, data),
            Err(refusal) => reply::failure(&self.ticket, credits, &refusal),
        };
        match frame {
            Ok(frame) => {
                let keep = Kept::of(self.op, &frame, &session.budget);
                let lane = session.slots().lock().finish(&self.ticket, keep);
                session.send(frame, lane.as_ref());
            }
            Err(e) => {
                // Without an answer the client would wait for ever; it finds out that this slot is
                // lost when it asks again.
                log_error!(
                    "{session}: the answer to {} is lost: {e:?}\n",
                    self.op.name()
                );
                session.slots().lock().finish(&self.ticket, None);
                session.close_lanes();
            }
        }
    }
}
