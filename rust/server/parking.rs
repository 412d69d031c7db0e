// SPDX-License-Identifier: GPL-2.0

//! What a request waits for that holds no thread meanwhile.
//!
//! It is parked in the [`crate::queue`], and executed from its beginning again once what it waits
//! for may have happened.

use kernel::{
    list::ListArc,
    prelude::*,
    sync::Arc, //
};
use qtfs_vfs::local::lock_wait::{
    self,
    Waiter, //
};

use crate::{
    file::OpenFile,
    job::Job,
    queue::{
        ParkKey,
        Queue, //
    },
};

/// See the module.
pub(crate) enum Parking {
    /// Something to read.
    Readable(Arc<OpenFile>),
    /// A lock; the request has the [`LockWait`].
    Lock(ParkKey),
}

impl Parking {
    /// What the request is parked for.
    fn key(&self) -> ParkKey {
        match self {
            Self::Readable(open) => open.park_key(),
            Self::Lock(key) => *key,
        }
    }

    /// Parks a request that was begun. Gives it back as [`crate::session::Session::park`] does.
    pub(crate) fn park(
        &self,
        job: ListArc<Job>,
    ) -> core::result::Result<(), (ListArc<Job>, Error)> {
        let (session, parked) = (job.session.clone(), job.clone_arc());
        session.park(job, self.key())?;
        self.look(&session.queue, &parked);
        Ok(())
    }

    /// Looks for what has happened before `job` was parked, when nobody could be told.
    fn look(&self, queue: &Queue, job: &Job) {
        let has_happened = match self {
            // An error is said when the request is executed.
            Self::Readable(open) => open.is_released() || open.is_ready_to_read().unwrap_or(true),
            Self::Lock(_) => {
                let awaited = job.awaited.lock();
                awaited.as_ref().is_none_or(|wait| wait.is_free())
            }
        };
        if has_happened {
            queue.unpark(self.key());
        }
    }
}

/// Lets the request go on that waits for a lock.
pub(crate) struct Unlocked {
    queue: Arc<Queue>,
    key: ParkKey,
}

impl Unlocked {
    /// For the request that will be parked for `key`.
    pub(crate) fn new(queue: &Arc<Queue>, key: ParkKey) -> Self {
        Self {
            queue: queue.clone(),
            key,
        }
    }
}

impl Waiter for Unlocked {
    fn freed(&self) {
        self.queue.unpark(self.key);
    }
}

/// A lock that a request has asked for and not got.
pub(crate) type LockWait = Pin<KBox<lock_wait::LockWait<Unlocked>>>;
