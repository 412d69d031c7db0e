// SPDX-License-Identifier: GPL-2.0

//! FIFOs: the pipe is HOST's, and nobody waits there.
//!
//! The server's file never blocks. Who reads sends one request, which the server answers as soon as
//! there is something. Who has to wait for something else does so until the server tells that the
//! file may be ready (see [`crate::poll`]), and tries again; so also who waits in `open(2)` for the
//! other end. Nothing is sent meanwhile.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::Pages;
use qtfs_proto::{
    message::{
        Call,
        Receive,
        Write, //
    },
    FileId,
    OpenFlags,
    PollEvents,
    ReceiveFlags,
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
            Reply,
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

/// Sends what `build` makes until the server has answered it. What was executed in a session that
/// the server lost nobody knows: [`EIO`].
fn exchange<C: Call>(
    inode: &Inode<Qtfs>,
    open: &OpenFile,
    data: &Arc<Pages>,
    sink: Option<&Arc<Pages>>,
    wait: Wait,
    build: impl Fn(FileId) -> C,
) -> Result<Reply> {
    loop {
        match open.exchange(inode, data.clone(), sink.cloned(), wait, &build) {
            Err(e) if e == UNSENT => {}
            Err(e) if e == LOST => {
                let why = "HOST lost the session; what went through the FIFO is not known";
                inode.mount().session.log_error(C::OP.name(), EIO, why);
                return Err(EIO);
            }
            result => return result,
        }
    }
}

pub(crate) fn receive(iocb: &Kiocb<'_, Qtfs>, iter: &mut Iter<'_>) -> Result<usize> {
    let (inode, open) = (iocb.file().inode(), iocb.file().open()?);
    let count = iter.count().min(PIECE);
    if count == 0 {
        return Ok(0);
    }
    let pages = Arc::new(Pages::alloc(count)?, GFP_KERNEL)?;
    let none = Arc::new(Pages::new(), GFP_KERNEL)?;
    let len = u32::try_from(count)?;
    let flags = ReceiveFlags::NONE.with_if(!is_nonblocking(iocb), ReceiveFlags::WAIT);
    loop {
        // What the server has taken out until a signal comes is not lost.
        let wait_for = Wait::Interruptible;
        let received = exchange(inode, open, &none, Some(&pages), wait_for, |file| Receive {
            file,
            len,
            flags,
        });
        let received = received.and_then(|reply| {
            reply.decode::<Receive>()?;
            Ok(reply.data_len)
        });
        match received {
            // Too many wait on the server already.
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
    let pages = Pages::alloc(iter.count().min(PIECE))?;
    let len = iter.copy_to_pages(&pages);
    if len < pages.len() {
        iter.revert(len);
        return Err(EFAULT);
    }
    let pages = Arc::new(pages, GFP_KERNEL)?;
    let sent = exchange(inode, open, &pages, None, Wait::Killable, |file| Write {
        file,
        offset: 0,
        flags: WriteFlags::NONE,
    });
    let sent = sent.and_then(|reply| Ok((reply.decode::<Write>()?.written as usize).min(len)));
    iter.revert(len - *sent.as_ref().unwrap_or(&0));
    sent
}
