// SPDX-License-Identifier: GPL-2.0

//! Waiting for open files of ours, as `poll(2)`, `select(2)` and `epoll(7)` do.
//!
//! C header: [`include/linux/poll.h`](srctree/include/linux/poll.h)

use core::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use kernel::{
    error::to_result,
    prelude::*,
    types::Opaque, //
};
use qtfs_proto::PollEvents;

use crate::{
    bindings,
    file::File,
    fs::FileSystem, //
};

/// Whoever waits for an open file to be ready. Part of what the open file keeps, which lives as
/// long as anybody can wait.
#[pin_data]
pub struct PollQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head_t>,
    /// Changes each time that somebody may have to look again.
    generation: AtomicU32,
}

// SAFETY: A wait queue has a lock of its own.
unsafe impl Send for PollQueue {}
// SAFETY: As above.
unsafe impl Sync for PollQueue {}

impl PollQueue {
    /// Nobody waits.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            head <- Opaque::ffi_init(|head: *mut bindings::wait_queue_head_t| {
                // SAFETY: The place is ours, and pinned.
                unsafe { bindings::qtfs_poll_init(head) }
            }),
            generation: AtomicU32::new(0),
        })
    }

    /// For [`PollQueue::sleep`].
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Waits until somebody was woken since [`PollQueue::generation`] said `seen`.
    ///
    /// Fails with [`ERESTARTSYS`] when a signal comes.
    pub fn sleep(&self, seen: u32) -> Result {
        let generation = self.generation.as_ptr();
        // SAFETY: The queue is initialised and pinned; the number is only read.
        to_result(unsafe { bindings::qtfs_poll_sleep(self.head.get(), generation, seen) })
    }

    /// As [`PollQueue::sleep`]; in the first `ms` milliseconds only the caller's death is a signal.
    pub fn sleep_firmly(&self, seen: u32, ms: u32) -> Result {
        let generation = self.generation.as_ptr();
        // SAFETY: As above.
        to_result(unsafe {
            bindings::qtfs_poll_sleep_firmly(self.head.get(), generation, seen, ms)
        })
    }

    /// Has whoever polls `file` wait here.
    ///
    /// # Safety
    ///
    /// `file` is being polled with `table`, which may be null; the queue lives as long as anybody can
    /// wait for the file.
    pub(crate) unsafe fn wait(
        &self,
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) {
        // SAFETY: By this function's requirements.
        unsafe { bindings::qtfs_poll_wait(file, self.head.get(), table) };
    }

    /// Wakes who waits for any of `events`, or whoever waits when there are none. They look again.
    pub fn wake(&self, events: PollEvents) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        // SAFETY: The queue is initialised and pinned.
        unsafe { bindings::qtfs_poll_wake(self.head.get(), events.bits()) };
    }
}

/// `poll` of [`bindings::file_operations`].
///
/// # Safety
///
/// Called by the VFS with an open file of `F`, and null or a table that is valid during the call.
pub(crate) unsafe extern "C" fn poll<F: FileSystem>(
    file: *mut bindings::file,
    table: *mut bindings::poll_table_struct,
) -> bindings::__poll_t {
    // SAFETY: As the VFS says.
    let this = unsafe { File::<F>::from_raw(file) };
    let result = this.open().and_then(|open| {
        let queue = F::poll_queue(open).ok_or(EIO)?.head.get();
        // SAFETY: As the VFS says. The queue is part of what the file keeps until `release`, when
        // nobody waits for it any more.
        let wake = unsafe {
            bindings::qtfs_poll_wait(file, queue, table);
            if bindings::qtfs_poll_has_waiters(queue) {
                bindings::qtfs_poll_requested(table)
            } else {
                0
            }
        };
        F::poll(this, known(wake))
    });
    result.unwrap_or(PollEvents::ERR).bits()
}

/// Those of the kernel's bits that are events; epoll keeps flags of its own among them.
pub(crate) fn known(bits: u32) -> PollEvents {
    PollEvents::from_bits(bits & PollEvents::ALL.bits()).unwrap_or(PollEvents::NONE)
}

/// Lets programs wait for `file` if it is a regular one that has where to wait. `epoll(7)` refuses
/// others, and `poll(2)` takes them for ready.
///
/// # Safety
///
/// `file` is an open file of `F` of which nobody else knows yet.
pub(crate) unsafe fn allow<F: FileSystem>(file: *mut bindings::file) {
    // SAFETY: By this function's requirements.
    let this = unsafe { File::<F>::from_raw(file) };
    // Directories have other functions.
    if !this.inode().is_regular() {
        return;
    }
    if this.open().is_ok_and(|open| F::poll_queue(open).is_some()) {
        // SAFETY: By this function's requirements. The functions are of the same module as those
        // that the file had, and of regular files too.
        unsafe { (*file).f_op = crate::file::pollable::<F>() };
    }
}
