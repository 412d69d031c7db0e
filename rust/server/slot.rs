// SPDX-License-Identifier: GPL-2.0

//! The slots of a session: what makes each request be executed exactly once.
//!
//! A slot carries one request at a time, numbered 1, 2, 3 … It remembers the last one, so that a
//! request that comes again after a reconnect is recognized; `Documentation/protocol.md` has the
//! table that [`Slots::begin`] follows.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::{
    Counted,
    Frame, //
};
use qtfs_proto::Op;
use qtfs_vfs::local::task::Thread;

use crate::{
    budget::Budget,
    job::{
        Job,
        Ticket, //
    },
    lane::Lane,
};

/// Slots that a session gets that does not say how many it would like.
const DEFAULT_SLOTS: u16 = 64;
/// Slots that a session gets at most.
const MAX_SLOTS: u16 = 256;

/// All slots of a session.
pub(crate) struct Slots(KVec<Slot>);

struct Slot {
    /// Number of the last request; 0 before the first.
    last: u32,
    /// Opcode of the last request.
    op: u8,
    state: State,
    /// Where the last request came from.
    lane: Option<Arc<Lane>>,
    /// Number of a request that was cancelled before it was in the queue; cancels may come by
    /// another connection and overtake it.
    cancelled: Option<u32>,
}

/// What became of the last request of a slot.
enum State {
    /// It was answered, with this answer when it must not be executed again.
    Done(Option<Kept>),
    /// The connection's own thread executes it, or puts it into the queue in a moment.
    Arriving,
    /// It waits for a worker.
    Queued(Arc<Job>),
    /// A worker executes it.
    Running(Arc<Job>, Thread),
}

/// An answer that is kept until the next request of the slot.
pub(crate) struct Kept {
    frame: Arc<Frame>,
    _counted: Option<Counted>,
}

impl Kept {
    /// The answer to a request, if it is to be kept.
    pub(crate) fn of(op: Op, frame: &Arc<Frame>, budget: &Budget) -> Option<Self> {
        (!op.repeatable()).then(|| Self {
            frame: frame.clone(),
            _counted: (!frame.data.is_empty()).then(|| budget.passing().count(frame.len())),
        })
    }
}

/// What to do with a request that came.
pub(crate) enum Begin {
    /// Execute it.
    Execute,
    /// It was executed: send this.
    Answer(Arc<Frame>),
    /// It is being executed: the answer will come.
    Wait,
    /// It comes late, the client has the answer: forget it.
    Late,
    /// Its connection was closed, and the client sends it again by another.
    Gone,
    /// It is nonsense.
    Bad(&'static str),
}

/// What a cancelled request is doing.
pub(crate) enum Cancelled {
    /// It is answered already, or the number is of another one.
    Nothing,
    /// It waited, and has to be taken out of the queue.
    Waiting(Arc<Job>),
    /// It was executing; its waits end now.
    Running,
}

impl Slots {
    /// Makes as many slots as a client asked for, within limits.
    pub(crate) fn new(asked: u16) -> Result<Self> {
        let count = match asked {
            0 => DEFAULT_SLOTS,
            n => n.min(MAX_SLOTS),
        };
        let mut slots = KVec::with_capacity(usize::from(count), GFP_KERNEL)?;
        for _ in 0..count {
            slots.push(
                Slot {
                    last: 0,
                    op: 0,
                    state: State::Done(None),
                    lane: None,
                    cancelled: None,
                },
                GFP_KERNEL,
            )?;
        }
        Ok(Self(slots))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u16 {
        // CAST: At most `MAX_SLOTS`.
        self.0.len() as u16
    }

    fn get(&mut self, slot: u16) -> Option<&mut Slot> {
        self.0.get_mut(usize::from(slot))
    }

    /// Takes note of a request that came on `lane`.
    ///
    /// A connection that was replaced is closed before the new one is used, and the lock of the
    /// slots orders that: nothing that is still in the old one's socket is executed after what came
    /// by the new one.
    pub(crate) fn begin(&mut self, ticket: &Ticket, op: Op, lane: &Arc<Lane>) -> Begin {
        if lane.is_closed() {
            return Begin::Gone;
        }
        let Some(slot) = self.get(ticket.slot) else {
            return Begin::Bad("slot out of range");
        };
        if ticket.seq == slot.last.wrapping_add(1) {
            let State::Done(_) = slot.state else {
                return Begin::Bad("slot in use");
            };
            slot.last = ticket.seq;
            slot.op = ticket.op;
        } else if ticket.seq == slot.last && slot.last != 0 && ticket.op == slot.op {
            match &slot.state {
                State::Done(Some(kept)) => {
                    let frame = kept.frame.clone();
                    slot.lane = Some(lane.clone());
                    return Begin::Answer(frame);
                }
                State::Done(None) if !op.repeatable() => return Begin::Bad("answer not kept"),
                State::Done(None) => {}
                _ => {
                    slot.lane = Some(lane.clone());
                    return Begin::Wait;
                }
            }
        } else if slot.is_past(ticket.seq) {
            return Begin::Late;
        } else {
            return Begin::Bad("number out of order");
        }
        slot.lane = Some(lane.clone());
        slot.state = State::Arriving;
        Begin::Execute
    }

    /// Takes note that a request waits in the queue.
    pub(crate) fn queue(&mut self, job: Arc<Job>) {
        if let Some(slot) = self.get(job.ticket.slot) {
            if slot.cancelled.take() == Some(job.ticket.seq) {
                job.cancel();
            }
            slot.state = State::Queued(job);
        }
    }

    /// Takes note that `thread` executes a request.
    pub(crate) fn run(&mut self, job: Arc<Job>, thread: Thread) {
        if let Some(slot) = self.get(job.ticket.slot) {
            slot.state = State::Running(job, thread);
        }
    }

    /// Takes note of the answer, which is kept when `keep`; returns where the request came from
    /// last. From here on nobody cancels it any more.
    pub(crate) fn finish(&mut self, ticket: &Ticket, keep: Option<Kept>) -> Option<Arc<Lane>> {
        let slot = self.get(ticket.slot)?;
        slot.state = State::Done(keep);
        slot.lane.take()
    }

    /// Whether the current thread executes a request of the session.
    pub(crate) fn is_executing(&self) -> bool {
        let is_current =
            |slot: &Slot| matches!(&slot.state, State::Running(_, thread) if thread.is_current());
        self.0.iter().any(is_current)
    }

    /// Cancels a request.
    pub(crate) fn cancel(&mut self, slot: u16, seq: u32) -> Cancelled {
        let Some(slot) = self.get(slot) else {
            return Cancelled::Nothing;
        };
        let arriving = slot.last == seq && matches!(slot.state, State::Arriving);
        if arriving || slot.last.wrapping_add(1) == seq {
            slot.cancelled = Some(seq);
            return Cancelled::Nothing;
        }
        if slot.last != seq {
            return Cancelled::Nothing;
        }
        slot.cancel()
    }

    /// Cancels everything that is being executed, because the session ends.
    pub(crate) fn cancel_all(&mut self) {
        for slot in self.0.iter_mut() {
            slot.cancel();
            slot.lane = None;
        }
    }
}

impl Slot {
    /// Whether a number comes before that of the last request; numbers wrap.
    fn is_past(&self, seq: u32) -> bool {
        // CAST: Half of the numbers are before any other, the other half after it.
        self.last.wrapping_sub(seq) as i32 > 0
    }

    fn cancel(&mut self) -> Cancelled {
        match &self.state {
            State::Queued(job) => {
                job.cancel();
                Cancelled::Waiting(job.clone())
            }
            State::Running(job, thread) => {
                job.cancel();
                thread.cancel();
                Cancelled::Running
            }
            _ => Cancelled::Nothing,
        }
    }
}
