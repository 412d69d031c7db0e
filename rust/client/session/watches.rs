// SPDX-License-Identifier: GPL-2.0

//! Open files and channels that somebody waits for, by the numbers that the server tells of them by.

use kernel::{
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        Arc,
        Mutex, //
    },
};
use qtfs_net::NoFs;
use qtfs_proto::PollEvents;

use crate::{
    channel::Channel,
    file::OpenFile, //
};

/// What somebody waits for.
pub(crate) enum Watched {
    File(Arc<OpenFile>),
    Channel(Arc<Channel>),
}

impl Watched {
    fn wake(&self, events: PollEvents) {
        match self {
            Self::File(open) => open.polled.queue.wake(events),
            Self::Channel(channel) => channel.wake(events),
        }
    }
}

/// See the module.
#[pin_data]
pub(crate) struct Watches {
    #[pin]
    inner: Mutex<Inner>,
}

/// The fields of [`Watches`] protected by the lock.
struct Inner {
    by_number: RBTree<u64, Watched>,
    /// Numbers are never used again; 0 is none.
    next: u64,
}

impl Watches {
    /// Nobody waits.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(Inner {
                by_number: RBTree::new(),
                next: 1,
            }),
        })
    }

    /// Gives a file a number, until [`Watches::remove`].
    pub(crate) fn add(&self, watched: Watched) -> Result<u64> {
        // Lanes wake through this lock, so its holder must not wait for pages to be written.
        let _nofs = NoFs::enter();
        let mut inner = self.inner.lock();
        let number = inner.next;
        inner
            .by_number
            .try_create_and_insert(number, watched, GFP_KERNEL)?;
        inner.next += 1;
        Ok(number)
    }

    /// The file is closed.
    pub(crate) fn remove(&self, number: u64) {
        let removed = self.inner.lock().by_number.remove(&number);
        drop(removed);
    }

    /// Wakes who waits for any of `events` of a file, or whoever waits for it when there are none.
    pub(crate) fn wake(&self, number: u64, events: PollEvents) {
        if let Some(watched) = self.inner.lock().by_number.get(&number) {
            watched.wake(events);
        }
    }

    /// The server has answered after its caller had given up: the next caller gets it.
    pub(crate) fn late(&self, number: u64, ready: PollEvents) {
        if let Some(watched) = self.inner.lock().by_number.get(&number) {
            if let Watched::File(open) = watched {
                open.polled.keep_late(ready);
            }
            watched.wake(PollEvents::NONE);
        }
    }

    /// Wakes everybody: what the server told may be lost.
    pub(crate) fn wake_all(&self) {
        for (_, watched) in self.inner.lock().by_number.iter() {
            watched.wake(PollEvents::NONE);
        }
    }
}
