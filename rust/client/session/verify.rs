// SPDX-License-Identifier: GPL-2.0

//! What a reply may say, beyond what its encoding allows. The kernel takes it for granted, and so does
//! whoever gets the reply.

use kernel::prelude::*;
use qtfs_proto::{
    message::{
        Answer,
        AttachReply,
        CopyReply,
        FallocateReply,
        GetattrReply,
        LinkReply,
        LockReply,
        LookupReply,
        MkdirReply,
        MknodReply,
        Open,
        OpenReply,
        ReadReply,
        SetattrReply,
        SymlinkReply,
        TestlockReply,
        WalkReply,
        WriteReply, //
    },
    Attr,
    AttrFlags,
    FileId,
    LockType,
    Op,
    OpenFlags,
    Opened,
    Request as Message,
    XATTR_MAX, //
};
use qtfs_vfs::flags::kind;

use crate::{
    mount::S_IFMT,
    own, //
};

/// What is wrong, for the log.
type Verdict = Result<(), &'static str>;

/// Says what is wrong unless something holds.
fn holds(condition: bool, what: &'static str) -> Verdict {
    condition.then_some(()).ok_or(what)
}

/// Checks the body of a reply that tells of success; `asked` is that of the request.
pub(super) fn check(op: Op, asked: &[u8], body: &[u8]) -> Verdict {
    let answer = Answer::decode(op, body).map_err(|_| "a reply cannot be read")?;
    if let Some(told) = attributes_of(&answer) {
        attributes(told)?;
    }
    match (&answer, Message::decode(op, asked)) {
        (Answer::Open(told), Ok(Message::Open(asked))) => opened(&asked, told),
        (Answer::Getxattr(told), Ok(Message::Getxattr(asked))) => {
            lengths(told.len, told.value.bytes(), asked.max)
        }
        (Answer::Listxattr(told), Ok(Message::Listxattr(asked))) => {
            lengths(told.len, told.names.bytes(), asked.max)?;
            names(told.names.bytes())
        }
        (
            Answer::Testlock(TestlockReply {
                kind, start, end, ..
            }),
            _,
        ) => holds(
            *kind == LockType::Unlock || start <= end,
            "a lock ends before it begins",
        ),
        _ => Ok(()),
    }
}

fn attributes_of<'a>(answer: &'a Answer<'_>) -> Option<&'a Attr> {
    match answer {
        Answer::Attach(AttachReply { attr, .. })
        | Answer::Lookup(LookupReply { attr })
        | Answer::Walk(WalkReply { attr })
        | Answer::Getattr(GetattrReply { attr })
        | Answer::Setattr(SetattrReply { attr })
        | Answer::Open(OpenReply { attr, .. })
        | Answer::Read(ReadReply { attr })
        | Answer::Write(WriteReply { attr, .. })
        | Answer::Mkdir(MkdirReply { attr })
        | Answer::Mknod(MknodReply { attr })
        | Answer::Symlink(SymlinkReply { attr })
        | Answer::Link(LinkReply { attr })
        | Answer::Lock(LockReply { attr })
        | Answer::Fallocate(FallocateReply { attr })
        | Answer::Copy(CopyReply { attr, .. }) => Some(attr),
        _ => None,
    }
}

/// Checks the attributes of an object.
pub(crate) fn attributes(attr: &Attr) -> Verdict {
    let is_magic = attr.flags.has(AttrFlags::MAGIC_LINK);
    let told = attr.mode & S_IFMT;
    holds(kind::ALL.contains(&told), "an object has no type")?;
    holds(
        !own::is_own(attr.dev),
        "an object is where only the client's are",
    )?;
    holds(i64::try_from(attr.size).is_ok(), "an object is too large")?;
    holds(
        !is_magic || told == kind::SYMLINK,
        "what is no symlink leads somewhere",
    )
}

/// Checks what came of an OPEN.
fn opened(asked: &Open<'_>, told: &OpenReply) -> Verdict {
    let (opened, told_kind) = (told.opened, told.attr.mode & S_IFMT);
    let is_open = opened.has(Opened::OPENED);
    let has = |flag| asked.flags.has(flag);
    holds(
        is_open == (told.file != FileId::NONE),
        "what is open has no number",
    )?;
    if !is_open {
        return holds(opened == Opened::NONE, "what is not open has contents");
    }
    let makes = has(OpenFlags::CREATE) || has(OpenFlags::TMPFILE);
    let is_made = opened.has(Opened::CREATED);
    let is_regular = told_kind == kind::REGULAR;
    holds(
        !is_made || (makes && is_regular),
        "something was made that nobody asked for",
    )?;
    holds(
        !has(OpenFlags::TMPFILE) || is_regular,
        "a file without a name is none",
    )?;
    match told_kind {
        kind::REGULAR | kind::FIFO => Ok(()),
        kind::DIRECTORY => holds(!has(OpenFlags::WRITE), "a directory is open for writing"),
        _ => Err("what HOST opens for nobody is open"),
    }
}

/// Checks how much there is of what a caller takes up to `max` bytes of, or none to ask how much
/// there is.
fn lengths(len: u32, bytes: &[u8], max: u32) -> Verdict {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let fits = bytes.len() <= usize::try_from(max).unwrap_or(usize::MAX);
    // How much there is may be more than anybody can get: file systems count names without end.
    let is_whole = bytes.len() == len && len <= XATTR_MAX || (max == 0 && bytes.is_empty());
    holds(
        fits && is_whole,
        "the length of an extended attribute is wrong",
    )
}

/// Checks a list of names of extended attributes.
fn names(list: &[u8]) -> Verdict {
    let Some((end, names)) = list.split_last() else {
        return Ok(());
    };
    // They may be longer than those that can be asked for: XFS puts `user.` before its own.
    let are_names = names.split(|&byte| byte == 0).all(|name| !name.is_empty());
    holds(
        *end == 0 && are_names,
        "names of extended attributes are none",
    )
}
