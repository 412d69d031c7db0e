// SPDX-License-Identifier: GPL-2.0

//! The functions that the VFS calls on inodes.

use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    str::CStr,
    sync::Arc, //
};

use super::{
    Inode,
    InodeRef,
    SetAttr,
    Stat, //
};
use crate::{
    bindings,
    dentry::{
        bytes,
        Dentry,
        LookupFlags, //
    },
    file::File,
    fs::{
        AtomicOpen,
        FileSystem,
        Found, //
    },
    xattr,
    Table, //
};

/// The tables of functions of `F`'s inodes.
struct Ops<F>(PhantomData<F>);

impl<F: FileSystem> Ops<F> {
    /// What all kinds have.
    const COMMON: bindings::inode_operations = {
        let mut ops: bindings::inode_operations = pin_init::zeroed();
        ops.permission = Some(permission::<F>);
        ops.getattr = Some(getattr::<F>);
        ops.setattr = Some(setattr::<F>);
        ops.listxattr = Some(xattr::listxattr::<F>);
        ops
    };

    const FILE: &'static Table<bindings::inode_operations> = &Table({
        let mut ops = Self::COMMON;
        ops.get_acl = Some(xattr::get_acl::<F>);
        ops.set_acl = Some(xattr::set_acl::<F>);
        ops.fileattr_get = Some(xattr::fileattr_get::<F>);
        ops.fileattr_set = Some(xattr::fileattr_set::<F>);
        ops
    });

    const DIRECTORY: &'static Table<bindings::inode_operations> = &Table({
        let mut ops = Self::FILE.0;
        ops.lookup = Some(lookup::<F>);
        ops.atomic_open = Some(atomic_open::<F>);
        ops.create = Some(create::<F>);
        ops.mknod = Some(mknod::<F>);
        ops.mkdir = Some(mkdir::<F>);
        ops.symlink = Some(symlink_::<F>);
        ops.link = Some(link::<F>);
        ops.unlink = Some(unlink::<F>);
        ops.rmdir = Some(rmdir::<F>);
        ops.rename = Some(rename::<F>);
        ops.tmpfile = Some(tmpfile::<F>);
        ops
    });

    const SYMLINK: &'static Table<bindings::inode_operations> = &Table({
        let mut ops = Self::COMMON;
        ops.get_link = Some(get_link::<F>);
        ops
    });

    const MAGIC: &'static Table<bindings::inode_operations> = &Table({
        let mut ops = Self::COMMON;
        ops.get_link = Some(follow::<F>);
        ops.readlink = Some(readlink::<F>);
        ops
    });

    const SPECIAL: &'static Table<bindings::inode_operations> = &Table({
        let mut ops = Self::COMMON;
        ops.get_acl = Some(xattr::get_acl::<F>);
        ops.set_acl = Some(xattr::set_acl::<F>);
        ops
    });
}

pub(super) fn file<F: FileSystem>() -> *const bindings::inode_operations {
    &raw const Ops::<F>::FILE.0
}

pub(super) fn directory<F: FileSystem>() -> *const bindings::inode_operations {
    &raw const Ops::<F>::DIRECTORY.0
}

pub(super) fn symlink<F: FileSystem>() -> *const bindings::inode_operations {
    &raw const Ops::<F>::SYMLINK.0
}

pub(super) fn magic<F: FileSystem>() -> *const bindings::inode_operations {
    &raw const Ops::<F>::MAGIC.0
}

pub(super) fn special<F: FileSystem>() -> *const bindings::inode_operations {
    &raw const Ops::<F>::SPECIAL.0
}

/// The name of an entry whose directory is locked.
///
/// # Safety
///
/// `dentry` is alive and its name does not change while the result is used.
unsafe fn name<'a>(dentry: *mut bindings::dentry) -> &'a [u8] {
    // SAFETY: By this function's requirements.
    unsafe { bytes(&raw const (*dentry).__bindgen_anon_1.d_name) }
}

/// Ties a new inode to the entry that it was made for.
///
/// # Safety
///
/// `dentry` is a negative entry of `F` in a locked directory.
unsafe fn instantiate<F: FileSystem>(
    dentry: *mut bindings::dentry,
    inode: InodeRef<F>,
) -> Result<*mut bindings::dentry> {
    // SAFETY: By this function's requirements.
    super::check(unsafe {
        bindings::d_drop(dentry);
        bindings::d_splice_alias(inode.into_raw(), dentry)
    })
}

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
unsafe extern "C" fn lookup<F: FileSystem>(
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
unsafe extern "C" fn atomic_open<F: FileSystem>(
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
                    let alias = super::check(tie(dentry, found))?;
                    bindings::finish_no_open(file, alias)
                })?;
            }
            AtomicOpen::Opened {
                inode,
                open,
                created,
            } => {
                if !inode.is_regular() && !inode.is_dir() {
                    // Other types have file operations that are not ours.
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
unsafe extern "C" fn tmpfile<F: FileSystem>(
    _idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    file: *mut bindings::file,
    mode: bindings::umode_t,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            let (inode, open) = F::tmpfile(Inode::from_raw(dir), (*file).f_flags, mode.into())?;
            if !inode.is_regular() {
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

/// # Safety
///
/// Called by the VFS with a locked directory and a negative entry of `F`.
unsafe extern "C" fn create<F: FileSystem>(
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
unsafe extern "C" fn mknod<F: FileSystem>(
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
unsafe extern "C" fn mkdir<F: FileSystem>(
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
unsafe extern "C" fn symlink_<F: FileSystem>(
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
unsafe extern "C" fn link<F: FileSystem>(
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
unsafe extern "C" fn unlink<F: FileSystem>(
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
unsafe extern "C" fn rmdir<F: FileSystem>(
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
unsafe extern "C" fn rename<F: FileSystem>(
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

/// # Safety
///
/// Called by `do_delayed_call` with what [`get_link`] gave it.
unsafe extern "C" fn put_link(text: *mut c_void) {
    // SAFETY: `get_link` left memory of `kvmalloc` that nobody else frees.
    unsafe { bindings::kvfree(text) };
}

/// # Safety
///
/// Called by the VFS with a symlink of `F`, and without an entry when it must not sleep.
unsafe extern "C" fn get_link<F: FileSystem>(
    dentry: *mut bindings::dentry,
    _inode: *mut bindings::inode,
    done: *mut bindings::delayed_call,
) -> *const c_char {
    // SAFETY: As the VFS says.
    unsafe { go_on_with::<F>(dentry, done, F::readlink) }
}

/// # Safety
///
/// As [`get_link`], with a link that is not followed by its text.
unsafe extern "C" fn follow<F: FileSystem>(
    dentry: *mut bindings::dentry,
    _inode: *mut bindings::inode,
    done: *mut bindings::delayed_call,
) -> *const c_char {
    // SAFETY: As the VFS says.
    unsafe { go_on_with::<F>(dentry, done, F::follow) }
}

/// Gives the kernel the text with which it goes on.
///
/// # Safety
///
/// `dentry` is null or a symlink of `F`; `done` is a place for what has to be done afterwards.
unsafe fn go_on_with<F: FileSystem>(
    dentry: *mut bindings::dentry,
    done: *mut bindings::delayed_call,
    text: fn(&Dentry<F>) -> Result<KVVec<u8>>,
) -> *const c_char {
    if dentry.is_null() {
        return ECHILD.to_ptr::<c_char>();
    }
    // SAFETY: By this function's requirements.
    let text = text(unsafe { Dentry::from_raw(dentry) });
    match text.and_then(|mut text| text.push(0, GFP_KERNEL).map_err(Error::from).map(|()| text)) {
        Ok(text) => {
            let (raw, _, _) = text.into_raw_parts();
            // SAFETY: By this function's requirements; `put_link` frees the memory.
            unsafe { bindings::qtfs_set_delayed_call(done, Some(put_link), raw.cast()) };
            raw.cast()
        }
        Err(e) => e.to_ptr::<c_char>(),
    }
}

/// # Safety
///
/// Called by the VFS with a symlink of `F` and `len` bytes of the caller's memory.
unsafe extern "C" fn readlink<F: FileSystem>(
    dentry: *mut bindings::dentry,
    buf: *mut c_char,
    len: c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        let text = F::readlink(unsafe { Dentry::from_raw(dentry) })?;
        let len = text.len().min(usize::try_from(len)?);
        // SAFETY: `text` has so many bytes; a bad address of the caller's is an error.
        let left = unsafe {
            bindings::qtfs_copy_to_user(buf.cast(), text.as_ptr().cast(), len as c_ulong)
        };
        if left != 0 {
            return Err(EFAULT);
        }
        Ok(c_int::try_from(len)?)
    })
}

/// # Safety
///
/// Called by the VFS with an inode of `F`.
unsafe extern "C" fn permission<F: FileSystem>(
    _idmap: *mut bindings::mnt_idmap,
    inode: *mut bindings::inode,
    mask: c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        F::permission(unsafe { Inode::from_raw(inode) }, mask as u32)?;
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with a path of `F` and a place for the result.
unsafe extern "C" fn getattr<F: FileSystem>(
    idmap: *mut bindings::mnt_idmap,
    path: *const bindings::path,
    stat: *mut bindings::kstat,
    request: c_uint,
    query: c_uint,
) -> c_int {
    let _ = query;
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            let dentry = Dentry::<F>::from_raw((*path).dentry);
            // The inode's fields are what the server said last; `F` asks it first.
            let mut extra: bindings::kstat = pin_init::zeroed();
            F::getattr(dentry, Stat::from_raw(&raw mut extra))?;
            bindings::generic_fillattr(idmap, request, dentry.inode()?.as_raw(), stat);
            (*stat).dev = extra.dev;
            (*stat).ino = extra.ino;
            (*stat).blksize = extra.blksize;
            (*stat).btime = extra.btime;
            (*stat).result_mask |= extra.result_mask;
            (*stat).attributes |= extra.attributes;
            (*stat).attributes_mask |= extra.attributes_mask;
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with a locked inode's entry of `F` and the changes.
unsafe extern "C" fn setattr<F: FileSystem>(
    _idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    attr: *mut bindings::iattr,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe { F::setattr(Dentry::from_raw(dentry), &SetAttr::new(&*attr))? };
        Ok(0)
    })
}
