// SPDX-License-Identifier: GPL-2.0

//! The functions that the VFS calls on inodes.

use core::marker::PhantomData;
use kernel::{
    error::from_result,
    prelude::*, //
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
        Dentry, //
    },
    fs::FileSystem,
    xattr,
    Table, //
};

mod directory;
mod lookup;
mod symlink;

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
        ops.lookup = Some(lookup::lookup::<F>);
        ops.atomic_open = Some(lookup::atomic_open::<F>);
        ops.create = Some(directory::create::<F>);
        ops.mknod = Some(directory::mknod::<F>);
        ops.mkdir = Some(directory::mkdir::<F>);
        ops.symlink = Some(directory::symlink::<F>);
        ops.link = Some(directory::link::<F>);
        ops.unlink = Some(directory::unlink::<F>);
        ops.rmdir = Some(directory::rmdir::<F>);
        ops.rename = Some(directory::rename::<F>);
        ops.tmpfile = Some(lookup::tmpfile::<F>);
        ops
    });

    const SYMLINK: &'static Table<bindings::inode_operations> = &Table({
        let mut ops = Self::COMMON;
        ops.get_link = Some(symlink::get_link::<F>);
        ops
    });

    const MAGIC: &'static Table<bindings::inode_operations> = &Table({
        let mut ops = Self::COMMON;
        ops.get_link = Some(symlink::follow::<F>);
        ops.readlink = Some(symlink::readlink::<F>);
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
