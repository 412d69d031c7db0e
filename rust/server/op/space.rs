// SPDX-License-Identifier: GPL-2.0

//! FALLOCATE, SEEK, COPY, STATFS and SYNCFS: space of files and file systems.

use kernel::prelude::*;
use qtfs_proto::{
    message::{
        Copy,
        CopyReply,
        Fallocate,
        FallocateReply,
        Seek,
        SeekReply,
        Statfs,
        StatfsReply,
        Syncfs,
        SyncfsReply, //
    },
    CopyFlags,
    NodeId, //
};
use qtfs_vfs::local::{
    space::{
        self,
        Range, //
    },
    stat::FsStat,
    Identity, //
};

use crate::{
    dispatch::Context,
    refusal::Result,
    worker::Reply, //
};

/// Bytes that are copied at once, so that a copy does not hold a thread for long; the client asks
/// again for the rest.
const MAX_COPY: u64 = 64 * 1024 * 1024;

/// `fallocate(2)`.
pub(crate) fn fallocate(ctx: &mut Context<'_>, r: &Fallocate) -> Result<Reply> {
    let open = ctx.file(r.file, true)?;
    let path = open.file().path();
    ctx.change(&open.node, &path, |_| {
        let range = Range {
            file: open.file(),
            offset: r.offset,
        };
        Ok(space::allocate(range, r.mode, r.len)?)
    })?;
    let attr = ctx.attr_of_file(&open)?;
    ctx.reply(&FallocateReply { attr })
}

/// `SEEK_DATA` and `SEEK_HOLE`.
pub(crate) fn seek(ctx: &mut Context<'_>, r: &Seek) -> Result<Reply> {
    let open = ctx.file(r.file, false)?;
    if !open.file().path().is_regular() {
        return Err(EINVAL.into());
    }
    let range = Range {
        file: open.file(),
        offset: r.offset,
    };
    let offset = space::seek(range, r.hole != 0)?;
    ctx.reply(&SeekReply { offset })
}

/// Copies or shares a range.
pub(crate) fn copy(ctx: &mut Context<'_>, r: &Copy) -> Result<Reply> {
    let source = ctx.file(r.source, false)?;
    let dest = ctx.file(r.dest, true)?;
    let path = dest.file().path();
    let copied = ctx.change(&dest.node, &path, |_| {
        let from = Range {
            file: source.file(),
            offset: r.source_offset,
        };
        let to = Range {
            file: dest.file(),
            offset: r.dest_offset,
        };
        let shorten = r.flags.has(CopyFlags::CAN_SHORTEN);
        Ok(if r.flags.has(CopyFlags::DEDUPE) {
            space::deduplicate(from, to, r.len, shorten)?
        } else if r.flags.has(CopyFlags::CLONE) {
            space::share(from, to, r.len, shorten)?
        } else {
            space::copy(from, to, r.len.min(MAX_COPY))?
        })
    })?;
    let attr = ctx.attr_of_file(&dest)?;
    ctx.reply(&CopyReply { copied, attr })
}

/// Numbers of a file system.
pub(crate) fn statfs(ctx: &mut Context<'_>, r: &Statfs<'_>) -> Result<Reply> {
    let found = ctx.target(&r.target)?;
    let stat = FsStat::of(&found.path)?;
    let (blocks, bfree, bavail) = stat.blocks();
    let (files, ffree) = stat.files();
    ctx.reply(&StatfsReply {
        kind: stat.kind(),
        bsize: stat.bsize(),
        frsize: stat.frsize(),
        blocks,
        bfree,
        bavail,
        files,
        ffree,
        fsid: stat.fsid(),
        namelen: stat.namelen(),
        flags: stat.flags(),
    })
}

/// Puts on the disk the file system that a directory is on, and those that HOST has mounted below
/// which the client knows objects of: to the client's kernel they are one.
pub(crate) fn syncfs(ctx: &mut Context<'_>, r: &Syncfs) -> Result<Reply> {
    let mut synced = KVec::new();
    synced.push(sync_file_system(ctx, r.node)?, GFP_KERNEL)?;
    let mut failed = Ok(());
    for id in ctx.session.nodes.mounts()? {
        let Ok(node) = ctx.session.nodes.get(id) else {
            continue;
        };
        if synced.iter().any(|done| done.same_device(&node.identity)) {
            continue;
        }
        match sync_file_system(ctx, id) {
            Ok(identity) => synced.push(identity, GFP_KERNEL)?,
            // HOST has unmounted it there, or does not share it any more. Unmounting puts it on the
            // disk, unless it is mounted elsewhere too.
            Err(refusal) if matches!(refusal.error(), ESTALE | ENOENT | EACCES) => {}
            Err(refusal) => failed = failed.and(Err(refusal)),
        }
    }
    failed?;
    ctx.reply(&SyncfsReply {})
}

/// Puts the file system on the disk that a node is on. Returns who the node is by now.
fn sync_file_system(ctx: &Context<'_>, id: NodeId) -> Result<Identity> {
    let found = ctx.by_identity(id)?;
    let node = ctx.session.nodes.get(id)?;
    let (path, identity) = (&found.path, found.path.identity());
    if identity.same_file_system(&node.identity) {
        path.sync_file_system(&node.write_errors)?;
    } else {
        // Another one was mounted there meanwhile.
        path.sync_file_system(&path.write_errors())?;
    }
    Ok(identity)
}
