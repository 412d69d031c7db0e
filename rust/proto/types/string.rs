// SPDX-License-Identifier: GPL-2.0

//! Strings of bytes, each kind with its rule: names, paths.

use crate::{
    wire::{Decode, Encode, Error, Reader, Result, Writer},
    NAME_MAX, PATH_MAX,
};

macro_rules! byte_strings {
    ($( $(#[$meta:meta])* $name:ident($what:literal, $check:expr); )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name<'a>(pub(super) &'a [u8]);

        impl<'a> $name<'a> {
            /// Checks the bytes.
            pub fn new(bytes: &'a [u8]) -> Result<Self> {
                let check: fn(&[u8]) -> bool = $check;
                if check(bytes) { Ok(Self(bytes)) } else { Err(Error::Invalid($what)) }
            }

            /// The bytes, without a NUL at the end.
            pub const fn bytes(self) -> &'a [u8] {
                self.0
            }
        }

        impl Encode for $name<'_> {
            fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
                w.put(&u32::try_from(self.0.len()).map_err(|_| Error::NoSpace)?)?;
                w.put_bytes(self.0)
            }
        }

        impl<'a> Decode<'a> for $name<'a> {
            fn decode(r: &mut Reader<'a>) -> Result<Self> {
                let len = usize::try_from(r.get::<u32>()?).map_err(|_| Error::Truncated)?;
                Self::new(r.take(len)?)
            }
        }
    )* };
}

fn is_name(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.len() <= NAME_MAX
        && bytes != b"."
        && bytes != b".."
        && !bytes.iter().any(|&b| b == b'/' || b == 0)
}

byte_strings! {
    /// Name of a directory entry: 1 to 255 bytes without `/` and NUL, neither `.` nor `..`.
    Name("name", is_name);
    /// A [`Name`] or nothing.
    OptName("name", |b| b.is_empty() || is_name(b));
    /// A path or symlink target: at most 4095 bytes without NUL.
    Path("path", |b| b.len() <= PATH_MAX && !b.contains(&0));
    /// Name of an extended attribute: 1 to 255 bytes without NUL.
    XattrName("xattr name", |b| !b.is_empty() && b.len() <= NAME_MAX && !b.contains(&0));
    /// Bytes with no rule of their own.
    Bytes("bytes", |_| true);
}

impl<'a> OptName<'a> {
    /// No name.
    pub const NONE: Self = Self(b"");

    /// The name, if there is one.
    pub const fn name(self) -> Option<Name<'a>> {
        if self.0.is_empty() {
            None
        } else {
            Some(Name(self.0))
        }
    }
}
