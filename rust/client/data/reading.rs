// SPDX-License-Identifier: GPL-2.0

//! Reading: what programs ask for, and what the page cache does.

use core::sync::atomic::Ordering;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::Pages;
use qtfs_proto::{
    message::Read,
    Attr,
    OpenFlags,
    ReadFlags,
    MAX_DATA, //
};
use qtfs_vfs::{
    cache::ReadDone,
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
    file::{
        Borrowed,
        OpenFile, //
    },
    fs::Qtfs,
    node,
    session::{
        request::{
            is_lost,
            Asked, //
        },
        then::Then,
        Wait, //
    },
};

/// Reads of at most this many bytes that reach the end of the file are made without the page
/// cache: the answer has the size too.
const SMALL: usize = 256 * 1024;

/// Reads one piece of at most [`MAX_DATA`] bytes. Returns how many there are, and the attributes,
/// with when they were asked for. Callers may hold folios locked.
fn read_piece(
    inode: &Inode<Qtfs>,
    open: &OpenFile,
    offset: u64,
    pages: &Arc<Pages>,
    flags: ReadFlags,
) -> Result<(usize, Attr, Asked)> {
    // Regular files are read to the end, as everywhere; others may never have an end.
    let wait = if open.stream {
        Wait::Interruptible
    } else {
        Wait::Killable
    };
    let len = u32::try_from(pages.len())?;
    loop {
        let none = Arc::new(Pages::new(), GFP_KERNEL)?;
        let sink = Some(pages.clone());
        let result = open.exchange(inode, none, sink, wait, |file| Read {
            file,
            offset,
            len,
            flags,
        });
        match result {
            Err(e) if is_lost(e) => continue,
            Err(e) => return Err(e),
            Ok(reply) => {
                let attr = reply.decode::<Read>()?.attr;
                node::adopt(inode, &attr, reply.asked.incarnation);
                return Ok((reply.data_len, attr, reply.asked));
            }
        }
    }
}

/// Reads past the page cache.
fn read_direct(
    iocb: &mut Kiocb<'_, Qtfs>,
    iter: &mut Iter<'_>,
    inode: &Inode<Qtfs>,
    open: &OpenFile,
) -> Result<usize> {
    if inode.is_regular() && inode.is_dirty() {
        write_out(inode)?;
    }
    let nonblock = iocb.is_nowait() || open.stream && iocb.file().is_nonblocking();
    let flags = ReadFlags::NONE
        .with_if(iocb.is_direct(), ReadFlags::DIRECT)
        .with_if(nonblock, ReadFlags::NONBLOCK);
    let mut done = 0;
    if open.stream {
        open.polled.set_unread(false);
        if !iocb.is_direct() {
            if let Some(n) = read_first(iocb, iter, open)? {
                return Ok(n);
            }
        }
    }
    while iter.count() > 0 {
        let pages = Arc::new(Pages::alloc(iter.count().min(MAX_DATA))?, GFP_KERNEL)?;
        let len = match read_piece(inode, open, iocb.pos(), &pages, flags) {
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
            Ok((len, attr, asked)) => {
                node::apply(inode, &attr, asked);
                len
            }
        };
        let copied = iter.copy_from_pages(&pages, len);
        done += copied;
        iocb.set_pos(iocb.pos() + copied as u64);
        if copied < len {
            return if done > 0 { Ok(done) } else { Err(EFAULT) };
        }
        // What one read of the server's file gives is what one read gives here.
        if len < pages.len() || open.stream {
            break;
        }
    }
    Ok(done)
}

/// Reads what came with the opening of the file, as long as that is new.
fn read_first(
    iocb: &mut Kiocb<'_, Qtfs>,
    iter: &mut Iter<'_>,
    open: &OpenFile,
) -> Result<Option<usize>> {
    let mut first = open.first.lock();
    let (pos, count) = (iocb.pos(), iter.count());
    let taken = match &mut *first {
        Some(first) => first.take(pos, count),
        None => None,
    };
    let Some((len, pages)) = taken else {
        *first = None;
        return Ok(None);
    };
    drop(first);
    let copied = pages.map_or(0, |pages| iter.copy_from_pages(&pages, len));
    iocb.set_pos(pos + copied as u64);
    if copied == 0 && len > 0 {
        return Err(EFAULT);
    }
    Ok(Some(copied))
}

pub(crate) fn read(iocb: &mut Kiocb<'_, Qtfs>, iter: &mut Iter<'_>) -> Result<usize> {
    let open = iocb.file().open()?.clone();
    let inode = iocb.file().inode().grab().ok_or(EIO)?;
    let len = iter.count();
    if len == 0 {
        return Ok(0);
    }
    if open.stream || iocb.is_direct() {
        return read_direct(iocb, iter, &inode, &open);
    }
    let pos = iocb.pos();
    let end = pos.saturating_add(len as u64);
    let goes_on = pos != 0 && pos == open.last_end.load(Ordering::Relaxed) && end <= inode.size();
    if !goes_on {
        if inode.is_cached(pos, end.saturating_sub(1)) {
            ask(&inode, &open)?;
        } else if end > inode.size() {
            if len <= SMALL {
                let n = read_direct(iocb, iter, &inode, &open)?;
                open.last_end.store(pos + n as u64, Ordering::Relaxed);
                return Ok(n);
            }
            ask(&inode, &open)?;
        }
    }
    let done = iocb.read_cached(iter)?;
    open.last_end.store(pos + done as u64, Ordering::Relaxed);
    Ok(done)
}

/// An open file to read through.
fn reader(inode: &Inode<Qtfs>, open: Option<&Arc<OpenFile>>) -> Result<Borrowed> {
    let session = &inode.mount().session;
    match open {
        Some(open) if open.flags.has(OpenFlags::READ) => Ok(Borrowed::new(open.clone(), session)),
        _ => {
            let any = inode.node().any_open(OpenFlags::READ, session);
            any.ok_or(EBADF)
        }
    }
}

pub(crate) fn read_pages(
    inode: &Inode<Qtfs>,
    open: Option<&Arc<OpenFile>>,
    offset: u64,
    pages: Pages,
    done: ReadDone,
) {
    let mount = inode.mount();
    let session = &mount.session;
    let incarnation = session.incarnation();
    let prepared = (|| {
        let open = reader(inode, open)?;
        let file = open.id(mount, inode)?;
        session
            .credentials
            .register(session, &open.acting, Wait::Killable)?;
        let len = u32::try_from(pages.len())?;
        let call = Read {
            file,
            offset,
            len,
            flags: ReadFlags::NONE,
        };
        Ok((
            call,
            Some(open.acting.clone()),
            Arc::new(Pages::new(), GFP_KERNEL)?,
        ))
    })();
    let sink = Arc::new(pages, GFP_KERNEL).map_err(Error::from);
    match (prepared, sink) {
        (Ok((call, cred, none)), Ok(sink)) => {
            let then = Then::Read(done, sink.clone());
            session.submit(&call, cred, none, Some(sink), then, incarnation);
        }
        (Err(e), _) | (_, Err(e)) => done.finish(Err(e)),
    }
}

pub(crate) fn read_now(
    inode: &Inode<Qtfs>,
    open: Option<&Arc<OpenFile>>,
    offset: u64,
    pages: Pages,
) -> Result<usize> {
    let open = reader(inode, open)?;
    let pages = Arc::new(pages, GFP_KERNEL)?;
    let (len, attr, asked) = read_piece(inode, &open, offset, &pages, ReadFlags::NONE)?;
    if len < pages.len() {
        node::take_size(inode, attr.size, asked);
    }
    pages.zero_from(len);
    Ok(len)
}
