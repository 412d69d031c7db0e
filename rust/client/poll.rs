// SPDX-License-Identifier: GPL-2.0

//! Waiting for open files: the server says what a file is ready for, and tells once when that
//! changes.

use core::sync::atomic::{
    AtomicBool,
    AtomicU32,
    AtomicU64,
    Ordering, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_proto::{
    message::Poll,
    PollEvents, //
};
use qtfs_vfs::{
    file::File,
    inode::Inode,
    poll::PollQueue, //
};

use crate::{
    file::OpenFile,
    fs::Qtfs,
    session::{
        Session,
        Wait,
        Watched, //
    },
};

/// What files say of a change that the program has not seen yet, once.
const CHANGED: PollEvents = PollEvents::PRI.with(PollEvents::ERR);

/// What an open file keeps for those who wait for it.
#[pin_data]
pub(crate) struct Polled {
    /// Who waits.
    #[pin]
    pub(crate) queue: PollQueue,
    /// What the server tells of it by; 0 until somebody asks.
    watch: AtomicU64,
    /// What the server answered after its caller had given up.
    late: AtomicU32,
    /// Contents came with the opening, and the program has read nothing: kernfs takes a file for
    /// changed as long as it was not read, and the server has read it.
    unread: AtomicBool,
    /// The incarnation of the session in which the server knows what the program has seen.
    incarnation: AtomicU32,
}

impl Polled {
    /// Of a file that was opened in an incarnation of the session.
    pub(crate) fn new(incarnation: u32) -> impl PinInit<Self> {
        pin_init!(Self {
            queue <- PollQueue::new(),
            watch: AtomicU64::new(0),
            late: AtomicU32::new(0),
            unread: AtomicBool::new(false),
            incarnation: AtomicU32::new(incarnation),
        })
    }

    /// The file is closed.
    pub(crate) fn end(&self, session: &Session) {
        match self.watch.swap(0, Ordering::AcqRel) {
            0 => {}
            watch => session.watches.remove(watch),
        }
    }

    /// The server has read a file of kernfs when it opened it (`true`), or the program reads it.
    pub(crate) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Release);
    }

    /// The server has answered when nobody waited for that any more.
    pub(crate) fn keep_late(&self, ready: PollEvents) {
        self.late.fetch_or(ready.bits(), Ordering::AcqRel);
    }

    fn take_late(&self) -> PollEvents {
        let bits = self.late.swap(0, Ordering::AcqRel);
        PollEvents::from_bits(bits).unwrap_or(PollEvents::NONE)
    }
}

/// What the server tells of the file by.
fn watch(session: &Session, open: &Arc<OpenFile>) -> Result<u64> {
    let place = &open.polled.watch;
    match place.load(Ordering::Acquire) {
        0 => {}
        known => return Ok(known),
    }
    let new = session.watches.add(Watched::File(open.clone()))?;
    match place.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(new),
        Err(other) => {
            session.watches.remove(new);
            Ok(other)
        }
    }
}

/// What the server answered to POLL.
pub(crate) struct Answer {
    pub(crate) ready: PollEvents,
    /// Bytes that a FIFO has.
    pub(crate) queued: u32,
    /// The incarnation of the session; none when there was no answer.
    incarnation: Option<u32>,
}

/// Asks for what an open file is ready for. Those who wait are woken at the first of each of
/// `wake` from now on.
///
/// While HOST cannot be reached a file is ready for nothing; whoever waits is woken when HOST is
/// there again, or answers after all.
pub(crate) fn ask(inode: &Inode<Qtfs>, open: &Arc<OpenFile>, wake: PollEvents) -> Result<Answer> {
    let mount = inode.mount();
    let watch = watch(&mount.session, open)?;
    let late = open.polled.take_late();
    let answer = mount.call_into(None, Wait::Briefly, || {
        Ok(Poll {
            file: open.id_within(mount, inode, Wait::Briefly)?,
            watch,
            wake,
        })
    });
    let reply = match answer {
        Ok((reply, _)) => reply,
        Err(e) if e == ETIMEDOUT || e == EINTR => {
            return Ok(Answer {
                ready: late,
                queued: 0,
                incarnation: None,
            })
        }
        Err(e) => return Err(e),
    };
    let decoded = reply.decode::<Poll>()?;
    // What others have consumed since is not there any more.
    let late = late.without(PollEvents::ALL.without(CHANGED));
    Ok(Answer {
        ready: decoded.ready.with(late),
        queued: decoded.queued,
        incarnation: Some(reply.asked.incarnation),
    })
}

/// See [`ask`].
pub(crate) fn poll(file: &File<Qtfs>, wake: PollEvents) -> Result<PollEvents> {
    let open = file.open()?;
    let answer = ask(file.inode(), open, wake)?;
    let Some(incarnation) = answer.incarnation else {
        return Ok(answer.ready);
    };
    // What changed before the server had the file open anew, nobody can tell.
    let before = open.polled.incarnation.swap(incarnation, Ordering::AcqRel);
    let anew = before != incarnation;
    let unread = open.polled.unread.load(Ordering::Acquire);
    // That a FIFO has its other end is no event for programs.
    let ready = match open.is_fifo {
        true => answer.ready.without(PollEvents::MSG),
        false => answer.ready,
    };
    Ok(ready
        .with_if(unread, CHANGED)
        .with_if(anew && !open.is_fifo, CHANGED.with(PollEvents::IN)))
}
