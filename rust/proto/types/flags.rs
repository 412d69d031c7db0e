// SPDX-License-Identifier: GPL-2.0

//! Sets of bits.

use crate::wire::{Decode, Encode, Error, Reader, Result, Writer};

macro_rules! flags {
    ($( $(#[$meta:meta])* $name:ident($what:literal) { $( $(#[$fmeta:meta])* $flag:ident = $bit:literal, )* } )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(u32);

        impl $name {
            $( $(#[$fmeta])* pub const $flag: Self = Self(1 << $bit); )*
            /// No bit.
            pub const NONE: Self = Self(0);
            /// All bits that are defined.
            pub const ALL: Self = Self($( (1 << $bit) | )* 0);

            /// Whether every bit of `other` is set.
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Both sets of bits.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// `other`'s bits as well when `on`.
            #[must_use]
            pub const fn with_if(self, on: bool, other: Self) -> Self {
                if on { self.with(other) } else { self }
            }

            /// These bits without `other`'s.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// The bits as a number.
            pub const fn bits(self) -> u32 {
                self.0
            }

            /// The bits of a number, if all are defined.
            pub const fn from_bits(bits: u32) -> Option<Self> {
                if bits & !Self::ALL.0 == 0 { Some(Self(bits)) } else { None }
            }
        }

        impl Encode for $name {
            fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
                w.put(&self.0)
            }
        }

        impl Decode<'_> for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self> {
                Self::from_bits(r.get()?).ok_or(Error::Invalid($what))
            }
        }
    )* };
}

flags! {
    /// How a file is opened; the numbers of `O_*` differ between architectures, these do not.
    OpenFlags("open flags") {
        /// For reading.
        READ = 0,
        /// For writing.
        WRITE = 1,
        /// Every write goes to the end (`O_APPEND`).
        APPEND = 2,
        /// Make the file when the name does not exist (`O_CREAT`).
        CREATE = 3,
        /// Fail when the name exists (`O_EXCL`).
        EXCL = 4,
        /// Cut to length 0 (`O_TRUNC`).
        TRUNC = 5,
        /// Fail when it is no directory (`O_DIRECTORY`).
        DIRECTORY = 6,
        /// Do not wait (`O_NONBLOCK`).
        NONBLOCK = 7,
        /// Writes reach the disk before they return (`O_SYNC`).
        SYNC = 8,
        /// Written data reaches the disk before the write returns (`O_DSYNC`).
        DSYNC = 9,
        /// Reads leave the access time alone (`O_NOATIME`).
        NOATIME = 10,
        /// A nameless file in the directory (`O_TMPFILE`).
        TMPFILE = 11,
        /// To be executed: the caller needs execute permission (`FMODE_EXEC`).
        EXEC = 12,
        /// The client is about to list the directory: READDIR entries may come with the reply.
        LIST = 13,
    }

    /// What an OPEN reply says of the file.
    Opened("open reply") {
        /// The object is open; without it the name was found but is no regular file or directory,
        /// and only attributes are returned. A FIFO is opened when its node is named.
        OPENED = 0,
        /// The call made the file.
        CREATED = 1,
        /// The data section reaches the end of the file or directory.
        EOF = 2,
        /// Contents are made at read time: no page cache, sizes mean nothing.
        STREAM = 3,
        /// POLL says something else than "always ready".
        POLL = 4,
        /// It is a FIFO, and nobody has opened the other end yet; POLL says MSG once somebody has.
        ALONE = 5,
    }

    /// What an open file is ready for; the numbers of `POLL*` differ between architectures, these
    /// do not.
    PollEvents("poll events") {
        /// `POLLIN`
        IN = 0,
        /// `POLLPRI`
        PRI = 1,
        /// `POLLOUT`
        OUT = 2,
        /// `POLLERR`
        ERR = 3,
        /// `POLLHUP`
        HUP = 4,
        /// `POLLNVAL`
        NVAL = 5,
        /// `POLLRDNORM`
        RDNORM = 6,
        /// `POLLRDBAND`
        RDBAND = 7,
        /// `POLLWRNORM`
        WRNORM = 8,
        /// `POLLWRBAND`
        WRBAND = 9,
        /// `POLLMSG`
        MSG = 10,
        /// `POLLRDHUP`
        RDHUP = 13,
    }

    /// How LOOKUP treats the directory.
    LookupFlags("lookup flags") {
        /// Find the directory by its identity when it is not where it was, and take its new place
        /// as the one that it is found at from now on.
        REBIND = 0,
    }

    /// Which fields of SETATTR are meant; where time fields are not given, `*_NOW` is HOST's now.
    SetattrValid("setattr fields") {
        /// `mode`.
        MODE = 0,
        /// `uid`.
        UID = 1,
        /// `gid`.
        GID = 2,
        /// `size`.
        SIZE = 3,
        /// `atime`.
        ATIME = 4,
        /// `mtime`.
        MTIME = 5,
        /// The access time becomes now.
        ATIME_NOW = 6,
        /// The modification time becomes now.
        MTIME_NOW = 7,
        /// Remove the set-user-id bit.
        KILL_SUID = 8,
        /// Remove the set-group-id bit.
        KILL_SGID = 9,
        /// Remove file capabilities.
        KILL_PRIV = 10,
        /// The size changes because of `open(O_TRUNC)`.
        OPEN = 11,
    }

    /// What ACCESS asks for, as `access(2)`.
    AccessMask("access mask") {
        /// Execute or search.
        EXEC = 0,
        /// Write.
        WRITE = 1,
        /// Read.
        READ = 2,
        /// `chdir(2)`.
        CHDIR = 3,
    }

    /// How WRITE writes.
    WriteFlags("write flags") {
        /// At the end of the file, wherever that is; the reply tells where.
        APPEND = 0,
        /// Data and what is needed to find it are on disk before the reply (`O_DSYNC`).
        DSYNC = 1,
        /// As `DSYNC`, with all attributes (`O_SYNC`).
        SYNC = 2,
        /// Written back from the page cache: permission was checked when the page was dirtied.
        WRITEBACK = 3,
        /// Remove set-id bits and file capabilities.
        KILL_PRIV = 4,
        /// Close the file, as RELEASE does, when all is written.
        CLOSE = 5,
    }

    /// How READDIR lists.
    ReaddirFlags("readdir flags") {
        /// With attributes.
        PLUS = 0,
    }

    /// What UNLINK removes.
    UnlinkFlags("unlink flags") {
        /// A directory (`rmdir(2)`).
        DIRECTORY = 0,
    }

    /// `renameat2(2)` flags.
    RenameFlags("rename flags") {
        /// Fail when the new name exists.
        NOREPLACE = 0,
        /// Exchange the two.
        EXCHANGE = 1,
        /// Leave a whiteout behind.
        WHITEOUT = 2,
    }

    /// `setxattr(2)` flags.
    XattrFlags("xattr flags") {
        /// Fail when it exists.
        CREATE = 0,
        /// Fail when it does not exist.
        REPLACE = 1,
    }

    /// How LOCK locks.
    LockFlags("lock flags") {
        /// Wait until the lock can be had.
        WAIT = 0,
        /// A BSD lock (`flock(2)`) on the whole file.
        FLOCK = 1,
        /// An open-file-description lock (`F_OFD_SETLK`).
        OFD = 2,
        /// Taken again after the server lost it.
        RECLAIM = 3,
    }

    /// What is told of an inode that is watched; the bits are those of `inotify(7)`.
    NotifyMask("notify mask") {
        /// It was read.
        ACCESS = 0,
        /// It was written.
        MODIFY = 1,
        /// Its attributes were changed.
        ATTRIB = 2,
        /// It was closed by who could write it.
        CLOSE_WRITE = 3,
        /// It was closed by who could only read it.
        CLOSE_NOWRITE = 4,
        /// It was opened.
        OPEN = 5,
        /// An entry was moved away.
        MOVED_FROM = 6,
        /// An entry was moved here.
        MOVED_TO = 7,
        /// An entry was made.
        CREATE = 8,
        /// An entry was removed.
        DELETE = 9,
        /// It was removed itself.
        DELETE_SELF = 10,
        /// It was moved itself.
        MOVE_SELF = 11,
        /// Its file system was unmounted.
        UNMOUNT = 13,
        /// More happened than can be told.
        OVERFLOW = 14,
        /// In a request: besides what is asked for already.
        MASK_ADD = 29,
        /// It happened to a directory.
        ISDIR = 30,
    }

    /// How RECEIVE takes.
    ReceiveFlags("receive flags") {
        /// Wait until there is something, or it is the end.
        WAIT = 0,
    }

    /// How COPY copies.
    CopyFlags("copy flags") {
        /// Share extents instead of copying (`FICLONERANGE`).
        CLONE = 0,
        /// Share extents only where contents are equal (`FIDEDUPERANGE`).
        DEDUPE = 1,
        /// A shorter copy is fine.
        CAN_SHORTEN = 2,
    }

    /// How READ reads.
    ReadFlags("read flags") {
        /// Do not wait (`IOCB_NOWAIT`, `O_NONBLOCK`).
        NONBLOCK = 0,
        /// Past HOST's page cache where the file system can (`O_DIRECT`).
        DIRECT = 1,
    }

    /// Facts about an object in [`crate::Attr`].
    AttrFlags("attr flags") {
        /// It has no extended attributes at all.
        NO_XATTR = 0,
        /// It is the root of a mount on HOST.
        MOUNT_ROOT = 1,
        /// Contents are made at read time: no page cache, sizes mean nothing.
        STREAM = 2,
        /// A symlink of procfs to an object itself, whose text is for people: only HOST can follow
        /// it.
        MAGIC_LINK = 3,
    }
}
