// SPDX-License-Identifier: GPL-2.0

//! The page cache of regular files, on top of iomap.
//!
//! Folios are collected into requests of up to [`MAX_DATA`] bytes: neighbours go together. A
//! request holds its folios locked (reading) or marked as under writeback (writing) until
//! [`ReadDone`] or [`WriteDone`] is told what became of it.
//!
//! C header: [`include/linux/iomap.h`](srctree/include/linux/iomap.h)

use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
};
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
    inode::Inode,
    Table, //
};
use qtfs_net::Pages;
use qtfs_proto::MAX_DATA;

/// A part of a folio.
struct Part {
    folio: NonNull<bindings::folio>,
    offset: usize,
    len: usize,
}

/// Neighbouring parts of folios that make up one request.
struct Batch {
    pages: Pages,
    parts: KVVec<Part>,
    pos: u64,
    /// Bytes of the file's contents; folios may go on after its end.
    valid: usize,
}

// SAFETY: The folios are locked or under writeback, which any task may end.
unsafe impl Send for Batch {}
// SAFETY: Nothing can be done with a shared reference.
unsafe impl Sync for Batch {}

impl Batch {
    fn new(pos: u64) -> Self {
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

    fn takes(&self, pos: u64, len: usize) -> bool {
        pos == self.end() && self.pages.len() + len <= MAX_DATA
    }

    /// # Safety
    ///
    /// The range lies within the folio, which stays locked or under writeback.
    unsafe fn push(&mut self, part: Part) -> Result {
        self.parts.reserve(1, GFP_KERNEL)?;
        // SAFETY: By this function's requirements.
        unsafe { self.pages.push_folio(part.folio, part.offset, part.len)? };
        self.parts.push_within_capacity(part).map_err(|_| ENOMEM)
    }
}

/// Ends a request that reads folios. Dropping it without a result fails the request.
pub struct ReadDone {
    inode: NonNull<bindings::inode>,
    parts: KVVec<Part>,
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
    inode: NonNull<bindings::inode>,
    parts: KVVec<Part>,
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

/// What an inode's page cache can do.
impl<F: FileSystem> Inode<F> {
    /// Begins to write dirty pages.
    pub fn start_writing(&self) -> Result {
        // SAFETY: The inode is alive.
        to_result(unsafe { bindings::qtfs_start_writing(self.as_raw()) })
    }

    /// Drops the pages of a range from the cache. Fails with [`EBUSY`] when some are dirty, or
    /// somebody is using them at this very moment; those stay.
    pub fn drop_pages(&self, start: u64, end: u64) -> Result {
        let (start, end) = (
            i64::try_from(start)?,
            i64::try_from(end).unwrap_or(i64::MAX),
        );
        // SAFETY: The inode is alive.
        unsafe {
            let mapping = (*self.as_raw()).i_mapping;
            to_result(bindings::invalidate_inode_pages2_range(
                mapping,
                start as c_ulong >> bindings::PAGE_SHIFT,
                end as c_ulong >> bindings::PAGE_SHIFT,
            ))
        }
    }

    /// Whether any page of the range is in the cache.
    pub fn is_cached(&self, start: u64, end: u64) -> bool {
        let end = i64::try_from(end).unwrap_or(i64::MAX);
        // SAFETY: The inode is alive.
        unsafe { bindings::filemap_range_has_page((*self.as_raw()).i_mapping, start as i64, end) }
    }

    /// Whether any page of the range is dirty or under writeback.
    pub fn is_written(&self, start: u64, end: u64) -> bool {
        let (start, end) = (start as i64, i64::try_from(end).unwrap_or(i64::MAX));
        // SAFETY: The inode is alive.
        unsafe { bindings::filemap_range_has_writeback((*self.as_raw()).i_mapping, start, end) }
    }

    /// Whether there are dirty pages or pages under writeback.
    pub fn is_dirty(&self) -> bool {
        // SAFETY: The inode is alive.
        unsafe { bindings::qtfs_is_dirty(self.as_raw()) }
    }

    /// Drops what lies behind the new end of the file and sets the size. The inode is locked.
    pub fn truncate(&self, size: u64) {
        // SAFETY: The inode is alive and its lock held.
        unsafe {
            bindings::truncate_setsize(self.as_raw(), i64::try_from(size).unwrap_or(i64::MAX))
        };
    }

    /// The first error of writing back since it was last asked for.
    pub fn take_write_error(&self) -> Result {
        // SAFETY: The inode is alive.
        to_result(unsafe { bindings::filemap_check_errors((*self.as_raw()).i_mapping) })
    }
}

/// The tables of functions of `F`'s page cache.
struct Ops<F>(PhantomData<F>);

impl<F: FileSystem> Ops<F> {
    const ADDRESS_SPACE: &'static Table<bindings::address_space_operations> = &Table({
        let mut ops: bindings::address_space_operations = pin_init::zeroed();
        ops.read_folio = Some(read_folio::<F>);
        ops.readahead = Some(readahead::<F>);
        ops.writepages = Some(writepages::<F>);
        ops.dirty_folio = Some(bindings::iomap_dirty_folio);
        ops.release_folio = Some(bindings::iomap_release_folio);
        ops.invalidate_folio = Some(bindings::iomap_invalidate_folio);
        ops.is_partially_uptodate = Some(bindings::iomap_is_partially_uptodate);
        ops.migrate_folio = Some(bindings::filemap_migrate_folio);
        ops
    });

    const READ: &'static Table<bindings::iomap_read_ops> = &Table({
        let mut ops: bindings::iomap_read_ops = pin_init::zeroed();
        ops.read_folio_range = Some(read_folio_range::<F>);
        ops.submit_read = Some(submit_read::<F>);
        ops
    });

    const WRITE: &'static Table<bindings::iomap_write_ops> = &Table({
        let mut ops: bindings::iomap_write_ops = pin_init::zeroed();
        ops.read_folio_range = Some(read_for_write::<F>);
        ops
    });

    const WRITEBACK: &'static Table<bindings::iomap_writeback_ops> = &Table({
        let mut ops: bindings::iomap_writeback_ops = pin_init::zeroed();
        ops.writeback_range = Some(writeback_range::<F>);
        ops.writeback_submit = Some(writeback_submit::<F>);
        ops
    });

    const VM: &'static Table<bindings::vm_operations_struct> = &Table({
        let mut ops: bindings::vm_operations_struct = pin_init::zeroed();
        ops.fault = Some(bindings::filemap_fault);
        ops.map_pages = Some(bindings::filemap_map_pages);
        ops.page_mkwrite = Some(page_mkwrite::<F>);
        ops
    });
}

static MAP: Table<bindings::iomap_ops> = Table({
    let mut ops: bindings::iomap_ops = pin_init::zeroed();
    ops.iomap_begin = Some(iomap_begin);
    ops
});

pub(crate) fn operations<F: FileSystem>() -> *const bindings::address_space_operations {
    &raw const Ops::<F>::ADDRESS_SPACE.0
}

pub(crate) fn map_operations() -> *const bindings::iomap_ops {
    &raw const MAP.0
}

pub(crate) fn write_operations<F: FileSystem>() -> *const bindings::iomap_write_ops {
    &raw const Ops::<F>::WRITE.0
}

/// The server maps the file; to iomap it is one piece.
///
/// # Safety
///
/// Called by iomap with a place for the mapping.
unsafe extern "C" fn iomap_begin(
    _inode: *mut bindings::inode,
    pos: bindings::loff_t,
    length: bindings::loff_t,
    _flags: c_uint,
    map: *mut bindings::iomap,
    _source: *mut bindings::iomap,
) -> c_int {
    // SAFETY: As iomap says.
    unsafe {
        (*map).type_ = bindings::IOMAP_MAPPED as u16;
        (*map).offset = pos;
        (*map).length = length as u64;
    }
    0
}

/// Folios that are being collected for reading; lives on the stack of the reader.
struct Reading<'a, F: FileSystem> {
    open: Option<&'a Arc<F::Open>>,
    batch: Option<Batch>,
    /// Nobody waits yet for what is read.
    ahead: bool,
    /// Why reading failed.
    result: Result,
}

/// Sends what was collected.
fn send_read<F: FileSystem>(inode: &Inode<F>, reading: &mut Reading<'_, F>) {
    let (Some(batch), Some(host)) = (reading.batch.take(), NonNull::new(inode.as_raw())) else {
        return;
    };
    let Batch {
        pages, parts, pos, ..
    } = batch;
    let done = ReadDone { inode: host, parts };
    if reading.ahead {
        F::read_pages(inode, reading.open, pos, pages, done);
    } else {
        // Reading ahead may fail, as it does when the server loses the session; this may not.
        reading.result = F::read_now(inode, reading.open, pos, pages).map(|_| ());
        done.finish(reading.result);
    }
}

/// # Safety
///
/// Called by iomap with a locked folio of `F`; `read_ctx` is a [`Reading`].
unsafe extern "C" fn read_folio_range<F: FileSystem>(
    iter: *const bindings::iomap_iter,
    ctx: *mut bindings::iomap_read_folio_ctx,
    len: usize,
) -> c_int {
    from_result(|| {
        // SAFETY: As iomap says.
        unsafe {
            let reading = &mut *(*ctx).read_ctx.cast::<Reading<'_, F>>();
            let folio = NonNull::new((*ctx).cur_folio).ok_or(EIO)?;
            let pos = u64::try_from((*iter).pos)?;
            if reading
                .batch
                .as_ref()
                .is_some_and(|batch| !batch.takes(pos, len))
            {
                send_read(Inode::from_raw((*iter).inode), reading);
            }
            let offset = bindings::qtfs_offset_in_folio(folio.as_ptr(), (*iter).pos);
            let batch = reading.batch.get_or_insert_with(|| Batch::new(pos));
            batch.push(Part { folio, offset, len })?;
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by iomap; `read_ctx` is a [`Reading`].
unsafe extern "C" fn submit_read<F: FileSystem>(
    iter: *const bindings::iomap_iter,
    ctx: *mut bindings::iomap_read_folio_ctx,
) {
    // SAFETY: As iomap says.
    unsafe {
        let reading = &mut *(*ctx).read_ctx.cast::<Reading<'_, F>>();
        send_read(Inode::from_raw((*iter).inode), reading);
    }
}

/// What a file keeps, when there is a file.
///
/// # Safety
///
/// `file` is null or an open file of `F` that outlives the result.
unsafe fn open_of<'a, F: FileSystem>(file: *mut bindings::file) -> Option<&'a Arc<F::Open>> {
    if file.is_null() {
        return None;
    }
    // SAFETY: By this function's requirements.
    unsafe { File::<F>::from_raw(file) }.open().ok()
}

/// # Safety
///
/// Called by the page cache with a locked folio of `F`.
unsafe extern "C" fn read_folio<F: FileSystem>(
    file: *mut bindings::file,
    folio: *mut bindings::folio,
) -> c_int {
    // SAFETY: As the page cache says; what the context points to outlives the call.
    unsafe {
        let mut reading = Reading::<F> {
            open: open_of::<F>(file),
            batch: None,
            ahead: false,
            result: Ok(()),
        };
        let mut ctx: bindings::iomap_read_folio_ctx = pin_init::zeroed();
        ctx.cur_folio = folio;
        ctx.ops = &raw const Ops::<F>::READ.0;
        ctx.read_ctx = (&raw mut reading).cast();
        bindings::iomap_read_folio(map_operations(), &mut ctx, ptr::null_mut());
        reading.result.map_or_else(|e| e.to_errno(), |()| 0)
    }
}

/// # Safety
///
/// Called by the page cache with locked folios of `F`.
unsafe extern "C" fn readahead<F: FileSystem>(rac: *mut bindings::readahead_control) {
    // SAFETY: As in `read_folio`.
    unsafe {
        let mut reading = Reading::<F> {
            open: open_of::<F>((*rac).file),
            batch: None,
            ahead: true,
            result: Ok(()),
        };
        let mut ctx: bindings::iomap_read_folio_ctx = pin_init::zeroed();
        ctx.rac = rac;
        ctx.ops = &raw const Ops::<F>::READ.0;
        ctx.read_ctx = (&raw mut reading).cast();
        bindings::iomap_readahead(map_operations(), &mut ctx, ptr::null_mut());
    }
}

/// Reads the part of a folio that a write does not cover.
///
/// # Safety
///
/// Called by iomap with a locked folio of `F`; the private data is the file that is written.
unsafe extern "C" fn read_for_write<F: FileSystem>(
    iter: *const bindings::iomap_iter,
    folio: *mut bindings::folio,
    pos: bindings::loff_t,
    len: usize,
) -> c_int {
    from_result(|| {
        // SAFETY: As iomap says.
        unsafe {
            let folio = NonNull::new(folio).ok_or(EIO)?;
            let mut pages = Pages::new();
            pages.push_folio(
                folio,
                bindings::qtfs_offset_in_folio(folio.as_ptr(), pos),
                len,
            )?;
            let open = open_of::<F>((*iter).private.cast());
            F::read_now(
                Inode::from_raw((*iter).inode),
                open,
                u64::try_from(pos)?,
                pages,
            )?;
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the page cache with a mapping of `F`.
unsafe extern "C" fn writepages<F: FileSystem>(
    mapping: *mut bindings::address_space,
    wbc: *mut bindings::writeback_control,
) -> c_int {
    let _nofs = qtfs_net::NoFs::enter();
    let mut batch: Option<Batch> = None;
    let mut ctx: bindings::iomap_writepage_ctx = pin_init::zeroed();
    // SAFETY: As the page cache says; what the context points to outlives the call.
    unsafe {
        ctx.inode = (*mapping).host;
        ctx.iomap.type_ = bindings::IOMAP_MAPPED as u16;
        ctx.wbc = wbc;
        ctx.ops = &raw const Ops::<F>::WRITEBACK.0;
        ctx.wb_ctx = (&raw mut batch).cast();
        bindings::iomap_writepages(&mut ctx)
    }
}

/// Sends what was collected.
fn send_write<F: FileSystem>(inode: *mut bindings::inode, batch: &mut Option<Batch>, last: bool) {
    let Some(Batch {
        mut pages,
        parts,
        pos,
        valid,
    }) = batch.take()
    else {
        return;
    };
    let Some(host) = NonNull::new(inode) else {
        return;
    };
    pages.truncate(valid);
    // SAFETY: The inode stays while its folios are under writeback.
    let inode = unsafe { Inode::<F>::from_raw(inode) };
    F::write_pages(inode, pos, pages, last, WriteDone { inode: host, parts });
}

/// # Safety
///
/// Called by iomap with a folio of `F` that is locked; `wb_ctx` is an `Option<Batch>`.
unsafe extern "C" fn writeback_range<F: FileSystem>(
    wpc: *mut bindings::iomap_writepage_ctx,
    folio: *mut bindings::folio,
    pos: u64,
    len: c_uint,
    end_pos: u64,
) -> isize {
    // SAFETY: As iomap says.
    let result = (|| unsafe {
        let batch = &mut *(*wpc).wb_ctx.cast::<Option<Batch>>();
        let folio = NonNull::new(folio).ok_or(EIO)?;
        let full = len as usize;
        // A batch whose last folio reaches beyond the end of the file cannot be continued.
        let open_end = |b: &Batch| b.valid == b.pages.len();
        if batch
            .as_ref()
            .is_some_and(|b| !b.takes(pos, full) || !open_end(b))
        {
            send_write::<F>((*wpc).inode, batch, false);
        }
        let offset = bindings::qtfs_offset_in_folio(folio.as_ptr(), i64::try_from(pos)?);
        let batch = batch.get_or_insert_with(|| Batch::new(pos));
        batch.push(Part {
            folio,
            offset,
            len: full,
        })?;
        batch.valid += usize::try_from(end_pos.saturating_sub(pos))?.min(full);
        Ok(len as isize)
    })();
    result.unwrap_or_else(|e: Error| e.to_errno() as isize)
}

/// # Safety
///
/// Called by iomap; `wb_ctx` is an `Option<Batch>`.
unsafe extern "C" fn writeback_submit<F: FileSystem>(
    wpc: *mut bindings::iomap_writepage_ctx,
    error: c_int,
) -> c_int {
    // What was collected is under writeback and can be written whatever came after it.
    // SAFETY: As iomap says, which calls this once, after the last range.
    unsafe {
        let batch = &mut *(*wpc).wb_ctx.cast::<Option<Batch>>();
        send_write::<F>((*wpc).inode, batch, error == 0);
    }
    error
}

/// # Safety
///
/// Called by the memory manager with a fault in a mapping of a regular file of `F`.
unsafe extern "C" fn page_mkwrite<F: FileSystem>(
    vmf: *mut bindings::vm_fault,
) -> bindings::vm_fault_t {
    // SAFETY: As the memory manager says; the file of a mapping of `F` is one of `F`.
    unsafe { bindings::qtfs_page_mkwrite(vmf, map_operations(), Some(may_write::<F>)) }
}

/// # Safety
///
/// `file` is a mapped file of `F`.
unsafe extern "C" fn may_write<F: FileSystem>(file: *mut bindings::file) -> bool {
    // SAFETY: As the caller says.
    F::page_mkwrite(unsafe { File::from_raw(file) }).is_ok()
}

/// # Safety
///
/// Called by the memory manager with an open file of `F` that is mapped.
pub(crate) unsafe extern "C" fn mmap_prepare<F: FileSystem>(
    desc: *mut bindings::vm_area_desc,
) -> c_int {
    from_result(|| {
        // SAFETY: As the memory manager says.
        unsafe {
            F::mmap(File::from_raw((*desc).file))?;
            to_result(bindings::generic_file_mmap_prepare(desc))?;
            (*desc).vm_ops = &raw const Ops::<F>::VM.0;
        }
        Ok(0)
    })
}
