// SPDX-License-Identifier: GPL-2.0

//! Who is told when an open file becomes ready: the client that waits for it, and requests that are
//! parked for it.

use kernel::sync::{
    atomic::{
        Acquire,
        Atomic,
        Full,
        Relaxed,
        Release, //
    },
    Arc, //
};
use qtfs_proto::{
    event::{
        Event,
        Wake, //
    },
    PollEvents, //
};
use qtfs_vfs::local::watch::Watcher;

use crate::{
    queue::ParkKey,
    reply,
    session::Session, //
};

/// What lets a request that is parked for a file go on.
const GOES_ON: PollEvents = PollEvents::IN.with(PollEvents::HUP).with(PollEvents::ERR);

/// Tells of one file.
pub(crate) struct Poller {
    session: Arc<Session>,
    /// What requests are parked for.
    key: ParkKey,
    /// What the client calls the file.
    watch: Atomic<u64>,
    /// What the client is to be told of; each is taken out with that.
    wake: Atomic<u32>,
}

impl Poller {
    /// Tells the client of `session`, and who is parked for `key`.
    pub(crate) fn new(session: &Arc<Session>, key: ParkKey) -> Self {
        Self {
            session: session.clone(),
            key,
            watch: Atomic::<u64>::new(0),
            wake: Atomic::<u32>::new(0),
        }
    }

    /// The client, which calls the file `watch`, is to be told of the first of each of `wake`, and
    /// then of errors and hang-ups too.
    pub(crate) fn tell(&self, watch: u64, wake: PollEvents) {
        if wake == PollEvents::NONE {
            return;
        }
        self.watch.store(watch, Release);
        let wake = wake.with(PollEvents::HUP).with(PollEvents::ERR);
        self.change_wake(|old| old | wake.bits());
    }

    /// Takes what the client is to be told of out of `events`.
    fn take_wake(&self, events: PollEvents) -> PollEvents {
        let old = self.change_wake(|old| old & !events.bits());
        PollEvents::from_bits(old & events.bits()).unwrap_or(PollEvents::NONE)
    }

    fn change_wake(&self, change: impl Fn(u32) -> u32) -> u32 {
        let mut old = self.wake.load(Relaxed);
        loop {
            match self.wake.cmpxchg(old, change(old), Full) {
                Ok(old) => return old,
                Err(now) => old = now,
            }
        }
    }
}

impl Watcher for Poller {
    fn ready(&self, events: PollEvents) {
        if events.without(GOES_ON) != events {
            self.session.queue.unpark(self.key);
        }
        let events = self.take_wake(events);
        if events == PollEvents::NONE {
            return;
        }
        let wake = Wake {
            watch: self.watch.load(Acquire),
            events,
        };
        match reply::event(Event::WAKE, &wake) {
            // Without a connection it is lost; the client asks again when it is back.
            Ok(frame) => self.session.tell(frame),
            Err(e) => {
                log_error!("{}: a wake-up is lost: {e:?}\n", self.session);
                self.session.close_lanes();
            }
        }
    }
}
