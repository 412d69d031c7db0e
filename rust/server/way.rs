// SPDX-License-Identifier: GPL-2.0

//! Where the path that a client names leads to, when it has symlinks in it.
//!
//! Nobody may make HOST mount something, or wait for another machine, by naming what is not
//! exported. So a way leads through exported directories and those above them, and else only through
//! directories in which looking for a name does neither.

use kernel::prelude::*;
use qtfs_vfs::local::{
    path::Symlinks,
    window::read_link,
    Name,
    Path, //
};

use crate::{
    dispatch::Context,
    refusal::Result,
    resolve::join, //
};

/// Most symlinks on one way, as in the kernel.
const MAX_LINKS: usize = 40;

/// A path as the policy has paths: absolute, without empty names and `.`.
pub(crate) fn canonical(path: &[u8]) -> Result<KVVec<u8>> {
    let mut text = KVVec::new();
    push_names(&mut text, path)?;
    if text.is_empty() {
        text.push(b'/', GFP_KERNEL)?;
    }
    Ok(text)
}

/// Appends the names in `path`, each behind a `/`.
///
/// `..` takes the last one away, which must be no symlink; it does not come behind a name of `path`.
fn push_names(text: &mut KVVec<u8>, path: &[u8]) -> Result {
    let mut named = false;
    for name in path.split(|&b| b == b'/') {
        match name {
            b"" | b"." => {}
            b".." if named => return Err(EXDEV.into()),
            b".." => {
                let above = text.iter().rposition(|&b| b == b'/').unwrap_or(0);
                text.truncate(above);
            }
            name => {
                named = true;
                text.push(b'/', GFP_KERNEL)?;
                text.extend_from_slice(name, GFP_KERNEL)?;
            }
        }
        if text.len() > qtfs_proto::PATH_MAX {
            return Err(ENAMETOOLONG.into());
        }
    }
    Ok(())
}

/// The canonical path, without symlinks, of where a canonical one leads. Called as engine.
pub(crate) fn follow(ctx: &Context<'_>, mut text: KVVec<u8>) -> Result<KVVec<u8>> {
    let mut buf = KVVec::from_elem(0, qtfs_proto::PATH_MAX, GFP_KERNEL)?;
    for _ in 0..MAX_LINKS {
        match step(ctx, &text, &mut buf)? {
            Some(next) => text = next,
            None => return Ok(text),
        }
    }
    Err(ELOOP.into())
}

/// Goes as far as the first symlink; the path with its text in its place, if there is one.
fn step(ctx: &Context<'_>, text: &[u8], buf: &mut [u8]) -> Result<Option<KVVec<u8>>> {
    let mut at = Path::absolute(c"/", Symlinks::Refuse)?;
    let mut here = canonical(b"/")?;
    let mut rest = text;
    while let Some(start) = rest.iter().position(|&b| b != b'/') {
        let names = rest.get(start..).unwrap_or_default();
        let end = names.iter().position(|&b| b == b'/');
        let (name, behind) = names
            .split_at_checked(end.unwrap_or(names.len()))
            .ok_or(EIO)?;
        if ctx.policy.rule(&here).is_some() {
            at = at.entered()?;
        } else if !ctx.policy.has_below(&here) && !at.is_plain() {
            return Err(EXDEV.into());
        }
        let next = at.entry(&Name::new(name)?)?;
        if next.is_symlink() {
            let link = read_link(&next, buf)?;
            let mut new = KVVec::new();
            if link.first() != Some(&b'/') {
                push_names(&mut new, &here)?;
            }
            push_names(&mut new, link)?;
            push_names(&mut new, behind)?;
            return canonical(&new).map(Some);
        }
        here = join(&here, name)?;
        (at, rest) = (next, behind);
    }
    Ok(None)
}
