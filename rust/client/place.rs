// SPDX-License-Identifier: GPL-2.0

//! How requests name the object that they act on.

use kernel::prelude::*;
use qtfs_proto::{
    Name,
    Target,
    NAME_MAX,
    PATH_MAX, //
};
use qtfs_vfs::{
    dentry::Dentry,
    inode::{
        Inode,
        InodeRef, //
    },
};

use crate::{
    fs::Qtfs,
    mount::Mount, //
};

/// Where an object is: by name when a system call came by its path, so that the server checks
/// the whole path; else by identity, wherever it is by now.
pub(crate) struct Place {
    dir: Option<InodeRef<Qtfs>>,
    name: [u8; NAME_MAX],
    len: usize,
}

impl Place {
    /// The object, wherever it is.
    pub(crate) const fn anywhere() -> Self {
        Self {
            dir: None,
            name: [0; NAME_MAX],
            len: 0,
        }
    }

    /// The place of an entry; by name if it still has one and `by_path` asks for that.
    pub(crate) fn of(dentry: &Dentry<Qtfs>, by_path: bool) -> Self {
        let mut this = Self::anywhere();
        if by_path {
            dentry.with_name(|dir, name| {
                if let Some(place) = this.name.get_mut(..name.len()) {
                    place.copy_from_slice(name);
                    this.len = name.len();
                    this.dir = dir.grab();
                }
            });
        }
        this
    }

    /// Calls `act` with the place of an entry, which `inode` is at, as [`Place::of`].
    ///
    /// When that is ESTALE the kernel walks the path again and asks for each name. If it comes to the
    /// same object, that is what the path leads to: by `.`, `..` or a link of `/proc`, and the object
    /// is meant wherever it is.
    pub(crate) fn with<R>(
        inode: &Inode<Qtfs>,
        dentry: &Dentry<Qtfs>,
        by_path: bool,
        act: impl FnOnce(&Self) -> Result<R>,
    ) -> Result<R> {
        let node = inode.node();
        let second = by_path && node.is_second_try();
        let result = act(&Self::of(dentry, by_path && !second));
        if by_path && !second && matches!(&result, Err(e) if *e == ESTALE) {
            node.note_try();
        }
        result
    }

    /// As the protocol says it; `inode` is what the client takes it for.
    pub(crate) fn target(&self, mount: &Mount, inode: &Inode<Qtfs>) -> Result<Target<'_>> {
        let node = mount.id(inode)?;
        let Some(dir) = &self.dir else {
            return Ok(Target::node(node));
        };
        let name = self.name.get(..self.len).ok_or(EINVAL)?;
        Ok(Target::entry(mount.id(dir)?, self::name(name)?, node))
    }
}

/// The path of an entry below the shared directory, without a leading slash.
///
/// Fails with [`ENOENT`] when the entry was removed.
pub(crate) fn path(dentry: &Dentry<Qtfs>) -> Result<KVVec<u8>> {
    let mut path = match dentry.submount() {
        Some(root) => root.node().mount_point()?,
        None => KVVec::new(),
    };
    let mut buf = KVVec::from_elem(0u8, PATH_MAX + 1, GFP_KERNEL)?;
    let below = dentry.path(&mut buf)?;
    if !path.is_empty() && !below.is_empty() {
        path.push(b'/', GFP_KERNEL)?;
    }
    path.extend_from_slice(below, GFP_KERNEL)?;
    Ok(path)
}

/// A name as the protocol has it.
///
/// Fails with [`ENAMETOOLONG`] when it is longer than 255 bytes.
pub(crate) fn name(bytes: &[u8]) -> Result<Name<'_>> {
    if bytes.len() > NAME_MAX {
        return Err(ENAMETOOLONG);
    }
    Name::new(bytes).map_err(|_| EINVAL)
}
