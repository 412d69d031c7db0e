// SPDX-License-Identifier: GPL-2.0

//! READDIR.

use kernel::prelude::*;
use qtfs_proto::message::{
    Readdir,
    ReaddirReply, //
};

use crate::{
    dirents,
    dispatch::Context,
    refusal::Result,
    worker::Reply, //
};

/// Lists.
pub(crate) fn readdir(ctx: &mut Context<'_>, r: &Readdir) -> Result<Reply> {
    let file = ctx.file(r.file, false)?;
    let path = file.file().path();
    let mut buf = KVVec::from_elem(0, qtfs_proto::PATH_MAX + 1, GFP_KERNEL)?;
    // What is in a directory that HOST moved away is nobody's business. One that was removed is
    // empty.
    if let Ok(text) = path.text(&mut buf) {
        ctx.rule(text)?;
    }
    let want = usize::try_from(r.want)?.min(ctx.session.max_data());
    let (data, end) = dirents::list(ctx, &file, r.cookie, want, r.flags)?;
    ctx.reply_with(&ReaddirReply { eof: u8::from(end) }, data)
}
