// SPDX-License-Identifier: GPL-2.0

//! CHANNEL and SEND: messages between a client and engine. RECEIVE of them is in [`super::fifo`].

use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::Pages;
use qtfs_proto::{
    message::{
        Channel,
        ChannelReply,
        Send,
        SendReply, //
    },
    relay::{
        Purpose,
        MAX_MESSAGE,
        WINDOW, //
    },
};
use qtfs_vfs::{
    local::{
        fifo::OtherEnd,
        file::WriteHow,
        path::may,
        File, //
    },
    unix, //
};

use crate::{
    channels::NewChannel,
    dispatch::{
        invalid,
        Context, //
    },
    file::OpenFile,
    node::Node,
    refusal::{
        Refusal,
        Result, //
    },
    resolve::Found,
    worker::Reply, //
};

/// Room for messages in each direction: the window, what the kernel counts besides the bytes, and
/// messages that the window does not count.
const BUFFER: usize = 4 * WINDOW as usize;

/// See [`Channel`].
pub(crate) fn channel(ctx: &mut Context<'_>, r: &Channel<'_>) -> Result<Reply> {
    let found = match r.purpose {
        Purpose::Connect | Purpose::ConnectNow | Purpose::Listen => ctx.target(&r.target)?,
        // These go on when the file of the socket is gone.
        Purpose::Take | Purpose::Offer | Purpose::File => ctx.by_channel(r.target.node)?,
    };
    if !found.path.is_socket() {
        return Err(invalid("open a channel to what is no socket"));
    }
    if !ctx.server.is_ready() {
        return Err(Refusal::new(
            EHOSTDOWN,
            fmt!("engine is not running on HOST; start it with: engine"),
        ));
    }
    match r.purpose {
        Purpose::Connect | Purpose::ConnectNow => found.path.permits(may::WRITE)?,
        Purpose::Listen => found.writable()?,
        Purpose::Take | Purpose::Offer | Purpose::File => {}
    }
    let passed = match r.purpose {
        Purpose::File => Some(ctx.file(r.file, false)?.file().share()),
        _ => None,
    };
    let node = ctx.node(&found)?;
    let id = node.id;
    let result = connect(ctx, r, found, node, passed);
    // A node that the client does not get to know of must not stay.
    result.inspect_err(|_| ctx.session.nodes.trim(id))
}

/// Makes the channel and hands its other end to engine.
fn connect(
    ctx: &mut Context<'_>,
    r: &Channel<'_>,
    found: Found<'_>,
    node: Arc<Node>,
    passed: Option<File>,
) -> Result<Reply> {
    let (ours, theirs, object) = {
        // The sockets are engine's, whoever asks.
        let _engine = ctx.as_engine();
        let (ours, theirs) = unix::channel_pair(BUFFER)?;
        (ours, theirs, unix::open_path(&found.path)?)
    };
    let open = OpenFile::new(
        ctx.session,
        node.clone(),
        ours,
        OtherEnd::default(),
        found.text,
        found.rule,
        &ctx.policy,
    )?;
    let file = ctx.session.files.insert(&open)?;
    let new = NewChannel {
        end: theirs,
        object,
        passed,
        purpose: r.purpose,
        kind: r.kind,
        token: r.token,
        session: ctx.session.number(),
        caller: ctx.caller.clone(),
    };
    let result = ctx.session.nodes.opened(node.id, file).and_then(|()| {
        ctx.server.channels.push(new)?;
        ctx.reply(&ChannelReply { file })
    });
    if result.is_err() {
        ctx.session.files.remove(file);
        ctx.session.nodes.closed(node.id, file);
    }
    result
}

/// An open file that is a channel.
pub(super) fn check(open: &Arc<OpenFile>) -> Result {
    if !open.file().is_socket() {
        return Err(invalid("send to what is no channel"));
    }
    Ok(())
}

/// See [`Send`].
pub(crate) fn send(ctx: &mut Context<'_>, r: &Send) -> Result<Reply> {
    let open = ctx.file(r.file, false)?;
    put(&open, &ctx.job.data)?;
    ctx.reply(&SendReply {})
}

/// Puts a message into a channel. Waits for nobody.
pub(crate) fn put(open: &Arc<OpenFile>, data: &Pages) -> Result {
    check(open)?;
    if data.is_empty() || data.len() > MAX_MESSAGE {
        return Err(invalid("a message of this length"));
    }
    // All of it, or nothing.
    open.file().write(0, data, 0, WriteHow::default())?;
    Ok(())
}
