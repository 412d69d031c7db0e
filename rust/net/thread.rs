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

/// A running kernel thread; dropping it waits until its function has returned. A thread that is
/// dropped before it has begun does not call its function.
///
/// Whoever drops it has made sure before that the function will return, for example by shutting
/// down the socket that it reads from.
pub struct Thread {
    task: NonNull<bindings::task_struct>,
    /// What [`run`] takes over, unless the thread is stopped before it begins.
    closure: *mut c_void,
    drop_closure: unsafe fn(*mut c_void),
}

// SAFETY: A task may be waited for from any thread; the closure is `Send`.
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
        // SAFETY: `run::<F>` takes over `f`, which is a box of that type, if it is called at all.
        let task = from_err_ptr(unsafe {
            bindings::qtfs_kthread_run(Some(run::<F>), f.cast(), name.as_char_ptr())
        })
        .inspect_err(|_| {
            // SAFETY: No thread was started, so the box is still ours.
            drop(unsafe { KBox::from_raw(f) });
        })?;
        // SAFETY: The new task is alive: it cannot end before `kthread_stop` was called.
        let task = unsafe { bindings::qtfs_get_task_struct(task) };
        Ok(Self {
            task: NonNull::new(task).ok_or(ENOMEM)?,
            closure: f.cast(),
            drop_closure: drop_closure::<F>,
        })
    }
}

impl Thread {
    /// Ends all waits of the thread that can be killed, now and from now on. Its function must be
    /// about to return then.
    pub fn kill(&self) {
        // SAFETY: The reference taken in `spawn` keeps the task valid, and it does not exit on its
        // own. Before `run` allows it, the signal does nothing.
        unsafe { bindings::qtfs_kthread_kill(self.task.as_ptr()) };
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: The reference taken in `spawn` keeps the task valid; the thread does not exit
        // on its own, see `run`.
        let result = unsafe { bindings::kthread_stop(self.task.as_ptr()) };
        if result == EINTR.to_errno() {
            // SAFETY: `run`, which returns 0, was not called and never will be, so the closure is
            // still ours.
            unsafe { (self.drop_closure)(self.closure) };
        }
        // SAFETY: The reference is ours.
        unsafe { bindings::qtfs_put_task_struct(self.task.as_ptr()) };
    }
}

/// # Safety
///
/// `data` comes from [`KBox::into_raw`] of a box of `F` that nobody else owns.
unsafe fn drop_closure<F>(data: *mut c_void) {
    // SAFETY: By this function's requirements.
    drop(unsafe { KBox::from_raw(data.cast::<F>()) });
}

/// Calls the closure, then waits to be stopped, so that [`Thread`] always has a live task.
///
/// # Safety
///
/// `data` comes from [`KBox::into_raw`] of a box of `F` that nobody else owns.
unsafe extern "C" fn run<F: FnOnce() + Send>(data: *mut c_void) -> c_int {
    // SAFETY: By this function's requirements.
    let f = unsafe { KBox::from_raw(data.cast::<F>()) };
    // SAFETY: Called from the thread itself.
    unsafe { bindings::qtfs_kthread_allow_kill() };
    KBox::into_inner(f)();
    // SAFETY: Called from the thread itself.
    unsafe { bindings::qtfs_kthread_wait_stop() };
    0
}
