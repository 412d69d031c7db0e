// SPDX-License-Identifier: GPL-2.0

//! What happens to the objects that a client watches, until the client has acknowledged it.
//!
//! Only so many events are on their way at once; the others wait here, and so do those that the
//! client has not acknowledged: they are sent again by a new connection, in the same order. What
//! does not fit, or finds no memory, is told as an overflow.

use kernel::{
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        Arc,
        Mutex, //
    },
};
use qtfs_net::Frame;
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
    reply,
    session::Session, //
};

/// Events that are kept for a client; as many as inotify keeps for a program.
const MAX_KEPT: u64 = 16_384;
/// Events that are on their way at once. Fewer than what a lane keeps besides answers.
const WINDOW: u64 = 8;
/// Objects that a client may watch; as inotify lets a user of a large machine.
pub(crate) const MAX_WATCHES: usize = 1 << 17;

/// See the module.
#[pin_data]
pub(crate) struct Notices {
    session: Arc<Session>,
    #[pin]
    inner: Mutex<Inner>,
}

/// The fields of [`Notices`] protected by the lock.
struct Inner {
    /// Events that are not acknowledged, by number. A number that has none tells that others are
    /// missing; it takes no memory to note that.
    kept: RBTree<u64, Arc<Frame>>,
    /// Number of the last event that was made, sent and acknowledged.
    made: u64,
    sent: u64,
    acked: u64,
    /// The last event that was made tells that others are missing, and was never sent: it tells of
    /// those that are lost meanwhile too.
    overflown: bool,
}

/// Listens for one client.
pub(crate) type Watching = Arc<Pin<KBox<Notifier<Notices>>>>;

impl Notices {
    /// Nothing has happened.
    pub(crate) fn listen(session: &Arc<Session>) -> Result<Watching> {
        let session = session.clone();
        let notifier = Notifier::new(try_pin_init!(Self {
            session,
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
        if inner.add(event).is_ok() {
            inner.overflown = false;
        } else if !inner.overflown {
            inner.made += 1;
            inner.overflown = true;
        }
        inner.sent < inner.made
    }
}

impl Inner {
    fn add(&mut self, event: &Notified<'_>) -> Result {
        if self.made - self.acked >= MAX_KEPT {
            return Err(ENOSPC);
        }
        let number = self.made + 1;
        let frame = frame(number, event)?;
        self.kept.try_create_and_insert(number, frame, GFP_KERNEL)?;
        self.made = number;
        Ok(())
    }

    /// The event of a number.
    fn event(&self, number: u64) -> Result<Arc<Frame>> {
        match self.kept.get(&number) {
            Some(frame) => Ok(frame.clone()),
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
        // What this client has done itself its own machine has told already.
        if self.session.slots().lock().is_executing() {
            return;
        }
        let Ok(name) = OptName::new(notice.name) else {
            return;
        };
        let wants_pump = self.keep(&Notified {
            watch: notice.watch,
            parent: notice.parent,
            mask: notice.mask,
            cookie: notice.cookie,
            name,
        });
        if wants_pump {
            self.session.pump_notices();
        }
    }

    fn pump(&self) {
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
