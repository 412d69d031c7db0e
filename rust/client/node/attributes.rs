// SPDX-License-Identifier: GPL-2.0

//! What the server says of a file, taken over by the kernel's inode.

use core::sync::atomic::Ordering;
use qtfs_proto::Attr;
use qtfs_vfs::inode::{
    Attributes,
    Inode, //
};

use super::Extra;
use crate::{
    fs::Qtfs,
    mount::{
        key,
        S_IFMT, //
    },
    session::request::Asked,
};

/// Whether what the server told in the given incarnation of the session is of the inode.
///
/// A directory that this incarnation has not told of yet may be on another mount by now: HOST, or
/// its module, was started anew since. See [`adopt`].
pub(crate) fn is_of(inode: &Inode<Qtfs>, attr: &Attr, incarnation: u32) -> bool {
    let (node, told) = (inode.node(), key(attr));
    let known = node.identity();
    let is_anew = node.incarnation.load(Ordering::Acquire) != incarnation;
    let is_it = told == known || (is_anew && told.is_same_object(&known));
    is_it && attr.mode & S_IFMT == inode.kind()
}

/// Takes over the id of an inode and the version of its contents, as the server told them in the
/// given incarnation of the session. Callers may hold folios locked.
pub(crate) fn adopt(inode: &Inode<Qtfs>, attr: &Attr, incarnation: u32) {
    let node = inode.node();
    if inode.mount().session.incarnation() != incarnation {
        // The server that told it is gone, and another object may have the id by now.
        return;
    }
    if key(attr).is_same_object(&node.identity()) {
        node.mount.store(attr.mount, Ordering::Relaxed);
    }
    node.id.store(attr.node.0, Ordering::Release);
    if node.incarnation.swap(incarnation, Ordering::AcqRel) == incarnation {
        node.stamp.fetch_max(attr.stamp, Ordering::AcqRel);
        node.version.fetch_max(attr.version, Ordering::AcqRel);
    } else {
        node.stamp.store(attr.stamp, Ordering::Release);
        node.version.store(attr.version, Ordering::Release);
    }
}

/// Takes over what the server told of an inode, in a reply to what was `asked` then. May wait for
/// folios, so callers hold none.
pub(crate) fn apply(inode: &Inode<Qtfs>, attr: &Attr, asked: Asked) {
    adopt(inode, attr, asked.incarnation);
    let node = inode.node();
    node.class.store(attr.class as u8, Ordering::Relaxed);
    if node.has_changed(asked) {
        // The reply may not know what this machine did meanwhile.
        return;
    }
    inode.set_attributes(&Attributes {
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        blocks: attr.blocks,
    });
    node.inner.lock().extra = Extra {
        blksize: attr.blksize,
        btime: attr.btime,
        attributes: attr.attributes,
        attributes_mask: attr.attributes_mask,
        flags: attr.flags,
    };
    let old = inode.size();
    if take_size(inode, attr.size, asked) && attr.size < old && inode.is_regular() {
        // Whatever else the cache has is of an older version, and dropped when it is used.
        let _ = inode.drop_pages(attr.size, u64::MAX);
    }
}

/// Takes over the size that the server told in a reply to what was `asked` then, unless this
/// machine has changed the file since. Returns whether it is another one. Callers may hold folios
/// locked.
pub(crate) fn take_size(inode: &Inode<Qtfs>, size: u64, asked: Asked) -> bool {
    let node = inode.node();
    // What this machine has written but not sent yet counts too.
    let is_news = || {
        let written = node.has_changed(asked);
        let writing = node.writing.load(Ordering::Acquire) > 0;
        !inode.is_regular() || !(written || writing || inode.is_dirty())
    };
    inode.size() != size && inode.set_size_if(size, is_news)
}
