// SPDX-License-Identifier: GPL-2.0

//! Telling a client that an open file, which it waits for, is ready.

use kernel::sync::Arc;
use qtfs_proto::{
    event::{
        Event,
        Wake, //
    },
    PollEvents, //
};
use qtfs_vfs::local::watch::Watcher;

use crate::{
    reply,
    session::Session, //
};

/// Tells one client of one file.
pub(crate) struct Poller {
    session: Arc<Session>,
    /// What the client calls the file.
    watch: u64,
}

impl Poller {
    /// Tells the client of `session`.
    pub(crate) fn new(session: &Arc<Session>, watch: u64) -> Self {
        Self {
            session: session.clone(),
            watch,
        }
    }
}

impl Watcher for Poller {
    fn ready(&self, events: PollEvents) {
        let wake = Wake {
            watch: self.watch,
            events,
        };
        match reply::event(Event::WAKE, &wake) {
            // Without a connection it is lost; the client asks again when it is back.
            Ok(frame) => self.session.send(frame, None),
            Err(e) => {
                log_error!("{}: a wake-up is lost: {e:?}\n", self.session);
                self.session.close_lanes();
            }
        }
    }
}
