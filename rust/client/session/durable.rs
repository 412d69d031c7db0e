// SPDX-License-Identifier: GPL-2.0

//! What HOST has acknowledged and would lose with its power.
//!
//! Marks are numbers that are counted up whenever HOST is booted and whenever `fsync(2)` or
//! `syncfs(2)` begins, so that comparing them tells whether data that was acknowledged at one of them
//! is on the disk.

use core::{
    mem,
    ops::Range,
    sync::atomic::{
        AtomicU64,
        Ordering, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};
use qtfs_net::NoFs;

/// Losses that are told apart; what was written between two of them counts as lost beyond that.
const MAX_LOSSES: usize = 64;

/// The mark at which HOST acknowledged data of an inode last that no `fsync(2)` has put on its disk,
/// or one at which data was lost; 0 if there is none. It changes under the lock of [`Durable`].
pub(crate) struct Unsynced(AtomicU64);

impl Unsynced {
    /// All is on the disk.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, mark: u64) {
        self.0.store(mark, Ordering::Relaxed);
    }
}

/// The mark of an inode when an `fsync(2)` began, which tells how that ended.
#[must_use]
pub(crate) struct Begun(u64);

/// See the module.
#[pin_data]
pub(crate) struct Durable {
    #[pin]
    inner: Mutex<Inner>,
}

/// The fields of [`Durable`] protected by the lock.
struct Inner {
    /// Which boot of HOST the session is with; 0 before the first.
    boot: u64,
    now: u64,
    /// What was acknowledged before this mark is on the disk, or lost.
    settled: u64,
    /// What was acknowledged at these marks is lost.
    losses: KVVec<Range<u64>>,
    /// The mark of the `syncfs(2)` that began last.
    sync: u64,
    /// Inodes with data that is not on the disk, with marks before `sync` and from there on.
    older: usize,
    newer: usize,
    /// HOST was booted again while there were some, which no `syncfs(2)` was told yet.
    lost: bool,
}

impl Inner {
    fn is_lost(&self, mark: u64) -> bool {
        self.losses.iter().any(|loss| loss.contains(&mark))
    }

    /// Data of one inode less is not on the disk.
    fn forget(&mut self, mark: u64) {
        if mark >= self.sync {
            self.newer = self.newer.saturating_sub(1);
        } else if mark >= self.settled {
            self.older = self.older.saturating_sub(1);
        }
    }

    /// What is not on the disk is lost.
    fn lose(&mut self) {
        let loss = self.settled..self.now + 1;
        // Without memory too, rather too much is told as lost than too little.
        let is_full = self.losses.len() >= MAX_LOSSES;
        let kept = is_full || self.losses.push(loss.clone(), GFP_KERNEL).is_err();
        match self.losses.last_mut() {
            Some(last) if kept => last.end = loss.end,
            _ => {}
        }
        self.lost = true;
    }
}

impl Durable {
    /// Before the first boot that is known.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(Inner {
                boot: 0,
                now: 1,
                settled: 1,
                losses: KVVec::new(),
                sync: 1,
                older: 0,
                newer: 0,
                lost: false,
            }),
        })
    }

    /// HOST, in this boot, has made the session.
    pub(super) fn booted(&self, boot: u64) {
        let _nofs = NoFs::enter();
        let mut inner = self.inner.lock();
        if inner.boot == boot {
            return;
        }
        if inner.older > 0 || inner.newer > 0 {
            inner.lose();
        }
        inner.boot = boot;
        inner.now += 1;
        inner.settled = inner.now;
        inner.sync = inner.now;
        inner.older = 0;
        inner.newer = 0;
    }

    /// HOST has acknowledged data that may not be on its disk.
    pub(crate) fn written(&self, unsynced: &Unsynced) {
        let _nofs = NoFs::enter();
        let mut inner = self.inner.lock();
        let before = unsynced.get();
        // What is lost is to be told.
        if before == inner.now || inner.is_lost(before) {
            return;
        }
        if before != 0 {
            inner.forget(before);
        }
        unsynced.set(inner.now);
        inner.newer += 1;
    }

    /// `fsync(2)` begins.
    pub(crate) fn begin_fsync(&self, unsynced: &Unsynced) -> Begun {
        let _nofs = NoFs::enter();
        let mut inner = self.inner.lock();
        inner.now += 1;
        Begun(unsynced.get())
    }

    /// `fsync(2)` has ended, and put on the disk what was there, or not. Returns whether data is
    /// lost, since HOST was booted before.
    pub(crate) fn end_fsync(&self, begun: Begun, is_synced: bool, unsynced: &Unsynced) -> bool {
        let _nofs = NoFs::enter();
        let mut inner = self.inner.lock();
        let mark = begun.0;
        let is_lost = inner.is_lost(mark);
        // What was written meanwhile has a mark of its own.
        if mark != 0 && unsynced.get() == mark && (is_lost || is_synced) {
            unsynced.set(0);
            if !is_lost {
                inner.forget(mark);
            }
        }
        is_lost
    }

    /// `syncfs(2)` begins: returns its mark.
    pub(crate) fn begin_syncfs(&self) -> u64 {
        let _nofs = NoFs::enter();
        let mut inner = self.inner.lock();
        inner.now += 1;
        inner.sync = inner.now;
        inner.older += mem::take(&mut inner.newer);
        inner.now
    }

    /// `syncfs(2)`, begun at `mark`, has put all on the disk that was there. Returns whether other
    /// data is lost, since HOST was booted; once.
    pub(crate) fn end_syncfs(&self, mark: u64) -> bool {
        let _nofs = NoFs::enter();
        let mut inner = self.inner.lock();
        inner.settled = inner.settled.max(mark);
        if inner.sync == mark {
            inner.older = 0;
        }
        mem::take(&mut inner.lost)
    }
}
