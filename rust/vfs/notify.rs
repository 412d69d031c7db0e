// SPDX-License-Identifier: GPL-2.0

//! Telling programs of this machine what happens to inodes that they watch.
//!
//! C header: [`include/linux/fsnotify_backend.h`](srctree/include/linux/fsnotify_backend.h)

use core::ffi::CStr;
use qtfs_bindings as bindings;
use qtfs_proto::NotifyMask;

use crate::{
    fs::FileSystem,
    inode::Inode, //
};

/// What the current system call wants to be told of, if it is `inotify_add_watch(2)` or
/// `fanotify_mark(2)`.
pub fn wanted() -> NotifyMask {
    // SAFETY: Looks at the current task only.
    known(unsafe { bindings::qtfs_notify_wanted() })
}

fn known(bits: u32) -> NotifyMask {
    NotifyMask::from_bits(bits).unwrap_or(NotifyMask::NONE)
}

impl<F: FileSystem> Inode<F> {
    /// What somebody wants to be told of.
    pub fn watched(&self) -> NotifyMask {
        // SAFETY: The inode is alive.
        known(unsafe { bindings::qtfs_notify_watched(self.as_raw()) })
    }

    /// Tells those who watch it what happened to it or, with a name, to an entry of it.
    pub fn tell(&self, mask: NotifyMask, name: Option<&CStr>, cookie: u32) {
        let (name, len) = match name {
            Some(name) => (name.to_bytes_with_nul().as_ptr(), name.count_bytes()),
            None => (core::ptr::null(), 0),
        };
        // SAFETY: The inode is alive, and the name has so many bytes and a NUL, which inotify's
        // `strscpy` looks for.
        unsafe {
            bindings::qtfs_notify_tell(self.as_raw(), mask.bits(), name, len as u32, cookie);
        }
    }

    /// Tells those who watch this directory or `child` what happened to that entry of it.
    pub fn tell_parent(&self, child: &Self, mask: NotifyMask, name: &CStr) {
        // SAFETY: As in `tell`.
        unsafe {
            bindings::qtfs_notify_tell_parent(
                self.as_raw(),
                child.as_raw(),
                mask.bits(),
                name.to_bytes_with_nul().as_ptr(),
                name.count_bytes() as u32,
            );
        }
    }

    /// The object does not exist any more: nobody watches it from now on.
    pub fn unwatch(&self) {
        // SAFETY: The inode is alive.
        unsafe { bindings::qtfs_notify_gone(self.as_raw()) };
    }
}
