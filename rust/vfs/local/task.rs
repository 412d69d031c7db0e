// SPDX-License-Identifier: GPL-2.0

//! What a thread that serves requests needs to know of itself.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::prelude::*;
use qtfs_bindings as bindings;

/// A thread whose waits can be ended from outside.
///
/// # Invariants
///
/// The object holds a reference to the task.
pub struct Thread(NonNull<bindings::task_struct>);

// SAFETY: Tasks are counted and may be woken from anywhere.
unsafe impl Send for Thread {}
// SAFETY: As above.
unsafe impl Sync for Thread {}

impl Thread {
    /// The current one.
    pub fn current() -> Result<Self> {
        // SAFETY: The current task is alive; the reference is ours.
        let task = unsafe { bindings::qtfs_get_task_struct(bindings::qtfs_current()) };
        // INVARIANT: The reference was just taken.
        Ok(Self(NonNull::new(task).ok_or(EINVAL)?))
    }

    /// Whether it is the current one.
    pub fn is_current(&self) -> bool {
        // SAFETY: Only the address is looked at.
        core::ptr::eq(self.0.as_ptr(), unsafe { bindings::qtfs_current() })
    }

    /// Ends the thread's interruptible waits as a signal would, until it calls [`uncancel`].
    pub fn cancel(&self) {
        // SAFETY: The task is held.
        unsafe { bindings::qtfs_task_cancel(self.0.as_ptr()) };
    }
}

impl Clone for Thread {
    fn clone(&self) -> Self {
        // SAFETY: The task is held.
        unsafe { bindings::qtfs_get_task_struct(self.0.as_ptr()) };
        // INVARIANT: The reference was just taken.
        Self(self.0)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::qtfs_put_task_struct(self.0.as_ptr()) };
    }
}

/// Lets the current thread wait again after [`Thread::cancel`].
pub fn uncancel() {
    // SAFETY: Looks at the current task only.
    unsafe { bindings::qtfs_task_cancel_done() };
}

/// Whether the current thread has a signal to handle.
pub fn has_signal() -> bool {
    // SAFETY: Looks at the current task only.
    unsafe { bindings::qtfs_task_sigpending() }
}

/// Whether something was left for the current thread to do on its way to user space, such as the
/// last step of an unmount.
pub fn has_work() -> bool {
    // SAFETY: Looks at the current task only.
    unsafe { bindings::qtfs_task_has_work() }
}

/// While it lives, what the current thread does is not collected for the audit of its system call,
/// which would grow without end.
pub struct Unaudited {
    context: *mut c_void,
    /// The state belongs to the thread.
    not_send: PhantomData<*const ()>,
}

impl Unaudited {
    /// Begins the section.
    pub fn enter() -> Self {
        // SAFETY: Put back by `drop` on the same thread, before its system call ends.
        let context = unsafe { bindings::qtfs_audit_suspend() };
        Self {
            context,
            not_send: PhantomData,
        }
    }
}

impl Drop for Unaudited {
    fn drop(&mut self) {
        // SAFETY: The context comes from the matching call.
        unsafe { bindings::qtfs_audit_resume(self.context) };
    }
}
