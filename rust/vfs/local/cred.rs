// SPDX-License-Identifier: GPL-2.0

//! Acting as somebody.
//!
//! C header: [`include/linux/cred.h`](srctree/include/linux/cred.h)

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::prelude::*;
use qtfs_bindings as bindings;

/// `CAP_FSETID` as a bit: writing leaves set-id bits of files alone.
pub const FSETID: u64 = 1 << bindings::CAP_FSETID;

/// A `struct cred`.
///
/// # Invariants
///
/// The pointer is a credential to which this object holds a reference.
pub struct Cred(NonNull<bindings::cred>);

// SAFETY: Credentials are counted and do not change.
unsafe impl Send for Cred {}
// SAFETY: As above.
unsafe impl Sync for Cred {}

/// A credential in the making: the current task's own, nobody else has seen it.
///
/// # Invariants
///
/// The pointer comes from `prepare_creds` and was not committed.
struct New(NonNull<bindings::cred>);

impl Drop for New {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::abort_creds(self.0.as_ptr()) };
    }
}

/// Supplementary groups in the making.
///
/// # Invariants
///
/// The object holds a reference.
struct Groups(NonNull<bindings::group_info>);

impl Drop for Groups {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::qtfs_put_group_info(self.0.as_ptr()) };
    }
}

impl Cred {
    /// The credential that the current task acts with.
    pub fn current() -> Result<Self> {
        // SAFETY: The current task's credential is alive; the reference is ours.
        let cred = unsafe { bindings::qtfs_get_cred(bindings::qtfs_current_cred()) };
        // INVARIANT: The reference was just taken.
        Ok(Self(NonNull::new(cred.cast_mut()).ok_or(EINVAL)?))
    }

    /// The current task's credential, but for another user: its ids, groups, and the capabilities
    /// of `caps` that the task has itself.
    ///
    /// The label of security modules stays the task's.
    pub fn for_user(uid: u32, gid: u32, groups: &[u32], caps: u64) -> Result<Self> {
        // SAFETY: Copies the current task's credential.
        let new = NonNull::new(unsafe { bindings::prepare_creds() }).ok_or(ENOMEM)?;
        // INVARIANT: As the type says.
        let new = New(new);
        let len = c_int::try_from(groups.len())?;
        // SAFETY: Allocation has no requirements; the result is ours.
        let info = NonNull::new(unsafe { bindings::groups_alloc(len) }).ok_or(ENOMEM)?;
        // INVARIANT: The reference is ours.
        let info = Groups(info);
        for (i, &gid) in (0..len).zip(groups) {
            // SAFETY: There are `len` groups.
            unsafe { bindings::qtfs_group_info_set(info.0.as_ptr(), i, gid) };
        }
        // SAFETY: Both are ours; `set_groups` takes a reference of its own.
        unsafe {
            bindings::groups_sort(info.0.as_ptr());
            bindings::set_groups(new.0.as_ptr(), info.0.as_ptr());
            bindings::qtfs_cred_set_user(new.0.as_ptr(), uid, gid);
            bindings::qtfs_cred_limit_caps(new.0.as_ptr(), caps);
        }
        let cred = new.0;
        core::mem::forget(new);
        // INVARIANT: The reference of `prepare_creds` is ours.
        Ok(Self(cred))
    }

    /// Acts with this credential until the guard is dropped.
    pub fn enter(&self) -> Acting<'_> {
        // SAFETY: The credential is held longer than the guard lives, and the guard cannot leave
        // the task.
        let before = unsafe { bindings::qtfs_override_creds(self.0.as_ptr()) };
        Acting {
            before,
            cred: PhantomData,
        }
    }
}

impl Drop for Cred {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::qtfs_put_cred(self.0.as_ptr()) };
    }
}

/// While it lives the current task acts with a [`Cred`]. Guards end in reverse order.
#[must_use = "the credential is put off again when the guard is dropped"]
pub struct Acting<'a> {
    before: *const bindings::cred,
    cred: PhantomData<&'a Cred>,
}

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        // SAFETY: What the task acted with before is still held by whoever put it on.
        unsafe { bindings::qtfs_revert_creds(self.before) };
    }
}
