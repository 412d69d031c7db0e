// SPDX-License-Identifier: GPL-2.0

//! GETXATTR, SETXATTR, REMOVEXATTR and LISTXATTR; ACLs are among them.

use kernel::prelude::*;
use qtfs_proto::{
    message::{
        Getxattr,
        GetxattrReply,
        Listxattr,
        ListxattrReply,
        Removexattr,
        RemovexattrReply,
        Setxattr,
        SetxattrReply, //
    },
    Bytes,
    XattrFlags,
    XATTR_MAX, //
};
use qtfs_vfs::local::xattr;

use crate::{
    dispatch::{
        invalid,
        Context, //
    },
    refusal::Result,
    worker::Reply, //
};

/// Value of an attribute.
pub(crate) fn get(ctx: &mut Context<'_>, r: &Getxattr<'_>) -> Result<Reply> {
    let found = ctx.target(&r.target)?;
    let max = usize::try_from(r.max)?.min(XATTR_MAX);
    let mut buf = KVVec::from_elem(0, max, GFP_KERNEL)?;
    let len = xattr::get(&found.path, r.name.bytes(), &mut buf)?;
    let value = if max == 0 {
        &[][..]
    } else {
        buf.get(..len).ok_or(ERANGE)?
    };
    ctx.reply(&GetxattrReply {
        len: u32::try_from(len)?,
        value: Bytes::new(value)?,
    })
}

/// Sets an attribute.
pub(crate) fn set(ctx: &mut Context<'_>, r: &Setxattr<'_>) -> Result<Reply> {
    let found = ctx.target(&r.target)?;
    found.writable()?;
    let how = match (
        r.flags.has(XattrFlags::CREATE),
        r.flags.has(XattrFlags::REPLACE),
    ) {
        (false, false) => xattr::Set::Any,
        (true, false) => xattr::Set::Create,
        (false, true) => xattr::Set::Replace,
        (true, true) => return Err(invalid("an attribute both new and old")),
    };
    if r.value.bytes().len() > XATTR_MAX {
        return Err(E2BIG.into());
    }
    ctx.change_found(&found, |_| {
        Ok(xattr::set(
            &found.path,
            r.name.bytes(),
            r.value.bytes(),
            how,
        )?)
    })?;
    ctx.reply(&SetxattrReply {})
}

/// Removes an attribute.
pub(crate) fn remove(ctx: &mut Context<'_>, r: &Removexattr<'_>) -> Result<Reply> {
    let found = ctx.target(&r.target)?;
    found.writable()?;
    ctx.change_found(&found, |_| Ok(xattr::remove(&found.path, r.name.bytes())?))?;
    ctx.reply(&RemovexattrReply {})
}

/// Names of attributes.
pub(crate) fn list(ctx: &mut Context<'_>, r: &Listxattr<'_>) -> Result<Reply> {
    let found = ctx.target(&r.target)?;
    let max = usize::try_from(r.max)?.min(XATTR_MAX);
    let mut buf = KVVec::from_elem(0, max, GFP_KERNEL)?;
    let len = xattr::list(&found.path, &mut buf)?;
    let names = if max == 0 {
        &[][..]
    } else {
        buf.get(..len).ok_or(ERANGE)?
    };
    ctx.reply(&ListxattrReply {
        len: u32::try_from(len)?,
        names: Bytes::new(names)?,
    })
}
