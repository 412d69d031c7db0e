// SPDX-License-Identifier: GPL-2.0

//! Space of files: allocation, holes, copies that do not leave the machine.

use kernel::{
    error::to_result,
    prelude::*, //
};
use qtfs_bindings as bindings;

use super::{
    file::count,
    File, //
};

/// A range of an open file.
#[derive(Clone, Copy)]
pub struct Range<'a> {
    /// The file.
    pub file: &'a File,
    /// Where, in bytes.
    pub offset: u64,
}

impl Range<'_> {
    fn position(&self) -> Result<i64> {
        i64::try_from(self.offset).map_err(|_| EINVAL)
    }
}

/// Allocates, punches, zeroes … as `fallocate(2)`; `mode` are its flags.
pub fn allocate(range: Range<'_>, mode: u32, len: u64) -> Result {
    let mode = c_int::try_from(mode).map_err(|_| EOPNOTSUPP)?;
    let len = i64::try_from(len).map_err(|_| EFBIG)?;
    let offset = range.position()?;
    // SAFETY: The file is held.
    to_result(unsafe { bindings::vfs_fallocate(range.file.as_ptr(), mode, offset, len) })
}

/// Finds the next hole, or the next data, from the offset on.
///
/// The position of the open file changes, which nobody looks at: every read and write says where.
pub fn seek(range: Range<'_>, hole: bool) -> Result<u64> {
    let whence = if hole {
        bindings::SEEK_HOLE
    } else {
        bindings::SEEK_DATA
    };
    let offset = range.position()?;
    // SAFETY: The file is held.
    let at = unsafe { bindings::vfs_llseek(range.file.as_ptr(), offset, whence as c_int) };
    // CAST: Errors are small negative numbers.
    u64::try_from(at).map_err(|_| Error::from_errno(at as c_int))
}

/// Copies up to `len` bytes; returns how many.
pub fn copy(from: Range<'_>, to: Range<'_>, len: u64) -> Result<u64> {
    let len = usize::try_from(len)?;
    let (from_pos, to_pos) = (from.position()?, to.position()?);
    let attempt = |flags| {
        // SAFETY: Both files are held.
        count(unsafe {
            bindings::vfs_copy_file_range(
                from.file.as_ptr(),
                from_pos,
                to.file.as_ptr(),
                to_pos,
                len,
                flags,
            )
        })
    };
    // Between file systems the kernel copies only when asked to by name.
    let copied = match attempt(0) {
        Err(e) if e == EOPNOTSUPP || e == EXDEV => attempt(bindings::COPY_FILE_SPLICE),
        result => result,
    }?;
    Ok(copied as u64)
}

/// Shares the extents of `len` bytes (0: up to the end); returns how many bytes are shared.
pub fn share(from: Range<'_>, to: Range<'_>, len: u64, can_shorten: bool) -> Result<u64> {
    let len = i64::try_from(len).map_err(|_| EINVAL)?;
    let flags = if can_shorten {
        bindings::REMAP_FILE_CAN_SHORTEN
    } else {
        0
    };
    let (from_pos, to_pos) = (from.position()?, to.position()?);
    // SAFETY: Both files are held.
    let n = unsafe {
        bindings::vfs_clone_file_range(
            from.file.as_ptr(),
            from_pos,
            to.file.as_ptr(),
            to_pos,
            len,
            flags,
        )
    };
    // CAST: Errors are small negative numbers.
    u64::try_from(n).map_err(|_| Error::from_errno(n as c_int))
}

/// Shares the extents of `len` bytes when their contents are equal; fails with [`EBADE`] when
/// they are not.
pub fn deduplicate(from: Range<'_>, to: Range<'_>, len: u64, can_shorten: bool) -> Result<u64> {
    let len = i64::try_from(len).map_err(|_| EINVAL)?;
    let flags = bindings::REMAP_FILE_DEDUP
        | if can_shorten {
            bindings::REMAP_FILE_CAN_SHORTEN
        } else {
            0
        };
    let (from_pos, to_pos) = (from.position()?, to.position()?);
    // SAFETY: Both files are held.
    let n = unsafe {
        bindings::vfs_dedupe_file_range_one(
            from.file.as_ptr(),
            from_pos,
            to.file.as_ptr(),
            to_pos,
            len,
            flags,
        )
    };
    // CAST: Errors are small negative numbers.
    u64::try_from(n).map_err(|_| Error::from_errno(n as c_int))
}
