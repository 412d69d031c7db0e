// SPDX-License-Identifier: GPL-2.0

//! Removing names.

use core::ptr::NonNull;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
};
use qtfs_bindings as bindings;

use super::{
    with_delegations,
    Name,
    Path,
    WriteAccess, //
};

/// A name that exists, in a parent directory that is locked meanwhile.
///
/// # Invariants
///
/// The dentry was returned by `start_removing`, so that its parent is locked and both have to be
/// ended together.
struct Removing(NonNull<bindings::dentry>);

impl Removing {
    fn start(dir: &Path, name: &Name) -> Result<Self> {
        let mut name = name.as_qstr();
        // SAFETY: The directory is held, the name lives during the call.
        let dentry = from_err_ptr(unsafe {
            bindings::start_removing(dir.idmap(), dir.dentry(), &mut name)
        })?;
        // INVARIANT: It comes from `start_removing`.
        let this = Self(NonNull::new(dentry).ok_or(EIO)?);
        // SAFETY: The dentry is held.
        if unsafe { bindings::qtfs_d_is_negative(this.0.as_ptr()) } {
            return Err(ENOENT);
        }
        Ok(this)
    }
}

impl Drop for Removing {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::qtfs_end_removing(self.0.as_ptr()) };
    }
}

/// An inode that is held until after the parent is unlocked, because what the last reference
/// does may take long.
///
/// # Invariants
///
/// The object holds a reference to the inode.
struct Held(NonNull<bindings::inode>);

impl Held {
    fn of(removing: &Removing) -> Result<Self> {
        // SAFETY: The dentry is held and positive.
        let inode = unsafe { bindings::qtfs_d_inode(removing.0.as_ptr()) };
        let inode = NonNull::new(inode).ok_or(ENOENT)?;
        // SAFETY: The dentry holds the inode.
        unsafe { bindings::ihold(inode.as_ptr()) };
        // INVARIANT: The reference was just taken.
        Ok(Self(inode))
    }

    fn nlink(&self) -> u32 {
        // SAFETY: The inode is held.
        unsafe { (*self.0.as_ptr()).__bindgen_anon_1.i_nlink }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::iput(self.0.as_ptr()) };
    }
}

/// Removes a name that is no directory's; returns how many hard links the object has left.
pub fn file(dir: &Path, name: &Name) -> Result<u32> {
    remove(dir, name, |removing, delegation| {
        // SAFETY: The parent is locked and the dentry positive, see `Removing`.
        unsafe { bindings::vfs_unlink(dir.idmap(), dir.inode(), removing.0.as_ptr(), delegation) }
    })
}

/// Removes an empty directory.
pub fn directory(dir: &Path, name: &Name) -> Result<u32> {
    remove(dir, name, |removing, delegation| {
        // SAFETY: The parent is locked and the dentry positive, see `Removing`.
        unsafe { bindings::vfs_rmdir(dir.idmap(), dir.inode(), removing.0.as_ptr(), delegation) }
    })
}

fn remove(
    dir: &Path,
    name: &Name,
    mut op: impl FnMut(&Removing, *mut bindings::delegated_inode) -> c_int,
) -> Result<u32> {
    let _access = WriteAccess::get(dir)?;
    with_delegations(|delegation| {
        let held;
        {
            let removing = Removing::start(dir, name)?;
            held = Held::of(&removing)?;
            to_result(op(&removing, delegation))?;
        }
        Ok(held.nlink())
    })
}
