// SPDX-License-Identifier: GPL-2.0

//! Requests: neighbouring parts of folios, and what ends them.

use core::ptr::NonNull;
use kernel::prelude::*;

use crate::{
    bindings,
    fs::FileSystem,
    inode::Inode, //
};
use qtfs_net::Pages;
use qtfs_proto::MAX_DATA;

/// A part of a folio.
pub(super) struct Part {
    pub(super) folio: NonNull<bindings::folio>,
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// Neighbouring parts of folios that make up one request.
pub(super) struct Batch {
    pub(super) pages: Pages,
    pub(super) parts: KVVec<Part>,
    pub(super) pos: u64,
    /// Bytes of the file's contents; folios may go on after its end.
    pub(super) valid: usize,
}

// SAFETY: The folios are locked or under writeback, which any task may end.
unsafe impl Send for Batch {}
// SAFETY: Nothing can be done with a shared reference.
unsafe impl Sync for Batch {}

impl Batch {
    pub(super) fn new(pos: u64) -> Self {
        Self {
            pages: Pages::new(),
            parts: KVVec::new(),
            pos,
            valid: 0,
        }
    }

    fn end(&self) -> u64 {
        self.pos.saturating_add(self.pages.len() as u64)
    }

    pub(super) fn takes(&self, pos: u64, len: usize) -> bool {
        pos == self.end() && self.pages.len() + len <= MAX_DATA
    }

    /// # Safety
    ///
    /// The range lies within the folio, which stays locked or under writeback.
    pub(super) unsafe fn push(&mut self, part: Part) -> Result {
        self.parts.reserve(1, GFP_KERNEL)?;
        // SAFETY: By this function's requirements.
        unsafe { self.pages.push_folio(part.folio, part.offset, part.len)? };
        self.parts.push_within_capacity(part).map_err(|_| ENOMEM)
    }
}

/// Ends a request that reads folios. Dropping it without a result fails the request.
pub struct ReadDone {
    pub(super) inode: NonNull<bindings::inode>,
    pub(super) parts: KVVec<Part>,
}

// SAFETY: As for `Batch`.
unsafe impl Send for ReadDone {}
// SAFETY: As for `Batch`.
unsafe impl Sync for ReadDone {}

impl ReadDone {
    /// The inode whose folios are read; it stays alive until the request ends.
    pub fn inode<F: FileSystem>(&self) -> &Inode<F> {
        // SAFETY: An inode is not evicted while its folios are locked. There is one file system in
        // a module, so it is one of `F`.
        unsafe { Inode::from_raw(self.inode.as_ptr()) }
    }

    /// The bytes are there (what was not sent is zeroed already), or not.
    pub fn finish(mut self, result: Result) {
        self.end(result);
    }

    fn end(&mut self, result: Result) {
        let error = result.map_or_else(|e| e.to_errno(), |()| 0);
        while let Some(part) = self.parts.pop() {
            // SAFETY: The folio is locked for this request, and each part is ended once.
            unsafe {
                bindings::iomap_finish_folio_read(part.folio.as_ptr(), part.offset, part.len, error)
            };
        }
    }
}

impl Drop for ReadDone {
    fn drop(&mut self) {
        self.end(Err(EIO));
    }
}

/// Ends a request that writes folios. Dropping it without a result fails the request.
pub struct WriteDone {
    pub(super) inode: NonNull<bindings::inode>,
    pub(super) parts: KVVec<Part>,
}

// SAFETY: As for `Batch`; the inode stays while its folios are under writeback.
unsafe impl Send for WriteDone {}
// SAFETY: As above.
unsafe impl Sync for WriteDone {}

impl WriteDone {
    /// The inode whose folios are written; it stays alive until the request ends.
    pub fn inode<F: FileSystem>(&self) -> &Inode<F> {
        // SAFETY: An inode is not evicted while its folios are under writeback. There is one
        // file system in a module, so it is one of `F`.
        unsafe { Inode::from_raw(self.inode.as_ptr()) }
    }

    /// Keeps an error for `fsync(2)` and `close(2)`.
    pub fn fail(&self, error: Error) {
        // SAFETY: The inode stays while its folios are under writeback.
        unsafe {
            let mapping = (*self.inode.as_ptr()).i_mapping;
            bindings::qtfs_mapping_set_error(mapping, error.to_errno());
        }
    }

    /// Nothing more will happen to the folios.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let inode = self.inode.as_ptr();
        while let Some(part) = self.parts.pop() {
            // SAFETY: The folio is under writeback for this request, and each part is ended once;
            // the inode stays until the last of them was.
            unsafe { bindings::iomap_finish_folio_write(inode, part.folio.as_ptr(), part.len) };
        }
    }
}

impl Drop for WriteDone {
    fn drop(&mut self) {
        if !self.parts.is_empty() {
            self.fail(EIO);
        }
        self.end();
    }
}
