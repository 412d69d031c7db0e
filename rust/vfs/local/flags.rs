// SPDX-License-Identifier: GPL-2.0

//! Inode flags, as `chattr(1)` and `FS_IOC_FSSETXATTR` set them.
//!
//! C header: [`include/linux/fileattr.h`](srctree/include/linux/fileattr.h)

use kernel::{
    error::to_result,
    prelude::*, //
};
use qtfs_bindings as bindings;

use super::{
    Path,
    WriteAccess, //
};

/// Inode flags in both forms that the kernel has.
#[derive(Clone, Copy, Default)]
pub struct Flags {
    /// `FS_*_FL`.
    pub flags: u32,
    /// `FS_XFLAG_*`.
    pub xflags: u32,
    /// Extent size hint in bytes.
    pub extsize: u32,
    /// Project id.
    pub projid: u32,
    /// Copy-on-write extent size hint in bytes.
    pub cowextsize: u32,
}

/// Reads the flags of an object.
pub fn get(path: &Path) -> Result<Flags> {
    let mut raw: bindings::file_kattr = pin_init::zeroed();
    // SAFETY: The path is held, `raw` is a place for the result.
    to_result(unsafe { bindings::vfs_fileattr_get(path.dentry(), &mut raw) }).map_err(translate)?;
    Ok(Flags {
        flags: raw.flags,
        xflags: raw.fsx_xflags,
        extsize: raw.fsx_extsize,
        projid: raw.fsx_projid,
        cowextsize: raw.fsx_cowextsize,
    })
}

/// Sets the flags of an object: `flags.flags` alone when `by_flags`, the others else.
pub fn set(path: &Path, flags: Flags, by_flags: bool) -> Result {
    let mut raw: bindings::file_kattr = pin_init::zeroed();
    // SAFETY: `raw` is valid.
    unsafe {
        if by_flags {
            bindings::qtfs_file_kattr_from_flags(&mut raw, flags.flags);
        } else {
            bindings::qtfs_file_kattr_from_xflags(&mut raw, flags.xflags);
            raw.fsx_extsize = flags.extsize;
            raw.fsx_projid = flags.projid;
            raw.fsx_cowextsize = flags.cowextsize;
        }
    }
    let _access = WriteAccess::get(path)?;
    // SAFETY: The path is held.
    to_result(unsafe { bindings::vfs_fileattr_set(path.idmap(), path.dentry(), &mut raw) })
        .map_err(translate)
}

/// The kernel's own code for "no such operation" is not for other machines.
fn translate(error: Error) -> Error {
    if error == ENOIOCTLCMD {
        EOPNOTSUPP
    } else {
        error
    }
}
