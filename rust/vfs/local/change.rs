// SPDX-License-Identifier: GPL-2.0

//! Changing attributes.

use kernel::{
    error::to_result,
    prelude::*, //
};
use qtfs_bindings as bindings;

use super::{
    path::may,
    stat::Time,
    with_delegations,
    File,
    Path,
    WriteAccess, //
};

/// What a time becomes.
#[derive(Clone, Copy, Default)]
pub enum SetTime {
    /// Stays.
    #[default]
    Keep,
    /// The current time.
    Now,
    /// This time.
    To(Time),
}

/// Which attributes change, as `struct iattr`.
#[derive(Clone, Copy, Default)]
pub struct Change {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Access time.
    pub atime: SetTime,
    /// Modification time.
    pub mtime: SetTime,
    /// Remove the set-user-id bit.
    pub kill_suid: bool,
    /// Remove the set-group-id bit.
    pub kill_sgid: bool,
    /// Remove file capabilities.
    pub kill_priv: bool,
}

impl Change {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.to_iattr().ia_valid == 0
    }

    fn to_iattr(self) -> bindings::iattr {
        let mut attr: bindings::iattr = pin_init::zeroed();
        if let Some(mode) = self.mode {
            attr.ia_valid |= bindings::ATTR_MODE;
            // CAST: Only permission bits are kept.
            attr.ia_mode = (mode & 0o7777) as u16;
        }
        if let Some(uid) = self.uid {
            attr.ia_valid |= bindings::ATTR_UID;
            // SAFETY: `attr` is valid.
            unsafe { bindings::qtfs_iattr_set_owner(&mut attr, uid) };
        }
        if let Some(gid) = self.gid {
            attr.ia_valid |= bindings::ATTR_GID;
            // SAFETY: `attr` is valid.
            unsafe { bindings::qtfs_iattr_set_group(&mut attr, gid) };
        }
        self.times(&mut attr);
        // With a new mode there is nothing left to remove, and `notify_change` does not take both.
        if self.mode.is_none() {
            if self.kill_suid {
                attr.ia_valid |= bindings::ATTR_KILL_SUID;
            }
            if self.kill_sgid {
                attr.ia_valid |= bindings::ATTR_KILL_SGID;
            }
        }
        if self.kill_priv {
            attr.ia_valid |= bindings::ATTR_KILL_PRIV;
        }
        if attr.ia_valid != 0 {
            attr.ia_valid |= bindings::ATTR_CTIME;
        }
        attr
    }

    fn times(&self, attr: &mut bindings::iattr) {
        let set = |value: Time| bindings::timespec64 {
            tv_sec: value.0,
            // CAST: Below a thousand million.
            tv_nsec: value.1 as isize,
        };
        match self.atime {
            SetTime::Keep => {}
            SetTime::Now => attr.ia_valid |= bindings::ATTR_ATIME,
            SetTime::To(time) => {
                attr.ia_valid |= bindings::ATTR_ATIME | bindings::ATTR_ATIME_SET;
                attr.ia_atime = set(time);
            }
        }
        match self.mtime {
            SetTime::Keep => {}
            SetTime::Now => attr.ia_valid |= bindings::ATTR_MTIME,
            SetTime::To(time) => {
                attr.ia_valid |= bindings::ATTR_MTIME | bindings::ATTR_MTIME_SET;
                attr.ia_mtime = set(time);
            }
        }
        // Who may write a file may set both its times to now; anything else is the owner's.
        attr.ia_valid |= match (self.atime, self.mtime) {
            (SetTime::Keep, SetTime::Keep) => 0,
            (SetTime::Now, SetTime::Now) => bindings::ATTR_TOUCH,
            _ => bindings::ATTR_TIMES_SET,
        };
    }
}

/// Changes attributes of an object other than its size, with the current credential.
pub fn attributes(path: &Path, change: Change) -> Result {
    let _access = WriteAccess::get(path)?;
    with_delegations(|delegation| notify(path, change.to_iattr(), delegation))
}

fn notify(
    path: &Path,
    mut attr: bindings::iattr,
    delegation: *mut bindings::delegated_inode,
) -> Result {
    if attr.ia_valid & bindings::ATTR_MODE != 0 {
        // The new mode replaces the old one with its type.
        // CAST: Type bits fit.
        attr.ia_mode |= path.kind() as u16;
    }
    // SAFETY: The path is held; the inode is locked around the call as it has to be.
    to_result(unsafe {
        bindings::qtfs_inode_lock(path.inode());
        let ret = bindings::notify_change(path.idmap(), path.dentry(), &mut attr, delegation);
        bindings::qtfs_inode_unlock(path.inode());
        ret
    })
}

/// Write access to an inode: `get_write_access`, which fails while it is being executed.
///
/// # Invariants
///
/// Write access was granted and not given back.
struct Writing<'a>(&'a Path);

impl<'a> Writing<'a> {
    fn get(path: &'a Path) -> Result<Self> {
        // SAFETY: The inode is held.
        to_result(unsafe { bindings::qtfs_get_write_access(path.inode()) })?;
        // INVARIANT: It was just granted.
        Ok(Self(path))
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::qtfs_put_write_access(self.0.inode()) };
    }
}

/// Sets the size of a file, as `truncate(2)`, or as `ftruncate(2)` when it is open as `file`.
///
/// `open` says that it is part of `open(O_TRUNC)`; the bits of `change` go with it, and the time of
/// modification when it becomes now.
pub fn size(path: &Path, file: Option<&File>, size: u64, open: bool, change: Change) -> Result {
    let size = i64::try_from(size).map_err(|_| EFBIG)?;
    match path.kind() {
        bindings::S_IFREG => {}
        bindings::S_IFDIR => return Err(EISDIR),
        _ => return Err(EINVAL),
    }
    match file {
        Some(file) if !file.is_writable() => return Err(EINVAL),
        Some(_) => {}
        None => path.permits(may::WRITE)?,
    }
    let _access = WriteAccess::get(path)?;
    // SAFETY: The inode is held.
    if unsafe { bindings::qtfs_inode_append_only(path.inode()) } != 0 {
        return Err(EPERM);
    }
    let _writing = Writing::get(path)?;
    // SAFETY: The inode is held.
    to_result(unsafe { bindings::qtfs_break_lease(path.inode(), bindings::O_WRONLY) })?;
    let kill = Change {
        kill_suid: change.kill_suid,
        kill_sgid: change.kill_sgid,
        kill_priv: change.kill_priv,
        ..Change::default()
    };
    let mut attr = kill.to_iattr();
    if attr.ia_valid != 0 {
        // Whoever may write the file takes the bits away, not its owner alone.
        attr.ia_valid |= bindings::ATTR_FORCE;
    }
    attr.ia_valid |= bindings::ATTR_SIZE;
    attr.ia_size = size;
    if let Some(file) = file {
        attr.ia_valid |= bindings::ATTR_FILE;
        attr.ia_file = file.as_ptr();
    }
    if open {
        attr.ia_valid |= bindings::ATTR_OPEN;
    }
    // `truncate(2)` leaves the time to the file system, which sets it when the size changes.
    if open || matches!(change.mtime, SetTime::Now) {
        attr.ia_valid |= bindings::ATTR_MTIME | bindings::ATTR_CTIME;
    }
    with_delegations(|delegation| notify(path, attr, delegation))
}
