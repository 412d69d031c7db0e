// SPDX-License-Identifier: GPL-2.0

//! Magic numbers of file systems, as `statfs(2)` returns them in `f_type`.
//!
//! C header: [`include/uapi/linux/magic.h`](srctree/include/uapi/linux/magic.h)

use qtfs_bindings as bindings;

macro_rules! magics {
    ($( $name:ident = $raw:ident, $what:literal; )*) => { $(
        #[doc = $what]
        pub const $name: u64 = bindings::$raw as u64;
    )* };
}

magics! {
    PROC = PROC_SUPER_MAGIC, "procfs.";
    SYSFS = SYSFS_MAGIC, "sysfs.";
    CGROUP = CGROUP_SUPER_MAGIC, "Control groups, version 1.";
    CGROUP2 = CGROUP2_SUPER_MAGIC, "Control groups, version 2.";
    DEBUGFS = DEBUGFS_MAGIC, "debugfs.";
    TRACEFS = TRACEFS_MAGIC, "tracefs.";
    SECURITYFS = SECURITYFS_MAGIC, "securityfs.";
    EFIVARFS = EFIVARFS_MAGIC, "Variables of the firmware.";
    PSTORE = PSTOREFS_MAGIC, "What the firmware kept of a crash.";
    BPF = BPF_FS_MAGIC, "Pinned BPF objects.";
    BINFMT_MISC = BINFMTFS_MAGIC, "Binary formats.";
    SELINUX = SELINUX_MAGIC, "SELinux.";
    SMACK = SMACK_MAGIC, "Smack.";
    NSFS = NSFS_MAGIC, "Namespaces.";
    RDTGROUP = RDTGROUP_SUPER_MAGIC, "Resource control.";
    EXT = EXT4_SUPER_MAGIC, "ext2, ext3 and ext4.";
    XFS = XFS_SUPER_MAGIC, "XFS.";
    BTRFS = BTRFS_SUPER_MAGIC, "btrfs.";
    TMPFS = TMPFS_MAGIC, "tmpfs.";
    F2FS = F2FS_SUPER_MAGIC, "F2FS.";
    OVERLAY = OVERLAYFS_SUPER_MAGIC, "overlayfs.";
}

/// configfs, whose number is not in a header.
pub const CONFIGFS: u64 = 0x6265_6570;
/// bcachefs, whose number is not in a header.
pub const BCACHEFS: u64 = 0xca45_1a4e;
/// Control files of FUSE, whose number is not in a header.
pub const FUSE_CONTROL: u64 = 0x6573_5543;
