// SPDX-License-Identifier: GPL-2.0

//! What file systems are like, by their magic numbers.

use qtfs_proto::FsClass;
use qtfs_vfs::local::magic;

/// The kind of file system that decides what the client may cache.
pub(crate) fn of(magic: u64) -> FsClass {
    match magic {
        magic::PROC => FsClass::Proc,
        magic::CGROUP2 => FsClass::Cgroup,
        magic::SYSFS
        | magic::CGROUP
        | magic::DEBUGFS
        | magic::TRACEFS
        | magic::SECURITYFS
        | magic::CONFIGFS
        | magic::EFIVARFS
        | magic::PSTORE
        | magic::BPF
        | magic::BINFMT_MISC
        | magic::SELINUX
        | magic::SMACK
        | magic::NSFS
        | magic::RDTGROUP
        | magic::FUSE_CONTROL => FsClass::Sys,
        _ => FsClass::Regular,
    }
}

/// Whether listing the extended attributes as root shows all there are.
///
/// Elsewhere ACLs or labels may be there that are not listed.
pub(crate) fn lists_all_xattrs(magic: u64) -> bool {
    matches!(
        magic,
        magic::EXT | magic::XFS | magic::BTRFS | magic::TMPFS | magic::F2FS | magic::OVERLAY
    )
}
