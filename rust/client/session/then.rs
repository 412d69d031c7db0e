// SPDX-License-Identifier: GPL-2.0

//! What happens when the reply to a request is there.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::{
    time::now_us,
    Pages, //
};
use qtfs_proto::{
    message::{
        self,
        Lookup,
        Mkdir,
        Open,
        Poll,
        Read,
        Walk,
        Write, //
    },
    FileId,
    NotifyMask,
    Op,
    OpenFlags,
    Request as Message, //
};
use qtfs_vfs::{
    cache::{
        ReadDone,
        WriteDone, //
    },
    inode::Inode,
};

use super::{
    request::{
        is_lost,
        Reply,
        Request, //
    },
    Session,
};
use crate::{
    channel::Channel,
    file::Borrowed,
    fs::Qtfs,
    node, //
};

/// How often a write of pages is begun anew, which takes half a minute.
const TRIES: u32 = 40;
/// First and longest pause before that, in milliseconds; doubled each time.
const PAUSE_MS: (u32, u32) = (10, 1_000);

/// Pages that are being written back.
pub(crate) struct Writeback {
    /// The file that they are written through.
    pub(crate) open: Borrowed,
    /// Where.
    pub(crate) pos: u64,
    /// What.
    pub(crate) pages: Arc<Pages>,
    /// Whom to tell; gone once that was done.
    done: Option<WriteDone>,
    /// How often it was begun anew.
    tries: u32,
    /// When it is begun anew, in microseconds since boot.
    pub(super) due: u64,
}

impl Writeback {
    /// Begins to write `pages`.
    pub(crate) fn new(
        inode: &Inode<Qtfs>,
        open: Borrowed,
        pos: u64,
        pages: Arc<Pages>,
        done: WriteDone,
    ) -> Self {
        inode.node().write_begins();
        Self {
            open,
            pos,
            pages,
            done: Some(done),
            tries: 0,
            due: 0,
        }
    }

    /// Whether it may be begun anew, after a pause.
    fn take_try(&mut self) -> bool {
        let pause = PAUSE_MS.0.checked_shl(self.tries.min(16)).unwrap_or(0);
        self.due = now_us().saturating_add(u64::from(pause.min(PAUSE_MS.1)) * 1000);
        self.tries += 1;
        self.tries <= TRIES
    }

    /// The inode whose pages are written.
    pub(crate) fn inode(&self) -> Result<&Inode<Qtfs>> {
        Ok(self.done.as_ref().ok_or(EIO)?.inode::<Qtfs>())
    }

    /// The pages are on the server, or not.
    pub(crate) fn finish(mut self, result: Result) {
        self.end(result);
    }

    fn end(&mut self, result: Result) {
        if let Some(done) = self.done.take() {
            if let Err(e) = result {
                done.fail(e);
            }
            // The inode stays until its folios are told, which comes last.
            done.inode::<Qtfs>().node().write_ended();
            done.finish();
        }
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        self.end(Err(EIO));
    }
}

/// What happens when the reply is there.
pub(crate) enum Then {
    /// A caller waits for it.
    Wake,
    /// Nobody does; what the reply brought is given back.
    Forget,
    /// Pages of the cache are filled.
    Read(ReadDone, Arc<Pages>),
    /// Pages of the cache were written.
    Write(Writeback),
    /// A message has come through a channel.
    Received(Arc<Channel>, Arc<Pages>),
    /// Whether a channel has a message is known.
    Polled(Arc<Channel>),
    /// A message has gone into a channel.
    Sent(Arc<Channel>),
    /// By this number HOST tells of no more than this.
    Narrowed(u64, NotifyMask),
}

impl Then {
    /// Acts on the failure to make a request at all.
    pub(crate) fn fail(self, session: &Arc<Session>, error: Error) {
        match self {
            Self::Wake | Self::Forget => {}
            Self::Read(done, _) => done.finish(Err(error)),
            Self::Write(writeback) => written(session, Err(error), writeback),
            Self::Received(channel, _) => channel.received(Err(error), None),
            Self::Polled(channel) => channel.polled(Err(error)),
            Self::Sent(channel) => channel.sent(Err(error)),
            Self::Narrowed(watch, mask) => session.notices.narrowed(watch, mask),
        }
    }

    /// Acts on the result. Runs in a thread that serves a lane: must not wait for the network.
    pub(crate) fn run(self, session: &Arc<Session>, request: &Request, result: Result<Reply>) {
        match self {
            Self::Wake => {}
            Self::Forget => give_back(session, request, &result),
            Self::Read(done, sink) => {
                let result = filled(done.inode(), &result, &sink);
                done.finish(result);
            }
            Self::Write(writeback) => written(session, result, writeback),
            Self::Received(channel, pages) => channel.received(result, Some(pages)),
            Self::Polled(channel) => channel.polled(result),
            Self::Sent(channel) => channel.sent(result),
            Self::Narrowed(watch, mask) => session.notices.narrowed(watch, mask),
        }
    }
}

/// Whether the pages of a READ are filled; what the file does not have is zero, and not read if the
/// file has become shorter.
fn filled(inode: &Inode<Qtfs>, result: &Result<Reply>, sink: &Pages) -> Result {
    let reply = result.as_ref().map_err(|e| *e)?;
    let attr = reply.decode::<Read>()?.attr;
    if reply.data_len < sink.len() {
        node::take_size(inode, attr.size, reply.asked);
    }
    sink.zero_from(reply.data_len);
    Ok(())
}

/// Ends the write of pages, or begins it anew when the session was lost.
fn written(session: &Arc<Session>, result: Result<Reply>, writeback: Writeback) {
    let outcome = result.and_then(|reply| {
        let done = reply.decode::<Write>()?;
        let len = writeback.pages.len();
        if usize::try_from(done.written)? != len {
            // The server writes all or says why not.
            return Err(EIO);
        }
        let inode = writeback.inode()?;
        inode.node().changed(session);
        if writeback.open.leaves() {
            writeback.open.has_left();
        }
        inode
            .node()
            .saw_version(done.attr.version, reply.asked.incarnation);
        session.durable.written(&inode.node().unsynced);
        Ok(())
    });
    match outcome {
        Err(e) => not_written(session, e, writeback),
        Ok(()) => writeback.finish(Ok(())),
    }
}

/// Ends the write of pages that failed. If the error says nothing about the data, it is begun anew
/// instead, as long as there is hope: whoever began to write was killed, there was no memory, here or
/// on HOST, or the server lost the session.
pub(crate) fn not_written(session: &Session, error: Error, mut writeback: Writeback) {
    let is_passing = is_lost(error) || error == EINTR || error == ENOMEM;
    if is_passing && !session.is_aborted() && writeback.take_try() {
        session.write_again(writeback);
        return;
    }
    session.log_error("WRITE", error, "data that a program wrote is lost");
    // Programs are to know that it is their data which they are told of.
    writeback.finish(Err(if is_passing { EIO } else { error }));
}

/// Releases what a reply brought that nobody waits for any more.
pub(crate) fn give_back(session: &Arc<Session>, request: &Request, result: &Result<Reply>) {
    let Ok(reply) = result else { return };
    let incarnation = reply.asked.incarnation;
    match request.op {
        Op::Open => {
            if let Ok(open) = reply.decode::<Open<'_>>() {
                if open.file != FileId::NONE {
                    session.releases.close(session, open.file, incarnation);
                }
                session.forget(&open.attr, incarnation);
                let asked = Message::decode(request.op, request.body());
                if matches!(asked, Ok(Message::Open(asked)) if asked.flags.has(OpenFlags::LIST)) {
                    give_back_entries(session, request, reply);
                }
            }
        }
        Op::Readdir if reply.status == 0 => give_back_entries(session, request, reply),
        Op::Channel => {
            if let Ok(opened) = reply.decode::<message::Channel<'_>>() {
                session.releases.close(session, opened.file, incarnation);
            }
        }
        Op::Walk => {
            if let Ok(found) = reply.decode::<Walk<'_>>() {
                session.forget(&found.attr, incarnation);
            }
        }
        Op::Lookup => {
            if let Ok(found) = reply.decode::<Lookup<'_>>() {
                session.forget(&found.attr, incarnation);
            }
        }
        // These replies have the same form.
        Op::Mkdir | Op::Mknod | Op::Symlink => {
            if let Ok(made) = reply.decode::<Mkdir<'_>>() {
                session.forget(&made.attr, incarnation);
            }
        }
        Op::Poll => {
            let asked = Message::decode(request.op, request.body());
            if let (Ok(answer), Ok(Message::Poll(asked))) = (reply.decode::<Poll>(), asked) {
                session.watches.late(asked.watch, answer.ready);
            }
        }
        Op::Lock => {
            let taken = Message::decode(request.op, request.body());
            if let (Ok(()), Ok(Message::Lock(lock))) = (reply.error(), taken) {
                crate::lock::release(session, &lock, request.cred.clone(), incarnation);
            }
        }
        _ => {}
    }
}

/// Forgets the objects that a listing named which nobody reads.
fn give_back_entries(session: &Arc<Session>, request: &Request, reply: &Reply) {
    // Without memory the server remembers them until umount.
    let listed = request
        .sink
        .as_ref()
        .map(|sink| sink.to_vec(reply.data_len));
    let Some(Ok(data)) = listed else { return };
    for entry in qtfs_proto::dirent::entries(&data) {
        let Ok(entry) = entry else { return };
        if let Some(attr) = entry.attr {
            let incarnation = reply.asked.incarnation;
            session.forget(&attr, incarnation);
        }
    }
}
