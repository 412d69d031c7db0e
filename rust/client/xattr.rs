// SPDX-License-Identifier: GPL-2.0

//! Extended attributes. Nothing of them is cached, but for what a listing says of entries without
//! any.

use kernel::prelude::*;
use qtfs_proto::{
    message::{
        Getxattr,
        Listxattr,
        Removexattr,
        Setxattr, //
    },
    Bytes,
    XattrFlags,
    XattrName,
    XATTR_MAX, //
};
use qtfs_vfs::{
    dentry::Dentry,
    inode::Inode,
    task::{
        self,
        Reach, //
    },
};

use crate::{
    fs::Qtfs,
    node::Question,
    place::Place, //
};

/// Calls `act` with the place of an entry of `inode`, see [`Place::with`].
fn at<R>(
    dentry: Option<&Dentry<Qtfs>>,
    inode: &Inode<Qtfs>,
    act: impl FnOnce(&Place) -> Result<R>,
) -> Result<R> {
    match dentry {
        Some(dentry) => Place::with(inode, dentry, Reach::of_current().by_path(), act),
        None => act(&Place::anywhere()),
    }
}

/// What a listing may have answered already.
fn question(name: &[u8]) -> Option<Question> {
    Some(match name {
        b"security.capability" => Question::Capability,
        b"security.selinux" => Question::Selinux,
        b"system.posix_acl_access" => Question::Acl,
        b"system.posix_acl_default" => Question::DefaultAcl,
        _ => return None,
    })
}

/// Whether the kernel asks for the length of the file capabilities to know whether `chown(2)` takes
/// them away. HOST's kernel asks itself when it is told to do so if there are any.
fn is_left_to_chown(name: &[u8], buf: &[u8]) -> bool {
    name == b"security.capability" && buf.is_empty() && task::changes_owner()
}

/// How much of `buf` the server may fill.
fn max(buf: &[u8]) -> u32 {
    u32::try_from(buf.len().min(XATTR_MAX)).unwrap_or(0)
}

/// Copies what the server sent to the caller, and tells how long it is.
fn fill(buf: &mut [u8], len: u32, bytes: &[u8]) -> Result<usize> {
    if buf.is_empty() {
        return Ok(usize::try_from(len)?);
    }
    buf.get_mut(..bytes.len())
        .ok_or(ERANGE)?
        .copy_from_slice(bytes);
    Ok(bytes.len())
}

pub(crate) fn get(
    dentry: Option<&Dentry<Qtfs>>,
    inode: &Inode<Qtfs>,
    name: &[u8],
    buf: &mut [u8],
) -> Result<usize> {
    if is_left_to_chown(name, buf) {
        return Ok(1);
    }
    if question(name).is_some_and(|question| inode.node().listed_without_xattrs(question)) {
        return Err(ENODATA);
    }
    at(dentry, inode, |place| get_at(place, inode, name, buf))
}

fn get_at(place: &Place, inode: &Inode<Qtfs>, name: &[u8], buf: &mut [u8]) -> Result<usize> {
    let mount = inode.mount();
    let name = XattrName::new(name).map_err(|_| EINVAL)?;
    let max = max(buf);
    let (reply, _) = mount.call(|| {
        Ok(Getxattr {
            target: place.target(mount, inode)?,
            name,
            max,
        })
    })?;
    let reply = reply.decode::<Getxattr<'_>>()?;
    fill(buf, reply.len, reply.value.bytes())
}

pub(crate) fn set(
    dentry: Option<&Dentry<Qtfs>>,
    inode: &Inode<Qtfs>,
    name: &[u8],
    value: Option<&[u8]>,
    flags: u32,
) -> Result {
    at(dentry, inode, |place| {
        set_at(place, inode, name, value, flags)
    })
}

fn set_at(
    place: &Place,
    inode: &Inode<Qtfs>,
    name: &[u8],
    value: Option<&[u8]>,
    flags: u32,
) -> Result {
    let mount = inode.mount();
    let name = XattrName::new(name).map_err(|_| EINVAL)?;
    inode.node().changed(&mount.session);
    if let Some(value) = value {
        let value = Bytes::new(value).map_err(|_| EINVAL)?;
        let flags = XattrFlags::from_bits(flags).ok_or(EINVAL)?;
        let (reply, repeated) = mount.call(|| {
            Ok(Setxattr {
                target: place.target(mount, inode)?,
                name,
                value,
                flags,
            })
        })?;
        match reply.decode::<Setxattr<'_>>() {
            // Whether it was made the first time, when the server lost the session, is not known.
            Err(e) if e == EEXIST && repeated => return Err(EIO),
            other => other?,
        };
    } else {
        let (reply, repeated) = mount.call(|| {
            Ok(Removexattr {
                target: place.target(mount, inode)?,
                name,
            })
        })?;
        match reply.decode::<Removexattr<'_>>() {
            // It was removed the first time.
            Err(e) if e == ENODATA && repeated => {}
            other => {
                other?;
            }
        }
    }
    Ok(())
}

pub(crate) fn list(dentry: &Dentry<Qtfs>, buf: &mut [u8]) -> Result<usize> {
    let inode = dentry.inode()?;
    if inode.node().listed_without_xattrs(Question::Names) {
        return Ok(0);
    }
    at(Some(dentry), inode, |place| list_at(place, inode, buf))
}

fn list_at(place: &Place, inode: &Inode<Qtfs>, buf: &mut [u8]) -> Result<usize> {
    let mount = inode.mount();
    let max = max(buf);
    let (reply, _) = mount.call(|| {
        Ok(Listxattr {
            target: place.target(mount, inode)?,
            max,
        })
    })?;
    let reply = reply.decode::<Listxattr<'_>>()?;
    fill(buf, reply.len, reply.names.bytes())
}
