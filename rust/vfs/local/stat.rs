// SPDX-License-Identifier: GPL-2.0

//! Attributes of objects.
//!
//! C header: [`include/linux/stat.h`](srctree/include/linux/stat.h)

use core::mem::MaybeUninit;
use kernel::{
    error::to_result,
    prelude::*, //
};
use qtfs_bindings as bindings;

use super::Path;
use crate::flags::kind;

/// What is asked of the file system.
const WANTED: u32 =
    bindings::STATX_BASIC_STATS | bindings::STATX_BTIME | bindings::STATX_CHANGE_COOKIE;

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, u32);

/// Attributes as `statx(2)` has them, and the change cookie.
pub struct Stat(bindings::kstat);

impl Stat {
    /// Asks the file system.
    pub fn of(path: &Path) -> Result<Self> {
        let mut stat = MaybeUninit::zeroed();
        // SAFETY: The path is held, `stat` is a place for the result.
        to_result(unsafe {
            bindings::vfs_getattr(
                path.as_raw(),
                stat.as_mut_ptr(),
                WANTED,
                bindings::AT_STATX_SYNC_AS_STAT,
            )
        })?;
        // SAFETY: All bits zero are a valid value, and the call filled it further.
        Ok(Self(unsafe { stat.assume_init() }))
    }

    /// Grows, or at least changes, with every change of the object.
    ///
    /// A counter of changes may go back when HOST crashes, so the time of the change is mixed in
    /// where the file system does not say otherwise; see `nfsd4_change_attribute`.
    pub fn cookie(&self) -> u64 {
        let time = (self.0.ctime.tv_sec as u64)
            .wrapping_shl(30)
            .wrapping_add(self.0.ctime.tv_nsec as u64);
        if self.0.result_mask & bindings::STATX_CHANGE_COOKIE == 0 {
            return time;
        }
        let monotonic = self.0.attributes & bindings::STATX_ATTR_CHANGE_MONOTONIC as u64 != 0;
        let regular = self.mode() & bindings::S_IFMT == bindings::S_IFREG;
        if regular && !monotonic {
            self.0.change_cookie.wrapping_add(time)
        } else {
            self.0.change_cookie
        }
    }

    /// Whether it is one of the types that programs know.
    pub fn has_type(&self) -> bool {
        kind::ALL.contains(&(self.mode() & bindings::S_IFMT))
    }

    /// Inode number.
    pub fn ino(&self) -> u64 {
        self.0.ino
    }

    /// Number of the file system as the kernel has it inside.
    pub fn dev(&self) -> u64 {
        u64::from(self.0.dev)
    }

    /// Type and permission bits.
    pub fn mode(&self) -> u32 {
        u32::from(self.0.mode)
    }

    /// Hard links.
    pub fn nlink(&self) -> u32 {
        self.0.nlink
    }

    /// Owner.
    pub fn uid(&self) -> u32 {
        self.0.uid.val
    }

    /// Group.
    pub fn gid(&self) -> u32 {
        self.0.gid.val
    }

    /// Major and minor device number of a device node.
    pub fn rdev(&self) -> (u32, u32) {
        (self.0.rdev >> 20, self.0.rdev & 0xf_ffff)
    }

    /// Preferred I/O size.
    pub fn blksize(&self) -> u32 {
        self.0.blksize
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        u64::try_from(self.0.size).unwrap_or(0)
    }

    /// Allocated 512-byte blocks.
    pub fn blocks(&self) -> u64 {
        self.0.blocks
    }

    /// `STATX_ATTR_*` that are set; only those that user space knows.
    pub fn attributes(&self) -> u64 {
        self.0.attributes & !(bindings::STATX_ATTR_CHANGE_MONOTONIC as u64)
    }

    /// Of `STATX_ATTR_*`, what the VFS says of the root of a mount.
    pub const MOUNT_ROOT: u64 = bindings::STATX_ATTR_MOUNT_ROOT as u64;

    /// `STATX_ATTR_*` that the file system knows.
    pub fn attributes_mask(&self) -> u64 {
        self.0.attributes_mask
    }

    /// Last access.
    pub fn atime(&self) -> Time {
        time(&self.0.atime)
    }

    /// Last change of contents.
    pub fn mtime(&self) -> Time {
        time(&self.0.mtime)
    }

    /// Last change of attributes.
    pub fn ctime(&self) -> Time {
        time(&self.0.ctime)
    }

    /// Creation; zero when unknown.
    pub fn btime(&self) -> Time {
        if self.0.result_mask & bindings::STATX_BTIME == 0 {
            return (0, 0);
        }
        time(&self.0.btime)
    }
}

/// A kernel time; nanoseconds out of range, which no file system should have, become 0.
fn time(time: &bindings::timespec64) -> Time {
    let nsec = u32::try_from(time.tv_nsec)
        .ok()
        .filter(|&n| n < 1_000_000_000);
    (time.tv_sec, nsec.unwrap_or(0))
}

/// Numbers of a file system.
pub struct FsStat(bindings::kstatfs);

impl FsStat {
    /// Asks the file system that `path` lies on.
    pub fn of(path: &Path) -> Result<Self> {
        let mut stat = MaybeUninit::zeroed();
        // SAFETY: The path is held, `stat` is a place for the result.
        to_result(unsafe { bindings::vfs_statfs(path.as_raw(), stat.as_mut_ptr()) })?;
        // SAFETY: All bits zero are a valid value, and the call filled it further.
        Ok(Self(unsafe { stat.assume_init() }))
    }

    /// `f_type`.
    pub fn kind(&self) -> u64 {
        self.0.f_type as u64
    }

    /// `f_bsize`.
    pub fn bsize(&self) -> u32 {
        u32::try_from(self.0.f_bsize).unwrap_or(0)
    }

    /// `f_frsize`.
    pub fn frsize(&self) -> u32 {
        u32::try_from(self.0.f_frsize).unwrap_or(0)
    }

    /// Blocks, free ones, free ones for ordinary users.
    pub fn blocks(&self) -> (u64, u64, u64) {
        (self.0.f_blocks, self.0.f_bfree, self.0.f_bavail)
    }

    /// Inodes and free ones.
    pub fn files(&self) -> (u64, u64) {
        (self.0.f_files, self.0.f_ffree)
    }

    /// `f_fsid`.
    pub fn fsid(&self) -> u64 {
        let [low, high] = self.0.f_fsid.val;
        // CAST: The two halves are bits, not numbers.
        u64::from(low as u32) | u64::from(high as u32) << 32
    }

    /// Longest name.
    pub fn namelen(&self) -> u32 {
        u32::try_from(self.0.f_namelen).unwrap_or(255)
    }

    /// `ST_*` flags.
    pub fn flags(&self) -> u32 {
        // CAST: The flags that are defined fit.
        self.0.f_flags as u32
    }
}
