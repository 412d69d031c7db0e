// SPDX-License-Identifier: GPL-2.0

//! Answers that came with another one a moment ago, and save a question.

use core::sync::atomic::Ordering;
use kernel::sync::Arc;
use qtfs_proto::AttrFlags;
use qtfs_vfs::task::{
    self,
    Moment, //
};

use super::{
    Node,
    Question,
    Snapshot, //
};
use crate::dir::Listing;

impl Node {
    /// The current task's system call has just looked the name up.
    pub(crate) fn set_fresh(&self) {
        self.inner.lock().found = Some(Moment::now());
        self.fresh.store(task::current_id(), Ordering::Release);
    }

    /// The attributes were new at this moment of the current task's.
    pub(crate) fn set_fresh_at(&self, moment: Moment) {
        self.inner.lock().opened = Some(moment);
    }

    /// Nothing is known to be new.
    pub(crate) fn forget_fresh(&self) {
        self.fresh.store(0, Ordering::Relaxed);
    }

    /// Whether the attributes are new as far as the current system call can tell. Once only.
    pub(crate) fn take_fresh(&self) -> bool {
        let (task, ok, fail) = (task::current_id(), Ordering::Acquire, Ordering::Relaxed);
        let is_marked = self.fresh.compare_exchange(task, 0, ok, fail).is_ok();
        let mut inner = self.inner.lock();
        // The system call that looked the name up may have failed since, and this be another one.
        if is_marked && inner.found.is_some_and(|moment| moment.lasts()) {
            return true;
        }
        if inner.opened.is_some_and(|moment| moment.lasts()) {
            return true;
        }
        match &mut inner.snapshot {
            Some(snapshot) if snapshot.listing.is_current() => {
                snapshot.listing.note_use();
                core::mem::take(&mut snapshot.fresh)
            }
            _ => false,
        }
    }

    /// Whether a listing that the current process has open said that there are no extended
    /// attributes, and was not asked that before.
    pub(crate) fn listed_without_xattrs(&self, question: Question) -> bool {
        let mut inner = self.inner.lock();
        if !inner.extra.flags.has(AttrFlags::NO_XATTR) {
            return false;
        }
        match &mut inner.snapshot {
            Some(snapshot) if snapshot.listing.is_current() => {
                let bit = question as u32;
                let is_first = snapshot.answered & bit == 0;
                snapshot.answered |= bit;
                is_first
            }
            _ => false,
        }
    }

    /// The attributes have come with a listing.
    pub(crate) fn listed(&self, listing: &Arc<Listing>) {
        let snapshot = Snapshot {
            listing: listing.clone(),
            fresh: true,
            answered: 0,
        };
        let old = self.inner.lock().snapshot.replace(snapshot);
        drop(old);
    }

    /// What a listing or the opening said does not hold any more.
    pub(crate) fn not_listed(&self) {
        let old = {
            let mut inner = self.inner.lock();
            inner.opened = None;
            inner.snapshot.take()
        };
        drop(old);
    }
}
