// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.
//!
//! C header: [`include/linux/xattr.h`](srctree/include/linux/xattr.h)
//!
//! ACLs have names among them, but are not kept as such by the kernel: see [`super::acl`].

use core::ptr;
use kernel::{
    error::to_result,
    prelude::*, //
};
use qtfs_bindings as bindings;

use super::{
    acl,
    file::count,
    Path,
    WriteAccess, //
};

/// Whether setting an attribute makes or replaces it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// Either.
    Any,
    /// It must not exist.
    Create,
    /// It must exist.
    Replace,
}

/// The name with a NUL at its end.
fn c_name(name: &[u8]) -> Result<[u8; 256]> {
    let mut buf = [0u8; 256];
    if name.is_empty() || name.contains(&0) {
        return Err(EINVAL);
    }
    let space = buf.get_mut(..name.len()).ok_or(ERANGE)?;
    space.copy_from_slice(name);
    if name.len() == buf.len() {
        return Err(ERANGE);
    }
    Ok(buf)
}

/// Reads a value into `value` and returns its length; an empty `value` asks for the length only.
///
/// Fails with [`ERANGE`] when the value is longer than the buffer.
pub fn get(path: &Path, name: &[u8], value: &mut [u8]) -> Result<usize> {
    let c_name = c_name(name)?;
    if let Some(kind) = acl::Kind::of(name) {
        return acl::get(path, kind, value);
    }
    let at = if value.is_empty() {
        ptr::null_mut()
    } else {
        value.as_mut_ptr()
    };
    // SAFETY: The path is held, the name ends with a NUL, `value` has its length.
    count(unsafe {
        bindings::vfs_getxattr(
            path.idmap(),
            path.dentry(),
            c_name.as_ptr().cast(),
            at.cast(),
            value.len(),
        )
    })
}

/// Sets a value.
pub fn set(path: &Path, name: &[u8], value: &[u8], how: Set) -> Result {
    let c_name = c_name(name)?;
    let _access = WriteAccess::get(path)?;
    if let Some(kind) = acl::Kind::of(name) {
        return acl::set(path, kind, value);
    }
    let flags = match how {
        Set::Any => 0,
        Set::Create => bindings::XATTR_CREATE,
        Set::Replace => bindings::XATTR_REPLACE,
    };
    // SAFETY: The path is held, the name ends with a NUL, `value` has its length.
    to_result(unsafe {
        bindings::vfs_setxattr(
            path.idmap(),
            path.dentry(),
            c_name.as_ptr().cast(),
            value.as_ptr().cast(),
            value.len(),
            // CAST: Small constants.
            flags as c_int,
        )
    })
}

/// Removes an attribute.
pub fn remove(path: &Path, name: &[u8]) -> Result {
    let c_name = c_name(name)?;
    let _access = WriteAccess::get(path)?;
    if let Some(kind) = acl::Kind::of(name) {
        return acl::remove(path, kind);
    }
    // SAFETY: The path is held, the name ends with a NUL.
    to_result(unsafe {
        bindings::vfs_removexattr(path.idmap(), path.dentry(), c_name.as_ptr().cast())
    })
}

/// Lists the names, each ended by a NUL, and returns the length of the list; an empty `names`
/// asks for the length only.
///
/// Fails with [`ERANGE`] when the list is longer than the buffer.
pub fn list(path: &Path, names: &mut [u8]) -> Result<usize> {
    let at = if names.is_empty() {
        ptr::null_mut()
    } else {
        names.as_mut_ptr()
    };
    // SAFETY: The path is held, `names` has its length.
    count(unsafe { bindings::vfs_listxattr(path.dentry(), at.cast(), names.len()) })
}
