// SPDX-License-Identifier: GPL-2.0

//! The kernel's flags of files and attributes, and the protocol's for the same.

use crate::bindings;
use qtfs_proto::{
    OpenFlags,
    SetattrValid, //
};

/// What [`FileSystem::permission`](crate::fs::FileSystem::permission) is asked for, `MAY_*`.
pub mod may {
    use crate::bindings;

    /// Execute or search.
    pub const EXEC: u32 = bindings::MAY_EXEC;
    /// Write.
    pub const WRITE: u32 = bindings::MAY_WRITE;
    /// Read.
    pub const READ: u32 = bindings::MAY_READ;
    /// A program asks by `access(2)`.
    pub const ACCESS: u32 = bindings::MAY_ACCESS;
    /// The file is about to be opened.
    pub const OPEN: u32 = bindings::MAY_OPEN;
    /// A program asks by `chdir(2)`.
    pub const CHDIR: u32 = bindings::MAY_CHDIR;
    /// Nothing may sleep.
    pub const NOT_BLOCK: u32 = bindings::MAY_NOT_BLOCK;
}

/// Types of files, `S_IF*`.
pub mod kind {
    use crate::bindings;

    /// All that there are.
    pub const ALL: [u32; 7] = [
        REGULAR,
        DIRECTORY,
        SYMLINK,
        FIFO,
        SOCKET,
        bindings::S_IFCHR,
        bindings::S_IFBLK,
    ];
    /// FIFO.
    pub const FIFO: u32 = bindings::S_IFIFO;
    /// Directory.
    pub const DIRECTORY: u32 = bindings::S_IFDIR;
    /// Regular file.
    pub const REGULAR: u32 = bindings::S_IFREG;
    /// Unix socket.
    pub const SOCKET: u32 = bindings::S_IFSOCK;
    /// Symlink.
    pub const SYMLINK: u32 = bindings::S_IFLNK;
}

/// `O_*` in the numbers of the protocol.
pub fn open_flags(flags: u32) -> OpenFlags {
    let has = |flag: u32| flags & flag == flag;
    let access = flags & bindings::O_ACCMODE;
    OpenFlags::NONE
        .with_if(access != bindings::O_WRONLY, OpenFlags::READ)
        .with_if(
            access == bindings::O_WRONLY || access == bindings::O_RDWR,
            OpenFlags::WRITE,
        )
        .with_if(has(bindings::O_APPEND), OpenFlags::APPEND)
        .with_if(has(bindings::O_CREAT), OpenFlags::CREATE)
        .with_if(has(bindings::O_EXCL), OpenFlags::EXCL)
        .with_if(has(bindings::O_TRUNC), OpenFlags::TRUNC)
        .with_if(has(bindings::O_DIRECTORY), OpenFlags::DIRECTORY)
        .with_if(has(bindings::O_NONBLOCK), OpenFlags::NONBLOCK)
        .with_if(has(bindings::O_SYNC), OpenFlags::SYNC)
        .with_if(has(bindings::O_DSYNC), OpenFlags::DSYNC)
        .with_if(has(bindings::O_NOATIME), OpenFlags::NOATIME)
        .with_if(has(bindings::FMODE_EXEC), OpenFlags::EXEC)
}

/// `ATTR_*` in the numbers of the protocol.
pub fn setattr_valid(valid: u32) -> SetattrValid {
    let has = |flag: u32| valid & flag == flag;
    // With one of these the mode was made from what this machine knew of it; the server does
    // better when it makes the new one itself.
    let kill = has(bindings::ATTR_KILL_SUID) || has(bindings::ATTR_KILL_SGID);
    SetattrValid::NONE
        .with_if(has(bindings::ATTR_MODE) && !kill, SetattrValid::MODE)
        .with_if(has(bindings::ATTR_UID), SetattrValid::UID)
        .with_if(has(bindings::ATTR_GID), SetattrValid::GID)
        .with_if(has(bindings::ATTR_SIZE), SetattrValid::SIZE)
        .with_if(
            has(bindings::ATTR_ATIME | bindings::ATTR_ATIME_SET),
            SetattrValid::ATIME,
        )
        .with_if(
            has(bindings::ATTR_MTIME | bindings::ATTR_MTIME_SET),
            SetattrValid::MTIME,
        )
        .with_if(
            has(bindings::ATTR_ATIME) && !has(bindings::ATTR_ATIME_SET),
            SetattrValid::ATIME_NOW,
        )
        .with_if(
            has(bindings::ATTR_MTIME) && !has(bindings::ATTR_MTIME_SET),
            SetattrValid::MTIME_NOW,
        )
        .with_if(has(bindings::ATTR_KILL_SUID), SetattrValid::KILL_SUID)
        .with_if(has(bindings::ATTR_KILL_SGID), SetattrValid::KILL_SGID)
        .with_if(has(bindings::ATTR_KILL_PRIV), SetattrValid::KILL_PRIV)
        .with_if(has(bindings::ATTR_OPEN), SetattrValid::OPEN)
}

/// Whether `fallocate(2)` with this mode may make a file longer.
pub fn fallocate_extends(mode: u32) -> bool {
    mode & (bindings::FALLOC_FL_KEEP_SIZE | bindings::FALLOC_FL_COLLAPSE_RANGE) == 0
}

/// Whether `fallocate(2)` with this mode moves contents, so that a second time would do harm.
pub fn fallocate_moves(mode: u32) -> bool {
    mode & (bindings::FALLOC_FL_COLLAPSE_RANGE | bindings::FALLOC_FL_INSERT_RANGE) != 0
}

/// Whether attributes are changed because a file is opened with `O_TRUNC`.
pub fn truncates_on_open(valid: u32) -> bool {
    let both = bindings::ATTR_OPEN | bindings::ATTR_SIZE;
    valid & both == both
}
