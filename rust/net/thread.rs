// SPDX-License-Identifier: GPL-2.0

//! Kernel threads.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    prelude::*,
    str::CString, //
};

use crate::bindings;

/// A running kernel thread; dropping it waits until its function has returned.
///
/// Whoever drops it has made sure before that the function will return, for example by shutting
/// down the socket that it reads from.
pub struct Thread(NonNull<bindings::task_struct>);

// SAFETY: A task may be waited for from any thread.
unsafe impl Send for Thread {}
// SAFETY: As above; there is nothing to do with a shared reference.
unsafe impl Sync for Thread {}

impl Thread {
    /// Starts a thread that calls `f` once.
    pub fn spawn<F>(name: core::fmt::Arguments<'_>, f: F) -> Result<Self>
    where
        F: FnOnce() + Send + 'static,
    {
        let name = CString::try_from_fmt(name)?;
        let f = KBox::into_raw(KBox::new(f, GFP_KERNEL)?);
        // SAFETY: `run::<F>` takes over `f`, which is a box of that type.
        let task = from_err_ptr(unsafe {
            bindings::qtfs_kthread_run(Some(run::<F>), f.cast(), name.as_char_ptr())
        })
        .inspect_err(|_| {
            // SAFETY: No thread was started, so the box is still ours.
            drop(unsafe { KBox::from_raw(f) });
        })?;
        // SAFETY: The new task is alive: it cannot end before `kthread_stop` was called.
        let task = unsafe { bindings::qtfs_get_task_struct(task) };
        Ok(Self(NonNull::new(task).ok_or(ENOMEM)?))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: The reference taken in `spawn` keeps the task valid; the thread does not exit
        // on its own, see `run`.
        unsafe {
            bindings::kthread_stop(self.0.as_ptr());
            bindings::qtfs_put_task_struct(self.0.as_ptr());
        }
    }
}

/// Calls the closure, then waits to be stopped, so that [`Thread`] always has a live task.
///
/// # Safety
///
/// `data` comes from [`KBox::into_raw`] of a box of `F` that nobody else owns.
unsafe extern "C" fn run<F: FnOnce() + Send>(data: *mut c_void) -> c_int {
    // SAFETY: By this function's requirements.
    let f = unsafe { KBox::from_raw(data.cast::<F>()) };
    KBox::into_inner(f)();
    // SAFETY: Called from the thread itself.
    unsafe { bindings::qtfs_kthread_wait_stop() };
    0
}
