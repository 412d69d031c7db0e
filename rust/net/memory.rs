// SPDX-License-Identifier: GPL-2.0

//! Allocation without recursion into file systems, and how much memory there is.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use core::marker::PhantomData;

use crate::bindings;

/// While it lives, allocations of the current task do not enter file systems, as with `GFP_NOFS`.
///
/// Whoever serves writeback or holds a lock that eviction of inodes takes must have one: memory
/// reclaim would wait for what the task itself has to do.
pub struct NoFs {
    flags: u32,
    /// The state belongs to the task that made it.
    not_send: PhantomData<*const ()>,
}

impl NoFs {
    /// Begins the section.
    pub fn enter() -> Self {
        // SAFETY: Restored by `drop` on the same task, in reverse order: the type is not `Send`.
        let flags = unsafe { bindings::qtfs_memalloc_nofs_save() };
        Self {
            flags,
            not_send: PhantomData,
        }
    }
}

impl Drop for NoFs {
    fn drop(&mut self) {
        // SAFETY: The flags come from the matching save.
        unsafe { bindings::qtfs_memalloc_nofs_restore(self.flags) };
    }
}

/// How many pages of memory this machine has.
pub fn total_pages() -> u64 {
    // SAFETY: Reads a counter.
    unsafe { bindings::qtfs_totalram_pages() as u64 }
}
