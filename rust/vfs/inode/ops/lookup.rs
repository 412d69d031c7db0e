// SPDX-License-Identifier: GPL-2.0

//! Looking names up, and opening files in the same call.

use core::ptr;
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::Arc, //
};

use super::{
    instantiate,
    name, //
};
use crate::{
    bindings,
    dentry::LookupFlags,
    file::File,
    fs::{
        AtomicOpen,
        FileSystem,
        Found, //
    },
    inode::{
        check,
        Inode, //
    },
};

/// Ties what was found to the entry of its name. Returns the entry in its place, or null if that is
/// the one.
///
/// # Safety
///
/// `dentry` is a negative entry of `F` that is being looked up.
unsafe fn tie<F: FileSystem>(
    dentry: *mut bindings::dentry,
    found: Found<F>,
) -> *mut bindings::dentry {
    let (inode, mounted) = match found {
        Found::Inode(inode) => (inode, false),
        Found::MountRoot(inode) => (inode, true),
        Found::Private(inode) => {
            // The entry stays without a place in the hash, so that each look-up of the name makes
            // its own.
            // SAFETY: By this function's requirements. Whoever waits for the look-up of the name
            // begins their own. The reference goes to the entry.
            unsafe {
                bindings::qtfs_d_lookup_done(dentry);
                bindings::d_instantiate(dentry, inode.into_raw());
            }
            return ptr::null_mut();
        }
        // As above: the name is asked for each time.
        Found::Unknown => return ptr::null_mut(),
    };
    // SAFETY: By this function's requirements; the reference goes to the entry.
    unsafe { crate::dentry::splice(dentry, inode, mounted) }
}

/// # Safety
///
/// Called by the VFS with a directory and an entry of `F` that is being looked up.
pub(super) unsafe extern "C" fn lookup<F: FileSystem>(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    flags: c_uint,
) -> *mut bindings::dentry {
    // SAFETY: As the VFS says; the name of an entry that is looked up does not change.
    let found = unsafe { F::lookup(Inode::from_raw(dir), name(dentry), LookupFlags::new(flags)) };
    match found {
        // SAFETY: As the VFS says: the entry is negative, and not in the hash yet.
        Ok(found) => unsafe { tie(dentry, found) },
        Err(e) if e == ENOENT => ptr::null_mut(),
        Err(e) => e.to_ptr(),
    }
}

/// An `open` function for files that are open already.
///
/// # Safety
///
/// Called by the VFS with a file of `F` that is being opened.
unsafe extern "C" fn opened<F: FileSystem>(
    _: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: As the VFS says.
    unsafe { crate::poll::allow::<F>(file) };
    0
}

/// # Safety
///
/// Called by the VFS with a directory and an entry of `F`, and a file that is not open yet.
pub(super) unsafe extern "C" fn atomic_open<F: FileSystem>(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    file: *mut bindings::file,
    flags: c_uint,
    mode: bindings::umode_t,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        let result = unsafe {
            let name = name(dentry);
            F::atomic_open(
                Inode::from_raw(dir),
                name,
                flags,
                mode.into(),
                File::from_raw(file),
            )?
        };
        match result {
            AtomicOpen::Found(found) => {
                // SAFETY: As the VFS says; an entry that was found in the hash is taken out of it.
                // The calls take over what they are given.
                to_result(unsafe {
                    bindings::d_drop(dentry);
                    let alias = check(tie(dentry, found))?;
                    bindings::finish_no_open(file, alias)
                })?;
            }
            AtomicOpen::Opened {
                inode,
                open,
                created,
            } => {
                if !inode.is_regular() && (created || !inode.is_dir()) {
                    // Other types have file operations that are not ours, and the kernel takes what
                    // was made for a regular file.
                    F::release(&inode, &open);
                    return Err(EIO);
                }
                // SAFETY: As the VFS says. `finish_open` takes a reference to the entry of its
                // own; when it fails nobody calls `release`, so the open file is ours again.
                unsafe {
                    let kept = inode.grab();
                    let alias = match instantiate::<F>(dentry, inode) {
                        Ok(alias) => alias,
                        Err(e) => {
                            if let Some(kept) = &kept {
                                F::release(kept, &open);
                            }
                            return Err(e);
                        }
                    };
                    let entry = if alias.is_null() { dentry } else { alias };
                    if created {
                        (*file).f_mode |= bindings::FMODE_CREATED;
                    }
                    let result = finish::<F>(file, entry, open);
                    if !alias.is_null() {
                        bindings::dput(alias);
                    }
                    result?;
                }
            }
        }
        Ok(0)
    })
}

/// Makes `file` an open file of `dentry` that keeps `open`.
///
/// # Safety
///
/// `file` is not open yet, `dentry` is a positive entry of `F`, of a regular file or directory.
unsafe fn finish<F: FileSystem>(
    file: *mut bindings::file,
    dentry: *mut bindings::dentry,
    open: Arc<F::Open>,
) -> Result {
    // SAFETY: By this function's requirements.
    unsafe {
        crate::file::set_open::<F>(file, Some(open));
        let result = to_result(bindings::finish_open(file, dentry, Some(opened::<F>)));
        if result.is_err() && (*file).f_mode & bindings::FMODE_OPENED == 0 {
            if let Some(open) = crate::file::take_open::<F>(file) {
                F::release(Inode::from_raw((*dentry).d_inode), &open);
            }
        }
        result
    }
}

/// # Safety
///
/// Called by the VFS with a directory of `F` and a file whose entry has no name.
pub(super) unsafe extern "C" fn tmpfile<F: FileSystem>(
    _idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    file: *mut bindings::file,
    mode: bindings::umode_t,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            let (inode, open) = F::tmpfile(Inode::from_raw(dir), (*file).f_flags, mode.into())?;
            // What had this number before may have been known by a name, where HOST has no generations.
            bindings::d_prune_aliases(inode.as_raw());
            // A file that has a name is not made now, and would lose its links here.
            if !inode.is_regular() || inode.with_alias(|_| ()).is_some() {
                F::release(&inode, &open);
                return Err(EIO);
            }
            inode.set_nlink(1);
            File::<F>::from_raw(file).allow_direct();
            bindings::d_tmpfile(file, inode.into_raw());
            finish::<F>(file, bindings::qtfs_unopened_dentry(file), open)?;
        }
        Ok(0)
    })
}
