// SPDX-License-Identifier: GPL-2.0

//! FIFOs: the pipe is HOST's, and nobody waits there.
//!
//! The server's file never blocks. Who has to wait here waits for the server to tell that the file
//! may be ready (see [`crate::poll`]), and tries again; so also who waits in `open(2)` for the other
//! end. Nothing is sent meanwhile.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::Pages;
use qtfs_proto::{
    message::{
        Receive,
        Write, //
    },
    OpenFlags,
    PollEvents,
    WriteFlags, //
};
use qtfs_vfs::{
    file::File,
    flags::open_flags,
    inode::Inode,
    io::{
        Iter,
        Kiocb, //
    },
    task, //
};

use crate::{
    file::OpenFile,
    fs::Qtfs,
    poll,
    session::{
        request::{
            LOST,
            UNSENT, //
        },
        Wait, //
    },
};

/// Most bytes of one request. The server gives and takes as many.
const PIECE: usize = 64 * 1024;

/// Waits for the other end, if the program does.
pub(crate) fn open(inode: &Inode<Qtfs>, file: &File<Qtfs>) -> Result<Arc<OpenFile>> {
    let (open, alone) = crate::file::open_fifo(inode, file)?;
    let flags = open_flags(file.flags());
    let both = flags.has(OpenFlags::READ) && flags.has(OpenFlags::WRITE);
    if alone && !both && !flags.has(OpenFlags::NONBLOCK) {
        if let Err(e) = wait(inode, &open, PollEvents::MSG) {
            crate::file::release(inode, &open);
            return Err(e);
        }
    }
    Ok(open)
}

/// Waits until the server says that the file is ready for any of `events`.
///
/// Fails with [`ERESTARTSYS`] when a signal comes.
fn wait(inode: &Inode<Qtfs>, open: &Arc<OpenFile>, events: PollEvents) -> Result {
    loop {
        let seen = open.polled.queue.generation();
        let ready = poll::ask(inode, open, events)?.ready;
        if ready.without(events) != ready {
            return Ok(());
        }
        open.polled.queue.sleep(seen)?;
    }
}

pub(crate) fn queued(file: &File<Qtfs>) -> Result<u32> {
    Ok(poll::ask(file.inode(), file.open()?, PollEvents::NONE)?.queued)
}

/// Sends a request about the open file until the server has answered it. What was executed in a
/// session that the server lost nobody knows: [`EIO`].
fn exchange<T>(
    inode: &Inode<Qtfs>,
    open: &OpenFile,
    what: &str,
    mut attempt: impl FnMut(u32) -> Result<T>,
) -> Result<T> {
    let session = &inode.mount().session;
    loop {
        let incarnation = session.incarnation();
        let result = open.id(inode.mount(), inode).and_then(|_| {
            session.credentials.register(session, &open.acting)?;
            attempt(incarnation)
        });
        match result {
            Err(e) if e == UNSENT => {}
            Err(e) if e == LOST => {
                let why = "HOST lost the session; what went through the FIFO is not known";
                session.log_error(what, EIO, why);
                return Err(EIO);
            }
            result => return result,
        }
    }
}

pub(crate) fn receive(iocb: &Kiocb<'_, Qtfs>, iter: &mut Iter<'_>) -> Result<usize> {
    let (inode, open) = (iocb.file().inode(), iocb.file().open()?);
    let session = &inode.mount().session;
    let count = iter.count().min(PIECE);
    if count == 0 {
        return Ok(0);
    }
    let pages = Arc::new(Pages::alloc(count)?, GFP_KERNEL)?;
    loop {
        let received = exchange(inode, open, "RECEIVE", |incarnation| {
            let call = Receive {
                file: open.id(inode.mount(), inode)?,
                len: u32::try_from(count)?,
            };
            let (cred, sink) = (open.acting.index(), Some(pages.clone()));
            let none = Arc::new(Pages::new(), GFP_KERNEL)?;
            // What the server has taken out until a signal comes is not lost.
            let reply =
                session.exchange_as(&call, cred, none, sink, Wait::Interruptible, incarnation)?;
            reply.decode::<Receive>()?;
            Ok(reply.data_len)
        });
        match received {
            Err(e) if e == EAGAIN && !is_nonblocking(iocb) => {
                wait(inode, open, PollEvents::IN.with(PollEvents::HUP))?;
            }
            Err(e) => return Err(e),
            Ok(len) => {
                let copied = iter.copy_from_pages(&pages, len);
                return match copied {
                    0 if len > 0 => Err(EFAULT),
                    copied => Ok(copied),
                };
            }
        }
    }
}

fn is_nonblocking(iocb: &Kiocb<'_, Qtfs>) -> bool {
    iocb.is_nowait() || iocb.file().is_nonblocking()
}

pub(crate) fn send(iocb: &Kiocb<'_, Qtfs>, iter: &mut Iter<'_>) -> Result<usize> {
    let (inode, open) = (iocb.file().inode(), iocb.file().open()?);
    let mut done = 0;
    let result = loop {
        if iter.count() == 0 {
            break Ok(());
        }
        match send_piece(inode, open, iter) {
            Ok(sent) => done += sent,
            Err(e) if e == EAGAIN && !is_nonblocking(iocb) => {
                let events = PollEvents::OUT.with(PollEvents::ERR);
                if let Err(e) = wait(inode, open, events) {
                    break Err(e);
                }
            }
            Err(e) => break Err(e),
        }
    };
    if matches!(result, Err(e) if e == EPIPE) && !iocb.is_without_signal() {
        task::signal_pipe();
    }
    match result {
        Err(e) if done == 0 => Err(e),
        _ => Ok(done),
    }
}

/// Writes what one request takes; HOST takes a piece of up to `PIPE_BUF` as a whole or not at all.
/// What is not written stays in `iter`.
fn send_piece(inode: &Inode<Qtfs>, open: &Arc<OpenFile>, iter: &mut Iter<'_>) -> Result<usize> {
    let session = &inode.mount().session;
    let pages = Pages::alloc(iter.count().min(PIECE))?;
    let len = iter.copy_to_pages(&pages);
    if len < pages.len() {
        iter.revert(len);
        return Err(EFAULT);
    }
    let pages = Arc::new(pages, GFP_KERNEL)?;
    let sent = exchange(inode, open, "WRITE", |incarnation| {
        let call = Write {
            file: open.id(inode.mount(), inode)?,
            offset: 0,
            flags: WriteFlags::NONE,
        };
        let (cred, data) = (open.acting.index(), pages.clone());
        let reply = session.exchange_as(&call, cred, data, None, Wait::Killable, incarnation)?;
        Ok(reply.decode::<Write>()?.written as usize)
    });
    let sent = sent.map(|sent| sent.min(len));
    iter.revert(len - *sent.as_ref().unwrap_or(&0));
    sent
}
