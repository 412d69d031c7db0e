// SPDX-License-Identifier: GPL-2.0

//! READ, WRITE and FSYNC.

use kernel::prelude::*;
use qtfs_net::Pages;
use qtfs_proto::{
    message::{
        Fsync,
        FsyncReply,
        Read,
        ReadReply,
        Write,
        WriteReply, //
    },
    ReadFlags,
    WriteFlags, //
};
use qtfs_vfs::local::{
    file::{
        ReadHow,
        WriteHow, //
    },
    task, //
};

use super::attach;
use crate::{
    dispatch::{
        Context,
        Outcome, //
    },
    file::OpenFile,
    parking::Parking,
    refusal::{
        Refusal,
        Result, //
    },
    worker::Reply, //
};

/// Shorter reads are copied: a page of the page cache would cost more to send.
const MIN_IN_PLACE: usize = 4096;

/// Reads. What has nothing to read yet, such as `/proc/kmsg`, is waited for without a thread.
pub(crate) fn read(ctx: &mut Context<'_>, r: &Read) -> Result<Outcome> {
    let file = ctx.file(r.file, false)?;
    let nonblock = r.flags.has(ReadFlags::NONBLOCK);
    let how = ReadHow {
        // OPEN has opened other files so that they never wait.
        nowait: nonblock && file.is_cached(),
        direct: r.flags.has(ReadFlags::DIRECT),
    };
    let len = usize::try_from(r.len)?.min(ctx.session.max_data());
    let mut data = match read_pages(ctx, &file, r.offset, len, how) {
        Err(refusal)
            if refusal.error() == EAGAIN
                && !(nonblock || file.is_cached())
                && file.file().can_poll() =>
        {
            // So that an error of that is an answer.
            file.is_ready_to_read()?;
            return Ok(Outcome::Park(Parking::Readable(file)));
        }
        data => data?,
    };
    let attr = ctx.attr_of_file(&file)?;
    if file.is_cached() && !how.nowait {
        let rest = attr.size.saturating_sub(r.offset);
        let len = len.min(usize::try_from(rest).unwrap_or(usize::MAX));
        read_rest(ctx, &file, r.offset, len, &mut data)?;
    }
    let reply = ctx.reply_with(&ReadReply { attr }, data)?;
    Ok(Outcome::Reply(reply))
}

/// Reads on until there are `len` bytes or the file ends.
///
/// A read that was interrupted, or failed behind its first pages, returns what it had until then,
/// but what is missing from an answer the client takes for the end of the file.
fn read_rest(
    ctx: &mut Context<'_>,
    open: &OpenFile,
    offset: u64,
    len: usize,
    data: &mut Pages,
) -> Result {
    while data.len() < len {
        let at = offset.saturating_add(data.len() as u64);
        let more = read_pages(ctx, open, at, len - data.len(), ReadHow::default())?;
        if more.is_empty() {
            break;
        }
        data.append(more)?;
    }
    Ok(())
}

/// Reads up to `len` bytes.
pub(crate) fn read_pages(
    ctx: &mut Context<'_>,
    open: &OpenFile,
    offset: u64,
    len: usize,
    how: ReadHow,
) -> Result<Pages> {
    let file = open.file();
    let simple = !how.nowait && !how.direct;
    if simple && open.is_cached() && len >= MIN_IN_PLACE && file.can_read_in_place() {
        match file.read_in_place(offset, len) {
            // Not all file systems can with all files.
            Err(EINVAL) => {}
            pages => return Ok(pages?),
        }
    }
    let mut pages = Pages::alloc(len)?;
    let n = if file.reads_pages() {
        file.read(offset, &pages, len, how)?
    } else {
        ctx.worker.window()?.read(file, offset, &mut pages, len)?
    };
    pages.truncate(n);
    Ok(pages)
}

/// Writes.
pub(crate) fn write(ctx: &mut Context<'_>, r: &Write) -> Result<Reply> {
    let open = ctx.file(r.file, true)?;
    let stripping = if r.flags.has(WriteFlags::KILL_PRIV) {
        Some(ctx.stripping_cred()?)
    } else {
        None
    };
    let path = open.file().path();
    let (written, end) = ctx.change(&open.node, &path, |ctx| {
        let _acting = stripping.as_ref().map(|cred| cred.enter());
        write_pages(ctx, &open, r)
    })?;
    let attr = ctx.attr_of_file(&open)?;
    if r.flags.has(WriteFlags::CLOSE) && written == ctx.job.data.len() {
        drop(open);
        attach::close(ctx, r.file);
    }
    ctx.reply(&WriteReply {
        written: u32::try_from(written)?,
        offset: end.saturating_sub(written as u64),
        attr,
    })
}

/// Writes the request's data; how many bytes, and where the last of them ended.
fn write_pages(ctx: &mut Context<'_>, open: &OpenFile, r: &Write) -> Result<(usize, u64)> {
    let (file, data) = (open.file(), &ctx.job.data);
    if file.writes_pages() {
        let how = WriteHow {
            append: r.flags.has(WriteFlags::APPEND),
            dsync: r.flags.has(WriteFlags::DSYNC),
            sync: r.flags.has(WriteFlags::SYNC),
        };
        if open.is_cached() && !how.append {
            return write_all(ctx, open, r, how);
        }
        return Ok(file.write(r.offset, data, 0, how)?);
    }
    let n = ctx
        .worker
        .window()?
        .write(file, r.offset, data, data.len())?;
    Ok((n, r.offset.saturating_add(n as u64)))
}

/// Writes on until all is written: a write that was interrupted, or for which there was no space,
/// returns how much it wrote until then.
///
/// Written back pages have no other place once this is answered, so what is not written of them is
/// an error. Other writers want to know how far it went, as from `write(2)`.
fn write_all(ctx: &Context<'_>, open: &OpenFile, r: &Write, how: WriteHow) -> Result<(usize, u64)> {
    let data = &ctx.job.data;
    let (mut written, mut end) = (0, r.offset);
    loop {
        let failed = match open.file().write(end, data, written, how) {
            Ok((n, at)) => {
                (written, end) = (written + n, at);
                if written >= data.len() {
                    return Ok((written, end));
                }
                if n > 0 {
                    continue;
                }
                Refusal::from(EIO)
            }
            Err(e) => e.into(),
        };
        // With a signal the request is executed anew and writes the same bytes to the same place.
        let anew = failed.is_interrupt() && task::has_signal();
        if written == 0 || anew || r.flags.has(WriteFlags::WRITEBACK) {
            return Err(failed);
        }
        return Ok((written, end));
    }
}

/// Puts written data on the disk.
pub(crate) fn fsync(ctx: &mut Context<'_>, r: &Fsync) -> Result<Reply> {
    let file = ctx.file(r.file, false)?;
    file.file().sync(r.start, r.end, r.datasync != 0)?;
    ctx.reply(&FsyncReply {})
}
