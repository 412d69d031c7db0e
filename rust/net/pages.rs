// SPDX-License-Identifier: GPL-2.0

//! Bulk data in pages.
//!
//! Data of READ and WRITE lies in whole pages, never in slab memory, so that the network layer
//! can send it in place and receive into it without another copy. The pages are either newly
//! allocated or borrowed from the page cache; in both cases a reference is held.

use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::prelude::*;

use crate::bindings;

/// Bytes of one page.
pub const PAGE_SIZE: usize = bindings::PAGE_SIZE;

/// A range of bytes in physically contiguous pages, as `struct bio_vec`.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Segment(pub(crate) bindings::bio_vec);

impl Segment {
    /// Bytes of the range.
    pub const fn len(&self) -> usize {
        self.0.bv_len as usize
    }

    /// The range as the kernel has it.
    pub const fn raw(&self) -> &bindings::bio_vec {
        &self.0
    }

    /// Whether the range has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Pages that are held, and the ranges of them that make up the data.
///
/// # Invariants
///
/// Every segment lies within pages of which one reference is held by this object.
pub struct Pages {
    segments: KVVec<Segment>,
    len: usize,
}

// SAFETY: The pages are plain memory; whoever shares them orders the accesses.
unsafe impl Send for Pages {}
// SAFETY: As above.
unsafe impl Sync for Pages {}

impl Pages {
    /// No pages yet.
    pub const fn new() -> Self {
        Self {
            segments: KVVec::new(),
            len: 0,
        }
    }

    /// Allocates pages for `len` bytes; their contents are undefined.
    pub fn alloc(len: usize) -> Result<Self> {
        let mut this = Self::new();
        while this.len < len {
            let part = (len - this.len).min(PAGE_SIZE);
            // SAFETY: Allocation has no requirements.
            let page = unsafe { bindings::qtfs_alloc_pages(bindings::GFP_KERNEL, 0) };
            let page = NonNull::new(page).ok_or(ENOMEM)?;
            let pushed = this.push(page, 0, part);
            // SAFETY: `push` took a reference of its own; this is the allocation's.
            unsafe { bindings::qtfs_put_page(page.as_ptr()) };
            pushed?;
        }
        Ok(this)
    }

    fn push(&mut self, page: NonNull<bindings::page>, offset: usize, len: usize) -> Result {
        let mut vec: bindings::bio_vec = pin_init::zeroed();
        vec.bv_page = page.as_ptr();
        vec.bv_offset = u32::try_from(offset)?;
        vec.bv_len = u32::try_from(len)?;
        self.segments.push(Segment(vec), GFP_KERNEL)?;
        // SAFETY: The caller's page is alive.
        unsafe { bindings::qtfs_get_page(page.as_ptr()) };
        self.len += len;
        Ok(())
    }

    /// Appends `len` bytes at `offset` of a folio.
    ///
    /// # Safety
    ///
    /// `folio` is alive and `offset + len` is at most its size.
    pub unsafe fn push_folio(
        &mut self,
        folio: NonNull<bindings::folio>,
        offset: usize,
        len: usize,
    ) -> Result {
        // SAFETY: The offset lies within the folio by this function's requirements.
        let page = unsafe { bindings::qtfs_folio_page(folio.as_ptr(), offset / PAGE_SIZE) };
        self.push(NonNull::new(page).ok_or(EINVAL)?, offset % PAGE_SIZE, len)
    }

    /// Appends `len` bytes at `offset` of a page.
    ///
    /// # Safety
    ///
    /// `page` is alive and the range lies within it or within the folio that it belongs to.
    pub unsafe fn push_page(
        &mut self,
        page: NonNull<bindings::page>,
        offset: usize,
        len: usize,
    ) -> Result {
        self.push(page, offset, len)
    }

    /// Bytes of all ranges.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ranges in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The ranges that make up the bytes from `start` to `end`; shorter when there are not so
    /// many.
    pub fn range(&self, start: usize, end: usize) -> Result<KVVec<Segment>> {
        let mut out = KVVec::new();
        let mut at = 0;
        for segment in self.segments.iter() {
            let next = at + segment.len();
            let from = start.max(at);
            let to = end.min(next);
            if from < to {
                let mut part = *segment;
                part.0.bv_offset += u32::try_from(from - at)?;
                part.0.bv_len = u32::try_from(to - from)?;
                out.push(part, GFP_KERNEL)?;
            }
            at = next;
        }
        Ok(out)
    }

    /// Appends the bytes of `other`.
    pub fn append(&mut self, mut other: Self) -> Result {
        self.segments
            .extend_from_slice(&other.segments, GFP_KERNEL)?;
        self.len += other.len;
        // INVARIANT: The references of `other` are those of this object from here on.
        other.segments.clear();
        other.len = 0;
        Ok(())
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            let Some(mut last) = self.segments.pop() else {
                break;
            };
            let cut = self.len - len;
            if cut < last.len() {
                last.0.bv_len -= cut as u32;
                self.len = len;
                // The vector has the space of the element that was just taken.
                let _ = self.segments.push_within_capacity(last);
                return;
            }
            self.len -= last.len();
            // SAFETY: By the type invariant a reference is held for each segment.
            unsafe { bindings::qtfs_put_page(last.0.bv_page) };
        }
    }

    /// Calls `f` for each piece of the bytes from `start` on that lies in one page, with the
    /// piece's address, its length, and its place among the bytes asked for.
    fn pieces(&self, start: usize, len: usize, mut f: impl FnMut(*mut u8, usize, usize)) -> Result {
        let end = start
            .checked_add(len)
            .filter(|&end| end <= self.len)
            .ok_or(EINVAL)?;
        let mut at = 0;
        for segment in self.segments.iter() {
            let next = at + segment.len();
            let mut from = start.max(at);
            let to = end.min(next);
            while from < to {
                let offset = segment.0.bv_offset as usize + (from - at);
                let part = (to - from).min(PAGE_SIZE - offset % PAGE_SIZE);
                // SAFETY: By the type invariant the page at this offset is held.
                let addr = unsafe { bindings::qtfs_segment_address(&segment.0, from - at) };
                f(addr.cast(), part, from - start);
                from += part;
            }
            at = next;
            if at >= end {
                break;
            }
        }
        Ok(())
    }

    /// Copies `bytes` to the place `start`; fails when they do not fit.
    pub fn write_at(&mut self, start: usize, bytes: &[u8]) -> Result {
        self.pieces(start, bytes.len(), |addr, len, at| {
            // SAFETY: `addr` is `len` bytes of a page that we hold; `bytes` is other memory.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr().add(at), addr, len) }
        })
    }

    /// Copies bytes from the place `start`; fails when there are not so many.
    pub fn read_at(&self, start: usize, bytes: &mut [u8]) -> Result {
        let to = bytes.as_mut_ptr();
        self.pieces(start, bytes.len(), |addr, len, at| {
            // SAFETY: As in `write_at`.
            unsafe { core::ptr::copy_nonoverlapping(addr, to.add(at), len) }
        })
    }

    /// Fills the bytes from `start` to the end with zeros.
    pub fn zero_from(&self, start: usize) {
        let len = self.len.saturating_sub(start);
        // The range lies within the pages by construction.
        let _ = self.pieces(start, len, |addr, len, _| {
            // SAFETY: `addr` is `len` bytes of a page that we hold.
            unsafe { core::ptr::write_bytes(addr, 0, len) }
        });
    }

    /// Copies the first `len` bytes into one buffer.
    pub fn to_vec(&self, len: usize) -> Result<KVVec<u8>> {
        let mut out = KVVec::with_capacity(len, GFP_KERNEL)?;
        let spare: &mut [MaybeUninit<u8>] = out.spare_capacity_mut();
        let to = spare.as_mut_ptr().cast::<u8>();
        self.pieces(0, len, |addr, len, at| {
            // SAFETY: The vector has room for all pieces; see also `write_at`.
            unsafe { core::ptr::copy_nonoverlapping(addr, to.add(at), len) }
        })?;
        // SAFETY: `pieces` succeeded, so all `len` bytes were written.
        unsafe { out.inc_len(len) };
        Ok(out)
    }
}

impl Default for Pages {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for segment in self.segments.iter() {
            // SAFETY: By the type invariant a reference is held for each segment.
            unsafe { bindings::qtfs_put_page(segment.0.bv_page) };
        }
    }
}
