// SPDX-License-Identifier: GPL-2.0

//! Contents of files: through the page cache and past it.
//!
//! Cached pages are those of one version of the contents, which the server counts, see
//! `Attr::version`. Before cached pages are used the server is asked for the version, except in
//! the middle of a sequential read, whose pages were fetched for it.

use core::sync::atomic::Ordering;
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
        Fsync,
        Getattr,
        Read,
        Write,
        WriteReply, //
    },
    Attr,
    OpenFlags,
    ReadFlags,
    Target,
    WriteFlags,
    MAX_DATA, //
};
use qtfs_vfs::{
    cache::{
        ReadDone,
        WriteDone, //
    },
    file::File,
    inode::Inode,
    io::{
        Iter,
        Kiocb, //
    },
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
            Asked,
            LOST, //
        },
        then::{
            is_passing,
            Then,
            Writeback, //
        },
        Session,
        Wait, //
    },
};

/// Reads of at most this many bytes that reach the end of the file are made without the page
/// cache: the answer has the size too.
const SMALL: usize = 256 * 1024;
/// Writes beyond this place are made without the page cache: only the server knows how large a
/// file may be, and the writer is to be told.
const FAR: u64 = 1 << 40;

/// How often pages that are dirtied meanwhile are written once more before they are dropped.
const DROPS: usize = 8;

/// Writes all dirty pages, so that the caller can be killed, and drops all pages from the cache.
///
/// Fails with [`EBUSY`] when a mapping is written to all the time; its pages stay.
pub(crate) fn write_and_drop(inode: &Inode<Qtfs>) -> Result {
    for _ in 1..DROPS {
        if inode.is_dirty() {
            write_out(inode)?;
        }
        match inode.drop_pages(0, u64::MAX) {
            Err(e) if e == EBUSY => {}
            result => return result,
        }
    }
    inode.drop_pages(0, u64::MAX)
}

/// Drops cached pages of an older version of the contents.
pub(crate) fn refresh(inode: &Inode<Qtfs>) -> Result {
    let node = inode.node();
    if node.outdated().is_none() {
        return Ok(());
    }
    // Whoever comes later must not use what is not dropped yet.
    let _refreshing = node.refreshing.lock();
    if let Some(version) = node.outdated() {
        match write_and_drop(inode) {
            Ok(()) => node.cached_is(version),
            // Pages that are mapped and written at this very moment stay; they are this machine's.
            Err(e) if e == EBUSY => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Asks for the attributes of an open file, and drops cached pages that are older.
fn ask(inode: &Inode<Qtfs>, open: &OpenFile) -> Result {
    ask_attr(inode, open)?;
    refresh(inode)
}

/// Asks for the attributes of an open file.
pub(crate) fn ask_attr(inode: &Inode<Qtfs>, open: &OpenFile) -> Result {
    let mount = inode.mount();
    let (reply, _) = mount.call(|| {
        let file = open.id(mount, inode)?;
        Ok(Getattr {
            target: Target::node(mount.id(inode)?),
            file,
        })
    })?;
    node::apply(inode, &reply.decode::<Getattr<'_>>()?.attr, reply.asked);
    Ok(())
}

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
                if !flags.has(WriteFlags::DSYNC) && !flags.has(WriteFlags::SYNC) {
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

pub(crate) fn mmap(file: &File<Qtfs>) -> Result {
    let open = file.open()?;
    if open.stream {
        return Err(ENODEV);
    }
    ask(file.inode(), open)
}

/// Data of an immutable file could never be written back.
pub(crate) fn page_mkwrite(file: &File<Qtfs>) -> Result {
    let (inode, open) = (file.inode(), file.open()?);
    if inode.node().is_immutable() {
        ask_attr(inode, open)?;
        if inode.node().is_immutable() {
            return Err(EPERM);
        }
    }
    Ok(())
}

pub(crate) fn size(file: &File<Qtfs>) -> Result<u64> {
    let inode = file.inode();
    if !inode.is_dirty() {
        ask(inode, file.open()?)?;
    }
    Ok(inode.size())
}

pub(crate) fn fsync(file: &File<Qtfs>, start: u64, end: u64, datasync: bool) -> Result {
    let (inode, open) = (file.inode(), file.open()?);
    let mount = inode.mount();
    let datasync = datasync.into();
    let durable = &mount.session.durable;
    let unsynced = &inode.node().unsynced;
    let taken = durable.take(unsynced);
    let synced = mount.call(|| {
        Ok(Fsync {
            file: open.id(mount, inode)?,
            datasync,
            start,
            end,
        })
    });
    let synced = synced.and_then(|(reply, _)| reply.decode::<Fsync>().map(|_| ()));
    if durable.ended(taken, synced.is_ok(), unsynced) {
        let what = "HOST was rebooted before data that a program wrote was on its disk";
        mount.session.log_error("FSYNC", EIO, what);
        return Err(EIO);
    }
    synced
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

pub(crate) fn write_pages(
    inode: &Inode<Qtfs>,
    pos: u64,
    pages: Pages,
    last: bool,
    done: WriteDone,
) {
    let session = &inode.mount().session;
    let open = inode.node().writer(last, session).ok_or(EBADF);
    let pages = Arc::new(pages, GFP_KERNEL).map_err(Error::from);
    match (open, pages) {
        (Ok(open), Ok(pages)) => {
            write_back(session, Writeback::new(inode, open, pos, pages, done));
        }
        (Err(e), _) | (_, Err(e)) => {
            session.log_error("WRITE", e, "data that a program wrote is lost");
            done.fail(e);
            done.finish();
        }
    }
}

/// Writes all dirty pages of an inode and waits until they are on the server. Errors of the server
/// are kept for `fsync(2)` and `close(2)`.
pub(crate) fn write_out(inode: &Inode<Qtfs>) -> Result {
    let timeout = inode.mount().session.config.timeout;
    // The kernel would wait for pages that are being written already so that nothing could kill
    // the caller.
    inode.node().wait_writes(timeout)?;
    inode.start_writing()?;
    inode.node().wait_writes(timeout)
}

/// Sends pages of the cache to the server.
pub(crate) fn write_back(session: &Arc<Session>, writeback: Writeback) {
    let incarnation = session.incarnation();
    let prepared = (|| {
        let inode = writeback.inode()?;
        inode.node().changed(session);
        let file = writeback.open.id(inode.mount(), inode)?;
        session
            .credentials
            .register(session, &writeback.open.acting, Wait::Killable)?;
        Ok(Write {
            file,
            offset: writeback.pos,
            flags: WriteFlags::WRITEBACK.with_if(writeback.open.leaves(), WriteFlags::CLOSE),
        })
    })();
    match prepared {
        Ok(call) => {
            let cred = Some(writeback.open.acting.clone());
            let data = writeback.pages.clone();
            session.submit(&call, cred, data, None, Then::Write(writeback), incarnation);
        }
        Err(e) if is_passing(session, e) => session.write_again(writeback),
        Err(e) => {
            session.log_error("WRITE", e, "data that a program wrote is lost");
            writeback.finish(Err(e));
        }
    }
}
