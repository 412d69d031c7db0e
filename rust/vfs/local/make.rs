// SPDX-License-Identifier: GPL-2.0

//! Making names: directories, device nodes, symlinks, hard links.
//!
//! Regular files are made by opening them, see [`super::file::File::create`].

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

/// A name that does not exist yet, in a parent directory that is locked meanwhile.
///
/// # Invariants
///
/// The dentry was returned by `start_creating` or by `vfs_mkdir` after it, so that its parent is
/// locked and both have to be ended together.
struct Creating<'a> {
    dentry: NonNull<bindings::dentry>,
    dir: &'a Path,
}

impl<'a> Creating<'a> {
    /// Locks the directory and looks the name up; fails with [`EEXIST`] when it exists.
    fn start(dir: &'a Path, name: &Name) -> Result<Self> {
        let mut name = name.as_qstr();
        // SAFETY: The directory is held, the name lives during the call.
        let dentry = from_err_ptr(unsafe {
            bindings::start_creating(dir.idmap(), dir.dentry(), &mut name)
        })?;
        // INVARIANT: It comes from `start_creating`.
        let this = Self {
            dentry: NonNull::new(dentry).ok_or(EIO)?,
            dir,
        };
        // SAFETY: The dentry is held.
        if unsafe { bindings::qtfs_d_is_positive(this.dentry.as_ptr()) } {
            return Err(EEXIST);
        }
        Ok(this)
    }

    fn as_ptr(&self) -> *mut bindings::dentry {
        self.dentry.as_ptr()
    }

    /// Unlocks the directory; what was made, on the directory's mount.
    ///
    /// Some file systems leave the dentry negative and expect a new look-up.
    fn finish(self, name: &Name) -> Result<Path> {
        // SAFETY: The dentry is held.
        let made = unsafe {
            if bindings::qtfs_d_is_positive(self.as_ptr()) {
                let dentry = bindings::qtfs_dget(self.as_ptr());
                NonNull::new(dentry).map(|dentry| self.dir.with_dentry(dentry))
            } else {
                None
            }
        };
        let dir = self.dir;
        drop(self);
        made.map_or_else(|| dir.child(name), Ok)
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::qtfs_end_creating(self.as_ptr()) };
    }
}

/// Makes a directory.
pub fn directory(dir: &Path, name: &Name, mode: u16) -> Result<Path> {
    let _access = WriteAccess::get(dir)?;
    with_delegations(|delegation| {
        let creating = Creating::start(dir, name)?;
        let before = creating.as_ptr();
        // On failure the call has unlocked and released everything itself.
        core::mem::forget(creating);
        // SAFETY: The parent is locked and the dentry negative, see `Creating`.
        let dentry = from_err_ptr(unsafe {
            bindings::vfs_mkdir(dir.idmap(), dir.inode(), before, mode, delegation)
        })?;
        // INVARIANT: `vfs_mkdir` returned it, and it takes the place of the first one.
        let creating = Creating {
            dentry: NonNull::new(dentry).ok_or(EIO)?,
            dir,
        };
        creating.finish(name)
    })
}

/// Makes a FIFO, socket, device node (`0:0` character: a whiteout) or an empty regular file,
/// depending on the type bits of `mode`.
pub fn node(dir: &Path, name: &Name, mode: u16, major: u32, minor: u32) -> Result<Path> {
    if major > 0xfff || minor > 0xf_ffff {
        return Err(EINVAL);
    }
    let regular = u32::from(mode) & bindings::S_IFMT == bindings::S_IFREG;
    let _access = WriteAccess::get(dir)?;
    with_delegations(|delegation| {
        let creating = Creating::start(dir, name)?;
        // SAFETY: The parent is locked and the dentry negative, see `Creating`.
        to_result(unsafe {
            if regular {
                bindings::vfs_create(dir.idmap(), creating.as_ptr(), mode, delegation)
            } else {
                bindings::vfs_mknod(
                    dir.idmap(),
                    dir.inode(),
                    creating.as_ptr(),
                    mode,
                    major << 20 | minor,
                    delegation,
                )
            }
        })?;
        creating.finish(name)
    })
}

/// Makes a symlink.
pub fn symlink(dir: &Path, name: &Name, text: &CStr) -> Result<Path> {
    let _access = WriteAccess::get(dir)?;
    with_delegations(|delegation| {
        let creating = Creating::start(dir, name)?;
        // SAFETY: The parent is locked and the dentry negative, see `Creating`; the text ends
        // with a NUL.
        to_result(unsafe {
            bindings::vfs_symlink(
                dir.idmap(),
                dir.inode(),
                creating.as_ptr(),
                text.as_char_ptr(),
                delegation,
            )
        })?;
        creating.finish(name)
    })
}

/// Makes a hard link to what `object` leads to, which must be on the same mount.
pub fn link(object: &Path, dir: &Path, name: &Name) -> Result {
    if !object.same_mount(dir) {
        return Err(EXDEV);
    }
    let _access = WriteAccess::get(dir)?;
    with_delegations(|delegation| {
        let creating = Creating::start(dir, name)?;
        // SAFETY: The parent is locked and the dentry negative, see `Creating`; the object is
        // held.
        to_result(unsafe {
            bindings::vfs_link(
                object.dentry(),
                dir.idmap(),
                dir.inode(),
                creating.as_ptr(),
                delegation,
            )
        })
    })
}
