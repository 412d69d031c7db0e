// SPDX-License-Identifier: GPL-2.0

//! Names: finding, making and removing them.
//!
//! A name is never taken on trust beyond the system call: either the server is asked for it here,
//! or the operation that follows names the directory and the name and the server compares; when
//! they do not lead to the inode any more it answers ESTALE, and the kernel walks the path again
//! with nothing taken for granted (LOOKUP_REVAL).

use kernel::{
    prelude::*,
    str::{
        CStr,
        CString, //
    },
};
use qtfs_proto::{
    message::{
        Link,
        Lookup,
        Mkdir,
        Mknod,
        Rename,
        Symlink,
        Unlink, //
    },
    Attr,
    AttrFlags,
    LookupFlags,
    Path,
    RenameFlags,
    UnlinkFlags, //
};
use qtfs_vfs::{
    dentry::{
        Dentry,
        LookupFlags as Why, //
    },
    flags::kind,
    fs::Found,
    inode::{
        Inode,
        InodeRef, //
    },
    task::{
        umask,
        Reach, //
    },
};

use crate::{
    fs::Qtfs,
    mount::{
        key,
        S_IFMT, //
    },
    node,
    options::Text,
    own,
    place::{
        self,
        Place, //
    },
    session::request::Asked,
    sockets, //
};

/// Asks the server for a name. Returns its attributes and when it was asked.
fn ask(dir: &Inode<Qtfs>, name: &[u8], why: Why) -> Result<(Attr, Asked)> {
    let mount = dir.mount();
    let name = place::name(name)?;
    let flags = LookupFlags::NONE.with_if(why.reval(), LookupFlags::REBIND);
    let (reply, _) = mount.call(|| {
        Ok(Lookup {
            dir: mount.id(dir)?,
            name,
            flags,
        })
    })?;
    Ok((reply.decode::<Lookup<'_>>()?.attr, reply.asked))
}

/// Notes that `stat(2)` need not ask again for what was just looked up.
fn note_fresh(inode: &Inode<Qtfs>, why: Why) {
    let kind = inode.kind();
    let stays = kind != kind::SYMLINK || !why.follow();
    let is_wanted = kind == kind::DIRECTORY || !why.directory();
    if !why.intermediate() && stays && is_wanted && Reach::of_current() == Reach::PathStat {
        inode.node().set_fresh();
    }
}

/// Whether an entry may be taken on trust because what follows decides.
fn is_decided_later(child: Option<&Inode<Qtfs>>, why: Why) -> bool {
    let Some(child) = child else {
        // On the second try the look-up finds the directory by its identity.
        return !why.reval() && (why.rename_target() || (why.create() && why.exclusive()));
    };
    if why.reval() {
        return false;
    }
    // What was noted for an earlier system call says nothing about this one.
    child.node().take_try();
    if why.exclusive() {
        return false;
    }
    let kind = child.kind();
    if why.intermediate() {
        // The next component, or reading the symlink, verifies the directories above.
        return kind == kind::DIRECTORY || kind == kind::SYMLINK;
    }
    child.node().forget_fresh();
    if why.directory() && kind != kind::DIRECTORY && !(kind == kind::SYMLINK && why.follow()) {
        // A slash follows the name, and the kernel fails for what it is known as here.
        return false;
    }
    let reach = Reach::of_current();
    if why.open() {
        // The kernel refuses other types by itself.
        return match kind {
            kind::DIRECTORY => why.directory() || reach == Reach::PathOpen,
            kind => kind == kind::REGULAR,
        };
    }
    if why.rename_target() && child.node().is_renamed() {
        // Renaming to another name of the same file does nothing, which the kernel decides.
        return false;
    }
    if reach.renames() && !why.rename_target() {
        child.node().note_renamed();
    }
    why.rename_target() || reach.trusts(kind)
}

pub(crate) fn revalidate(
    dir: &Inode<Qtfs>,
    name: &[u8],
    child: Option<&Inode<Qtfs>>,
    mounted: bool,
    why: Why,
) -> Result<bool> {
    if let Some(valid) = own::revalidate(dir, name, child) {
        return Ok(valid);
    }
    // Whether HOST has mounted something there decides at once where a look-up ends that is not to
    // cross mount points.
    // What follows at a mount point is about the mounted directory, wherever that is.
    let decided_here = why.no_xdev() || (mounted && !why.intermediate());
    if !decided_here && is_decided_later(child, why) {
        return Ok(true);
    }
    // A negative entry is dropped, which costs nothing; the look-up that follows asks.
    let Some(child) = child else { return Ok(false) };
    if why.rcu() {
        return Err(ECHILD);
    }
    let (attr, asked) = match ask(dir, name, why) {
        Err(e) if e == ENOENT || e == ENOTDIR => return Ok(false),
        other => other?,
    };
    if !node::is_of(child, &attr, asked.incarnation) || is_mount_root(&attr) != mounted {
        dir.mount().session.forget(&attr, asked.incarnation);
        return Ok(false);
    }
    node::apply(child, &attr, asked);
    note_fresh(child, why);
    Ok(true)
}

pub(crate) fn lookup(dir: &Inode<Qtfs>, name: &[u8], why: Why) -> Result<Found<Qtfs>> {
    if let Some(found) = own::lookup(dir, name)? {
        return Ok(found);
    }
    if is_decided_later(None, why) {
        return Ok(Found::Unknown);
    }
    let (attr, asked) = ask(dir, name, why)?;
    let inode = dir.mount().inode(dir, &attr, asked)?;
    note_fresh(&inode, why);
    Ok(found(inode, &attr))
}

/// Notes where HOST has mounted something. Returns its path there.
pub(crate) fn automount(root: &Inode<Qtfs>, point: &Dentry<Qtfs>) -> Result<CString> {
    // Dropped meanwhile: the kernel looks again.
    let path = place::path(point).map_err(|e| if e == ENOENT { ESTALE } else { e })?;
    let config = &root.mount().session.config;
    let top = Text(config.path.strip_suffix(b"/").unwrap_or(&config.path));
    let source = CString::try_from_fmt(fmt!("{top}/{}", Text(&path)))?;
    root.node().mounted_on(path);
    Ok(source)
}

/// Whether HOST has mounted something there.
pub(crate) fn is_mount_root(attr: &Attr) -> bool {
    attr.flags.has(AttrFlags::MOUNT_ROOT)
}

/// What a look-up found that was told of by `attr`.
pub(crate) fn found(inode: InodeRef<Qtfs>, attr: &Attr) -> Found<Qtfs> {
    match is_mount_root(attr) {
        true => Found::MountRoot(inode),
        false => Found::Inode(inode),
    }
}

/// The reply to a request that makes something.
struct Made {
    result: Result<Attr>,
    /// It was repeated after the server lost the session: if the name exists, it may have been
    /// made the first time.
    repeated: bool,
    asked: Asked,
}

impl Made {
    /// The inode of what was made under a name, which must be of the type in `mode`.
    fn inode(self, dir: &Inode<Qtfs>, name: &[u8], mode: u32) -> Result<InodeRef<Qtfs>> {
        let session = &dir.mount().session;
        dir.node().changed(session);
        let (attr, asked) = match self.result {
            Err(e) if e == EEXIST && self.repeated => ask(dir, name, Why::none())?,
            other => (other?, self.asked),
        };
        if attr.mode & S_IFMT != mode & S_IFMT {
            session.forget(&attr, asked.incarnation);
            return Err(if self.repeated { EEXIST } else { EIO });
        }
        dir.mount().inode(dir, &attr, asked)
    }
}

pub(crate) fn mkdir(dir: &Inode<Qtfs>, bytes: &[u8], mode: u32) -> Result<InodeRef<Qtfs>> {
    let mount = dir.mount();
    let (name, umask) = (place::name(bytes)?, umask());
    let (reply, repeated) = mount.call(|| {
        Ok(Mkdir {
            dir: mount.id(dir)?,
            name,
            mode: mode & 0o7777,
            umask,
        })
    })?;
    Made {
        result: reply.decode::<Mkdir<'_>>().map(|r| r.attr),
        repeated,
        asked: reply.asked,
    }
    .inode(dir, bytes, kind::DIRECTORY)
}

pub(crate) fn mknod(
    dir: &Inode<Qtfs>,
    bytes: &[u8],
    mode: u32,
    rdev: (u32, u32),
) -> Result<InodeRef<Qtfs>> {
    let mount = dir.mount();
    let (name, umask) = (place::name(bytes)?, umask());
    let (rdev_major, rdev_minor) = rdev;
    let (reply, repeated) = mount.call(|| {
        Ok(Mknod {
            dir: mount.id(dir)?,
            name,
            mode,
            umask,
            rdev_major,
            rdev_minor,
        })
    })?;
    let inode = Made {
        result: reply.decode::<Mknod<'_>>().map(|r| r.attr),
        repeated,
        asked: reply.asked,
    }
    .inode(dir, bytes, mode)?;
    if inode.kind() == kind::SOCKET {
        sockets::made(&inode)?;
    }
    Ok(inode)
}

pub(crate) fn symlink(dir: &Inode<Qtfs>, bytes: &[u8], text: &CStr) -> Result<InodeRef<Qtfs>> {
    let mount = dir.mount();
    let name = place::name(bytes)?;
    let text = Path::new(text.to_bytes()).map_err(|_| ENAMETOOLONG)?;
    let (reply, repeated) = mount.call(|| {
        Ok(Symlink {
            dir: mount.id(dir)?,
            name,
            text,
        })
    })?;
    Made {
        result: reply.decode::<Symlink<'_>>().map(|r| r.attr),
        repeated,
        asked: reply.asked,
    }
    .inode(dir, bytes, kind::SYMLINK)
}

pub(crate) fn link(source: &Dentry<Qtfs>, dir: &Inode<Qtfs>, bytes: &[u8]) -> Result {
    let mount = dir.mount();
    let inode = source.inode()?;
    let name = place::name(bytes)?;
    let by_path = Reach::of_current().by_path();
    Place::with(inode, source, by_path, |place| {
        let (reply, repeated) = mount.call(|| {
            Ok(Link {
                target: place.target(mount, inode)?,
                dir: mount.id(dir)?,
                name,
            })
        })?;
        dir.node().changed(&mount.session);
        inode.node().not_listed();
        match reply.decode::<Link<'_>>() {
            Err(e) if e == EEXIST && repeated => {
                let (attr, asked) = ask(dir, bytes, Why::none())?;
                if key(&attr) != inode.node().identity() {
                    return Err(EEXIST);
                }
                node::apply(inode, &attr, asked);
            }
            other => node::apply(inode, &other?.attr, reply.asked),
        }
        Ok(())
    })
}

pub(crate) fn unlink(
    dir: &Inode<Qtfs>,
    bytes: &[u8],
    child: &Inode<Qtfs>,
    directory: bool,
) -> Result {
    let mount = dir.mount();
    let name = place::name(bytes)?;
    let flags = UnlinkFlags::NONE.with_if(directory, UnlinkFlags::DIRECTORY);
    let (reply, repeated) = mount.call(|| {
        Ok(Unlink {
            dir: mount.id(dir)?,
            name,
            flags,
        })
    })?;
    dir.node().changed(&mount.session);
    child.node().changed(&mount.session);
    match reply.decode::<Unlink<'_>>() {
        Err(e) if e == ENOENT && repeated => {}
        other => child.set_nlink(other?.nlink),
    }
    Ok(())
}

pub(crate) fn rename(
    dir: &Inode<Qtfs>,
    source: &Inode<Qtfs>,
    bytes: &[u8],
    new_dir: &Inode<Qtfs>,
    new_bytes: &[u8],
    replaced: Option<&Inode<Qtfs>>,
    flags: u32,
) -> Result {
    let mount = dir.mount();
    source.node().forget_renamed();
    let (name, new_name) = (place::name(bytes)?, place::name(new_bytes)?);
    let flags = RenameFlags::from_bits(flags).ok_or(EINVAL)?;
    let build = || {
        let (dir, new_dir) = (mount.id(dir)?, mount.id(new_dir)?);
        Ok(Rename {
            dir,
            name,
            new_dir,
            new_name,
            flags,
        })
    };
    let (reply, repeated) = if flags.has(RenameFlags::EXCHANGE) {
        // A second time it would undo the first.
        (mount.call_once(build)?, false)
    } else {
        mount.call(build)?
    };
    dir.node().changed(&mount.session);
    new_dir.node().changed(&mount.session);
    match reply.decode::<Rename<'_>>() {
        Err(e) if e == ENOENT && repeated => {}
        other => {
            other?;
        }
    }
    if let Some(replaced) = replaced.filter(|_| !flags.has(RenameFlags::EXCHANGE)) {
        replaced.node().changed(&mount.session);
        // What the name led to before has one name less, which `stat(2)` will ask for.
        replaced.set_nlink(replaced.nlink().saturating_sub(1));
    }
    Ok(())
}
