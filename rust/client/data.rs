// SPDX-License-Identifier: GPL-2.0

//! Contents of files: through the page cache and past it.
//!
//! Cached pages are those of one version of the contents, which the server counts, see
//! `Attr::version`. Before cached pages are used the server is asked for the version, except in
//! the middle of a sequential read, whose pages were fetched for it.

mod reading;
mod writeback;
mod writing;

pub(crate) use reading::{
    read,
    read_now,
    read_pages, //
};
pub(crate) use writeback::{
    fsync,
    write_back,
    write_out,
    write_pages, //
};
pub(crate) use writing::write;

use kernel::prelude::*;
use qtfs_proto::{
    message::Getattr,
    Target, //
};
use qtfs_vfs::{
    file::File,
    inode::Inode, //
};

use crate::{
    file::OpenFile,
    fs::Qtfs,
    node, //
};

/// How often pages that are dirtied meanwhile are written once more before they are dropped.
const DROPS: usize = 8;

/// Writes all dirty pages, so that the caller can be killed, and drops all pages from the cache.
///
/// Fails with [`EBUSY`] when a mapping is written to all the time; its pages stay.
pub(crate) fn write_and_drop(inode: &Inode<Qtfs>) -> Result {
    for _ in 1..DROPS {
        if inode.is_dirty() {
            write_out(inode)?;
        }
        match inode.drop_pages(0, u64::MAX) {
            Err(e) if e == EBUSY => {}
            result => return result,
        }
    }
    inode.drop_pages(0, u64::MAX)
}

/// Drops cached pages of an older version of the contents.
pub(crate) fn refresh(inode: &Inode<Qtfs>) -> Result {
    let node = inode.node();
    if node.outdated().is_none() {
        return Ok(());
    }
    // Whoever comes later must not use what is not dropped yet.
    let _refreshing = node.refreshing.lock();
    if let Some(version) = node.outdated() {
        match write_and_drop(inode) {
            Ok(()) => node.cached_is(version),
            // Pages that are mapped and written at this very moment stay; they are this machine's.
            Err(e) if e == EBUSY => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Asks for the attributes of an open file, and drops cached pages that are older.
fn ask(inode: &Inode<Qtfs>, open: &OpenFile) -> Result {
    ask_attr(inode, open)?;
    refresh(inode)
}

/// Asks for the attributes of an open file.
pub(crate) fn ask_attr(inode: &Inode<Qtfs>, open: &OpenFile) -> Result {
    let mount = inode.mount();
    let (reply, _) = mount.call(|| {
        let file = open.id(mount, inode)?;
        Ok(Getattr {
            target: Target::node(mount.id(inode)?),
            file,
        })
    })?;
    node::apply(inode, &reply.decode::<Getattr<'_>>()?.attr, reply.asked);
    Ok(())
}

pub(crate) fn mmap(file: &File<Qtfs>) -> Result {
    let open = file.open()?;
    if open.stream {
        return Err(ENODEV);
    }
    ask(file.inode(), open)
}

/// Data of an immutable file could never be written back.
pub(crate) fn page_mkwrite(file: &File<Qtfs>) -> Result {
    let (inode, open) = (file.inode(), file.open()?);
    if inode.node().is_immutable() {
        ask_attr(inode, open)?;
        if inode.node().is_immutable() {
            return Err(EPERM);
        }
    }
    Ok(())
}

pub(crate) fn size(file: &File<Qtfs>) -> Result<u64> {
    let inode = file.inode();
    if !inode.is_dirty() {
        ask(inode, file.open()?)?;
    }
    Ok(inode.size())
}
