// SPDX-License-Identifier: GPL-2.0

//! Writing: what programs give, into the page cache and past it.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::{
    pages::PAGE_SIZE,
    Pages, //
};
use qtfs_proto::{
    message::{
        Write,
        WriteReply, //
    },
    OpenFlags,
    WriteFlags,
    MAX_DATA, //
};
use qtfs_vfs::{
    inode::Inode,
    io::{
        Iter,
        Kiocb, //
    },
};

use super::{
    ask,
    write_out, //
};
use crate::{
    file::OpenFile,
    fs::Qtfs,
    node,
    session::{
        request::{
            is_lost,
            Asked,
            LOST, //
        },
        Wait, //
    },
};

/// Writes beyond this place are made without the page cache: only the server knows how large a
/// file may be, and the writer is to be told.
const FAR: u64 = 1 << 40;

/// Sends one piece of at most [`MAX_DATA`] bytes. Returns what the server says of it.
fn write_piece(
    inode: &Inode<Qtfs>,
    open: &OpenFile,
    offset: u64,
    pages: Pages,
    flags: WriteFlags,
) -> Result<WriteReply> {
    let mount = inode.mount();
    let session = &mount.session;
    let pages = Arc::new(pages, GFP_KERNEL)?;
    loop {
        let data = pages.clone();
        let result = open.exchange(inode, data, None, Wait::Killable, |file| Write {
            file,
            offset,
            flags,
        });
        match result {
            // Whether data was appended before the server lost the session cannot be known.
            Err(e) if e == LOST && flags.has(WriteFlags::APPEND) => return Err(EIO),
            Err(e) if is_lost(e) => continue,
            Err(e) => return Err(e),
            Ok(reply) => {
                let incarnation = reply.asked.incarnation;
                let reply = reply.decode::<Write>()?;
                inode.node().changed(session);
                let is_synced = flags.has(WriteFlags::DSYNC) || flags.has(WriteFlags::SYNC);
                if !is_synced && !open.stream {
                    session.durable.written(&inode.node().unsynced);
                }
                // The inode is locked, so this machine has done nothing else meanwhile.
                let asked = Asked {
                    clock: session.clock(),
                    incarnation,
                };
                node::apply(inode, &reply.attr, asked);
                return Ok(reply);
            }
        }
    }
}

/// Writes past the page cache. The inode is locked.
fn write_direct(
    iocb: &mut Kiocb<'_, Qtfs>,
    iter: &mut Iter<'_>,
    inode: &Inode<Qtfs>,
    open: &OpenFile,
) -> Result<usize> {
    let append = iocb.is_append();
    let flags = WriteFlags::NONE
        .with_if(append, WriteFlags::APPEND)
        .with_if(iocb.is_dsync(), WriteFlags::DSYNC)
        .with_if(iocb.is_sync(), WriteFlags::SYNC);
    if inode.is_regular() && inode.is_dirty() {
        write_out(inode)?;
    }
    let mut done = 0;
    while iter.count() > 0 {
        let pages = Pages::alloc(iter.count().min(MAX_DATA))?;
        let len = iter.copy_to_pages(&pages);
        if len < pages.len() {
            return if done > 0 { Ok(done) } else { Err(EFAULT) };
        }
        match write_piece(inode, open, iocb.pos(), pages, flags) {
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
            Ok(reply) => {
                let written = usize::try_from(reply.written)?.min(len);
                done += written;
                let end = reply.offset.saturating_add(written as u64);
                iocb.set_pos(end);
                if inode.is_regular() && written > 0 {
                    // What the cache has of the range is older than what was just written.
                    let _ = inode.drop_pages(reply.offset, end.saturating_sub(1));
                    if end > inode.size() {
                        inode.set_size(end);
                    }
                }
                if written < len {
                    break;
                }
            }
        }
    }
    Ok(done)
}

/// Makes sure that what the cache has around a write is what the server has: whole blocks are
/// written back, and must not bring back what others have changed.
fn freshen_edges(inode: &Inode<Qtfs>, open: &OpenFile, pos: u64, len: u64) -> Result {
    let block = PAGE_SIZE as u64;
    let end = pos.saturating_add(len);
    let old = |at: u64| {
        let first = at - at % block;
        let last = first + (block - 1);
        at % block != 0 && inode.is_cached(first, last) && !inode.is_written(first, last)
    };
    if old(pos) || (end < inode.size() && old(end)) {
        ask(inode, open)?;
    }
    Ok(())
}

pub(crate) fn write(iocb: &mut Kiocb<'_, Qtfs>, iter: &mut Iter<'_>) -> Result<usize> {
    let open = iocb.file().open()?.clone();
    let inode = iocb.file().inode().grab().ok_or(EIO)?;
    let far = iocb.pos().saturating_add(iter.count() as u64) > FAR;
    let direct = far
        || inode.node().has_locked_ranges()
        || iocb.is_direct()
        || iocb.is_append()
        || !open.flags.has(OpenFlags::READ);
    if open.stream {
        // Each write is one command to HOST's file.
        if iter.count() > MAX_DATA {
            return Err(EFBIG);
        }
        return write_direct(iocb, iter, &inode, &open);
    }
    let session = &inode.mount().session;
    let (written, direct) = inode.locked(|| {
        // Flags change under the inode's lock.
        let direct = direct || inode.node().is_sealed();
        if iocb.write_checks(iter)? == 0 {
            return Ok((0, direct));
        }
        if direct {
            return Ok((write_direct(iocb, iter, &inode, &open)?, direct));
        }
        freshen_edges(&inode, &open, iocb.pos(), iter.count() as u64)?;
        let node = inode.node();
        node.cached_write_begins(&inode);
        node.changed(session);
        let written = iocb.write_cached(iter);
        node.changed(session);
        node.cached_write_ended();
        Ok((written?, direct))
    })?;
    if direct {
        return Ok(written);
    }
    iocb.write_sync(written)
}
