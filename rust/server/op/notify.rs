// SPDX-License-Identifier: GPL-2.0

//! NOTIFY: being told of what happens to an object.

use kernel::prelude::*;
use qtfs_net::NoFs;
use qtfs_proto::{
    message::{
        Notify,
        NotifyReply, //
    },
    NotifyMask,
    Target, //
};
use qtfs_vfs::local::path::may;

use crate::{
    dispatch::Context,
    notices::MAX_WATCHES,
    refusal::{
        Refusal,
        Result, //
    },
    worker::Reply, //
};

/// As `inotify_add_watch(2)`, who asks must be allowed to read the object.
pub(crate) fn notify(ctx: &mut Context<'_>, r: &Notify) -> Result<Reply> {
    if r.mask == NotifyMask::NONE {
        if let Some(watching) = ctx.session.watching() {
            let forgotten = {
                let mut watched = watching.listener().watched();
                watched.remove(r.watch);
                watching.forget(r.watch)
            };
            drop(forgotten);
        }
        return ctx.reply(&NotifyReply {});
    }
    let found = ctx.target(&Target::node(r.node))?;
    found.path.permits(may::READ)?;
    let top = ctx.top(&found)?;
    let watching = ctx.session.watch(&ctx.server.current)?;
    // Reclaim of memory may tell of something.
    let _nofs = NoFs::enter();
    let mut watched = watching.listener().watched();
    let added = watched.add(r.watch, found.text)?;
    watching
        .watch(&found.path, &top, r.watch, r.mask, MAX_WATCHES)
        .map_err(|e| {
            if added {
                watched.remove(r.watch);
            }
            match e {
                ENOSPC => Refusal::new(e, fmt!("the client watches {MAX_WATCHES} objects")),
                e => e.into(),
            }
        })?;
    ctx.reply(&NotifyReply {})
}
