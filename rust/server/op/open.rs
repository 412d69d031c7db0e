// SPDX-License-Identifier: GPL-2.0

//! OPEN: finds, makes and opens in one step, and may bring what the client reads first. POLL: what
//! an open file is ready for.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::Pages;
use qtfs_proto::{
    message::{
        Open,
        OpenReply,
        Poll,
        PollReply, //
    },
    FileId,
    FsClass,
    OpenFlags,
    Opened,
    ReaddirFlags, //
};
use qtfs_vfs::local::{
    self,
    fifo::OtherEnd,
    file::{
        How,
        ReadHow, //
    },
    path::may,
    File, //
};

use crate::{
    dirents,
    dispatch::{
        invalid,
        Context, //
    },
    file::OpenFile,
    node::Node,
    op::{
        class,
        data,
        fifo,
        names, //
    },
    refusal::Result,
    resolve::{
        At,
        Found, //
    },
    server,
    worker::Reply, //
};

/// Most bytes that come with the reply; it is kept for as long as the slot is not used again.
const MAX_WANT: usize = 256 * 1024;
/// The highest value of `fs.protected_regular`, which holds where engine cannot read it.
const PROTECTED_MOST: u32 = 2;
/// How often to begin anew when others make and remove the name meanwhile.
const ATTEMPTS: usize = 16;

/// What opening came to.
enum Outcome<'a> {
    /// It is open; what there was of the other end, if it is a FIFO.
    Open(Found<'a>, File, OtherEnd),
    /// It is there, but is not to be opened here.
    Other(Found<'a>),
}

/// See the module.
pub(crate) fn open(ctx: &mut Context<'_>, r: &Open<'_>) -> Result<Reply> {
    let has = |flag| r.flags.has(flag);
    if !has(OpenFlags::READ) && !has(OpenFlags::WRITE) {
        return Err(invalid("open neither for reading nor for writing"));
    }
    if has(OpenFlags::CREATE) && has(OpenFlags::DIRECTORY) {
        return Err(invalid("open a directory and make a file"));
    }
    let changes = [
        OpenFlags::WRITE,
        OpenFlags::APPEND,
        OpenFlags::TRUNC,
        OpenFlags::CREATE,
        OpenFlags::TMPFILE,
    ];
    if has(OpenFlags::EXEC) && changes.into_iter().any(has) {
        return Err(invalid("open a program and change it"));
    }
    if has(OpenFlags::TMPFILE) {
        return nameless(ctx, r);
    }
    for _ in 0..ATTEMPTS {
        match attempt(ctx, r) {
            Ok(Outcome::Open(found, file, end)) => {
                let node = ctx.node(&found)?;
                return opened(ctx, r, node, &found, file, end);
            }
            Ok(Outcome::Other(found)) => {
                let attr = ctx.attr(&found)?;
                return ctx.reply(&OpenReply {
                    file: FileId::NONE,
                    opened: Opened::NONE,
                    attr,
                });
            }
            // Somebody made the name between the look at it and the attempt to make it.
            Err(refusal) if refusal.error() == EEXIST && !has(OpenFlags::EXCL) => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Err(EAGAIN.into())
}

fn how(r: &Open<'_>) -> How {
    let has = |flag| r.flags.has(flag);
    How {
        read: has(OpenFlags::READ),
        write: has(OpenFlags::WRITE),
        append: has(OpenFlags::APPEND),
        truncate: has(OpenFlags::TRUNC),
        directory: has(OpenFlags::DIRECTORY),
        nonblock: has(OpenFlags::NONBLOCK),
        sync: has(OpenFlags::SYNC),
        dsync: has(OpenFlags::DSYNC),
        noatime: has(OpenFlags::NOATIME),
    }
}

/// Permission bits of a new file: without the caller's umask, unless the directory has a default
/// ACL in its place.
pub(crate) fn new_mode(dir: &local::Path, mode: u32, umask: u32) -> u16 {
    let mode = if dir.has_default_acl() {
        mode
    } else {
        mode & !(umask & 0o777)
    };
    // CAST: Only permission bits are kept.
    (mode & 0o7777) as u16
}

/// Looks the target up and opens it, or makes it when the name does not exist.
fn attempt<'r>(ctx: &mut Context<'_>, r: &Open<'r>) -> Result<Outcome<'r>> {
    let name = match r.target.name.name() {
        Some(name) if r.flags.has(OpenFlags::CREATE) => name,
        _ => {
            let found = ctx.target_inside(&r.target)?;
            return existing(ctx, r, found, None);
        }
    };
    let dir = ctx.dir(r.target.dir)?;
    let found = match ctx.child(&dir, name) {
        Ok(found) => found,
        Err(refusal) if refusal.error() == ENOENT => {
            if !r.target.node.is_none() {
                return Err(ESTALE.into());
            }
            return create(ctx, r, &dir);
        }
        Err(refusal) => return Err(refusal),
    };
    if r.flags.has(OpenFlags::EXCL) {
        return Err(EEXIST.into());
    }
    if !r.target.node.is_none() {
        let node = ctx.session.nodes.get(r.target.node)?;
        if found.path.identity() != node.identity {
            return Err(ESTALE.into());
        }
    }
    if found.path.is_dir() {
        return Err(EISDIR.into());
    }
    existing(ctx, r, found, Some(&dir))
}

/// Opens what was found; `dir` when it was to be made otherwise.
fn existing<'r>(
    ctx: &mut Context<'_>,
    r: &Open<'r>,
    found: Found<'r>,
    dir: Option<&Found<'_>>,
) -> Result<Outcome<'r>> {
    let path = &found.path;
    // A symlink is the client's to follow.
    if r.flags.has(OpenFlags::DIRECTORY) && !path.is_dir() && !path.is_symlink() {
        return Err(ENOTDIR.into());
    }
    let mut how = how(r);
    // Who names a FIFO by its node knows what it is.
    if path.is_fifo() && !r.target.node.is_none() {
        let (file, end) = fifo::open(r, &found, how)?;
        return Ok(Outcome::Open(found, file, end));
    }
    if !path.is_dir() && !path.is_regular() {
        return Ok(Outcome::Other(found));
    }
    if how.write || how.truncate {
        if path.is_dir() {
            return Err(EISDIR.into());
        }
        found.writable()?;
    }
    // No thread of engine's is to wait for the kernel's next line of `/proc/kmsg`: see READ.
    how.nonblock |= class::of(path.magic()) != FsClass::Regular;
    if r.flags.has(OpenFlags::EXEC) {
        let file = executable(ctx, path, how.nonblock)?;
        return Ok(Outcome::Open(found, file, OtherEnd::default()));
    }
    if let Some(dir) = dir.filter(|dir| dir.writable().is_ok()) {
        unprotected(ctx, dir, path)?;
    }
    let file = if how.truncate {
        ctx.change_found(&found, |_| Ok(File::open(path, how)?))?
    } else {
        File::open(path, how)?
    };
    Ok(Outcome::Open(found, file, OtherEnd::default()))
}

/// Fails with [`EACCES`] when HOST protects the file, which is others', from `O_CREAT` in such a
/// directory. The kernel would say so only to who opens it by its name, which may lead to anything
/// by now.
fn unprotected(ctx: &Context<'_>, dir: &Found<'_>, path: &local::Path) -> Result {
    if !dir.path.protects(path, PROTECTED_MOST) {
        return Ok(());
    }
    let level = {
        let _engine = ctx.as_engine();
        server::setting(c"/proc/sys/fs/protected_regular")
    };
    if dir.path.protects(path, level.unwrap_or(PROTECTED_MOST)) {
        return Err(EACCES.into());
    }
    Ok(())
}

/// Opens a program, for reading, that the caller may execute but perhaps not read.
fn executable(ctx: &Context<'_>, path: &local::Path, nonblock: bool) -> Result<File> {
    if !path.is_regular() || path.is_noexec() {
        return Err(EACCES.into());
    }
    path.permits(may::EXEC | may::OPEN)?;
    let how = How {
        read: true,
        nonblock,
        ..How::default()
    };
    let _engine = ctx.as_engine();
    Ok(File::open(path, how)?)
}

/// Makes and opens a file.
fn create<'r>(ctx: &mut Context<'_>, r: &Open<'r>, dir: &Found<'_>) -> Result<Outcome<'r>> {
    let name = r.target.name.name().ok_or(EINVAL)?;
    names::writable(ctx, dir, name)?;
    let mode = new_mode(&dir.path, r.mode, r.umask);
    let file = File::create(&dir.path, &local::Name::new(name.bytes())?, how(r), mode)?;
    let found = ctx.entry(dir, name, file.path())?;
    Ok(Outcome::Open(found, file, OtherEnd::default()))
}

/// Makes and opens a file without a name.
fn nameless(ctx: &mut Context<'_>, r: &Open<'_>) -> Result<Reply> {
    let dir = ctx.target(&r.target)?;
    if !dir.path.is_dir() {
        return Err(ENOTDIR.into());
    }
    dir.writable()?;
    let mode = new_mode(&dir.path, r.mode, r.umask);
    let exclusive = r.flags.has(OpenFlags::EXCL);
    let file = File::create_nameless(&dir.path, how(r), exclusive, mode)?;
    let path = file.path();
    let node = ctx.session.nodes.nameless(&path)?;
    let found = Found {
        path,
        text: dir.text,
        rule: dir.rule,
        at: At::Node(node.clone()),
    };
    opened(ctx, r, node, &found, file, OtherEnd::default())
}

/// Adds the open file to the session and answers.
fn opened(
    ctx: &mut Context<'_>,
    r: &Open<'_>,
    node: Arc<Node>,
    found: &Found<'_>,
    file: File,
    end: OtherEnd,
) -> Result<Reply> {
    let created = file.was_created() || r.flags.has(OpenFlags::TMPFILE);
    let inserted = (|| -> Result<_> {
        let mut text = KVVec::with_capacity(found.text.len(), GFP_KERNEL)?;
        text.extend_from_slice(&found.text, GFP_KERNEL)?;
        let open = OpenFile::new(
            ctx.session,
            node.clone(),
            file,
            end,
            text,
            found.rule,
            &ctx.policy,
        )?;
        let id = ctx.session.files.insert(&open)?;
        Ok((open, id))
    })();
    // A node that the client does not get to know of must not stay.
    let (open, id) = inserted.inspect_err(|_| ctx.session.nodes.trim(node.id))?;
    let result = ctx
        .session
        .nodes
        .opened(node.id, id)
        .and_then(|()| answer(ctx, r, &open, id, created));
    if result.is_err() {
        // The client will not know the id.
        ctx.session.files.remove(id);
        ctx.session.nodes.closed(node.id, id);
    }
    result
}

fn answer(
    ctx: &mut Context<'_>,
    r: &Open<'_>,
    open: &Arc<OpenFile>,
    id: FileId,
    created: bool,
) -> Result<Reply> {
    let path = open.file().path();
    let class = class::of(path.magic());
    let want = match ctx.session.budget.is_crowded() {
        // The client can ask for it.
        true => 0,
        false => usize::try_from(r.want)?
            .min(MAX_WANT)
            .min(ctx.session.max_data()),
    };
    let mut end = false;
    let mut data = Pages::new();
    if want > 0 && path.is_dir() && r.flags.has(OpenFlags::LIST) {
        // What fails here fails again when the client asks for it.
        if let Ok((pages, eof)) = dirents::list(ctx, open, 0, want, ReaddirFlags::PLUS) {
            data = pages;
            end = eof;
        }
    } else if want > 0 && class != FsClass::Regular && is_read_ahead(open, &path) {
        if let Ok((pages, eof)) = read_ahead(ctx, open, want) {
            data = pages;
            end = eof;
        }
    }
    let attr = ctx.attr_of(&open.node, &path)?;
    let flags = Opened::OPENED
        .with_if(created, Opened::CREATED)
        .with_if(end, Opened::EOF)
        .with_if(!open.is_cached(), Opened::STREAM)
        .with_if(!open.has_partner(), Opened::ALONE)
        .with_if(open.file().can_poll(), Opened::POLL);
    ctx.reply_with(
        &OpenReply {
            file: id,
            opened: flags,
            attr,
        },
        data,
    )
}

/// See [`Poll`].
pub(crate) fn poll(ctx: &mut Context<'_>, r: &Poll) -> Result<Reply> {
    let file = ctx.file(r.file, false)?;
    let ready = file.poll(r.watch, r.wake)?;
    let queued = file.file().queued();
    ctx.reply(&PollReply { ready, queued })
}

/// Whether contents that are made at read time may be made now.
fn is_read_ahead(open: &OpenFile, path: &local::Path) -> bool {
    let file = open.file();
    path.is_regular() && file.is_readable() && !file.is_writable() && file.may_be_read_ahead()
}

/// Makes one read of `want` bytes at the start, and another one behind them that tells whether that
/// is all.
fn read_ahead(ctx: &mut Context<'_>, open: &OpenFile, want: usize) -> Result<(Pages, bool)> {
    let data = data::read_pages(ctx, open, 0, want, ReadHow::default())?;
    let len = data.len();
    let end = len == 0
        || len < want
            && data::read_pages(ctx, open, len as u64, want - len, ReadHow::default())
                .is_ok_and(|rest| rest.is_empty());
    Ok((data, end))
}
