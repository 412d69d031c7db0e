// SPDX-License-Identifier: GPL-2.0

//! Owners of locks.
//!
//! Each lock of a range is counted, as long as the owner is kept.
//!
//! The client numbers its owners; for the kernel each is the address of an object, and that is
//! unique among the owners of all sessions and of HOST's processes. An owner is kept while an open
//! file may have locks of it.

use kernel::{
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        Arc,
        Mutex, //
    },
};
use qtfs_proto::NodeId;
use qtfs_vfs::local::lock::Owner;

use crate::{
    budget::{
        Budget,
        Charge, //
    },
    refusal::Result, //
};

/// Most owners of one session.
const MAX_OWNERS: usize = 65536;
/// What one takes, with a lock.
const BYTES: usize = 512;
/// What a lock takes.
const RANGE_BYTES: usize = 256;
/// Most locks of one owner on one object: the kernel goes through all of them for each.
const MAX_RANGES: usize = 1 << 16;
/// Locks of one owner on one object that a client may have that uses too much.
const FEW_RANGES: usize = 64;

/// The owners of a session.
#[pin_data]
pub(crate) struct Owners {
    budget: Arc<Budget>,
    #[pin]
    inner: Mutex<Inner>,
}

/// The fields of [`Owners`] protected by the lock.
struct Inner {
    by_number: RBTree<u64, Entry>,
    count: usize,
}

struct Entry {
    owner: Arc<Owner>,
    /// Open files that may have locks of it.
    users: u32,
    /// Its locks on objects, by their nodes.
    ranges: RBTree<u64, Ranges>,
    _charge: Charge,
}

struct Ranges {
    count: usize,
    charge: Charge,
}

impl Owners {
    /// No owners.
    pub(crate) fn new(budget: &Arc<Budget>) -> impl PinInit<Self> + use<> {
        let budget = budget.clone();
        pin_init!(Self {
            budget,
            inner <- new_mutex!(Inner {
                by_number: RBTree::new(),
                count: 0,
            }),
        })
    }

    /// The owner with a number, for one more open file.
    pub(crate) fn take(&self, number: u64) -> Result<Arc<Owner>> {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.by_number.get_mut(&number) {
            entry.users = entry.users.checked_add(1).ok_or(ENOLCK)?;
            return Ok(entry.owner.clone());
        }
        if inner.count >= MAX_OWNERS {
            return Err(ENOLCK.into());
        }
        let owner = Owner::new()?;
        let entry = Entry {
            owner: owner.clone(),
            users: 1,
            ranges: RBTree::new(),
            _charge: self.budget.charge(BYTES)?,
        };
        inner
            .by_number
            .try_create_and_insert(number, entry, GFP_KERNEL)?;
        inner.count += 1;
        Ok(owner)
    }

    /// An owner may have one lock more on an object in a moment, because it takes one or because it
    /// releases the middle of one.
    ///
    /// Fails with [`ENOLCK`] when there are too many.
    pub(crate) fn more_ranges(&self, number: u64, node: NodeId, takes: bool) -> Result {
        let mut inner = self.inner.lock();
        let entry = inner.by_number.get_mut(&number).ok_or(ENOLCK)?;
        let Some(ranges) = entry.ranges.get(&node.0) else {
            if !takes {
                return Ok(());
            }
            let none = Ranges {
                count: 0,
                charge: self.budget.nothing(),
            };
            entry
                .ranges
                .try_create_and_insert(node.0, none, GFP_KERNEL)?;
            return Ok(());
        };
        if ranges.count >= MAX_RANGES || ranges.count > FEW_RANGES && self.budget.is_full() {
            return Err(ENOLCK.into());
        }
        Ok(())
    }

    /// An owner has so many locks on an object now.
    pub(crate) fn set_ranges(&self, number: u64, node: NodeId, count: usize) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.by_number.get_mut(&number) else {
            return;
        };
        if count == 0 {
            drop(entry.ranges.remove(&node.0));
        } else if let Some(ranges) = entry.ranges.get_mut(&node.0) {
            ranges.count = count;
            ranges.charge.resize(count * RANGE_BYTES);
        }
    }

    /// Gives back what [`Owners::take`] returned; no locks of it are left on the file.
    pub(crate) fn put(&self, number: u64) {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.by_number.get_mut(&number) {
            entry.users = entry.users.saturating_sub(1);
            if entry.users == 0 {
                inner.by_number.remove(&number);
                inner.count = inner.count.saturating_sub(1);
            }
        }
    }
}
