// SPDX-License-Identifier: GPL-2.0

//! FIFOs, opened without waiting for the other end.

use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    prelude::*, //
};
use qtfs_bindings as bindings;

use super::{
    file::How,
    File,
    Path, //
};

/// What there was of the other end when a FIFO was opened.
#[derive(Clone, Copy, Default)]
pub struct OtherEnd(c_uint);

/// Opens a FIFO, which counts as an end of it from now on. Whether the other end has been opened is
/// what [`File::has_partner`] says.
///
/// As `open(2)` with `O_NONBLOCK`, with the current credential; when it `waits`, it is also open
/// when it is to be written and nobody reads; nobody takes that for a reader.
pub fn open(path: &Path, how: How, waits: bool) -> Result<(File, OtherEnd)> {
    let how = How {
        nonblock: true,
        ..how
    };
    let mut end = OtherEnd::default();
    if !waits || how.read {
        return Ok((File::open(path, how)?, end));
    }
    // SAFETY: The path is held.
    let file = from_err_ptr(unsafe {
        bindings::qtfs_fifo_open_writer(path.as_raw(), how.flags(), &mut end.0)
    })?;
    let file = NonNull::new(file).ok_or(ENXIO)?;
    // SAFETY: The reference is ours.
    Ok((unsafe { File::from_raw(file) }, end))
}

impl File {
    /// Whether it is an open FIFO.
    pub fn is_fifo(&self) -> bool {
        // SAFETY: The file is held.
        !unsafe { bindings::qtfs_fifo(self.as_ptr()) }.is_null()
    }

    /// Whether the other end of a FIFO was open when it was opened, or has been opened since. What
    /// is no FIFO needs none.
    pub fn has_partner(&self, end: OtherEnd) -> bool {
        // SAFETY: The file is held.
        unsafe { bindings::qtfs_fifo_has_partner(self.as_ptr(), end.0) }
    }

    /// How many bytes a FIFO has.
    pub fn queued(&self) -> u32 {
        // SAFETY: The file is held.
        unsafe { bindings::qtfs_fifo_queued(self.as_ptr()) }
    }
}
