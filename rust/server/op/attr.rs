// SPDX-License-Identifier: GPL-2.0

//! GETATTR, SETATTR, ACCESS, GETFLAGS and SETFLAGS.

use kernel::prelude::*;
use qtfs_proto::{
    message::{
        Access,
        AccessReply,
        Getattr,
        GetattrReply,
        Getflags,
        GetflagsReply,
        InodeFlags,
        Setattr,
        SetattrReply,
        Setflags,
        SetflagsReply, //
    },
    AccessMask,
    SetattrValid, //
};
use qtfs_vfs::local::{
    change::{
        self,
        Change,
        SetTime, //
    },
    flags::{
        self,
        Flags, //
    },
    path::may, //
};

use crate::{
    dispatch::Context,
    refusal::Result,
    resolve,
    worker::Reply, //
};

/// Attributes.
pub(crate) fn getattr(ctx: &mut Context<'_>, r: &Getattr<'_>) -> Result<Reply> {
    let attr = if r.file.is_none() {
        let found = ctx.target(&r.target)?;
        ctx.attr(&found)?
    } else {
        let file = ctx.file(r.file, false)?;
        ctx.attr_of_file(&file)?
    };
    ctx.reply(&GetattrReply { attr })
}

/// Changes attributes.
pub(crate) fn setattr(ctx: &mut Context<'_>, r: &Setattr<'_>) -> Result<Reply> {
    let attr = if r.file.is_none() {
        let found = ctx.target(&r.target)?;
        found.writable()?;
        ctx.change_found(&found, |_| apply(&found.path, r, None))?;
        ctx.attr(&found)?
    } else {
        let file = ctx.file(r.file, true)?;
        let path = file.file().path();
        ctx.change(&file.node, &path, |_| apply(&path, r, Some(file.file())))?;
        ctx.attr_of_file(&file)?
    };
    ctx.reply(&SetattrReply { attr })
}

fn apply(
    path: &qtfs_vfs::local::Path,
    r: &Setattr<'_>,
    file: Option<&qtfs_vfs::local::File>,
) -> Result {
    let has = |flag| r.valid.has(flag);
    let set_time = |given, now, time: qtfs_proto::Time| {
        if has(given) {
            SetTime::To((time.sec, time.nsec))
        } else if has(now) {
            SetTime::Now
        } else {
            SetTime::Keep
        }
    };
    let mut change = Change {
        mode: has(SetattrValid::MODE).then_some(r.mode),
        uid: has(SetattrValid::UID).then_some(r.uid),
        gid: has(SetattrValid::GID).then_some(r.gid),
        atime: set_time(SetattrValid::ATIME, SetattrValid::ATIME_NOW, r.atime),
        mtime: set_time(SetattrValid::MTIME, SetattrValid::MTIME_NOW, r.mtime),
        kill_suid: has(SetattrValid::KILL_SUID),
        kill_sgid: has(SetattrValid::KILL_SGID),
        kill_priv: has(SetattrValid::KILL_PRIV),
    };
    // -1 is no id in the kernel.
    if change.uid == Some(u32::MAX) || change.gid == Some(u32::MAX) {
        return Err(EINVAL.into());
    }
    if has(SetattrValid::SIZE) {
        // This sets the times that become now.
        change::size(path, file, r.size, has(SetattrValid::OPEN), change)?;
        change.kill_suid = false;
        change.kill_sgid = false;
        change.kill_priv = false;
        change.atime = match change.atime {
            SetTime::Now => SetTime::Keep,
            time => time,
        };
        change.mtime = match change.mtime {
            SetTime::Now => SetTime::Keep,
            time => time,
        };
        if change.is_empty() {
            return Ok(());
        }
    }
    Ok(change::attributes(path, change)?)
}

/// Asks whether the caller may.
pub(crate) fn access(ctx: &mut Context<'_>, r: &Access<'_>) -> Result<Reply> {
    let found = if r.mask.has(AccessMask::CHDIR) {
        ctx.target_inside(&r.target)?
    } else {
        ctx.target(&r.target)?
    };
    let mut mask = may::ACCESS;
    for (flag, bit) in [
        (AccessMask::EXEC, may::EXEC),
        (AccessMask::WRITE, may::WRITE),
        (AccessMask::READ, may::READ),
        (AccessMask::CHDIR, may::CHDIR),
    ] {
        if r.mask.has(flag) {
            mask |= bit;
        }
    }
    let path = &found.path;
    if mask & may::CHDIR != 0 && path.is_dir() {
        resolve::enter(path)?;
    }
    if mask & may::EXEC != 0 && path.is_regular() && path.is_noexec() {
        return Err(EACCES.into());
    }
    path.permits(mask)?;
    // Devices, FIFOs and sockets can be written on a file system that cannot.
    let stored = path.is_regular() || path.is_dir() || path.is_symlink();
    if mask & may::WRITE != 0 && stored {
        found.writable()?;
        if path.is_read_only() {
            return Err(EROFS.into());
        }
    }
    ctx.reply(&AccessReply {})
}

/// Inode flags.
pub(crate) fn getflags(ctx: &mut Context<'_>, r: &Getflags<'_>) -> Result<Reply> {
    let found = ctx.target(&r.target)?;
    let flags = flags::get(&found.path)?;
    ctx.reply(&GetflagsReply {
        flags: InodeFlags {
            flags: flags.flags,
            xflags: flags.xflags,
            extsize: flags.extsize,
            projid: flags.projid,
            cowextsize: flags.cowextsize,
            flags_valid: 1,
        },
    })
}

/// Sets inode flags.
pub(crate) fn setflags(ctx: &mut Context<'_>, r: &Setflags<'_>) -> Result<Reply> {
    let found = ctx.target(&r.target)?;
    found.writable()?;
    let flags = Flags {
        flags: r.flags.flags,
        xflags: r.flags.xflags,
        extsize: r.flags.extsize,
        projid: r.flags.projid,
        cowextsize: r.flags.cowextsize,
    };
    ctx.change_found(&found, |_| {
        Ok(flags::set(&found.path, flags, r.flags.flags_valid != 0)?)
    })?;
    ctx.reply(&SetflagsReply {})
}
