// SPDX-License-Identifier: GPL-2.0

//! Who calls, and by which system call.
//!
//! C headers: [`include/linux/cred.h`](srctree/include/linux/cred.h),
//! [`include/asm-generic/syscall.h`](srctree/include/asm-generic/syscall.h)

use core::slice;
use kernel::ffi::c_ulong;

use crate::{
    bindings,
    flags::kind, //
};

/// How the current system call came to the object that it acts on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// By a path, for its attributes: `stat(2)` and its kin.
    PathStat,
    /// By a path, by `open(2)` for reading, which a directory does not refuse.
    PathOpen,
    /// By a path; what is done with the object in the end says whether the path was right, and
    /// the kernel walks it once more when the answer is ESTALE.
    Path(Takes),
    /// By an open file, or in a way that is not known.
    Other,
}

/// Types of objects for which the system call asks the file system at all; for others the kernel
/// fails by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// All.
    Any,
    /// All, and the call is `rename(2)` or one of its kin.
    Rename,
    /// Symlinks.
    Symlink,
    /// Regular files.
    Regular,
    /// Directories.
    Directory,
    /// All but directories.
    NoDirectory,
}

impl Reach {
    /// Looks at the system call that the current task is in.
    pub fn of_current() -> Self {
        // SAFETY: Looks at the current task only.
        match unsafe { bindings::qtfs_syscall_reach() } {
            bindings::qtfs_reach_QTFS_REACH_STAT => Self::PathStat,
            bindings::qtfs_reach_QTFS_REACH_OPEN => Self::PathOpen,
            bindings::qtfs_reach_QTFS_REACH_ANY => Self::Path(Takes::Any),
            bindings::qtfs_reach_QTFS_REACH_RENAME => Self::Path(Takes::Rename),
            bindings::qtfs_reach_QTFS_REACH_SYMLINK => Self::Path(Takes::Symlink),
            bindings::qtfs_reach_QTFS_REACH_REGULAR => Self::Path(Takes::Regular),
            bindings::qtfs_reach_QTFS_REACH_DIRECTORY => Self::Path(Takes::Directory),
            bindings::qtfs_reach_QTFS_REACH_NO_DIRECTORY => Self::Path(Takes::NoDirectory),
            _ => Self::Other,
        }
    }

    /// Whether a path was walked and what is done at its end verifies it. Opening always does.
    pub fn by_path(self) -> bool {
        !matches!(self, Self::PathOpen | Self::Other)
    }

    /// Whether the system call renames.
    pub fn renames(self) -> bool {
        self == Self::Path(Takes::Rename)
    }

    /// Whether an object of type `mode` (`S_IF*`) at the end of the path may be taken on trust.
    pub fn trusts(self, mode: u32) -> bool {
        match self {
            Self::PathStat | Self::Path(Takes::Any | Takes::Rename) => true,
            Self::Path(Takes::Symlink) => mode == kind::SYMLINK,
            Self::Path(Takes::Regular) => mode == kind::REGULAR,
            Self::Path(Takes::Directory) => mode == kind::DIRECTORY,
            Self::Path(Takes::NoDirectory) => mode != kind::DIRECTORY,
            Self::PathOpen | Self::Other => false,
        }
    }
}

/// Whether the current task is in `chown(2)` or one of its kin, with its own credentials: not with
/// those that a file system above this one has lent it.
pub fn changes_owner() -> bool {
    // SAFETY: Looks at the current task only.
    unsafe { bindings::qtfs_syscall_changes_owner() }
}

/// A number of the current task, unique among those that live.
pub fn current_id() -> usize {
    // SAFETY: The current task is alive.
    unsafe { bindings::qtfs_current() as usize }
}

/// A number of the current process (thread group), unique among those that live.
pub fn current_process() -> i32 {
    // SAFETY: The current task is alive.
    unsafe { (*bindings::qtfs_current()).tgid }
}

/// A moment in the life of a task, which lasts until the task waits for anything: as long as it has
/// not, what others do cannot have been told to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    task: usize,
    waits: c_ulong,
}

impl Moment {
    /// The current task, now.
    pub fn now() -> Self {
        Self {
            task: current_id(),
            // SAFETY: The current task is alive, and the only one that counts this.
            waits: unsafe { (*bindings::qtfs_current()).nvcsw },
        }
    }

    /// Whether it lasts: it is the current task's, which has not waited since.
    pub fn lasts(&self) -> bool {
        *self == Self::now()
    }
}

/// The process id of the current task in its own pid namespace.
pub fn own_process() -> u32 {
    // SAFETY: Looks at the current task only.
    u32::try_from(unsafe { bindings::qtfs_current_tgid() }).unwrap_or(0)
}

/// The thread id of the current task in its own pid namespace.
pub fn own_thread() -> u32 {
    // SAFETY: Looks at the current task only.
    u32::try_from(unsafe { bindings::qtfs_current_tid() }).unwrap_or(0)
}

/// The largest file that the current process may make, in bytes (`RLIMIT_FSIZE` of getrlimit(2)).
pub fn file_size_limit() -> u64 {
    // SAFETY: Looks at the current task only.
    (unsafe { bindings::qtfs_file_size_limit() }) as u64
}

/// The umask of the current process.
pub fn umask() -> u32 {
    // SAFETY: The current task is alive.
    (unsafe { bindings::qtfs_current_umask() }) as u32
}

/// Whether a signal that ends the current task has come.
pub fn is_dying() -> bool {
    // SAFETY: The current task is alive.
    unsafe { bindings::qtfs_fatal_signal_pending() }
}

/// The identity of the current task for file accesses.
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Capabilities, of those that matter to files. Those that hold in a user namespace only say
    /// nothing about HOST's files.
    pub caps: u64,
    /// All capabilities that there are.
    pub all_caps: bool,
    groups: *const bindings::group_info,
}

impl Caller {
    /// Looks at the credentials that the current task acts with.
    pub fn current() -> Self {
        // SAFETY: The credentials of the current task do not change while it is in here.
        unsafe {
            let cred = bindings::qtfs_current_cred();
            let caps = bindings::qtfs_cred_caps(cred);
            Self {
                uid: bindings::qtfs_kuid((*cred).fsuid),
                gid: bindings::qtfs_kgid((*cred).fsgid),
                caps: caps & qtfs_proto::CAPABILITIES,
                all_caps: caps & bindings::qtfs_all_caps() == bindings::qtfs_all_caps(),
                groups: bindings::qtfs_cred_groups(cred),
            }
        }
    }

    /// Supplementary groups.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = u32> + Clone + '_ {
        // SAFETY: The credentials, and with them the groups, stay while the current task is in
        // here; the object is not `Send`.
        let groups = unsafe {
            slice::from_raw_parts(
                (*self.groups).gid.as_ptr(),
                usize::try_from((*self.groups).ngroups).unwrap_or(0),
            )
        };
        groups.iter().map(|&gid| {
            // SAFETY: A pure function.
            unsafe { bindings::qtfs_kgid(gid) }
        })
    }
}

/// Tells the current task that it writes where nobody reads, as `write(2)` does: `SIGPIPE`.
pub fn signal_pipe() {
    // SAFETY: It is about the current task.
    unsafe { bindings::qtfs_signal_pipe() };
}
