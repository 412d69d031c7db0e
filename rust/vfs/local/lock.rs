// SPDX-License-Identifier: GPL-2.0

//! Locks on files, which hold against every process of this machine.
//!
//! C header: [`include/linux/filelock.h`](srctree/include/linux/filelock.h)

use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_bindings as bindings;

use super::File;

/// Who holds locks: the kernel compares addresses, so every owner is an object of its own.
///
/// Two of them are never at one address while locks of either exist: whoever locks keeps the
/// owner until the locks are released.
pub struct Owner {
    /// An object without size would have no address of its own.
    _something: u64,
}

impl Owner {
    /// A new owner.
    pub fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self { _something: 0 }, GFP_KERNEL)?)
    }
}

/// What is locked and how.
#[derive(Clone, Copy)]
pub struct Request {
    /// Type of the lock.
    pub kind: Kind,
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// Process, for those who ask.
    pub pid: i32,
    /// Wait until the lock can be had.
    pub wait: bool,
    /// Whose lock it is.
    pub class: Class,
}

/// Type of a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None.
    Unlock,
}

impl Kind {
    fn to_raw(self) -> u8 {
        // CAST: `F_*LCK` are 0, 1 and 2.
        (match self {
            Self::Read => bindings::F_RDLCK,
            Self::Write => bindings::F_WRLCK,
            Self::Unlock => bindings::F_UNLCK,
        }) as u8
    }

    fn from_raw(raw: u8) -> Self {
        match u32::from(raw) {
            bindings::F_RDLCK => Self::Read,
            bindings::F_UNLCK => Self::Unlock,
            _ => Self::Write,
        }
    }
}

/// Families of locks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Of a process (`F_SETLK`).
    Process,
    /// Of an open file (`F_OFD_SETLK`).
    OpenFile,
    /// Of an open file, on the whole of it (`flock(2)`).
    Flock,
}

/// A lock that is in the way.
#[derive(Clone, Copy)]
pub struct Conflict {
    /// Its type; [`Kind::Unlock`] when there is none.
    pub kind: Kind,
    /// Its first byte.
    pub start: u64,
    /// Its last byte.
    pub end: u64,
    /// Its process; -1 when it belongs to an open file.
    pub pid: i32,
}

/// A `struct file_lock`.
///
/// # Invariants
///
/// The pointer comes from `locks_alloc_lock`, nobody else owns it, and it is on no list.
struct Raw(NonNull<bindings::file_lock>);

impl Raw {
    fn new(file: &File, owner: &Owner, request: &Request) -> Result<Self> {
        let how = described(file, owner, request)?;
        // SAFETY: The file outlives the request.
        let raw = unsafe { bindings::qtfs_lock_alloc(&how) };
        // INVARIANT: Newly allocated.
        Ok(Self(NonNull::new(raw).ok_or(ENOMEM)?))
    }
}

/// The request as the C side takes it.
pub(super) fn described(
    file: &File,
    owner: &Owner,
    request: &Request,
) -> Result<bindings::qtfs_lock> {
    let mut flags = match request.class {
        Class::Process => bindings::FL_POSIX,
        Class::OpenFile => bindings::FL_POSIX | bindings::FL_OFDLCK,
        Class::Flock => bindings::FL_FLOCK,
    };
    if request.wait {
        flags |= bindings::FL_SLEEP;
    }
    let owner = match request.class {
        // What the kernel itself takes for the owner of such locks, and releases with it.
        Class::Flock => file.as_ptr().cast(),
        _ => (&raw const *owner).cast_mut().cast::<c_void>(),
    };
    let start = i64::try_from(request.start).map_err(|_| EOVERFLOW)?;
    let end = i64::try_from(request.end).unwrap_or(i64::MAX);
    if end < start {
        return Err(EINVAL);
    }
    let (start, end) = match request.class {
        Class::Flock => (0, i64::MAX),
        _ => (start, end),
    };
    Ok(bindings::qtfs_lock {
        file: file.as_ptr(),
        owner,
        flags,
        type_: request.kind.to_raw(),
        pid: request.pid,
        start,
        end,
    })
}

/// Whether the file was opened for such a lock, as `fcntl(2)` and `flock(2)` say.
pub(super) fn check(file: &File, request: &Request) -> Result {
    let readable = file.is_readable();
    let writable = file.is_writable();
    let allowed = match (request.kind, request.class) {
        (Kind::Unlock, _) => true,
        (_, Class::Flock) => readable || writable,
        (Kind::Read, _) => readable,
        (Kind::Write, _) => writable,
    };
    if allowed {
        Ok(())
    } else {
        Err(EBADF)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::locks_free_lock(self.0.as_ptr()) };
    }
}

/// Takes or releases a lock.
///
/// Fails with [`EAGAIN`] when another's is in the way and the request does not wait, with
/// [`EDEADLK`] when waiting could last for ever, with [`EINTR`] when a wait was interrupted.
pub fn apply(file: &File, owner: &Owner, request: &Request) -> Result {
    check(file, request)?;
    let raw = Raw::new(file, owner, request)?;
    // SAFETY: The file is held and the lock is for it; the call takes it off all lists.
    match unsafe { bindings::qtfs_lock_apply(file.as_ptr(), raw.0.as_ptr()) } {
        0 => Ok(()),
        e if e < 0 => Err(Error::from_errno(e)),
        // A file system that would answer later, which nobody asked it to.
        _ => Err(EAGAIN),
    }
}

/// Looks for a lock that is in the way of the request.
pub fn test(file: &File, owner: &Owner, request: &Request) -> Result<Conflict> {
    let raw = Raw::new(file, owner, request)?;
    // SAFETY: The file is held and the lock is for it.
    kernel::error::to_result(unsafe { bindings::qtfs_lock_test(file.as_ptr(), raw.0.as_ptr()) })?;
    // SAFETY: The lock is ours.
    let lock = unsafe { raw.0.as_ref() };
    let of_file = lock.c.flc_flags & bindings::FL_OFDLCK != 0;
    Ok(Conflict {
        kind: Kind::from_raw(lock.c.flc_type),
        start: u64::try_from(lock.fl_start).unwrap_or(0),
        end: u64::try_from(lock.fl_end).unwrap_or(u64::MAX),
        pid: if of_file { -1 } else { lock.c.flc_pid },
    })
}

/// How many locks of ranges `owner` has on the object that `file` is open on.
pub fn ranges(file: &File, owner: &Owner) -> usize {
    // SAFETY: The file is held; the owner is compared only.
    let count = unsafe { bindings::qtfs_lock_ranges(file.as_ptr(), (&raw const *owner).cast()) };
    // CAST: At least 32 bits.
    count as usize
}

/// Releases the lock that belongs to an open file as a whole; `owner` is anybody.
pub fn release_flock(file: &File, owner: &Owner) -> Result {
    let request = Request {
        kind: Kind::Unlock,
        start: 0,
        end: u64::MAX,
        pid: 0,
        wait: false,
        class: Class::Flock,
    };
    apply(file, owner, &request)
}

/// Releases all locks of ranges that `owner` holds on the object that `file` is open on.
pub fn release_all(file: &File, owner: &Owner) {
    // SAFETY: The file is held; the owner is compared only.
    unsafe {
        bindings::locks_remove_posix(file.as_ptr(), (&raw const *owner).cast_mut().cast());
    }
}
