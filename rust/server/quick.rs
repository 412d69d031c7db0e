// SPDX-License-Identifier: GPL-2.0

//! Requests that the thread which has received them executes itself, since nothing can hold it up:
//! a worker would have to be woken first.
//!
//! - RECEIVE of a channel, when there is nothing to receive: it is parked.
//! - SEND: the other end of a channel is engine's, and there is room.
//!
//! FIFOs have locks that HOST's programs can hold for as long as they like, also when one is closed.
//! Whatever is not as usual is a worker's, who tells what is wrong.

use kernel::{
    list::ListArc,
    sync::Arc, //
};
use qtfs_net::Pages;
use qtfs_proto::{
    message::{
        Receive,
        Send, //
    },
    FileId,
    ReceiveFlags,
    Request, //
};

use crate::{
    file::OpenFile,
    job::Job,
    op::channel,
    parking::Parking,
    refusal::Result,
    server::Server, //
};

/// Executes a request that was just begun, or gives it back.
pub(crate) fn execute(server: &Server, job: ListArc<Job>) -> Option<ListArc<Job>> {
    // Decoded once before, so it can be.
    match Request::decode(job.op, &job.body) {
        Ok(Request::Receive(r)) => receive(server, job, &r),
        Ok(Request::Send(r)) => send(server, job, &r),
        _ => Some(job),
    }
}

fn file(server: &Server, job: &Job, id: FileId) -> Result<Arc<OpenFile>> {
    let open = job.session.files.get(id)?;
    open.check(&server.policy(), false)?;
    Ok(open)
}

fn receive(server: &Server, job: ListArc<Job>, r: &Receive) -> Option<ListArc<Job>> {
    let waits = r.flags.has(ReceiveFlags::WAIT);
    let open = match file(server, &job, r.file) {
        Ok(open) if waits && open.file().is_socket() => open,
        _ => return Some(job),
    };
    // So that whoever makes it ready tells of that.
    let Ok(false) = open.is_ready_to_read() else {
        return Some(job);
    };
    Parking::Readable(open).park(job).err().map(|(job, _)| job)
}

fn send(server: &Server, job: ListArc<Job>, r: &Send) -> Option<ListArc<Job>> {
    let sent = file(server, &job, r.file).and_then(|open| channel::put(&open, &job.data));
    if sent.is_err() {
        return Some(job);
    }
    job.answer(Ok((&[], Pages::new())));
    None
}
