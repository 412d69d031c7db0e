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
    worker::Reply, //
};

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
    let text = resolve::with_nul(r.path.bytes())?;
    let text = resolve::c_str(&text)?;
    let mut buf = KVVec::from_elem(0, qtfs_proto::PATH_MAX + 1, GFP_KERNEL)?;
    let (found, is_link) = {
        let _engine = ctx.as_engine();
        let found = Path::absolute(text, Symlinks::Refuse);
        let is_link = match &found {
            Err(e) => *e == ELOOP,
            Ok(path) => path.is_symlink(),
        };
        match is_link {
            true => (Path::absolute(text, Symlinks::Follow), true),
            false => (found, false),
        }
    };
    if found.is_err() && (is_link || ctx.policy.rule(r.path.bytes()).is_none()) {
        return Err(hidden(ctx));
    }
    let path = found.map_err(|e| match e {
        ENOENT => refuse(e, "does not exist"),
        ENOTDIR => refuse(e, "has something in it that is no directory"),
        e => e.into(),
    })?;
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
