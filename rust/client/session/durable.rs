// SPDX-License-Identifier: GPL-2.0

//! What HOST has acknowledged and would lose with its power.
//!
//! Marks are numbers that are counted up whenever HOST is booted and whenever `syncfs(2)` begins, so
//! that comparing them tells whether data that was acknowledged at one of them is on the disk.

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

/// The mark at which HOST acknowledged data of an inode first that no `fsync(2)` has put on its disk
/// since; 0 if there is none.
pub(crate) struct Unsynced(AtomicU64);

impl Unsynced {
    /// All is on the disk.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
}

/// Data of an inode that was not on the disk when an `fsync(2)` began, which says how that ended.
#[must_use]
pub(crate) struct Taken(u64);

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
    /// What of this boot `syncfs(2)` has put on the disk.
    synced: Range<u64>,
    /// The same of the boot before.
    synced_before: Range<u64>,
    /// The mark of the `syncfs(2)` that began last.
    sync: u64,
    /// Inodes with data that is not on the disk, from before `sync` and from after it.
    older: usize,
    newer: usize,
    /// HOST was booted again while there were some, which no `syncfs(2)` was told yet.
    lost: bool,
}

impl Inner {
    /// Whether `syncfs(2)` has put what was acknowledged at a mark on the disk.
    fn is_synced(&self, mark: u64) -> bool {
        self.synced.contains(&mark) || self.synced_before.contains(&mark)
    }

    /// Data of one inode less is not on the disk.
    fn forget(&mut self, mark: u64) {
        if mark >= self.sync {
            self.newer = self.newer.saturating_sub(1);
        } else if !self.is_synced(mark) {
            self.older = self.older.saturating_sub(1);
        }
    }
}

impl Durable {
    /// Before the first boot that is known.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(Inner {
                boot: 0,
                now: 1,
                synced: 1..1,
                synced_before: 0..0,
                sync: 1,
                older: 0,
                newer: 0,
                lost: false,
            }),
        })
    }

    /// HOST, in this boot, has made the session.
    pub(super) fn booted(&self, boot: u64) {
        let mut inner = self.inner.lock();
        if inner.boot == boot {
            return;
        }
        inner.lost |= inner.older > 0 || inner.newer > 0;
        inner.boot = boot;
        inner.now += 1;
        inner.synced_before = inner.synced.clone();
        inner.synced = inner.now..inner.now;
        inner.sync = inner.now;
        inner.older = 0;
        inner.newer = 0;
    }

    /// HOST has acknowledged data that may not be on its disk.
    pub(crate) fn written(&self, unsynced: &Unsynced) {
        let mut inner = self.inner.lock();
        let first = unsynced.0.load(Ordering::Relaxed);
        // What an earlier boot has lost is to be told.
        if first == 0 || inner.is_synced(first) {
            unsynced.0.store(inner.now, Ordering::Relaxed);
            inner.newer += 1;
        }
    }

    /// `fsync(2)` begins.
    pub(crate) fn take(&self, unsynced: &Unsynced) -> Taken {
        let _inner = self.inner.lock();
        Taken(unsynced.0.swap(0, Ordering::Relaxed))
    }

    /// `fsync(2)` has ended, and put on the disk what was there, or not. Returns whether data is
    /// lost, since HOST was booted before.
    pub(crate) fn ended(&self, taken: Taken, is_synced: bool, unsynced: &Unsynced) -> bool {
        let mut inner = self.inner.lock();
        let mark = taken.0;
        if mark == 0 {
            return false;
        }
        if mark < inner.synced.start && !inner.is_synced(mark) {
            return true;
        }
        let written_again = unsynced.0.load(Ordering::Relaxed) != 0;
        if is_synced || written_again {
            inner.forget(mark);
        } else {
            unsynced.0.store(mark, Ordering::Relaxed);
        }
        false
    }

    /// `syncfs(2)` begins: returns its mark.
    pub(crate) fn begin_sync(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.now += 1;
        inner.sync = inner.now;
        inner.older += inner.newer;
        inner.newer = 0;
        inner.now
    }

    /// `syncfs(2)`, begun at `mark`, has put all on the disk that was there. Returns whether other
    /// data is lost, since HOST was booted; once.
    pub(crate) fn all_synced(&self, mark: u64) -> bool {
        let mut inner = self.inner.lock();
        if inner.synced.end < mark {
            inner.synced.end = mark;
        }
        if inner.sync == mark {
            inner.older = 0;
        }
        mem::take(&mut inner.lost)
    }
}
