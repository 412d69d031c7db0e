// SPDX-License-Identifier: GPL-2.0

//! The attributes of a file system object, as `statx(2)` and what the client's caches need.

use crate::{
    types::{AttrFlags, FsClass, NodeId, Time},
    wire_struct,
};

wire_struct! {
    /// Attributes of one object; every reply that names an object carries them.
    Attr {
        /// Id of the object in this session.
        node: NodeId,
        /// Grows with every reply of the session that carries `node`, see
        /// [`crate::types::Forget`].
        stamp: u64,
        /// HOST's inode number. With `dev`, `mount` and `generation` the identity of the object.
        ino: u64,
        /// HOST's inode generation, 0 where the file system has none.
        generation: u32,
        /// Facts.
        flags: AttrFlags,
        /// Number of HOST's superblock, stable while that is mounted; not for users' eyes.
        dev: u64,
        /// Of a directory, where HOST has mounted what it is on; 0 of anything else. One directory
        /// that can be reached by several mounts is several for the client, as it has one place
        /// each. A number without meaning, the same for the same place.
        mount: u64,
        /// Kind of file system.
        class: FsClass,
        /// Generation of the caching grant that comes with the reply; 0: nothing is granted.
        grant: u32,
        /// Type and permission bits, `S_IF*` as everywhere on Linux.
        mode: u32,
        /// Number of hard links.
        nlink: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Device number of a device node: major.
        rdev_major: u32,
        /// Device number of a device node: minor.
        rdev_minor: u32,
        /// Preferred I/O size in bytes.
        blksize: u32,
        /// Size in bytes.
        size: u64,
        /// Allocated 512-byte blocks.
        blocks: u64,
        /// `STATX_ATTR_*` bits that are set.
        attributes: u64,
        /// `STATX_ATTR_*` bits that the file system knows.
        attributes_mask: u64,
        /// Last access.
        atime: Time,
        /// Last change of contents.
        mtime: Time,
        /// Last change of attributes.
        ctime: Time,
        /// Creation; all 0 where the file system does not keep it.
        btime: Time,
        /// Grows whenever somebody other than this session changed the object. Cached contents
        /// are good while it stays the same.
        version: u64,
    }
}
