// SPDX-License-Identifier: GPL-2.0

//! Reading and writing requests of programs.
//!
//! C headers: [`include/linux/uio.h`](srctree/include/linux/uio.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)

use core::marker::PhantomData;
use kernel::{
    error::to_result,
    prelude::*, //
};

use crate::{
    bindings,
    cache,
    file::File,
    fs::FileSystem, //
};
use qtfs_net::Pages;

/// The memory of a request, as `struct iov_iter`.
pub struct Iter<'a>(&'a mut bindings::iov_iter);

impl<'a> Iter<'a> {
    pub(crate) fn new(iter: &'a mut bindings::iov_iter) -> Self {
        Self(iter)
    }
}

impl Iter<'_> {
    /// Bytes that are left.
    pub fn count(&self) -> usize {
        // SAFETY: The iterator is alive.
        unsafe { bindings::qtfs_iov_iter_count(self.0) }
    }

    /// Goes back by `len` bytes that were copied.
    pub fn revert(&mut self, len: usize) {
        // SAFETY: The iterator is alive, and is that far from its beginning.
        unsafe { bindings::iov_iter_revert(self.0, len) };
    }

    /// Copies the first `len` bytes of `pages` to the caller. Returns how many bytes its memory
    /// took.
    pub fn copy_from_pages(&mut self, pages: &Pages, len: usize) -> usize {
        let mut done = 0;
        for segment in pages.segments() {
            let part = segment.len().min(len - done);
            if part == 0 {
                break;
            }
            let raw = segment.raw();
            // SAFETY: `pages` holds the segment.
            let copied = unsafe {
                bindings::copy_page_to_iter(raw.bv_page, raw.bv_offset as usize, part, self.0)
            };
            done += copied;
            if copied < part {
                break;
            }
        }
        done
    }

    /// Copies the caller's bytes to `pages`, as many as both have. Returns how many.
    pub fn copy_to_pages(&mut self, pages: &Pages) -> usize {
        let mut done = 0;
        for segment in pages.segments() {
            let part = segment.len().min(self.count());
            if part == 0 {
                break;
            }
            let raw = segment.raw();
            // SAFETY: `pages` holds the segment, and nobody else uses its memory yet.
            let copied = unsafe {
                bindings::qtfs_copy_page_from_iter(
                    raw.bv_page,
                    raw.bv_offset as usize,
                    part,
                    self.0,
                )
            };
            done += copied;
            if copied < part {
                break;
            }
        }
        done
    }
}

/// One read or write request of a program, as `struct kiocb`.
pub struct Kiocb<'a, F: FileSystem>(&'a mut bindings::kiocb, PhantomData<F>);

impl<F: FileSystem> Kiocb<'_, F> {
    /// The file.
    pub fn file(&self) -> &File<F> {
        // SAFETY: A request holds its file.
        unsafe { File::from_raw(self.0.ki_filp) }
    }

    /// Where in the file, in bytes.
    pub fn pos(&self) -> u64 {
        u64::try_from(self.0.ki_pos).unwrap_or(0)
    }

    /// Sets where in the file the next request goes on.
    pub fn set_pos(&mut self, pos: u64) {
        self.0.ki_pos = i64::try_from(pos).unwrap_or(i64::MAX);
    }

    fn has(&self, flag: u32) -> bool {
        self.0.ki_flags as u32 & flag != 0
    }

    /// Whether the page cache is to be passed (`O_DIRECT`).
    pub fn is_direct(&self) -> bool {
        self.has(bindings::IOCB_DIRECT)
    }

    /// Whether the data goes to the end of the file (`O_APPEND`).
    pub fn is_append(&self) -> bool {
        self.has(bindings::IOCB_APPEND as u32)
    }

    /// Whether the request may not wait.
    pub fn is_nowait(&self) -> bool {
        self.has(bindings::IOCB_NOWAIT as u32)
    }

    /// Whether a FIFO that nobody reads is told by an error alone (`RWF_NOSIGNAL`).
    pub fn is_without_signal(&self) -> bool {
        self.has(bindings::IOCB_NOSIGNAL as u32)
    }

    /// Whether data must reach stable storage before the write returns (`O_DSYNC`).
    pub fn is_dsync(&self) -> bool {
        self.has(bindings::IOCB_DSYNC as u32)
    }

    /// Whether attributes must reach stable storage too (`O_SYNC`).
    pub fn is_sync(&self) -> bool {
        self.has(bindings::IOCB_SYNC as u32)
    }

    /// Checks a write against limits and cuts it down to them, as `generic_write_checks`. Returns
    /// how many bytes may be written. The inode is locked.
    pub fn write_checks(&mut self, iter: &mut Iter<'_>) -> Result<usize> {
        // SAFETY: Request and memory belong together.
        let len = unsafe { bindings::generic_write_checks(self.0, iter.0) };
        to_result(len.min(0) as c_int)?;
        Ok(len as usize)
    }

    /// Reads through the page cache.
    pub fn read_cached(&mut self, iter: &mut Iter<'_>) -> Result<usize> {
        // SAFETY: Request and memory belong together.
        let len = unsafe { bindings::generic_file_read_iter(self.0, iter.0) };
        to_result(len.min(0) as c_int)?;
        Ok(len as usize)
    }

    /// Writes into the page cache. The inode is locked and the checks are made.
    pub fn write_cached(&mut self, iter: &mut Iter<'_>) -> Result<usize> {
        // SAFETY: Request and memory belong together; the file outlives the call.
        let len = unsafe {
            let file = self.0.ki_filp;
            bindings::iomap_file_buffered_write(
                self.0,
                iter.0,
                cache::map_operations(),
                cache::write_operations::<F>(),
                file.cast(),
            )
        };
        to_result(len.min(0) as c_int)?;
        Ok(len as usize)
    }

    /// Puts what was written on stable storage when the file asks for that.
    pub fn write_sync(&mut self, written: usize) -> Result<usize> {
        // SAFETY: The request is alive.
        let len = unsafe { bindings::qtfs_generic_write_sync(self.0, written as isize) };
        to_result(len.min(0) as c_int)?;
        Ok(len as usize)
    }
}

/// # Safety
///
/// Called by the VFS with a request on a file of `F` and its memory.
pub(crate) unsafe extern "C" fn read_iter<F: FileSystem>(
    iocb: *mut bindings::kiocb,
    iter: *mut bindings::iov_iter,
) -> isize {
    // SAFETY: As the VFS says.
    let result = unsafe { F::read(&mut Kiocb(&mut *iocb, PhantomData), &mut Iter(&mut *iter)) };
    result.map_or_else(|e| e.to_errno() as isize, |n| n as isize)
}

/// # Safety
///
/// Called by the VFS with a request on a file of `F` and its memory.
pub(crate) unsafe extern "C" fn write_iter<F: FileSystem>(
    iocb: *mut bindings::kiocb,
    iter: *mut bindings::iov_iter,
) -> isize {
    // SAFETY: As the VFS says.
    let result = unsafe { F::write(&mut Kiocb(&mut *iocb, PhantomData), &mut Iter(&mut *iter)) };
    result.map_or_else(|e| e.to_errno() as isize, |n| n as isize)
}

/// # Safety
///
/// Called by the VFS with a request on a FIFO of `F` and its memory.
pub(crate) unsafe extern "C" fn receive_iter<F: FileSystem>(
    iocb: *mut bindings::kiocb,
    iter: *mut bindings::iov_iter,
) -> isize {
    // SAFETY: As the VFS says.
    let result = unsafe { F::receive(&Kiocb(&mut *iocb, PhantomData), &mut Iter(&mut *iter)) };
    result.map_or_else(|e| e.to_errno() as isize, |n| n as isize)
}

/// # Safety
///
/// Called by the VFS with a request on a FIFO of `F` and its memory.
pub(crate) unsafe extern "C" fn send_iter<F: FileSystem>(
    iocb: *mut bindings::kiocb,
    iter: *mut bindings::iov_iter,
) -> isize {
    // SAFETY: As the VFS says.
    let result = unsafe { F::send(&Kiocb(&mut *iocb, PhantomData), &mut Iter(&mut *iter)) };
    result.map_or_else(|e| e.to_errno() as isize, |n| n as isize)
}
