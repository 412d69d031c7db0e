// SPDX-License-Identifier: GPL-2.0

//! Writing back dirty folios.

use core::ptr::NonNull;
use kernel::prelude::*;

use super::{
    request::{
        Batch,
        Part,
        WriteDone, //
    },
    Ops, //
};
use crate::{
    bindings,
    fs::FileSystem,
    inode::Inode,
    Table, //
};

impl<F: FileSystem> Ops<F> {
    const WRITEBACK: &'static Table<bindings::iomap_writeback_ops> = &Table({
        let mut ops: bindings::iomap_writeback_ops = pin_init::zeroed();
        ops.writeback_range = Some(writeback_range::<F>);
        ops.writeback_submit = Some(writeback_submit::<F>);
        ops
    });
}

/// # Safety
///
/// Called by the page cache with a mapping of `F`.
pub(super) unsafe extern "C" fn writepages<F: FileSystem>(
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
