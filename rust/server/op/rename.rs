// SPDX-License-Identifier: GPL-2.0

//! UNLINK and RENAME.

use kernel::prelude::*;
use qtfs_proto::{
    message::{
        Rename,
        RenameReply,
        Unlink,
        UnlinkReply, //
    },
    RenameFlags,
    UnlinkFlags, //
};
use qtfs_vfs::local::{
    self,
    remove,
    rename as local_rename, //
};

use crate::{
    dispatch::Context,
    refusal::{
        Refusal,
        Result, //
    },
    resolve::{
        join,
        Found, //
    },
    worker::Reply, //
};

/// Removes a name.
pub(crate) fn unlink(ctx: &mut Context<'_>, r: &Unlink<'_>) -> Result<Reply> {
    let dir = ctx.dir(r.dir)?;
    dir.writable()?;
    let name = local::Name::new(r.name.bytes())?;
    let nlink = if r.flags.has(UnlinkFlags::DIRECTORY) {
        // An exported directory in it may have another rule.
        if ctx.rule(&join(&dir.text, r.name.bytes())?)?.read_only {
            return Err(EROFS.into());
        }
        remove::directory(&dir.path, &name)?
    } else {
        match ctx.child(&dir, r.name) {
            // Other names of the file stay, and with them what the client has cached of it.
            Ok(found) => ctx.change_found(&found, |_| Ok(remove::file(&dir.path, &name)?))?,
            Err(_) => remove::file(&dir.path, &name)?,
        }
    };
    ctx.reply(&UnlinkReply { nlink })
}

/// Fails when moving an object would take it, or something below it, out of reach of the rule that
/// the policy has for it.
fn may_move(ctx: &Context<'_>, found: &Found<'_>) -> Result {
    found.writable()?;
    may_leave(ctx, &found.text)
}

/// Fails when the policy names what is at a path, or something below it, so that the object there
/// must stay.
fn may_leave(ctx: &Context<'_>, text: &[u8]) -> Result {
    let what = if ctx.policy.has_at(text) {
        "it"
    } else if ctx.policy.has_below(text) {
        "a directory below it"
    } else {
        return Ok(());
    };
    Err(Refusal::new(
        EACCES,
        fmt!("HOST exports {what} by itself, so it cannot be renamed or replaced"),
    ))
}

/// Fails when an object may not come to be at a path: the policy has a rule of its own there, and
/// what is there by now, if anything, is what the rule is about.
fn may_come(ctx: &Context<'_>, text: &[u8]) -> Result {
    if ctx.rule(text)?.read_only {
        return Err(EROFS.into());
    }
    may_leave(ctx, text)
}

/// Renames or exchanges.
pub(crate) fn rename(ctx: &mut Context<'_>, r: &Rename<'_>) -> Result<Reply> {
    let dir = ctx.dir(r.dir)?;
    let new_dir = ctx.dir(r.new_dir)?;
    dir.writable()?;
    new_dir.writable()?;
    let name = local::Name::new(r.name.bytes())?;
    let new_name = local::Name::new(r.new_name.bytes())?;
    let how = local_rename::How {
        no_replace: r.flags.has(RenameFlags::NOREPLACE),
        exchange: r.flags.has(RenameFlags::EXCHANGE),
        whiteout: r.flags.has(RenameFlags::WHITEOUT),
    };
    let moved = ctx.child(&dir, r.name)?;
    may_move(ctx, &moved)?;
    let exchanged = if how.exchange {
        let found = ctx.child(&new_dir, r.new_name)?;
        may_move(ctx, &found)?;
        Some(found)
    } else {
        may_come(ctx, &join(&new_dir.text, r.new_name.bytes())?)?;
        None
    };
    ctx.change_found(&moved, |_| {
        Ok(local_rename::rename(
            &dir.path,
            &name,
            &new_dir.path,
            &new_name,
            how,
        )?)
    })?;
    // Whoever the client knows by the old name is found by the new one from now on.
    for (found, dir, name) in [
        (Some(&moved), r.new_dir, r.new_name),
        (exchanged.as_ref(), r.dir, r.name),
    ] {
        let Some(found) = found else {
            continue;
        };
        if ctx.known(found).is_some() {
            // If there is no room to note it, the node is found by its identity.
            let _ = ctx.session.nodes.entry(dir, name.bytes(), &found.path);
        }
    }
    ctx.reply(&RenameReply {})
}
