// SPDX-License-Identifier: GPL-2.0

//! Objects of the client's own in HOST's procfs, of which the server knows nothing.
//!
//! `self`, `thread-self` and the caller's own numbers mean the caller, who lives on this machine.
//! They lead to this machine's procfs by symlinks whose text is the same for everybody, so that
//! it is that procfs which says who the caller is. Whether a number is the caller's own is decided
//! at each look-up; nothing of that is kept.
//!
//! Links of `/proc/PID` lead to objects of HOST itself, which this machine cannot reach by a path.
//! Only namespaces have something to stand for them: an object whose number can be compared.

use core::marker::PhantomData;
use kernel::prelude::*;
use qtfs_proto::{
    FsClass,
    Time, //
};
use qtfs_vfs::{
    dentry::Dentry,
    flags::{
        kind,
        may, //
    },
    fs::Found,
    inode::{
        Attributes,
        Inode,
        InodeRef,
        Key,
        NewInode,
        Stat, //
    },
    task, //
};

use crate::{
    attr,
    fs::Qtfs,
    node::Node, //
};

/// In place of HOST's file system, for [`Link`]. HOST's numbers have 32 bits.
const LINKS: u64 = u64::MAX;
/// In place of HOST's file system of namespaces, for what stands for them.
const NAMESPACES: u64 = u64::MAX - 1;
/// In place of HOST's file system, for [`stranger`].
const STRANGERS: u64 = u64::MAX - 2;
/// HOST's inode number of the root of each procfs, `PROCFS_ROOT_INO`.
const PROC_ROOT: u64 = 1;

/// A symlink into this machine's procfs. The value is its inode number, of the range in which
/// procfs has that of its own one.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Link {
    /// `self`
    Process = 0xf000_0000,
    /// `thread-self`
    Thread = 0xf000_0001,
}

impl Link {
    /// The link that is meant by a name for everybody.
    fn by_name(name: &[u8]) -> Option<Self> {
        match name {
            b"self" => Some(Self::Process),
            b"thread-self" => Some(Self::Thread),
            _ => None,
        }
    }

    /// The link that is meant by a number of the caller's.
    fn by_number(name: &[u8]) -> Option<Self> {
        let number = number_of(name)?;
        if number == task::own_process() {
            Some(Self::Process)
        } else if number == task::own_thread() {
            Some(Self::Thread)
        } else {
            None
        }
    }
}

/// The number that a name is, as procfs reads it.
fn number_of(name: &[u8]) -> Option<u32> {
    if !matches!(name.first(), Some(b'1'..=b'9')) {
        return None;
    }
    core::str::from_utf8(name).ok()?.parse().ok()
}

/// The number of the namespace that a link's text names, as in `net:[4026531840]`.
fn namespace(text: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(text).ok()?;
    let (kind, rest) = text.split_once(":[")?;
    let known = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let number = number_of(rest.strip_suffix(']')?.as_bytes())?;
    known.contains(&kind).then_some(number.into())
}

/// Whether the client makes what is on this file system.
pub(crate) fn is_own(dev: u64) -> bool {
    [LINKS, NAMESPACES, STRANGERS].contains(&dev)
}

/// Whether it is the root of a procfs of HOST.
fn is_proc_root(node: &Node) -> bool {
    node.is_of(FsClass::Proc) && node.identity().ino == PROC_ROOT
}

/// Whether a name that a listing of HOST has is not what it is there.
pub(crate) fn is_name(dir: &Inode<Qtfs>, name: &[u8]) -> bool {
    is_proc_root(dir.node()) && Link::by_name(name).is_some()
}

/// The inode number of what a name leads to, where that is not HOST's.
pub(crate) fn number(dir: &Inode<Qtfs>, name: &[u8]) -> Option<u64> {
    let link = Link::by_name(name).filter(|_| is_proc_root(dir.node()))?;
    Some(link as u64)
}

/// Finds a name that leads to something of the client's own.
pub(crate) fn lookup(dir: &Inode<Qtfs>, name: &[u8]) -> Result<Option<Found<Qtfs>>> {
    if !dir.node().is_of(FsClass::Proc) {
        return Ok(None);
    }
    if let Some(number) = namespace(name) {
        return Ok(Some(Found::Inode(namespace_inode(dir, number)?)));
    }
    if !is_proc_root(dir.node()) {
        return Ok(None);
    }
    if let Some(link) = Link::by_name(name) {
        return Ok(Some(Found::Inode(link_inode(dir, link)?)));
    }
    match Link::by_number(name) {
        Some(link) => Ok(Some(Found::Private(link_inode(dir, link)?))),
        None => Ok(None),
    }
}

/// Whether an entry that the kernel knows leads to its inode, if that can be said here. Does not
/// sleep.
pub(crate) fn revalidate(
    dir: &Inode<Qtfs>,
    name: &[u8],
    child: Option<&Inode<Qtfs>>,
) -> Option<bool> {
    let is_own = child.is_some_and(|child| child.node().is_own());
    if !is_proc_root(dir.node()) {
        return is_own.then_some(true);
    }
    if Link::by_name(name).is_some() {
        return Some(is_own);
    }
    // What the caller's number led others to is not what it leads the caller to, nor the other
    // way round.
    (is_own || Link::by_number(name).is_some()).then_some(false)
}

fn link_inode(dir: &Inode<Qtfs>, link: Link) -> Result<InodeRef<Qtfs>> {
    // Each procfs has its own.
    let key = Key {
        dev: LINKS,
        mount: dir.node().dev(),
        ino: link as u64,
        generation: 0,
    };
    inode(dir, key, kind::SYMLINK | 0o777)
}

fn namespace_inode(dir: &Inode<Qtfs>, number: u64) -> Result<InodeRef<Qtfs>> {
    let key = Key {
        dev: NAMESPACES,
        mount: NAMESPACES,
        ino: number,
        generation: 0,
    };
    inode(dir, key, kind::REGULAR | 0o444)
}

/// An inode that no name leads to: it stands for objects that this machine does not know.
pub(crate) fn stranger(any: &Inode<Qtfs>) -> Result<InodeRef<Qtfs>> {
    let key = Key {
        dev: STRANGERS,
        mount: STRANGERS,
        ino: 1,
        generation: 0,
    };
    inode(any, key, kind::REGULAR | 0o444)
}

fn inode(dir: &Inode<Qtfs>, key: Key, mode: u32) -> Result<InodeRef<Qtfs>> {
    let inode = dir.get(NewInode {
        key,
        mode,
        rdev: (0, 0),
        magic: false,
        kind: PhantomData,
    })?;
    let none = Time::default();
    inode.set_attributes(&Attributes {
        mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        atime: none,
        mtime: none,
        ctime: none,
        blocks: 0,
    });
    inode.set_times_now();
    Ok(inode)
}

/// What a link says.
pub(crate) fn readlink(inode: &Inode<Qtfs>) -> Result<KVVec<u8>> {
    let name: &[u8] = match inode.node().identity().ino {
        ino if ino == Link::Process as u64 => b"/self",
        ino if ino == Link::Thread as u64 => b"/thread-self",
        _ => return Err(EINVAL),
    };
    let base = inode.mount().local_proc.as_slice();
    let base = base.strip_suffix(b"/").unwrap_or(base);
    let mut text = KVVec::with_capacity(base.len() + name.len() + 1, GFP_KERNEL)?;
    text.extend_from_slice(base, GFP_KERNEL)?;
    text.extend_from_slice(name, GFP_KERNEL)?;
    Ok(text)
}

/// Where a link of HOST's leads that is not followed by its text: a namespace is found in the same
/// directory by that name, see [`lookup`]. Others are out of reach: [`EREMOTE`].
pub(crate) fn follow(dentry: &Dentry<Qtfs>) -> Result<KVVec<u8>> {
    let text = attr::readlink(dentry)?;
    match namespace(&text) {
        Some(_) => Ok(text),
        None => Err(EREMOTE),
    }
}

pub(crate) fn getattr(inode: &Inode<Qtfs>, stat: &mut Stat) -> Result {
    let key = inode.node().identity();
    stat.set_dev(inode.mount().device(inode.device(), key.mount)?);
    stat.set_ino(key.ino);
    stat.set_blksize(1024);
    Ok(())
}

/// Anybody may read them, and nobody may write.
pub(crate) fn permission(inode: &Inode<Qtfs>, mask: u32) -> Result {
    if inode.kind() != kind::SYMLINK && mask & (may::WRITE | may::EXEC) != 0 {
        return Err(EACCES);
    }
    Ok(())
}
