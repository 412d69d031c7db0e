// SPDX-License-Identifier: GPL-2.0

//! File locks: `fcntl(2)` and `flock(2)`.
//!
//! C header: [`include/linux/filelock.h`](srctree/include/linux/filelock.h)

use core::ptr;
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::{
    bindings,
    file::File,
    fs::FileSystem,
    inode::Inode, //
};
use qtfs_proto::LockType;

/// What a program asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Whether a lock is in the way.
    Test,
    /// Take it, or release it, without waiting.
    Set,
    /// Take it, waiting if need be.
    Wait,
}

/// One lock request of a program.
pub struct LockRequest<'a> {
    file: *mut bindings::file,
    lock: &'a mut bindings::file_lock,
    /// What is asked for.
    pub command: Command,
}

impl LockRequest<'_> {
    fn flag(&self, flag: u32) -> bool {
        self.lock.c.flc_flags & flag != 0
    }

    /// Whether it is a BSD lock.
    pub fn is_flock(&self) -> bool {
        self.flag(bindings::FL_FLOCK)
    }

    /// Whether it belongs to the open file description.
    pub fn is_ofd(&self) -> bool {
        self.flag(bindings::FL_OFDLCK)
    }

    /// Whether the lock is dropped because a descriptor, or the file, is closed.
    pub fn is_close(&self) -> bool {
        // SAFETY: Looks at the file's count only; the caller holds the file unless it is closed.
        self.flag(bindings::FL_CLOSE) || unsafe { bindings::qtfs_file_is_closing(self.file) }
    }

    /// Type.
    pub fn kind(&self) -> Result<LockType> {
        match u32::from(self.lock.c.flc_type) {
            bindings::F_RDLCK => Ok(LockType::Read),
            bindings::F_WRLCK => Ok(LockType::Write),
            bindings::F_UNLCK => Ok(LockType::Unlock),
            _ => Err(EINVAL),
        }
    }

    /// A number for the owner, different for each; not an address that anybody could use.
    pub fn owner(&self) -> u64 {
        let owner = if self.is_flock() {
            self.file as usize
        } else {
            self.lock.c.flc_owner as usize
        };
        // SAFETY: A pure function with a secret of this boot.
        unsafe { bindings::qtfs_hash_owner(owner as c_ulong) }
    }

    /// First byte.
    pub fn start(&self) -> u64 {
        u64::try_from(self.lock.fl_start).unwrap_or(0)
    }

    /// Last byte.
    pub fn end(&self) -> u64 {
        u64::try_from(self.lock.fl_end).unwrap_or(0)
    }

    /// Process that asks.
    pub fn pid(&self) -> u32 {
        u32::try_from(self.lock.c.flc_pid).unwrap_or(0)
    }

    /// Answers [`Command::Test`] by what this machine's own locks say. Returns whether one of
    /// them is in the way.
    pub fn test_local(&mut self) -> bool {
        // SAFETY: File and lock belong together. Without a conflict the type becomes "unlock",
        // which must not show yet.
        unsafe {
            let kind = self.lock.c.flc_type;
            bindings::posix_test_lock(self.file, self.lock);
            if u32::from(self.lock.c.flc_type) == bindings::F_UNLCK {
                self.lock.c.flc_type = kind;
                return false;
            }
            true
        }
    }

    /// Answers [`Command::Test`].
    pub fn answer(&mut self, kind: LockType, start: u64, end: u64, pid: u32) {
        self.lock.c.flc_type = match kind {
            LockType::Read => bindings::F_RDLCK,
            LockType::Write => bindings::F_WRLCK,
            LockType::Unlock => bindings::F_UNLCK,
        } as u8;
        self.lock.fl_start = i64::try_from(start).unwrap_or(i64::MAX);
        self.lock.fl_end = i64::try_from(end).unwrap_or(i64::MAX);
        // The kernel shows processes of other machines as negative numbers.
        self.lock.c.flc_pid = -i32::try_from(pid).unwrap_or(0);
    }

    /// Records the lock on this machine, so that the kernel drops it when the process ends.
    pub fn record(&mut self) -> Result {
        // SAFETY: File and lock belong together. The server has granted the lock, so nobody here
        // holds one that conflicts and there is no wait.
        to_result(unsafe {
            bindings::locks_lock_inode_wait(bindings::qtfs_file_inode(self.file), self.lock)
        })
    }
}

/// Whether this machine has recorded a lock on an inode that was taken through an open file. Locks go
/// by other ways too: a process drops all its POSIX locks when it closes any file of the inode.
pub fn is_held_through<F: FileSystem>(inode: &Inode<F>, open: &Arc<F::Open>) -> bool {
    // SAFETY: The inode is alive. An `Arc` is one pointer, which is what files keep; it is compared
    // only.
    unsafe {
        let open = *ptr::from_ref(open).cast::<*const c_void>();
        bindings::qtfs_lock_is_held(inode.as_raw(), open)
    }
}

/// # Safety
///
/// Called by the VFS with an open file of `F` and a lock request on it.
pub(crate) unsafe extern "C" fn lock<F: FileSystem>(
    file: *mut bindings::file,
    command: c_int,
    lock: *mut bindings::file_lock,
) -> c_int {
    from_result(|| {
        let command = match command as u32 {
            bindings::F_GETLK => Command::Test,
            bindings::F_SETLK => Command::Set,
            bindings::F_SETLKW => Command::Wait,
            _ => return Err(EINVAL),
        };
        // SAFETY: As the VFS says.
        unsafe {
            let mut request = LockRequest {
                file,
                lock: &mut *lock,
                command,
            };
            F::lock(File::from_raw(file), &mut request)?;
        }
        Ok(0)
    })
}
