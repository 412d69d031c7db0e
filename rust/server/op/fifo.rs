// SPDX-License-Identifier: GPL-2.0

//! OPEN of a FIFO, which nobody waits for here, and RECEIVE.

use kernel::prelude::*;
use qtfs_net::Pages;
use qtfs_proto::{
    message::{
        Open,
        Receive,
        ReceiveReply, //
    },
    relay::MAX_MESSAGE,
    OpenFlags,
    ReceiveFlags, //
};
use qtfs_vfs::local::{
    fifo::{
        self,
        OtherEnd, //
    },
    file::{
        How,
        ReadHow, //
    },
    File, //
};

use crate::{
    dispatch::{
        invalid,
        Context,
        Outcome, //
    },
    parking::Parking,
    refusal::Result,
    resolve::Found, //
};

/// Most bytes of one answer, which is kept for as long as the slot is not used again. FIFOs have as
/// many unless somebody asked for more.
const MAX_RECEIVE: usize = 64 * 1024;

/// Opens what was found. Without NONBLOCK it is open also when nobody reads what is to be written.
pub(super) fn open(r: &Open<'_>, found: &Found<'_>, how: How) -> Result<(File, OtherEnd)> {
    if how.write {
        found.writable()?;
    }
    let waits = !r.flags.has(OpenFlags::NONBLOCK);
    Ok(fifo::open(&found.path, how, waits)?)
}

/// See [`Receive`].
pub(crate) fn receive(ctx: &mut Context<'_>, r: &Receive) -> Result<Outcome> {
    let open = ctx.file(r.file, false)?;
    let file = open.file();
    // Without any, reading says whether it is the end.
    let queued = match file.is_socket() {
        // One message, whole.
        true => MAX_MESSAGE,
        false if file.is_fifo() => usize::try_from(file.queued())?.max(1),
        false => return Err(invalid("receive from what is neither FIFO nor channel")),
    };
    let len = usize::try_from(r.len)?
        .min(queued)
        .min(MAX_RECEIVE)
        .min(ctx.session.max_data());
    let mut data = Pages::alloc(len)?;
    let n = match file.read(0, &data, len, ReadHow::default()) {
        Err(EAGAIN) if r.flags.has(ReceiveFlags::WAIT) => {
            // So that an error of that is an answer.
            open.is_ready_to_read()?;
            return Ok(Outcome::Park(Parking::Readable(open)));
        }
        n => n?,
    };
    data.truncate(n);
    let reply = ctx.reply_with(&ReceiveReply {}, data)?;
    Ok(Outcome::Reply(reply))
}
