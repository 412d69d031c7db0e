// SPDX-License-Identifier: GPL-2.0

//! What the policy says of names that are made, moved and removed: what it names must stay what
//! it is, or an entry would come to stand for something else when engine reads it again.

use kernel::prelude::*;
use qtfs_proto::Name;

use crate::{
    dispatch::Context,
    refusal::{
        Refusal,
        Result, //
    },
    resolve::{
        join,
        Found, //
    },
};

/// Fails when a directory may only be read, or the policy has a rule of its own for a name in it that
/// says so: an exported directory that was not there when the policy was made, or is in the way.
/// Returns the path of the name.
pub(super) fn writable(ctx: &Context<'_>, dir: &Found<'_>, name: Name<'_>) -> Result<KVVec<u8>> {
    dir.writable()?;
    let text = join(&dir.text, name.bytes())?;
    if ctx.rule(&text)?.read_only {
        return Err(EROFS.into());
    }
    Ok(text)
}

/// Fails when moving an object would take it, or something below it, out of reach of the rule that
/// the policy has for it.
pub(super) fn may_move(ctx: &Context<'_>, found: &Found<'_>) -> Result {
    found.writable()?;
    must_stay(ctx, &found.text)
}

/// Fails when what is at a path must stay, since the policy names it, or something below it.
fn must_stay(ctx: &Context<'_>, text: &[u8]) -> Result {
    let what = if ctx.policy.has_at(text) {
        "it"
    } else if ctx.policy.has_below(text) {
        "a directory below it"
    } else {
        return Ok(());
    };
    Err(Refusal::new(
        EACCES,
        fmt!("HOST exports {what} by itself, so it cannot be renamed or replaced, nor be a link"),
    ))
}

/// Fails when an object that exists already, or a link to another, may not come to be at a name:
/// the policy has a rule of its own there, which is about what is there or is to be.
pub(super) fn may_come(ctx: &Context<'_>, dir: &Found<'_>, name: Name<'_>) -> Result {
    must_stay(ctx, &writable(ctx, dir, name)?)
}
