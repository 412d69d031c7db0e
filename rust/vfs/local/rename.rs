// SPDX-License-Identifier: GPL-2.0

//! Renaming and exchanging names.

use kernel::{
    error::to_result,
    prelude::*, //
};
use qtfs_bindings as bindings;

use super::{
    with_delegations,
    Name,
    Path,
    WriteAccess, //
};

/// How to rename, as the flags of `renameat2(2)`.
#[derive(Clone, Copy, Default)]
pub struct How {
    /// Fail when the new name exists.
    pub no_replace: bool,
    /// Exchange the two.
    pub exchange: bool,
    /// Leave a whiteout behind.
    pub whiteout: bool,
}

/// Two directories that are locked, and the entries in them.
///
/// # Invariants
///
/// `start_renaming` succeeded on the data and `end_renaming` was not called.
struct Renaming(bindings::renamedata);

impl Drop for Renaming {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::qtfs_end_renaming(&mut self.0) };
    }
}

/// Renames `old_name` in `old_dir` to `new_name` in `new_dir`, which must be on the same mount.
pub fn rename(
    old_dir: &Path,
    old_name: &Name,
    new_dir: &Path,
    new_name: &Name,
    how: How,
) -> Result {
    if !old_dir.same_mount(new_dir) {
        return Err(EXDEV);
    }
    if how.exchange && (how.no_replace || how.whiteout) {
        return Err(EINVAL);
    }
    let mut flags = 0;
    for (on, flag) in [
        (how.no_replace, bindings::RENAME_NOREPLACE),
        (how.exchange, bindings::RENAME_EXCHANGE),
        (how.whiteout, bindings::RENAME_WHITEOUT),
    ] {
        if on {
            flags |= flag;
        }
    }
    let _access = WriteAccess::get(old_dir)?;
    with_delegations(|delegation| {
        let mut data: bindings::renamedata = pin_init::zeroed();
        data.mnt_idmap = old_dir.idmap();
        data.old_parent = old_dir.dentry();
        data.new_parent = new_dir.dentry();
        data.delegated_inode = delegation;
        data.flags = flags;
        let (mut old, mut new) = (old_name.as_qstr(), new_name.as_qstr());
        // SAFETY: Both directories are held and on one mount, the names live during the call.
        to_result(unsafe { bindings::start_renaming(&mut data, 0, &mut old, &mut new) })?;
        // INVARIANT: It just succeeded.
        let mut renaming = Renaming(data);
        // SAFETY: Both parents are locked and the data is filled.
        to_result(unsafe { bindings::vfs_rename(&mut renaming.0) })
    })
}
