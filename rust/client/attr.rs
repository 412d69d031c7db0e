// SPDX-License-Identifier: GPL-2.0

//! Attributes: reading, changing, permissions.

use kernel::prelude::*;
use qtfs_proto::{
    message::{
        Access,
        Getattr,
        Getflags,
        InodeFlags,
        Readlink,
        Setattr,
        Setflags,
        Statfs as StatfsCall, //
    },
    AccessMask,
    FileId,
    OpenFlags,
    SetattrValid, //
};
use qtfs_vfs::{
    dentry::Dentry,
    flags::{
        kind,
        may,
        setattr_valid,
        truncates_on_open, //
    },
    inode::{
        Inode,
        SetAttr,
        Stat, //
    },
    sb::Statfs,
    task::{
        file_size_limit,
        Reach, //
    },
};

use crate::{
    data,
    fs::Qtfs,
    node,
    notify,
    own,
    place::Place,
    sockets, //
};

/// Asks for the attributes of what is at `place`.
pub(crate) fn ask(inode: &Inode<Qtfs>, place: &Place) -> Result {
    let mount = inode.mount();
    let (reply, _) = mount.call(|| {
        Ok(Getattr {
            target: place.target(mount, inode)?,
            file: FileId::NONE,
        })
    })?;
    let attr = reply.decode::<Getattr<'_>>()?.attr;
    node::apply(inode, &attr, reply.asked);
    Ok(())
}

pub(crate) fn getattr(dentry: &Dentry<Qtfs>, stat: &mut Stat) -> Result {
    let inode = dentry.inode()?;
    let mount = inode.mount();
    let node = inode.node();
    if node.is_own() {
        return own::getattr(inode, stat);
    }
    if inode.is_regular() && inode.is_dirty() {
        // Size, blocks and times are the server's once it has the data. An error of that is
        // reported by fsync(2) and close(2).
        let _ = data::write_out(inode);
    }
    if !node.take_fresh() {
        let by_path = Reach::of_current().by_path();
        match Place::with(inode, dentry, by_path, |place| ask(inode, place)) {
            // What HOST has covered by a mount is out of reach but for files that are open.
            Err(e) if e == ESTALE && !by_path => {
                match node.any_open(OpenFlags::NONE, &mount.session) {
                    Some(open) => data::ask_attr(inode, &open)?,
                    None => return Err(e),
                }
            }
            other => other?,
        }
    }
    let extra = node.extra();
    stat.set_dev(mount.device(inode.device(), node.dev())?);
    stat.set_ino(node.identity().ino);
    stat.set_blksize(extra.blksize);
    if extra.btime != qtfs_proto::Time::default() {
        stat.set_btime(extra.btime);
    }
    stat.set_attributes(extra.attributes, extra.attributes_mask);
    Ok(())
}

/// Whether the caller's `RLIMIT_FSIZE`, which HOST does not know, lets the file become `size` bytes
/// long.
pub(crate) fn check_size(inode: &Inode<Qtfs>, size: u64) -> Result {
    if size > file_size_limit() {
        // What is that long already may be made shorter.
        ask(inode, &Place::anywhere())?;
        inode.check_new_size(size)?;
    }
    Ok(())
}

pub(crate) fn setattr(dentry: &Dentry<Qtfs>, attr: &SetAttr<'_, Qtfs>) -> Result {
    let inode = dentry.inode()?;
    let mount = inode.mount();
    let node = inode.node();
    let open = match attr.file() {
        Some(file) => Some(file.open()?.clone()),
        None => None,
    };
    if truncates_on_open(attr.valid()) {
        if let Some(open) = &open {
            // What another program has written since is cut with what was there before, or not at
            // all: then the server does it again.
            if open.take_truncated() && !inode.is_dirty() {
                // The server has cut the file when it opened it.
                inode.truncate(attr.size());
                return Ok(());
            }
        }
    }
    let valid = setattr_valid(attr.valid());
    let resize = valid.has(SetattrValid::SIZE);
    if inode.is_regular() && (resize || inode.is_dirty()) {
        // Times that are set must not be changed by data that is written back later, nor must a
        // file that is cut grow again.
        data::write_out(inode)?;
    }
    if resize {
        check_size(inode, attr.size())?;
    }
    let by_path = Reach::of_current().by_path();
    let (changed, asked) = Place::with(inode, dentry, by_path, |place| {
        let (reply, _) = mount.call(|| {
            Ok(Setattr {
                target: place.target(mount, inode)?,
                file: match &open {
                    Some(open) if resize => open.id(mount, inode)?,
                    _ => FileId::NONE,
                },
                valid,
                mode: attr.mode() & 0o7777,
                uid: attr.uid(),
                gid: attr.gid(),
                size: attr.size(),
                atime: attr.atime(),
                mtime: attr.mtime(),
            })
        })?;
        Ok((reply.decode::<Setattr<'_>>()?.attr, reply.asked))
    })?;
    if resize {
        mount.session.durable.written(&node.unsynced);
        inode.truncate(attr.size());
    }
    node::apply(inode, &changed, asked);
    node.changed(&mount.session);
    Ok(())
}

/// Asks the server whether the caller may.
fn access(inode: &Inode<Qtfs>, mask: AccessMask) -> Result {
    let mount = inode.mount();
    let by_path = Reach::of_current().by_path();
    let may = |place: &Place| {
        let (reply, _) = mount.call(|| {
            Ok(Access {
                target: place.target(mount, inode)?,
                mask,
            })
        })?;
        reply.decode::<Access<'_>>()?;
        Ok(())
    };
    inode
        .with_alias(|dentry| Place::with(inode, dentry, by_path, may))
        .unwrap_or_else(|| may(&Place::anywhere()))
}

pub(crate) fn permission(inode: &Inode<Qtfs>, mask: u32) -> Result {
    let has = |flag: u32| mask & flag != 0;
    let kind = inode.kind();
    if inode.node().is_own() {
        return own::permission(inode, mask);
    }
    // Nothing but inotify, fanotify and a few that need no answer asks just this.
    if mask == may::READ {
        notify::permission(inode)?;
    }
    let plain = [kind::DIRECTORY, kind::REGULAR, kind::SYMLINK, kind::FIFO].contains(&kind);
    // Whatever follows is a request which the server checks; so only questions that nothing
    // follows are asked here, and those about nodes that are opened on this machine.
    if plain && !has(may::ACCESS | may::CHDIR) {
        // The kernel itself does not execute what has no such bit, so it must be a new one.
        let executes = kind == kind::REGULAR && has(may::EXEC) && inode.mode() & 0o111 == 0;
        if !executes {
            return Ok(());
        }
    }
    if has(may::NOT_BLOCK) {
        return Err(ECHILD);
    }
    let not_to_write = may::ACCESS | may::CHDIR | may::OPEN | may::READ | may::EXEC;
    let connects = kind == kind::SOCKET && has(may::WRITE) && !has(not_to_write);
    // Removed since its name was looked up: as for a socket that was closed meanwhile.
    let refused = |e| match e {
        e if connects && e == ESTALE => ECONNREFUSED,
        e => e,
    };
    if connects && sockets::connect(inode).map_err(refused)? {
        return Ok(());
    }
    let mask = AccessMask::NONE
        .with_if(has(may::EXEC), AccessMask::EXEC)
        .with_if(has(may::WRITE), AccessMask::WRITE)
        .with_if(has(may::READ), AccessMask::READ)
        .with_if(has(may::CHDIR), AccessMask::CHDIR);
    access(inode, mask).map_err(refused)
}

pub(crate) fn readlink(dentry: &Dentry<Qtfs>) -> Result<KVVec<u8>> {
    let inode = dentry.inode()?;
    if inode.node().is_own() {
        return own::readlink(inode);
    }
    let mount = inode.mount();
    // By name also when it is in the middle of a path: the next look-up verifies only directories. A
    // symlink that somebody holds open by O_PATH is read wherever it is.
    Place::with(inode, dentry, true, |place| {
        let (reply, _) = mount.call(|| {
            Ok(Readlink {
                target: place.target(mount, inode)?,
            })
        })?;
        let text = reply.decode::<Readlink<'_>>()?.text;
        let mut bytes = KVVec::with_capacity(text.bytes().len() + 1, GFP_KERNEL)?;
        bytes.extend_from_slice(text.bytes(), GFP_KERNEL)?;
        Ok(bytes)
    })
}

pub(crate) fn statfs(dentry: &Dentry<Qtfs>) -> Result<Statfs> {
    let inode = dentry.inode()?;
    let mount = inode.mount();
    let by_path = Reach::of_current().by_path();
    Place::with(inode, dentry, by_path, |place| {
        let (reply, _) = mount.call(|| {
            Ok(StatfsCall {
                target: place.target(mount, inode)?,
            })
        })?;
        reply.decode::<StatfsCall<'_>>()
    })
}

pub(crate) fn flags(dentry: &Dentry<Qtfs>) -> Result<InodeFlags> {
    let inode = dentry.inode()?;
    let mount = inode.mount();
    let place = Place::anywhere();
    let (reply, _) = mount.call(|| {
        Ok(Getflags {
            target: place.target(mount, inode)?,
        })
    })?;
    Ok(reply.decode::<Getflags<'_>>()?.flags)
}

pub(crate) fn set_flags(dentry: &Dentry<Qtfs>, flags: &InodeFlags) -> Result {
    let inode = dentry.inode()?;
    if !inode.is_regular() {
        return send_flags(inode, flags);
    }
    // HOST refuses data of an earlier time once the file is immutable, so that there must be none
    // then, and none that comes after: writers wait for the inode's lock, which the VFS holds.
    inode.mapping_locked(|| {
        data::write_out(inode)?;
        send_flags(inode, flags)
    })
}

fn send_flags(inode: &Inode<Qtfs>, flags: &InodeFlags) -> Result {
    let mount = inode.mount();
    let place = Place::anywhere();
    let (reply, _) = mount.call(|| {
        Ok(Setflags {
            target: place.target(mount, inode)?,
            flags: *flags,
        })
    })?;
    reply.decode::<Setflags<'_>>()?;
    let node = inode.node();
    node.changed(&mount.session);
    node.seal(flags.is_immutable(), flags.is_append_only());
    Ok(())
}
