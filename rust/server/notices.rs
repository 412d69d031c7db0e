// SPDX-License-Identifier: GPL-2.0

//! What happens to the objects that a client watches, until the client has acknowledged it.
//!
//! Only so many events are on their way at once; the others wait here, and so do those that the
//! client has not acknowledged: they are sent again by a new connection, in the same order. What
//! does not fit, or finds no memory, is told as an overflow. What the policy does not allow any more is not told.

use kernel::{
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        Arc,
        Mutex,
        MutexGuard, //
    },
};
use qtfs_net::{
    Frame,
    NoFs, //
};
use qtfs_proto::{
    event::{
        Event,
        Notified, //
    },
    NotifyMask,
    OptName, //
};
use qtfs_vfs::local::notify::{
    Listener,
    Notice,
    Notifier, //
};

use crate::{
    budget::{
        Budget,
        Charge, //
    },
    policy::{
        Current,
        Policy, //
    },
    refusal,
    reply,
    session::Session, //
};

/// Events that are kept for a client; as many as inotify keeps for a program.
const MAX_KEPT: u64 = 16_384;
/// Events that are on their way at once. Fewer than what a lane keeps besides answers.
const WINDOW: u64 = 8;
/// Objects that a client may watch; as inotify lets a user of a large machine.
pub(crate) const MAX_WATCHES: usize = 1 << 17;
/// What a watch takes, with the inode that stays in memory, besides the path.
const WATCH_BYTES: usize = 2048;
/// What an event takes.
const EVENT_BYTES: usize = 512;

/// See the module.
#[pin_data]
pub(crate) struct Notices {
    session: Arc<Session>,
    policy: Arc<Current>,
    /// Held by whoever begins or ends a watch. Those who are told of something hold it for a moment.
    #[pin]
    watched: Mutex<Watched>,
    #[pin]
    inner: Mutex<Inner>,
}

/// What the numbers of watches stand for.
pub(crate) struct Watched {
    by_number: RBTree<u64, Place>,
    budget: Arc<Budget>,
}

/// Where an object was when it was watched first.
struct Place {
    text: KVVec<u8>,
    /// Number of the policy that was asked last, and whether it exports the place.
    asked: u64,
    exported: bool,
    _charge: Charge,
}

impl Watched {
    /// Adds a number; says whether it is new. One that is known goes on standing for what it does.
    pub(crate) fn add(&mut self, number: u64, text: KVVec<u8>) -> refusal::Result<bool> {
        if self.by_number.get(&number).is_some() {
            return Ok(false);
        }
        let place = Place {
            asked: 0,
            exported: false,
            _charge: self.budget.charge(WATCH_BYTES + text.len())?,
            text,
        };
        self.by_number
            .try_create_and_insert(number, place, GFP_KERNEL)?;
        Ok(true)
    }

    /// Removes a number.
    pub(crate) fn remove(&mut self, number: u64) {
        drop(self.by_number.remove(&number));
    }

    /// Whether the client may be told of what the number stands for.
    fn is_exported(&mut self, number: u64, policy: &Policy) -> bool {
        let Some(place) = self.by_number.get_mut(&number) else {
            return false;
        };
        if place.asked != policy.number() {
            place.asked = policy.number();
            place.exported = policy.rule(&place.text).is_some();
        }
        place.exported
    }
}

/// The fields of [`Notices`] protected by the lock.
struct Inner {
    /// Events that are not acknowledged, by number. A number that has none tells that others are
    /// missing; it takes no memory to note that.
    kept: RBTree<u64, Kept>,
    /// Number of the last event that was made, sent and acknowledged.
    made: u64,
    sent: u64,
    acked: u64,
    /// The last event that was made tells that others are missing, and was never sent: it tells of
    /// those that are lost meanwhile too.
    overflown: bool,
}

/// An event that is not acknowledged.
struct Kept {
    frame: Arc<Frame>,
    _charge: Charge,
}

/// Listens for one client.
pub(crate) type Watching = Arc<Pin<KBox<Notifier<Notices>>>>;

impl Notices {
    /// Nothing has happened.
    pub(crate) fn listen(session: &Arc<Session>, policy: &Arc<Current>) -> Result<Watching> {
        let (session, policy) = (session.clone(), policy.clone());
        let budget = session.budget.clone();
        let notifier = Notifier::new(try_pin_init!(Self {
            session,
            policy,
            watched <- new_mutex!(Watched {
                by_number: RBTree::new(),
                budget,
            }),
            inner <- new_mutex!(Inner {
                kept: RBTree::new(),
                made: 0,
                sent: 0,
                acked: 0,
                overflown: false,
            }),
        }? Error))?;
        Ok(Arc::new(notifier, GFP_KERNEL)?)
    }

    /// What the numbers stand for, for whoever begins or ends a watch.
    pub(crate) fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock()
    }

    /// The client has acknowledged events up to one whose number ends with `seq`.
    pub(crate) fn acknowledged(&self, seq: u32) {
        {
            let mut inner = self.inner.lock();
            // CAST: The lower half of the number is what is sent.
            let ahead = seq.wrapping_sub(inner.acked as u32);
            if u64::from(ahead) > inner.sent - inner.acked {
                return;
            }
            for _ in 0..ahead {
                inner.acked += 1;
                let number = inner.acked;
                drop(inner.kept.remove(&number));
            }
        }
        self.pump();
    }

    /// What was on its way may be lost with a connection.
    pub(crate) fn send_again(&self) {
        {
            let mut inner = self.inner.lock();
            inner.sent = inner.acked;
        }
        self.pump();
    }

    /// Keeps an event, or that it is missing; says whether something can be sent.
    fn keep(&self, event: &Notified<'_>) -> bool {
        let mut inner = self.inner.lock();
        if inner.add(event, &self.session.budget).is_ok() {
            inner.overflown = false;
        } else if !inner.overflown {
            inner.made += 1;
            inner.overflown = true;
        }
        inner.sent < inner.made
    }
}

impl Inner {
    fn add(&mut self, event: &Notified<'_>, budget: &Arc<Budget>) -> Result {
        if self.made - self.acked >= MAX_KEPT {
            return Err(ENOSPC);
        }
        let number = self.made + 1;
        let kept = Kept {
            _charge: budget.charge(EVENT_BYTES).map_err(|_| ENOSPC)?,
            frame: frame(number, event)?,
        };
        self.kept.try_create_and_insert(number, kept, GFP_KERNEL)?;
        self.made = number;
        Ok(())
    }

    /// The event of a number.
    fn event(&self, number: u64) -> Result<Arc<Frame>> {
        match self.kept.get(&number) {
            Some(kept) => Ok(kept.frame.clone()),
            None => frame(
                number,
                &Notified {
                    watch: 0,
                    parent: 0,
                    mask: NotifyMask::OVERFLOW,
                    cookie: 0,
                    name: OptName::NONE,
                },
            ),
        }
    }
}

fn frame(number: u64, event: &Notified<'_>) -> Result<Arc<Frame>> {
    // CAST: The lower half is enough to tell those from each other that are kept.
    reply::numbered_event(Event::NOTIFIED, number as u32, event)
}

impl Listener for Notices {
    fn happened(&self, notice: &Notice<'_>) {
        // Reclaim of memory may tell of something too.
        let _nofs = NoFs::enter();
        // What this client has done itself its own machine has told already.
        if self.session.slots().lock().is_executing() {
            return;
        }
        let Ok(name) = OptName::new(notice.name) else {
            return;
        };
        let policy = self.policy.get();
        let (watch, parent) = {
            let mut watched = self.watched.lock();
            let mut exported = |number| match watched.is_exported(number, &policy) {
                true => number,
                false => 0,
            };
            (exported(notice.watch), exported(notice.parent))
        };
        if watch == 0 && parent == 0 {
            return;
        }
        let wants_pump = self.keep(&Notified {
            watch,
            parent,
            mask: notice.mask,
            cookie: notice.cookie,
            name,
        });
        if wants_pump {
            self.session.pump_notices();
        }
    }

    fn pump(&self) {
        let _nofs = NoFs::enter();
        let mut inner = self.inner.lock();
        while inner.sent < inner.made && inner.sent - inner.acked < WINDOW {
            let number = inner.sent + 1;
            let Ok(frame) = inner.event(number) else {
                // There may be memory the next time.
                drop(inner);
                return self.session.pump_notices();
            };
            self.session.send(frame, None);
            inner.sent = number;
            if number == inner.made {
                inner.overflown = false;
            }
        }
    }
}
