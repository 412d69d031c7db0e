// SPDX-License-Identifier: GPL-2.0

//! Owners of locks.
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
    _charge: Charge,
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
            _charge: self.budget.charge(BYTES)?,
        };
        inner
            .by_number
            .try_create_and_insert(number, entry, GFP_KERNEL)?;
        inner.count += 1;
        Ok(owner)
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
