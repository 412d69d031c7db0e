// SPDX-License-Identifier: GPL-2.0

//! UNLINK and RENAME.

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
    op::names,
    refusal::Result,
    worker::Reply, //
};

/// Removes a name.
pub(crate) fn unlink(ctx: &mut Context<'_>, r: &Unlink<'_>) -> Result<Reply> {
    let dir = ctx.dir(r.dir)?;
    dir.writable()?;
    let name = local::Name::new(r.name.bytes())?;
    let nlink = if r.flags.has(UnlinkFlags::DIRECTORY) {
        names::writable(ctx, &dir, r.name)?;
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
    names::may_move(ctx, &moved)?;
    let exchanged = if how.exchange {
        let found = ctx.child(&new_dir, r.new_name)?;
        names::may_move(ctx, &found)?;
        Some(found)
    } else {
        names::may_come(ctx, &new_dir, r.new_name)?;
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
