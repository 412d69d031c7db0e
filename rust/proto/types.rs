// SPDX-License-Identifier: GPL-2.0

//! Ids, flags and small structures that messages are made of.

mod flags;
mod list;
mod string;

pub use flags::*;
pub use list::{Fixed, List};
pub use string::{Bytes, Name, OptName, Path, XattrName};

use crate::{
    wire::{Decode, Encode, Error, Reader, Result, Writer},
    wire_struct,
};

macro_rules! ids {
    ($( $(#[$meta:meta])* $name:ident; )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// No object.
            pub const NONE: Self = Self(0);

            /// Whether this names no object.
            pub const fn is_none(self) -> bool {
                self.0 == 0
            }
        }

        impl Encode for $name {
            fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
                w.put(&self.0)
            }
        }

        impl Decode<'_> for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self> {
                Ok(Self(r.get()?))
            }
        }
    )* };
}

ids! {
    /// A file system object that the client knows.
    ///
    /// Issued by the server in [`crate::Attr::node`], valid until the client forgets it or the
    /// session ends. Index and generation are the server's business.
    NodeId;
    /// An open file of the session: issued by OPEN, valid until released.
    FileId;
}

/// Kind of file system that an object lies on, which decides what may be cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FsClass {
    /// A file system with stable contents.
    Regular = 0,
    /// procfs.
    Proc = 1,
    /// sysfs, debugfs, tracefs and the like.
    Sys = 2,
    /// cgroup v2.
    Cgroup = 3,
}

impl Encode for FsClass {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.put(&(*self as u8))
    }
}

impl Decode<'_> for FsClass {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(match r.get::<u8>()? {
            0 => Self::Regular,
            1 => Self::Proc,
            2 => Self::Sys,
            3 => Self::Cgroup,
            _ => return Err(Error::Invalid("file system class")),
        })
    }
}

/// Type of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LockType {
    /// Shared.
    Read = 0,
    /// Exclusive.
    Write = 1,
    /// None: unlock, or "nobody holds one".
    Unlock = 2,
}

impl Encode for LockType {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.put(&(*self as u8))
    }
}

impl Decode<'_> for LockType {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(match r.get::<u8>()? {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Unlock,
            _ => return Err(Error::Invalid("lock type")),
        })
    }
}

/// A point in time: seconds and nanoseconds since 1970, as `struct timespec64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds, below 1 000 000 000.
    pub nsec: u32,
}

impl Encode for Time {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.put(&self.sec)?;
        w.put(&self.nsec)
    }
}

impl Decode<'_> for Time {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let this = Self {
            sec: r.get()?,
            nsec: r.get()?,
        };
        if this.nsec >= 1_000_000_000 {
            return Err(Error::Invalid("nanoseconds"));
        }
        Ok(this)
    }
}

wire_struct! {
    /// An object to act on.
    ///
    /// With a name: the object that `name` in `dir` leads to; when `node` is given it must be
    /// that one, else the answer is ESTALE. Without a name: `node`, wherever it is by now.
    Target<'a> {
        /// The object, or none when any will do.
        node: NodeId,
        /// Directory of `name`; none when there is no name.
        dir: NodeId,
        /// Name in `dir`, or nothing.
        name: OptName<'a>,
    }

    /// One object that the client forgets.
    Forget {
        /// The object.
        node: NodeId,
        /// The highest [`crate::Attr::stamp`] that the client saw of it; when the server has
        /// handed it out again since, it is kept.
        stamp: u64,
    }
}

impl<'a> Target<'a> {
    /// `node`, wherever it is.
    pub const fn node(node: NodeId) -> Self {
        Self {
            node,
            dir: NodeId::NONE,
            name: OptName(b""),
        }
    }

    /// What `name` in `dir` leads to, which must be `node` unless that is none.
    pub const fn entry(dir: NodeId, name: Name<'a>, node: NodeId) -> Self {
        Self {
            node,
            dir,
            name: OptName(name.0),
        }
    }
}
