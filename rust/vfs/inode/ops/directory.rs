// SPDX-License-Identifier: GPL-2.0

//! Changes of directories: entries that are made, removed and renamed.

use kernel::{
    error::from_result,
    prelude::*,
    str::CStr, //
};

use super::{
    instantiate,
    name, //
};
use crate::{
    bindings,
    dentry::Dentry,
    fs::FileSystem,
    inode::Inode, //
};

/// # Safety
///
/// Called by the VFS with a locked directory and a negative entry of `F`.
pub(super) unsafe extern "C" fn create<F: FileSystem>(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: bindings::umode_t,
) -> c_int {
    // SAFETY: As the VFS says.
    unsafe { mknod::<F>(idmap, dir, dentry, mode | bindings::S_IFREG as u16, 0) }
}

/// # Safety
///
/// Called by the VFS with a locked directory and a negative entry of `F`.
pub(super) unsafe extern "C" fn mknod<F: FileSystem>(
    _idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: bindings::umode_t,
    dev: bindings::dev_t,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            let rdev = (bindings::qtfs_major(dev), bindings::qtfs_minor(dev));
            let inode = F::mknod(Inode::from_raw(dir), name(dentry), mode.into(), rdev)?;
            instantiate::<F>(dentry, inode)?;
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with a locked directory and a negative entry of `F`.
pub(super) unsafe extern "C" fn mkdir<F: FileSystem>(
    _idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: bindings::umode_t,
) -> *mut bindings::dentry {
    // SAFETY: As the VFS says. Null means that the given entry was used.
    let result = unsafe {
        F::mkdir(Inode::from_raw(dir), name(dentry), mode.into())
            .and_then(|inode| instantiate::<F>(dentry, inode))
    };
    result.unwrap_or_else(|e| e.to_ptr())
}

/// # Safety
///
/// Called by the VFS with a locked directory and a negative entry of `F`, and a string.
pub(super) unsafe extern "C" fn symlink<F: FileSystem>(
    _idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    text: *const c_char,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            let text = CStr::from_char_ptr(text.cast());
            let inode = F::symlink(Inode::from_raw(dir), name(dentry), text)?;
            instantiate::<F>(dentry, inode)?;
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with an entry of `F`, a locked directory and a negative entry of it.
pub(super) unsafe extern "C" fn link<F: FileSystem>(
    old: *mut bindings::dentry,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            let source = Dentry::<F>::from_raw(old);
            F::link(source, Inode::from_raw(dir), name(dentry))?;
            let inode = source.inode()?.grab().ok_or(ESTALE)?;
            instantiate::<F>(dentry, inode)?;
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with a locked directory and a positive entry of `F`.
pub(super) unsafe extern "C" fn unlink<F: FileSystem>(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            let child = Dentry::<F>::from_raw(dentry).inode()?;
            F::unlink(Inode::from_raw(dir), name(dentry), child, false)?;
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with a locked directory and a positive entry of `F`.
pub(super) unsafe extern "C" fn rmdir<F: FileSystem>(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            let child = Dentry::<F>::from_raw(dentry).inode()?;
            F::unlink(Inode::from_raw(dir), name(dentry), child, true)?;
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with locked directories and entries of `F`, the first of them positive.
pub(super) unsafe extern "C" fn rename<F: FileSystem>(
    _idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    new_dir: *mut bindings::inode,
    new_dentry: *mut bindings::dentry,
    flags: c_uint,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            F::rename(
                Inode::from_raw(dir),
                Dentry::<F>::from_raw(dentry).inode()?,
                name(dentry),
                Inode::from_raw(new_dir),
                name(new_dentry),
                Dentry::<F>::from_raw(new_dentry).inode().ok(),
                flags,
            )?;
        }
        Ok(0)
    })
}
