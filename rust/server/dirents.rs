// SPDX-License-Identifier: GPL-2.0

//! The entries of a directory as data of a reply.

use kernel::prelude::*;
use qtfs_net::Pages;
use qtfs_proto::{
    dirent::Entry,
    Encode,
    Name,
    ReaddirFlags,
    Writer, //
};
use qtfs_vfs::local::dir::Listing;

use crate::{
    dispatch::Context,
    file::OpenFile,
    refusal::Result,
    resolve::{
        At,
        Found, //
    },
};

/// Bytes of the longest entry: a name and attributes.
const MAX_ENTRY: usize = 768;
/// How many times its room in a piece even the shortest entry takes at most in the reply; with
/// attributes.
const GROWS: usize = 2;
const GROWS_PLUS: usize = 12;
/// Bytes that are taken from the file system at once.
const CHUNK: usize = 16 * 1024;

/// Lists a directory from `cookie` on, in at most `want` bytes; says whether that is all.
///
/// Fails with [`EINVAL`] when the first entry does not fit, as `getdents(2)`.
pub(crate) fn list(
    ctx: &mut Context<'_>,
    open: &OpenFile,
    cookie: u64,
    want: usize,
    flags: ReaddirFlags,
) -> Result<(Pages, bool)> {
    let plus = flags.has(ReaddirFlags::PLUS);
    let dir = Found {
        path: open.file().path(),
        text: KVVec::new(),
        rule: crate::policy::Rule { read_only: true },
        at: At::Node(open.node.clone()),
    };
    let mut out = KVVec::new();
    let mut at = cookie;
    loop {
        let room = want.saturating_sub(out.len()) / if plus { GROWS_PLUS } else { GROWS };
        // Pieces are sent whole: only the directory knows where it goes on after one, and what was
        // looked at for nothing would stay known as the client's.
        if room < Listing::MIN_SPACE && !out.is_empty() {
            return Ok((pages_of(&out)?, false));
        }
        let mut listing = Listing::with_space(room.min(CHUNK))?;
        {
            let mut listing_lock = open.listing.lock();
            open.file().list(&mut listing_lock, at, &mut listing)?;
        }
        for raw in listing.entries() {
            let Ok(name) = Name::new(raw.name) else {
                continue;
            };
            let attr = if plus { look_at(ctx, &dir, name) } else { None };
            let entry = Entry {
                next: raw.next,
                ino: raw.ino,
                kind: raw.kind,
                name,
                attr,
            };
            let mut buf = [0; MAX_ENTRY];
            let mut writer = Writer::new(&mut buf);
            entry.encode(&mut writer)?;
            let len = writer.len();
            let bytes = buf.get(..len).ok_or(EIO)?;
            if out.len() + bytes.len() > want {
                if out.is_empty() {
                    return Err(EINVAL.into());
                }
                return Ok((pages_of(&out)?, false));
            }
            out.extend_from_slice(bytes, GFP_KERNEL)?;
            at = raw.next;
        }
        if listing.is_end() {
            return Ok((pages_of(&out)?, true));
        }
        if kernel::current!().signal_pending() && !out.is_empty() {
            return Ok((pages_of(&out)?, false));
        }
    }
}

/// Attributes of what an entry leads to, as `stat(2)` on HOST would say; nothing when it cannot be
/// looked at.
fn look_at(ctx: &Context<'_>, dir: &Found<'_>, name: Name<'_>) -> Option<qtfs_proto::Attr> {
    let At::Node(node) = &dir.at else {
        return None;
    };
    let local_name = qtfs_vfs::local::Name::new(name.bytes()).ok()?;
    let path = dir.path.child(&local_name).ok()?;
    let entry = Found {
        path,
        text: KVVec::new(),
        rule: dir.rule,
        at: At::Entry { dir: node.id, name },
    };
    ctx.attr(&entry).ok()
}

/// Pages with these bytes.
pub(crate) fn pages_of(bytes: &[u8]) -> Result<Pages> {
    let mut pages = Pages::alloc(bytes.len())?;
    pages.write_at(0, bytes)?;
    Ok(pages)
}
