// SPDX-License-Identifier: GPL-2.0

//! Open files and their data.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/splice.h`](srctree/include/linux/splice.h)

use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
};
use qtfs_bindings as bindings;
use qtfs_net::Pages;

use super::{
    Name,
    Path, //
};

/// Longest transfer at once, as `MAX_RW_COUNT`.
const MAX_TRANSFER: usize = 0x7fff_f000;

/// An open file; closed on drop, at once and not when the task returns to user space.
///
/// # Invariants
///
/// The pointer is an open file to which this object holds a reference.
pub struct File(NonNull<bindings::file>);

// SAFETY: Files are counted, locked by themselves, and may be closed by any task.
unsafe impl Send for File {}
// SAFETY: As above. The shared file position is used by `dir` alone, which needs `&mut`.
unsafe impl Sync for File {}

/// How a file is opened, as the flags of `open(2)`.
#[derive(Clone, Copy, Default)]
pub struct How {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// `O_APPEND`.
    pub append: bool,
    /// `O_TRUNC`.
    pub truncate: bool,
    /// `O_DIRECTORY`.
    pub directory: bool,
    /// `O_NONBLOCK`.
    pub nonblock: bool,
    /// `O_SYNC`.
    pub sync: bool,
    /// `O_DSYNC`.
    pub dsync: bool,
    /// `O_NOATIME`.
    pub noatime: bool,
}

impl How {
    /// `O_*` flags, with those that keep symlinks and controlling terminals away.
    pub(super) fn flags(self) -> c_int {
        let access = match (self.read, self.write) {
            (_, false) => bindings::O_RDONLY,
            (false, true) => bindings::O_WRONLY,
            (true, true) => bindings::O_RDWR,
        };
        let mut flags = access | bindings::O_LARGEFILE | bindings::O_NOFOLLOW | bindings::O_NOCTTY;
        for (on, flag) in [
            (self.append, bindings::O_APPEND),
            (self.truncate, bindings::O_TRUNC),
            (self.directory, bindings::O_DIRECTORY),
            (self.nonblock, bindings::O_NONBLOCK),
            (self.sync, bindings::O_SYNC),
            (self.dsync, bindings::O_DSYNC),
            (self.noatime, bindings::O_NOATIME),
        ] {
            if on {
                flags |= flag;
            }
        }
        // CAST: All flags are low bits.
        flags as c_int
    }
}

/// How data is written.
#[derive(Clone, Copy, Default)]
pub struct WriteHow {
    /// At the end.
    pub append: bool,
    /// `O_DSYNC`.
    pub dsync: bool,
    /// `O_SYNC`.
    pub sync: bool,
}

/// How data is read.
#[derive(Clone, Copy, Default)]
pub struct ReadHow {
    /// Do not wait.
    pub nowait: bool,
    /// Past the page cache, where the file system can.
    pub direct: bool,
}

impl File {
    /// Opens what `path` leads to, which is not followed when it is a symlink.
    ///
    /// As `open(2)`, with the current credential.
    pub fn open(path: &Path, how: How) -> Result<Self> {
        Self::open_raw(path, c"", how.flags(), 0)
    }

    /// Makes and opens a file, in one step; fails with [`EEXIST`] when the name exists.
    ///
    /// The umask of the current task is taken off the mode by the file system's rules.
    pub fn create(dir: &Path, name: &Name, how: How, mode: u16) -> Result<Self> {
        // CAST: All flags are low bits.
        let flags = how.flags() | (bindings::O_CREAT | bindings::O_EXCL) as c_int;
        Self::open_raw(dir, name.as_c_str(), flags, mode)
    }

    /// Makes and opens a file without a name on the file system of a directory.
    ///
    /// It may be given a name later unless `exclusive`.
    pub fn create_nameless(dir: &Path, how: How, exclusive: bool, mode: u16) -> Result<Self> {
        let flags = bindings::O_TMPFILE | if exclusive { bindings::O_EXCL } else { 0 };
        // CAST: All flags are low bits.
        Self::open_raw(dir, c"", how.flags() | flags as c_int, mode)
    }

    fn open_raw(root: &Path, name: &CStr, flags: c_int, mode: u16) -> Result<Self> {
        // SAFETY: The path is held and the name ends with a NUL. An empty name is the path
        // itself.
        let file = from_err_ptr(unsafe {
            bindings::file_open_root(root.as_raw(), name.as_char_ptr(), flags, mode)
        })?;
        // INVARIANT: The reference is ours.
        Ok(Self(NonNull::new(file).ok_or(ENOENT)?))
    }

    /// # Safety
    ///
    /// The caller gives its reference to an open file away.
    pub(crate) unsafe fn from_raw(raw: NonNull<bindings::file>) -> Self {
        // INVARIANT: By this function's requirements.
        Self(raw)
    }

    /// Gives up ownership.
    pub(crate) fn into_raw(self) -> *mut bindings::file {
        let raw = self.as_ptr();
        core::mem::forget(self);
        raw
    }

    /// Another reference to the same open file.
    pub fn share(&self) -> Self {
        // SAFETY: The file is held.
        unsafe { bindings::qtfs_get_file(self.as_ptr()) };
        // INVARIANT: The reference is new.
        Self(self.0)
    }

    /// Whether it is a socket.
    pub fn is_socket(&self) -> bool {
        // SAFETY: The file is held.
        unsafe { bindings::qtfs_is_socket(self.as_ptr()) }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::file {
        self.0.as_ptr()
    }

    fn mode(&self) -> bindings::fmode_t {
        // SAFETY: The file is held; what is tested does not change after opening.
        unsafe { (*self.as_ptr()).f_mode }
    }

    /// Where the file was opened; its name there follows renames.
    pub fn path(&self) -> Path {
        // SAFETY: The file is held; the shim returns references of our own.
        unsafe { Path::from_raw(bindings::qtfs_file_path(self.as_ptr())) }
    }

    /// Whether the call that opened it made it.
    pub fn was_created(&self) -> bool {
        self.mode() & bindings::FMODE_CREATED != 0
    }

    /// Whether it is open for reading.
    pub fn is_readable(&self) -> bool {
        self.mode() & bindings::FMODE_READ != 0
    }

    /// Whether it is open for writing.
    pub fn is_writable(&self) -> bool {
        self.mode() & bindings::FMODE_WRITE != 0
    }

    /// Whether it was opened with `O_APPEND`.
    fn appends(&self) -> bool {
        // SAFETY: The file is held; nobody changes its flags.
        unsafe { (*self.as_ptr()).f_flags & bindings::O_APPEND != 0 }
    }

    /// Whether it reads from kernel memory; if not, a [`super::window::Window`] is needed.
    pub fn reads_pages(&self) -> bool {
        // SAFETY: The file is held.
        unsafe { bindings::qtfs_file_has_read_iter(self.as_ptr()) }
    }

    /// Whether it writes from kernel memory; if not, a [`super::window::Window`] is needed.
    pub fn writes_pages(&self) -> bool {
        // SAFETY: The file is held.
        unsafe { bindings::qtfs_file_has_write_iter(self.as_ptr()) }
    }

    /// Whether its contents can be had without asking for them: it never blocks, and reading
    /// takes nothing away from others.
    pub fn may_be_read_ahead(&self) -> bool {
        // SAFETY: The file is held. What `poll` says without an own method is always the same.
        unsafe {
            !bindings::qtfs_file_can_poll(self.as_ptr())
                || bindings::qtfs_poll_now(self.as_ptr()) & bindings::EPOLLOUT != 0
        }
    }

    /// Whether it can be waited for; others are always ready.
    pub fn can_poll(&self) -> bool {
        // SAFETY: The file is held.
        unsafe { bindings::qtfs_file_can_poll(self.as_ptr()) }
    }

    /// Reads up to `len` bytes into `pages`; returns how many, which is fewer at the end.
    pub fn read(&self, offset: u64, pages: &Pages, len: usize, how: ReadHow) -> Result<usize> {
        let len = len.min(pages.len()).min(MAX_TRANSFER);
        let mut pos = i64::try_from(offset).map_err(|_| EINVAL)?;
        let mut flags = 0;
        if how.nowait && self.mode() & bindings::FMODE_NOWAIT != 0 {
            flags |= bindings::RWF_NOWAIT;
        }
        if how.direct && self.mode() & bindings::FMODE_CAN_ODIRECT != 0 {
            // CAST: One bit of many.
            flags |= bindings::IOCB_DIRECT as c_int;
        }
        let segments = pages.segments();
        // SAFETY: The file is held; `Segment` is a transparent `bio_vec` and `pages` holds the
        // pages of at least `len` bytes.
        let n = unsafe {
            bindings::qtfs_file_read_bvec(
                self.as_ptr(),
                segments.as_ptr().cast(),
                segments.len(),
                len,
                &mut pos,
                flags,
            )
        };
        count(n)
    }

    /// Whether [`File::read_in_place`] hands out pages of the page cache.
    pub fn can_read_in_place(&self) -> bool {
        // SAFETY: The file is held.
        unsafe { bindings::qtfs_file_readable_pages(self.as_ptr()) }
    }

    /// Takes the pages of the page cache that have up to `len` bytes from `offset` on.
    pub fn read_in_place(&self, offset: u64, len: usize) -> Result<Pages> {
        /// What [`take`] works on.
        struct Sink {
            pages: Pages,
            error: Result,
        }

        /// # Safety
        ///
        /// `sink` is a [`Sink`], the range of `page` is valid.
        unsafe extern "C" fn take(
            sink: *mut c_void,
            page: *mut bindings::page,
            offset: c_uint,
            len: c_uint,
        ) -> c_int {
            // SAFETY: By this function's requirements.
            let sink = unsafe { &mut *sink.cast::<Sink>() };
            sink.error = match NonNull::new(page) {
                // SAFETY: By this function's requirements.
                Some(page) => unsafe { sink.pages.push_page(page, offset as usize, len as usize) },
                None => Err(EIO),
            };
            sink.error.map_or_else(|e| e.to_errno(), |()| 0)
        }

        let mut sink = Sink {
            pages: Pages::new(),
            error: Ok(()),
        };
        let pos = i64::try_from(offset).map_err(|_| EINVAL)?;
        // SAFETY: The file is held; `take` gets the sink, which outlives the call.
        let n = unsafe {
            bindings::qtfs_file_read_pages(
                self.as_ptr(),
                pos,
                len.min(MAX_TRANSFER),
                Some(take),
                (&raw mut sink).cast(),
            )
        };
        sink.error?;
        sink.pages.truncate(count(n)?);
        Ok(sink.pages)
    }

    /// Writes the bytes of `pages` from `start` on; returns how many were written and where the
    /// last of them ended.
    pub fn write(
        &self,
        offset: u64,
        pages: &Pages,
        start: usize,
        how: WriteHow,
    ) -> Result<(usize, u64)> {
        let len = pages.len().saturating_sub(start).min(MAX_TRANSFER);
        let mut pos = i64::try_from(offset).map_err(|_| EINVAL)?;
        // The caller is on another machine.
        let mut flags = bindings::RWF_NOSIGNAL;
        if how.sync {
            flags |= bindings::RWF_SYNC | bindings::RWF_DSYNC;
        } else if how.dsync {
            flags |= bindings::RWF_DSYNC;
        }
        if how.append {
            flags |= bindings::RWF_APPEND;
        } else if self.appends() {
            flags |= bindings::RWF_NOAPPEND;
        }
        let rest;
        let segments = if start == 0 {
            pages.segments()
        } else {
            rest = pages.range(start, pages.len())?;
            &rest
        };
        // SAFETY: The file is held; `Segment` is a transparent `bio_vec` and `pages` holds the
        // pages of the segments, which have at least `len` bytes.
        let n = unsafe {
            bindings::qtfs_file_write_bvec(
                self.as_ptr(),
                segments.as_ptr().cast(),
                segments.len(),
                len,
                &mut pos,
                flags,
            )
        };
        Ok((count(n)?, u64::try_from(pos).map_err(|_| EIO)?))
    }

    /// Puts the bytes from `start` to `end` on the disk.
    pub fn sync(&self, start: u64, end: u64, data_only: bool) -> Result {
        let start = i64::try_from(start).map_err(|_| EINVAL)?;
        let end = i64::try_from(end).unwrap_or(i64::MAX);
        // SAFETY: The file is held.
        to_result(unsafe {
            bindings::vfs_fsync_range(self.as_ptr(), start, end, c_int::from(data_only))
        })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours. It is the second one while the file
        // system is told that a descriptor was closed, so that the last one is put here, where
        // nothing is left for later.
        unsafe {
            bindings::qtfs_get_file(self.as_ptr());
            bindings::filp_close(self.as_ptr(), ptr::null_mut());
            bindings::__fput_sync(self.as_ptr());
        }
    }
}

/// A count of bytes, or a negative errno.
pub(super) fn count(n: isize) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::from_errno(c_int::try_from(n).unwrap_or(-5)))
}
