// SPDX-License-Identifier: GPL-2.0

//! LOOKUP, WALK and READLINK: finding objects.

use kernel::prelude::*;
use qtfs_proto::{
    message::{
        Lookup,
        LookupReply,
        Readlink,
        ReadlinkReply,
        Walk,
        WalkReply, //
    },
    LookupFlags,
    Name, //
};
use qtfs_vfs::local::window;

use crate::{
    dispatch::{
        invalid,
        Context, //
    },
    refusal::Result,
    resolve::{
        At,
        Found, //
    },
    worker::Reply, //
};

/// Finds a name.
pub(crate) fn lookup(ctx: &mut Context<'_>, r: &Lookup<'_>) -> Result<Reply> {
    let dir = if r.flags.has(LookupFlags::REBIND) {
        ctx.dir_anywhere(r.dir)?
    } else {
        ctx.dir(r.dir)?
    };
    let found = ctx.child(&dir, r.name)?;
    let attr = ctx.attr(&found)?;
    ctx.reply(&LookupReply { attr })
}

/// Finds an object by its path below a directory that ATTACH named.
pub(crate) fn walk(ctx: &mut Context<'_>, r: &Walk<'_>) -> Result<Reply> {
    let mut found: Found<'_> = ctx.dir(r.root)?;
    for name in r.path.bytes().split(|&b| b == b'/') {
        if name.is_empty() {
            continue;
        }
        let name = Name::new(name).map_err(|_| invalid("a path with \"..\" in it"))?;
        let node = ctx.node(&found)?;
        let id = node.id;
        found.at = At::Node(node);
        let next = ctx.child(&found, name);
        // Directories on the way to nothing must not stay.
        found = next.inspect_err(|_| ctx.session.nodes.trim(id))?;
    }
    let attr = ctx.attr(&found)?;
    ctx.reply(&WalkReply { attr })
}

/// What a symlink says.
pub(crate) fn readlink(ctx: &mut Context<'_>, r: &Readlink<'_>) -> Result<Reply> {
    let found = ctx.target(&r.target)?;
    if !found.path.is_symlink() {
        return Err(EINVAL.into());
    }
    let mut buf = KVVec::from_elem(0, qtfs_proto::PATH_MAX + 1, GFP_KERNEL)?;
    let len = match window::read_link(&found.path, &mut buf) {
        // Links of procfs.
        Err(EINVAL) => ctx.worker.window()?.read_link(&found.path, &mut buf)?.len(),
        text => text?.len(),
    };
    found.path.touch();
    let text = buf.get(..len).ok_or(EIO)?;
    let text = qtfs_proto::types::Path::new(text)?;
    ctx.reply(&ReadlinkReply { text })
}
