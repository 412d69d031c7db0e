// SPDX-License-Identifier: GPL-2.0

//! Where a file has data, and what changes that: `SEEK_DATA` and `SEEK_HOLE`, `fallocate(2)`,
//! copying and sharing ranges.

use kernel::prelude::*;
use qtfs_proto::{
    message::{
        Copy,
        Fallocate,
        Seek, //
    },
    CopyFlags, //
};
use qtfs_vfs::{
    file::File,
    flags::{
        fallocate_extends,
        fallocate_moves, //
    },
};

use crate::{
    attr::check_size,
    data::{
        write_and_drop,
        write_out, //
    },
    fs::Qtfs,
    node, //
};

pub(crate) fn seek(file: &File<Qtfs>, offset: u64, hole: bool) -> Result<u64> {
    let (inode, open) = (file.inode(), file.open()?);
    let mount = inode.mount();
    if inode.is_regular() && inode.is_dirty() {
        write_out(inode)?;
    }
    let hole = hole.into();
    let (reply, _) = mount.call(|| {
        Ok(Seek {
            file: open.id(mount, inode)?,
            offset,
            hole,
        })
    })?;
    Ok(reply.decode::<Seek>()?.offset)
}

pub(crate) fn fallocate(file: &File<Qtfs>, mode: u32, offset: u64, len: u64) -> Result {
    let (inode, open) = (file.inode(), file.open()?);
    let mount = inode.mount();
    inode.locked(|| {
        // Contents may move, be zeroed or cut: nothing of the cache can be kept.
        write_and_drop(inode)?;
        if fallocate_extends(mode) {
            check_size(inode, offset.saturating_add(len))?;
        }
        let build = || {
            Ok(Fallocate {
                file: open.id(mount, inode)?,
                mode,
                offset,
                len,
            })
        };
        let reply = if fallocate_moves(mode) {
            mount.call_once(build)?
        } else {
            mount.call(build)?.0
        };
        let attr = reply.decode::<Fallocate>()?.attr;
        mount.session.durable.written(&inode.node().unsynced);
        node::apply(inode, &attr, reply.asked);
        inode.node().changed(&mount.session);
        // It is done, whatever keeps the cache from being dropped, such as a program that writes to
        // mapped pages: what is left there is of an older version.
        let _ = write_and_drop(inode);
        Ok(())
    })
}

pub(crate) fn copy(
    source: &File<Qtfs>,
    source_offset: u64,
    dest: &File<Qtfs>,
    dest_offset: u64,
    len: u64,
    flags: CopyFlags,
) -> Result<u64> {
    let (from, to) = (source.inode(), dest.inode());
    let mount = to.mount();
    let (open_from, open_to) = (source.open()?, dest.open()?);
    if from.is_dirty() {
        write_out(from)?;
    }
    to.locked(|| {
        write_and_drop(to)?;
        let (reply, _) = mount.call(|| {
            Ok(Copy {
                source: open_from.id(mount, from)?,
                source_offset,
                dest: open_to.id(mount, to)?,
                dest_offset,
                len,
                flags,
            })
        })?;
        let asked = reply.asked;
        let reply = reply.decode::<Copy>()?;
        if reply.copied > 0 && !flags.has(CopyFlags::DEDUPE) {
            mount.session.durable.written(&to.node().unsynced);
        }
        node::apply(to, &reply.attr, asked);
        to.node().changed(&mount.session);
        // As above.
        let _ = write_and_drop(to);
        Ok(reply.copied.min(len))
    })
}
