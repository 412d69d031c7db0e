// SPDX-License-Identifier: GPL-2.0

//! Waiting for something that happens once.
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h)

use kernel::{
    prelude::*,
    types::Opaque, //
};

use crate::bindings;

/// A `struct completion`: one side waits, the other says that it is done.
///
/// The kernel crate's type of the same name cannot wait killably.
#[pin_data]
pub struct Completion {
    #[pin]
    inner: Opaque<bindings::completion>,
}

// SAFETY: A completion is made to be used by several tasks.
unsafe impl Send for Completion {}
// SAFETY: As above.
unsafe impl Sync for Completion {}

impl Completion {
    /// Not done yet.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The place is valid for the initialization.
            inner <- Opaque::ffi_init(|place| unsafe { bindings::qtfs_init_completion(place) }),
        })
    }

    /// Says that it is done, now and for ever.
    pub fn complete(&self) {
        // SAFETY: Initialized by `new`.
        unsafe { bindings::complete_all(self.inner.get()) };
    }

    /// Waits; fails with [`EINTR`] when the task is being killed.
    pub fn wait_killable(&self) -> Result {
        // SAFETY: Initialized by `new`.
        match unsafe { bindings::wait_for_completion_killable(self.inner.get()) } {
            0 => Ok(()),
            _ => Err(EINTR),
        }
    }

    /// Waits at most `ms`; fails with [`ETIMEDOUT`] when it took longer, [`EINTR`] when the task
    /// is being killed.
    pub fn wait_killable_timeout(&self, ms: u32) -> Result {
        // SAFETY: Initialized by `new`; the conversion is pure.
        match unsafe {
            let jiffies = bindings::__msecs_to_jiffies(ms);
            bindings::wait_for_completion_killable_timeout(self.inner.get(), jiffies)
        } {
            0 => Err(ETIMEDOUT),
            n if n < 0 => Err(EINTR),
            _ => Ok(()),
        }
    }

    /// Waits; fails with [`EINTR`] when a signal came.
    pub fn wait_interruptible(&self) -> Result {
        // SAFETY: Initialized by `new`.
        match unsafe { bindings::wait_for_completion_interruptible(self.inner.get()) } {
            0 => Ok(()),
            _ => Err(EINTR),
        }
    }

    /// Waits, whatever signals come.
    pub fn wait(&self) {
        // SAFETY: Initialized by `new`.
        unsafe { bindings::wait_for_completion(self.inner.get()) };
    }
}
