// SPDX-License-Identifier: GPL-2.0

//! Waiting for the lock of a range, without a task that waits, as lockd does it.
//!
//! C header: [`include/linux/filelock.h`](srctree/include/linux/filelock.h)

use kernel::{
    prelude::*,
    sync::Arc,
    types::Opaque, //
};
use qtfs_bindings as bindings;

use super::{
    lock::{
        check,
        described,
        Owner,
        Request, //
    },
    File, //
};

/// Who is told.
pub trait Waiter: Send + Sync {
    /// What was in the way of a lock is not any more. Called once, by a thread of the kernel.
    fn freed(&self);
}

/// What came of asking for a lock.
pub enum Asked<W: Waiter> {
    /// It was taken.
    Taken,
    /// Another's is in the way.
    Waits(Pin<KBox<LockWait<W>>>),
}

/// A lock that was asked for and could not be had. The kernel takes its owner for one that waits
/// when it looks for deadlocks.
///
/// # Invariants
///
/// The `qtfs_lock_wait` is initialised with [`tell`] for `W` and the address of `waiter`, and with
/// the address of `_owner` as its owner.
#[pin_data(PinnedDrop)]
pub struct LockWait<W: Waiter> {
    #[pin]
    raw: Opaque<bindings::qtfs_lock_wait>,
    waiter: KBox<W>,
    _owner: Arc<Owner>,
}

// SAFETY: The C side may be used and ended by any task, and so may `W`.
unsafe impl<W: Waiter> Send for LockWait<W> {}
// SAFETY: Shared references only look whether the lock is free, which is atomic.
unsafe impl<W: Waiter> Sync for LockWait<W> {}

/// Whether such a lock can be waited for in this way: one of a range, where the file system leaves
/// locks to the kernel.
pub fn can_wait(file: &File, owner: &Owner, request: &Request) -> bool {
    // SAFETY: The file is held.
    described(file, owner, request).is_ok_and(|how| unsafe { bindings::qtfs_lock_can_wait(&how) })
}

impl<W: Waiter> LockWait<W> {
    /// Takes a lock, or begins to wait for it.
    ///
    /// Fails with [`EDEADLK`] when waiting could last for ever, with [`EOPNOTSUPP`] when
    /// [`can_wait`] says no.
    pub fn ask(file: &File, owner: &Arc<Owner>, request: &Request, waiter: W) -> Result<Asked<W>> {
        check(file, request)?;
        if !can_wait(file, owner, request) {
            return Err(EOPNOTSUPP);
        }
        let how = described(file, owner, request)?;
        let waiter = KBox::new(waiter, GFP_KERNEL)?;
        let context = (&raw const *waiter).cast_mut().cast::<c_void>();
        // INVARIANT: Initialised with the one and the other.
        let wait = KBox::pin_init(
            pin_init!(Self {
                raw <- Opaque::ffi_init(|raw: *mut bindings::qtfs_lock_wait| {
                    // SAFETY: The place is ours and pinned; the file is held, and from now on by
                    // the wait too; `drop` ends the wait before waiter and owner go.
                    unsafe {
                        bindings::qtfs_lock_wait_init(raw, &how, Some(tell::<W>), context)
                    }
                }),
                waiter,
                _owner: owner.clone(),
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: Initialised and not begun; `can_wait` was asked.
        match unsafe { bindings::qtfs_lock_wait_begin(wait.raw.get()) } {
            0 => Ok(Asked::Taken),
            e if e < 0 => Err(Error::from_errno(e)),
            // `FILE_LOCK_DEFERRED`.
            _ => Ok(Asked::Waits(wait)),
        }
    }

    /// Whether what was in the way is not any more, so that it is worth asking again.
    pub fn is_free(&self) -> bool {
        // SAFETY: The wait is initialised.
        unsafe { bindings::qtfs_lock_wait_is_free(self.raw.get()) }
    }
}

#[pinned_drop]
impl<W: Waiter> PinnedDrop for LockWait<W> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The wait is initialised.
        unsafe { bindings::qtfs_lock_wait_end(self.raw.get()) };
    }
}

/// # Safety
///
/// `context` is a `W` that lives until the wait is ended.
unsafe extern "C" fn tell<W: Waiter>(context: *mut c_void) {
    // SAFETY: By this function's requirements.
    unsafe { &*context.cast::<W>() }.freed();
}
