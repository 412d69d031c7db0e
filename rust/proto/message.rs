// SPDX-License-Identifier: GPL-2.0

//! The table of messages: one row each.
//!
//! A row reads `opcode NAME Request => Reply, repetition { request fields } { reply fields }`.
//! Repetition is what the server does with a request that comes again after a reconnect: `once`
//! keeps the first reply and sends it again, `again` executes anew.

use crate::{
    attr::Attr,
    relay::{Purpose, SocketType},
    types::*,
    wire::{Decode, Encode, Error, Reader, Result},
    wire_struct,
};

/// A request and the type of its reply.
pub trait Call: Encode {
    /// The opcode.
    const OP: Op;
    /// What the server answers.
    type Reply<'r>: Decode<'r> + Encode;
}

macro_rules! repetition {
    (once) => {
        false
    };
    (again) => {
        true
    };
}

macro_rules! messages {
    ($(
        $(#[$meta:meta])*
        $num:literal $op:ident $req:ident $(<$lt:lifetime>)? => $rep:ident $(<$rlt:lifetime>)?, $again:ident
        { $( $(#[$fmeta:meta])* $field:ident: $ty:ty, )* }
        { $( $(#[$rmeta:meta])* $rfield:ident: $rty:ty, )* }
    )*) => {
        /// Opcodes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Op {
            $( #[doc = concat!("See [`", stringify!($req), "`].")] $req = $num, )*
        }

        impl Op {
            /// All opcodes in order.
            pub const ALL: &'static [Self] = &[$( Self::$req, )*];

            /// Name in logs and counters.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$req => stringify!($op), )* }
            }

            /// Whether a request that comes again after a reconnect may be executed again.
            pub const fn repeatable(self) -> bool {
                match self { $( Self::$req => repetition!($again), )* }
            }
        }

        impl TryFrom<u8> for Op {
            type Error = Error;

            fn try_from(value: u8) -> Result<Self> {
                match value {
                    $( $num => Ok(Self::$req), )*
                    _ => Err(Error::Invalid("opcode")),
                }
            }
        }

        /// A decoded request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Request<'a> {
            $( #[doc = concat!("See [`", stringify!($req), "`].")] $req($req $(<$lt>)?), )*
        }

        impl<'a> Request<'a> {
            /// Reads the body of a request; bytes left over are an error.
            pub fn decode(op: Op, body: &'a [u8]) -> Result<Self> {
                let mut r = Reader::new(body);
                let request = match op { $( Op::$req => Self::$req(r.get()?), )* };
                r.finish()?;
                Ok(request)
            }

            /// The opcode.
            pub const fn op(&self) -> Op {
                match self { $( Self::$req(_) => Op::$req, )* }
            }
        }

        /// A decoded reply.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Answer<'a> {
            $( #[doc = concat!("See [`", stringify!($req), "`].")] $req($rep $(<$rlt>)?), )*
        }

        impl<'a> Answer<'a> {
            /// Reads the body of a reply to a request with the opcode `op`; bytes left over are an
            /// error.
            pub fn decode(op: Op, body: &'a [u8]) -> Result<Self> {
                let mut r = Reader::new(body);
                let answer = match op { $( Op::$req => Self::$req(r.get()?), )* };
                r.finish()?;
                Ok(answer)
            }
        }

        wire_struct! { $(
            $(#[$meta])*
            $req $(<$lt>)? { $( $(#[$fmeta])* $field: $ty, )* }

            #[doc = concat!("Reply to [`", stringify!($req), "`].")]
            $rep $(<$rlt>)? { $( $(#[$rmeta])* $rfield: $rty, )* }
        )* }

        $( messages!(@call $req $(<$lt>)? => $rep $(<$rlt>)?); )*

        /// Calls `$f!(Request Reply)` for every row; for tests that must not miss one.
        #[macro_export]
        macro_rules! for_each_message {
            ($f:ident) => { $( $f!($req $rep); )* };
        }
    };
    (@call $req:ident => $rep:ident) => {
        impl Call for $req {
            const OP: Op = Op::$req;
            type Reply<'r> = $rep;
        }
    };
    (@call $req:ident<'a> => $rep:ident) => {
        impl Call for $req<'_> {
            const OP: Op = Op::$req;
            type Reply<'r> = $rep;
        }
    };
    (@call $req:ident => $rep:ident<'a>) => {
        impl Call for $req {
            const OP: Op = Op::$req;
            type Reply<'r> = $rep<'r>;
        }
    };
    (@call $req:ident<'a> => $rep:ident<'a>) => {
        impl Call for $req<'_> {
            const OP: Op = Op::$req;
            type Reply<'r> = $rep<'r>;
        }
    };
}

/// Reads the body of a reply to `C`; bytes left over are an error.
pub fn decode_reply<C: Call>(body: &[u8]) -> Result<C::Reply<'_>> {
    let mut r = Reader::new(body);
    let reply = r.get()?;
    r.finish()?;
    Ok(reply)
}

messages! {
    /// First message on every connection: makes a session, or adds the connection to one.
    1 HELLO Hello<'a> => HelloReply, again
    {
        /// [`crate::MAGIC`].
        magic: u32,
        /// Lowest version that the client speaks.
        version_min: u16,
        /// Highest version that the client speaks.
        version_max: u16,
        /// Features that the client has; none are defined in version 1.
        features: u64,
        /// Longest data section that the client sends and takes, in bytes.
        max_data: u32,
        /// Slots that the client would like.
        slots: u16,
        /// Number of this connection in the session, from 0.
        lane: u16,
        /// Session to join; all 0 makes a new one.
        session: [u8; 16],
        /// The machine, so that its sessions of before are ended when it was started anew; all 0 is
        /// unknown. `qtfs.ko`: the hardware address that it is connected from.
        machine: [u8; 16],
        /// Chosen at random when the client was started: sessions of the same machine and address
        /// with another one have no client any more.
        instance: u64,
        /// Name of the client, for logs.
        client: Bytes<'a>,
    }
    {
        /// Lowest version that the server speaks.
        version_min: u16,
        /// Highest version that the server speaks.
        version_max: u16,
        /// The version of this session; 0 when there is none that both speak.
        version: u16,
        /// Features of this session.
        features: u64,
        /// Longest data section of this session, in bytes.
        max_data: u32,
        /// Slots of this session.
        slots: u16,
        /// The session. When it is not the one asked for, that one is gone with all its nodes and
        /// open files.
        session: [u8; 16],
        /// How long the server keeps a session without connections, in milliseconds.
        ttl: u32,
        /// A number that is another one after HOST was booted again: what was not on its disk by
        /// then is lost.
        boot: u64,
    }

    /// Registers a caller's identity; index 0 is root with all capabilities from the start.
    2 CREDENTIAL Credential<'a> => CredentialReply, again
    {
        /// Index that requests use from now on.
        index: u32,
        /// File system user id.
        uid: u32,
        /// File system group id.
        gid: u32,
        /// Those of [`crate::CAPABILITIES`] that the caller has.
        caps: u64,
        /// Supplementary groups.
        groups: List<'a, u32>,
    }
    {}

    /// Finds an exported directory by its path on HOST.
    3 ATTACH Attach<'a> => AttachReply, again
    {
        /// Absolute path.
        path: Path<'a>,
    }
    {
        /// The directory.
        attr: Attr,
        /// 1 when the policy allows reading only.
        read_only: u8,
    }

    /// Proves that the other end lives.
    4 PING Ping => PingReply, again {} {}

    /// Closes files and forgets nodes.
    5 RELEASE Release<'a> => ReleaseReply, once
    {
        /// Files to close.
        files: List<'a, FileId>,
        /// Nodes to forget.
        nodes: List<'a, Forget>,
    }
    {}

    /// Finds a name.
    6 LOOKUP Lookup<'a> => LookupReply, again
    {
        /// Directory.
        dir: NodeId,
        /// Name in it.
        name: Name<'a>,
        /// How.
        flags: LookupFlags,
    }
    {
        /// What the name leads to.
        attr: Attr,
    }

    /// Finds an object again after the server lost the session.
    7 WALK Walk<'a> => WalkReply, again
    {
        /// Directory to start from, as ATTACH gave it.
        root: NodeId,
        /// Path relative to it, without symlinks and `..`.
        path: Path<'a>,
    }
    {
        /// What the path leads to.
        attr: Attr,
    }

    /// Attributes.
    8 GETATTR Getattr<'a> => GetattrReply, again
    {
        /// The object.
        target: Target<'a>,
        /// An open file of it, or none.
        file: FileId,
    }
    {
        /// Attributes.
        attr: Attr,
    }

    /// Changes attributes, as `notify_change`.
    9 SETATTR Setattr<'a> => SetattrReply, once
    {
        /// The object.
        target: Target<'a>,
        /// The open file that `ftruncate(2)` was called with, or none.
        file: FileId,
        /// Which of the fields below are meant.
        valid: SetattrValid,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Size in bytes.
        size: u64,
        /// Access time.
        atime: Time,
        /// Modification time.
        mtime: Time,
    }
    {
        /// Attributes afterwards.
        attr: Attr,
    }

    /// Asks whether the caller may; EACCES if not.
    10 ACCESS Access<'a> => AccessReply, again
    {
        /// The object.
        target: Target<'a>,
        /// What for.
        mask: AccessMask,
    }
    {}

    /// Finds, makes and opens in one step; the data section has the first bytes or entries.
    11 OPEN Open<'a> => OpenReply, once
    {
        /// The object; for TMPFILE the directory.
        target: Target<'a>,
        /// How.
        flags: OpenFlags,
        /// Permission bits of a new file.
        mode: u32,
        /// The caller's umask.
        umask: u32,
        /// How many bytes of contents or entries may come with the reply.
        want: u32,
    }
    {
        /// The open file; none when `opened` says that it is not open.
        file: FileId,
        /// What happened.
        opened: Opened,
        /// Attributes.
        attr: Attr,
    }

    /// Reads; the data section has the contents.
    12 READ Read => ReadReply, again
    {
        /// The open file.
        file: FileId,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        len: u32,
        /// How.
        flags: ReadFlags,
    }
    {
        /// Attributes afterwards.
        attr: Attr,
    }

    /// Writes the data section.
    13 WRITE Write => WriteReply, once
    {
        /// The open file.
        file: FileId,
        /// Where, in bytes; meaningless with APPEND.
        offset: u64,
        /// How.
        flags: WriteFlags,
    }
    {
        /// How many bytes were written.
        written: u32,
        /// Where they were written.
        offset: u64,
        /// Attributes afterwards.
        attr: Attr,
    }

    /// Puts written data on HOST's disk. An error is told once, so a second attempt would succeed.
    14 FSYNC Fsync => FsyncReply, once
    {
        /// The open file.
        file: FileId,
        /// 1 for `fdatasync(2)`.
        datasync: u8,
        /// First byte.
        start: u64,
        /// Last byte.
        end: u64,
    }
    {}

    /// Lists; the data section has the entries, see [`crate::dirent`].
    15 READDIR Readdir => ReaddirReply, again
    {
        /// The open directory.
        file: FileId,
        /// Where to start: 0, or `next` of an entry.
        cookie: u64,
        /// How many bytes of entries at most.
        want: u32,
        /// How.
        flags: ReaddirFlags,
    }
    {
        /// 1 when the last entry is among them.
        eof: u8,
    }

    /// Makes a directory.
    16 MKDIR Mkdir<'a> => MkdirReply, once
    {
        /// Where.
        dir: NodeId,
        /// Its name.
        name: Name<'a>,
        /// Permission bits.
        mode: u32,
        /// The caller's umask.
        umask: u32,
    }
    {
        /// The new directory.
        attr: Attr,
    }

    /// Makes a FIFO, socket, device node, whiteout or empty file.
    17 MKNOD Mknod<'a> => MknodReply, once
    {
        /// Where.
        dir: NodeId,
        /// Its name.
        name: Name<'a>,
        /// Type and permission bits.
        mode: u32,
        /// The caller's umask.
        umask: u32,
        /// Device number: major.
        rdev_major: u32,
        /// Device number: minor.
        rdev_minor: u32,
    }
    {
        /// The new object.
        attr: Attr,
    }

    /// Makes a symlink.
    18 SYMLINK Symlink<'a> => SymlinkReply, once
    {
        /// Where.
        dir: NodeId,
        /// Its name.
        name: Name<'a>,
        /// What it says.
        text: Path<'a>,
    }
    {
        /// The new symlink.
        attr: Attr,
    }

    /// Makes a hard link.
    19 LINK Link<'a> => LinkReply, once
    {
        /// The object.
        target: Target<'a>,
        /// Directory of the new name.
        dir: NodeId,
        /// The new name.
        name: Name<'a>,
    }
    {
        /// The object.
        attr: Attr,
    }

    /// Removes a name.
    20 UNLINK Unlink<'a> => UnlinkReply, once
    {
        /// Where.
        dir: NodeId,
        /// The name.
        name: Name<'a>,
        /// What.
        flags: UnlinkFlags,
    }
    {
        /// Number of hard links that the object has left.
        nlink: u32,
    }

    /// Renames or exchanges.
    21 RENAME Rename<'a> => RenameReply, once
    {
        /// Old directory.
        dir: NodeId,
        /// Old name.
        name: Name<'a>,
        /// New directory.
        new_dir: NodeId,
        /// New name.
        new_name: Name<'a>,
        /// How.
        flags: RenameFlags,
    }
    {}

    /// What a symlink says.
    22 READLINK Readlink<'a> => ReadlinkReply<'a>, again
    {
        /// The symlink.
        target: Target<'a>,
    }
    {
        /// Its text, unmodified.
        text: Path<'a>,
    }

    /// Numbers of the file system, as `statfs(2)`.
    23 STATFS Statfs<'a> => StatfsReply, again
    {
        /// An object on it.
        target: Target<'a>,
    }
    {
        /// `f_type`.
        kind: u64,
        /// `f_bsize` in bytes.
        bsize: u32,
        /// `f_frsize` in bytes.
        frsize: u32,
        /// Blocks of `frsize`.
        blocks: u64,
        /// Free ones.
        bfree: u64,
        /// Free for ordinary users.
        bavail: u64,
        /// Inodes.
        files: u64,
        /// Free ones.
        ffree: u64,
        /// `f_fsid`.
        fsid: u64,
        /// Longest name in bytes.
        namelen: u32,
        /// `ST_*` mount flags of HOST's mount.
        flags: u32,
    }

    /// Value of an extended attribute.
    24 GETXATTR Getxattr<'a> => GetxattrReply<'a>, again
    {
        /// The object.
        target: Target<'a>,
        /// Full name.
        name: XattrName<'a>,
        /// Longest value that the caller takes; 0 asks for the length only.
        max: u32,
    }
    {
        /// Length of the value in bytes.
        len: u32,
        /// The value, empty when only the length was asked for.
        value: Bytes<'a>,
    }

    /// Sets an extended attribute.
    25 SETXATTR Setxattr<'a> => SetxattrReply, once
    {
        /// The object.
        target: Target<'a>,
        /// Full name.
        name: XattrName<'a>,
        /// Value.
        value: Bytes<'a>,
        /// How.
        flags: XattrFlags,
    }
    {}

    /// Removes an extended attribute.
    26 REMOVEXATTR Removexattr<'a> => RemovexattrReply, once
    {
        /// The object.
        target: Target<'a>,
        /// Full name.
        name: XattrName<'a>,
    }
    {}

    /// Names of extended attributes.
    27 LISTXATTR Listxattr<'a> => ListxattrReply<'a>, again
    {
        /// The object.
        target: Target<'a>,
        /// Longest list that the caller takes; 0 asks for the length only.
        max: u32,
    }
    {
        /// Length of the list in bytes.
        len: u32,
        /// Names, each ended by NUL; empty when only the length was asked for.
        names: Bytes<'a>,
    }

    /// Takes or releases a lock.
    28 LOCK Lock => LockReply, once
    {
        /// The open file.
        file: FileId,
        /// Who, within the session.
        owner: u64,
        /// Process, for those who ask who holds it.
        pid: u32,
        /// What.
        kind: LockType,
        /// First byte.
        start: u64,
        /// Last byte.
        end: u64,
        /// How.
        flags: LockFlags,
    }
    {
        /// Attributes afterwards.
        attr: Attr,
    }

    /// Who holds a lock that conflicts with this one (`F_GETLK`).
    29 TESTLOCK Testlock => TestlockReply, again
    {
        /// The open file.
        file: FileId,
        /// Who, within the session.
        owner: u64,
        /// What.
        kind: LockType,
        /// First byte.
        start: u64,
        /// Last byte.
        end: u64,
        /// How.
        flags: LockFlags,
    }
    {
        /// Type of the lock that is in the way; `Unlock` when there is none.
        kind: LockType,
        /// Its first byte.
        start: u64,
        /// Its last byte.
        end: u64,
        /// Its process on HOST, or on the client that holds it.
        pid: u32,
    }

    /// `fallocate(2)`.
    30 FALLOCATE Fallocate => FallocateReply, once
    {
        /// The open file.
        file: FileId,
        /// `FALLOC_FL_*`.
        mode: u32,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    }
    {
        /// Attributes afterwards.
        attr: Attr,
    }

    /// `SEEK_DATA` and `SEEK_HOLE`.
    31 SEEK Seek => SeekReply, again
    {
        /// The open file.
        file: FileId,
        /// Where to start.
        offset: u64,
        /// 1 for a hole, 0 for data.
        hole: u8,
    }
    {
        /// Where it is.
        offset: u64,
    }

    /// Copies or shares a range on HOST.
    32 COPY Copy => CopyReply, once
    {
        /// File to read.
        source: FileId,
        /// Where.
        source_offset: u64,
        /// File to write.
        dest: FileId,
        /// Where.
        dest_offset: u64,
        /// Bytes.
        len: u64,
        /// How.
        flags: CopyFlags,
    }
    {
        /// Bytes that were copied or shared.
        copied: u64,
        /// Attributes of `dest` afterwards.
        attr: Attr,
    }

    /// Inode flags, as `FS_IOC_FSGETXATTR`.
    33 GETFLAGS Getflags<'a> => GetflagsReply, again
    {
        /// The object.
        target: Target<'a>,
    }
    {
        /// Flags.
        flags: InodeFlags,
    }

    /// Sets inode flags, as `FS_IOC_FSSETXATTR`.
    34 SETFLAGS Setflags<'a> => SetflagsReply, once
    {
        /// The object.
        target: Target<'a>,
        /// Flags.
        flags: InodeFlags,
    }
    {}

    /// Puts the whole file system on HOST's disk. As with FSYNC an error is told once.
    35 SYNCFS Syncfs => SyncfsReply, once
    {
        /// An object on it.
        node: NodeId,
    }
    {}

    /// What an open file is ready for, as `poll(2)`. Some files tell of a change once only.
    36 POLL Poll => PollReply, once
    {
        /// The file.
        file: FileId,
        /// What the client calls it in [`crate::event::Wake`].
        watch: u64,
        /// Of what the client wants to be told; each once, then it asks again.
        wake: PollEvents,
    }
    {
        /// All that it is ready for.
        ready: PollEvents,
        /// How many bytes a FIFO has.
        queued: u32,
    }

    /// Takes out of a FIFO what it has; the data section has it, none at its end. Fails with EAGAIN
    /// when there is nothing, also if it was to wait but too many do.
    37 RECEIVE Receive => ReceiveReply, once
    {
        /// The open file.
        file: FileId,
        /// How many bytes at most.
        len: u32,
        /// How.
        flags: ReceiveFlags,
    }
    {}

    /// Opens a channel to engine, whose messages RECEIVE takes one at a time; see [`crate::relay`].
    38 CHANNEL Channel<'a> => ChannelReply, once
    {
        /// The socket that it is about; for what needs no file of HOST, one that there is a channel
        /// about.
        target: Target<'a>,
        /// What it is for.
        purpose: Purpose,
        /// Type of the sockets that it connects; of no meaning where it does not say that.
        kind: SocketType,
        /// What engine or the client has offered under it, or 0.
        token: u64,
        /// The open file that is passed, or none.
        file: FileId,
    }
    {
        /// The channel.
        file: FileId,
    }

    /// Puts the data section into a channel, as one message. EAGAIN: there is no room, which the
    /// other end's window should have told.
    39 SEND Send => SendReply, once
    {
        /// The channel.
        file: FileId,
    }
    {}

    /// Tells of what happens to an object from now on, with events of the kind NOTIFIED. Replaces
    /// what was asked for by the same number, or adds to it.
    40 NOTIFY Notify => NotifyReply, again
    {
        /// The object; anything when nothing is to be told any more.
        node: NodeId,
        /// What the client calls it.
        watch: u64,
        /// Of what; nothing ends it. With MASK_ADD it does not matter in which order requests
        /// are executed.
        mask: NotifyMask,
    }
    {}
}

wire_struct! {
    /// Inode flags, as `struct file_kattr`.
    InodeFlags {
        /// `FS_*_FL`.
        flags: u32,
        /// `FS_XFLAG_*`.
        xflags: u32,
        /// Extent size hint in bytes.
        extsize: u32,
        /// Project id.
        projid: u32,
        /// Copy-on-write extent size hint in bytes.
        cowextsize: u32,
        /// 1: `flags` are meant; 0: the `xflags` and the rest.
        flags_valid: u8,
    }
}

impl InodeFlags {
    /// `FS_XFLAG_IMMUTABLE`; the kernel derives it from `flags` too.
    pub fn is_immutable(&self) -> bool {
        self.xflags & 0x8 != 0
    }

    /// `FS_XFLAG_APPEND`.
    pub fn is_append_only(&self) -> bool {
        self.xflags & 0x10 != 0
    }
}
