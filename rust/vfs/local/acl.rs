// SPDX-License-Identifier: GPL-2.0

//! POSIX ACLs, by the names and in the format that extended attributes have for them.
//!
//! C headers: [`include/linux/posix_acl.h`](srctree/include/linux/posix_acl.h),
//! [`include/linux/posix_acl_xattr.h`](srctree/include/linux/posix_acl_xattr.h)

use core::ptr::NonNull;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
};
use qtfs_bindings as bindings;

use super::Path;

/// Which of an object's two ACLs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who may access it.
    Access,
    /// What new entries of a directory get.
    Default,
}

impl Kind {
    /// The ACL that an attribute's name means.
    pub fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"system.posix_acl_access" => Some(Self::Access),
            b"system.posix_acl_default" => Some(Self::Default),
            _ => None,
        }
    }

    fn name(self) -> &'static CStr {
        match self {
            Self::Access => c"system.posix_acl_access",
            Self::Default => c"system.posix_acl_default",
        }
    }
}

/// A reference to a `struct posix_acl`.
///
/// # Invariants
///
/// The object holds a reference to the ACL.
struct Acl(NonNull<bindings::posix_acl>);

impl Drop for Acl {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::qtfs_posix_acl_release(self.0.as_ptr()) };
    }
}

/// Memory from `kmalloc` that C allocated for us.
///
/// # Invariants
///
/// The pointer is such memory and nobody else owns it.
struct Allocated(NonNull<c_void>);

impl Drop for Allocated {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::kfree(self.0.as_ptr()) };
    }
}

/// Reads an ACL; as [`super::xattr::get`].
pub(super) fn get(path: &Path, kind: Kind, value: &mut [u8]) -> Result<usize> {
    // SAFETY: The path is held, the name ends with a NUL.
    let acl = from_err_ptr(unsafe {
        bindings::vfs_get_acl(path.idmap(), path.dentry(), kind.name().as_char_ptr())
    })?;
    // INVARIANT: The reference is ours.
    let acl = Acl(NonNull::new(acl).ok_or(ENODATA)?);
    let mut len = 0;
    // SAFETY: The ACL is held; ids are sent as HOST's initial user namespace has them.
    let bytes = from_err_ptr(unsafe {
        bindings::posix_acl_to_xattr(
            &raw mut bindings::init_user_ns,
            acl.0.as_ptr(),
            &mut len,
            bindings::GFP_KERNEL,
        )
    })?;
    // INVARIANT: It was allocated for us.
    let bytes = Allocated(NonNull::new(bytes).ok_or(ENOMEM)?);
    if value.is_empty() {
        return Ok(len);
    }
    let out = value.get_mut(..len).ok_or(ERANGE)?;
    // SAFETY: C says that there are `len` bytes.
    out.copy_from_slice(unsafe { core::slice::from_raw_parts(bytes.0.as_ptr().cast(), len) });
    Ok(len)
}

/// Sets an ACL, or removes it when `value` is empty.
pub(super) fn set(path: &Path, kind: Kind, value: &[u8]) -> Result {
    let bytes = match value {
        [] => core::ptr::null(),
        value => value.as_ptr().cast(),
    };
    // SAFETY: `value` has its length; the format is checked by the call, and null is no ACL.
    let acl = from_err_ptr(unsafe {
        bindings::posix_acl_from_xattr(&raw mut bindings::init_user_ns, bytes, value.len())
    })?;
    // INVARIANT: The reference is ours.
    let acl = NonNull::new(acl).map(Acl);
    let raw = acl
        .as_ref()
        .map_or(core::ptr::null_mut(), |acl| acl.0.as_ptr());
    // SAFETY: The path is held, the name ends with a NUL, the ACL is held or null.
    to_result(unsafe {
        bindings::vfs_set_acl(path.idmap(), path.dentry(), kind.name().as_char_ptr(), raw)
    })
}

/// Removes an ACL.
pub(super) fn remove(path: &Path, kind: Kind) -> Result {
    // SAFETY: The path is held, the name ends with a NUL.
    to_result(unsafe {
        bindings::vfs_remove_acl(path.idmap(), path.dentry(), kind.name().as_char_ptr())
    })
}
