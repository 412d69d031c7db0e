// SPDX-License-Identifier: GPL-2.0

//! MKDIR, MKNOD, SYMLINK and LINK.

use kernel::prelude::*;
use qtfs_proto::{
    message::{
        Link,
        LinkReply,
        Mkdir,
        MkdirReply,
        Mknod,
        MknodReply,
        Symlink,
        SymlinkReply, //
    },
    Attr,
    Name, //
};
use qtfs_vfs::local::{
    self,
    make,
    Path, //
};

use crate::{
    dispatch::{
        invalid,
        Context, //
    },
    op::{
        names,
        open::new_mode, //
    },
    refusal::Result,
    resolve::{
        self,
        Found, //
    },
    worker::Reply, //
};

/// Type bits of a mode.
const TYPE: u32 = 0o170000;

/// Attributes of what was just made as `name` in `dir`.
fn made(ctx: &Context<'_>, dir: &Found<'_>, name: Name<'_>, path: Path) -> Result<Attr> {
    let found = ctx.entry(dir, name, path)?;
    ctx.attr(&found)
}

/// Makes a directory.
pub(crate) fn mkdir(ctx: &mut Context<'_>, r: &Mkdir<'_>) -> Result<Reply> {
    let dir = ctx.dir(r.dir)?;
    names::writable(ctx, &dir, r.name)?;
    let mode = new_mode(&dir.path, r.mode, r.umask);
    let path = make::directory(&dir.path, &local::Name::new(r.name.bytes())?, mode)?;
    let attr = made(ctx, &dir, r.name, path)?;
    ctx.reply(&MkdirReply { attr })
}

/// Makes a FIFO, socket, device node, whiteout or empty file.
pub(crate) fn mknod(ctx: &mut Context<'_>, r: &Mknod<'_>) -> Result<Reply> {
    let kind = match r.mode & TYPE {
        0 => 0o100000,
        // FIFO, character device, block device, regular file, socket.
        kind @ (0o010000 | 0o020000 | 0o060000 | 0o100000 | 0o140000) => kind,
        _ => return Err(invalid("a node of this type cannot be made")),
    };
    let dir = ctx.dir(r.dir)?;
    names::writable(ctx, &dir, r.name)?;
    // CAST: Type bits fit.
    let mode = new_mode(&dir.path, r.mode, r.umask) | kind as u16;
    let name = local::Name::new(r.name.bytes())?;
    let path = make::node(&dir.path, &name, mode, r.rdev_major, r.rdev_minor)?;
    let attr = made(ctx, &dir, r.name, path)?;
    ctx.reply(&MknodReply { attr })
}

/// Makes a symlink.
pub(crate) fn symlink(ctx: &mut Context<'_>, r: &Symlink<'_>) -> Result<Reply> {
    let dir = ctx.dir(r.dir)?;
    names::may_come(ctx, &dir, r.name)?;
    if r.text.bytes().is_empty() {
        return Err(ENOENT.into());
    }
    let text = resolve::with_nul(r.text.bytes())?;
    let name = local::Name::new(r.name.bytes())?;
    let path = make::symlink(&dir.path, &name, resolve::c_str(&text)?)?;
    let attr = made(ctx, &dir, r.name, path)?;
    ctx.reply(&SymlinkReply { attr })
}

/// Makes a hard link, also to a file without a name that is open.
pub(crate) fn link(ctx: &mut Context<'_>, r: &Link<'_>) -> Result<Reply> {
    let found = ctx.target(&r.target)?;
    let dir = ctx.dir(r.dir)?;
    // What may only be read must not become writable by another name.
    found.writable()?;
    names::may_come(ctx, &dir, r.name)?;
    let name = local::Name::new(r.name.bytes())?;
    ctx.change_found(&found, |_| Ok(make::link(&found.path, &dir.path, &name)?))?;
    let path = dir.path.child(&name)?;
    let attr = made(ctx, &dir, r.name, path)?;
    ctx.reply(&LinkReply { attr })
}
