// SPDX-License-Identifier: GPL-2.0

//! Reading into the page cache: ahead, at once, and what a write does not cover.

use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    error::from_result,
    prelude::*,
    sync::Arc, //
};

use super::{
    map_operations,
    request::{
        Batch,
        Part,
        ReadDone, //
    },
    Ops, //
};
use crate::{
    bindings,
    file::File,
    fs::FileSystem,
    inode::Inode,
    Table, //
};
use qtfs_net::Pages;

impl<F: FileSystem> Ops<F> {
    const READ: &'static Table<bindings::iomap_read_ops> = &Table({
        let mut ops: bindings::iomap_read_ops = pin_init::zeroed();
        ops.read_folio_range = Some(read_folio_range::<F>);
        ops.submit_read = Some(submit_read::<F>);
        ops
    });

    pub(super) const WRITE: &'static Table<bindings::iomap_write_ops> = &Table({
        let mut ops: bindings::iomap_write_ops = pin_init::zeroed();
        ops.read_folio_range = Some(read_for_write::<F>);
        ops
    });
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
pub(super) unsafe extern "C" fn read_folio<F: FileSystem>(
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
pub(super) unsafe extern "C" fn readahead<F: FileSystem>(rac: *mut bindings::readahead_control) {
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
