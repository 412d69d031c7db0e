// SPDX-License-Identifier: GPL-2.0

//! ATTACH and RELEASE: where a client's use of objects begins and ends.

use kernel::{
    prelude::*,
    str::BStr, //
};
use qtfs_proto::{
    message::{
        Attach,
        AttachReply,
        Release,
        ReleaseReply, //
    },
    FileId, //
};
use qtfs_vfs::local::{
    path::Symlinks,
    Path, //
};

use crate::{
    dispatch::Context,
    refusal::{
        Refusal,
        Result, //
    },
    resolve,
    way,
    worker::Reply, //
};

/// What is at a path; nothing when it is not exported, or has a symlink in it.
fn look(ctx: &Context<'_>, text: &[u8]) -> Result<Option<Path>> {
    if ctx.policy.rule(text).is_none() {
        return Ok(None);
    }
    let text = resolve::with_nul(text)?;
    let _engine = ctx.as_engine();
    match Path::absolute(resolve::c_str(&text)?, Symlinks::Refuse) {
        Err(ELOOP) => Ok(None),
        found => Ok(Some(found?).filter(|path| !path.is_symlink())),
    }
}

/// Finds an exported directory by its path.
///
/// Symlinks in the path are followed, but what counts is where they lead. What is there that is
/// not exported, and whether it is, is nobody's business.
pub(crate) fn attach(ctx: &mut Context<'_>, r: &Attach<'_>) -> Result<Reply> {
    let asked = BStr::from_bytes(r.path.bytes());
    let refuse = |error, why| Refusal::new(error, fmt!("HOST's {asked} {why}"));
    if r.path.bytes().first() != Some(&b'/') {
        return Err(refuse(EINVAL, "is no absolute path"));
    }
    if r.path
        .bytes()
        .split(|&b| b == b'/')
        .any(|name| name == b"..")
    {
        return Err(refuse(EINVAL, "has \"..\" in it"));
    }
    let hidden = |ctx: &Context<'_>| match ctx.rule(r.path.bytes()) {
        Err(refusal) => refusal,
        Ok(_) => refuse(EACCES, "leads out of what HOST exports, or nowhere"),
    };
    let mut buf = KVVec::from_elem(0, qtfs_proto::PATH_MAX + 1, GFP_KERNEL)?;
    let text = way::canonical(r.path.bytes())?;
    let found = look(ctx, &text).map_err(|refusal| match refusal.error() {
        ENOENT => refuse(ENOENT, "does not exist"),
        ENOTDIR => refuse(ENOTDIR, "has something in it that is no directory"),
        _ => refusal,
    })?;
    let path = match found {
        Some(path) => path,
        None => {
            let followed = {
                let _engine = ctx.as_engine();
                way::follow(ctx, text)
            };
            let there = followed.and_then(|text| look(ctx, &text)).ok().flatten();
            there.ok_or_else(|| hidden(ctx))?
        }
    };
    let (path, text) = {
        let _engine = ctx.as_engine();
        let path = path.entered()?;
        let text = path
            .text(&mut buf)
            .map_err(|_| refuse(ENOENT, "is out of reach of engine, see its root directory"))?;
        (path, text)
    };
    let Some(rule) = ctx.policy.rule(text) else {
        return Err(hidden(ctx));
    };
    if !path.is_dir() {
        return Err(refuse(ENOTDIR, "is no directory"));
    }
    let node = ctx.session.nodes.root(text, &path)?;
    let attr = ctx.attr_of(&node, &path)?;
    log_info!(
        "{}: uses {}{}\n",
        ctx.session,
        BStr::from_bytes(text),
        if rule.read_only { " (read-only)" } else { "" }
    );
    ctx.reply(&AttachReply {
        attr,
        read_only: u8::from(rule.read_only),
    })
}

/// The client does not use a file any more.
pub(super) fn close(ctx: &Context<'_>, id: FileId) {
    if let Some(file) = ctx.session.files.remove(id) {
        file.leave_locks();
        // Who waits for it hears that it is not open any more.
        file.released();
        ctx.session.queue.unpark(file.park_key());
        ctx.session.nodes.closed(file.node.id, id);
        // The last reference closes it: here, or where a request still uses it.
        drop(file);
    }
}

/// Closes files and forgets nodes; what is not there any more is no error.
pub(crate) fn release(ctx: &mut Context<'_>, r: &Release<'_>) -> Result<Reply> {
    for id in r.files.iter() {
        close(ctx, id);
    }
    for forget in r.nodes.iter() {
        ctx.session.nodes.forget(forget.node, forget.stamp);
    }
    ctx.reply(&ReleaseReply {})
}
