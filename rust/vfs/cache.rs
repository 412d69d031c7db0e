// SPDX-License-Identifier: GPL-2.0

//! The page cache of regular files, on top of iomap.
//!
//! Folios are collected into requests of up to [`MAX_DATA`](qtfs_proto::MAX_DATA) bytes:
//! neighbours go together. A request holds its folios locked (reading) or marked as under writeback
//! (writing) until [`ReadDone`] or [`WriteDone`] is told what became of it.
//!
//! C header: [`include/linux/iomap.h`](srctree/include/linux/iomap.h)

mod reading;
mod request;
mod writeback;

pub use request::{
    ReadDone,
    WriteDone, //
};

use core::marker::PhantomData;
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*, //
};

use crate::{
    bindings,
    file::File,
    fs::FileSystem,
    inode::Inode,
    Table, //
};

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
        ops.read_folio = Some(reading::read_folio::<F>);
        ops.readahead = Some(reading::readahead::<F>);
        ops.writepages = Some(writeback::writepages::<F>);
        ops.dirty_folio = Some(bindings::iomap_dirty_folio);
        ops.release_folio = Some(bindings::iomap_release_folio);
        ops.invalidate_folio = Some(bindings::iomap_invalidate_folio);
        ops.is_partially_uptodate = Some(bindings::iomap_is_partially_uptodate);
        ops.migrate_folio = Some(bindings::filemap_migrate_folio);
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
