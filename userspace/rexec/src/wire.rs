// SPDX-License-Identifier: GPL-2.0

//! Numbers and byte strings as they are on the wire: little-endian, lengths before contents.
//!
//! What the peer sent is only read through [`Reader`], which checks every length against what is
//! there. Nothing is allocated for a length that the message does not have.

use bytes::Buf;
use bytes::BufMut;
use bytes::Bytes;
use std::fmt;

/// Why bytes of the peer are no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It ends in the middle of a field.
    Short,
    /// It goes on after its last field.
    Long,
    /// A field has a value that it cannot have.
    Value(&'static str),
    /// A message of this kind (the first) cannot have this many bytes (the second).
    Size(u8, u32),
    /// There is no such kind of message.
    Kind(u8),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("a message ends in the middle of a field"),
            Self::Long => f.write_str("a message goes on after its last field"),
            Self::Value(what) => write!(f, "a message has an impossible {what}"),
            Self::Size(kind, size) => write!(
                f,
                "a message of kind {kind} has {size} bytes, which is out of bounds"
            ),
            Self::Kind(kind) => write!(f, "a message has the unknown kind {kind}"),
        }
    }
}

impl std::error::Error for Error {}

/// Takes fields from the front of a message.
#[derive(Debug)]
pub struct Reader(Bytes);

macro_rules! take {
    ($($name:ident -> $type:ty = $get:ident;)*) => {$(
        #[doc = concat!("Takes a `", stringify!($type), "`.")]
        pub fn $name(&mut self) -> Result<$type, Error> {
            self.0.$get().map_err(|_| Error::Short)
        }
    )*};
}

impl Reader {
    /// Reads the payload of one message.
    pub fn new(payload: Bytes) -> Self {
        Self(payload)
    }

    take! {
        u8 -> u8 = try_get_u8;
        u16 -> u16 = try_get_u16_le;
        u32 -> u32 = try_get_u32_le;
        u64 -> u64 = try_get_u64_le;
        i32 -> i32 = try_get_i32_le;
    }

    /// Takes a byte string, which shares the message's memory.
    pub fn bytes(&mut self) -> Result<Bytes, Error> {
        let len = usize::try_from(self.u32()?).map_err(|_| Error::Short)?;
        if len > self.0.len() {
            return Err(Error::Short);
        }
        Ok(self.0.split_to(len))
    }

    /// Takes a byte string that goes to the kernel, and so holds no zero byte.
    pub fn text(&mut self, what: &'static str) -> Result<Bytes, Error> {
        let text = self.bytes()?;
        if text.contains(&0) {
            return Err(Error::Value(what));
        }
        Ok(text)
    }

    /// Takes a list, each element of which has at least `least` bytes.
    pub fn list<T>(
        &mut self,
        least: usize,
        mut one: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let count = usize::try_from(self.u32()?).map_err(|_| Error::Short)?;
        if count > self.0.len() / least.max(1) {
            return Err(Error::Short);
        }
        (0..count).map(|_| one(self)).collect()
    }

    /// What was not taken yet.
    pub fn rest(self) -> Bytes {
        self.0
    }

    /// Ends the message: nothing may be left.
    pub fn end(self) -> Result<(), Error> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::Long)
        }
    }
}

/// Appends a byte string as [`Reader::bytes`] takes it.
///
/// # Panics
///
/// With 4 GiB or more, which no message can hold: see [`crate::message::MAX_START`].
pub fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.put_slice(bytes);
}

/// Appends the number of elements that follow.
///
/// # Panics
///
/// As [`put_bytes`].
pub fn put_count(out: &mut impl BufMut, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("more than 4 Gi elements"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_end_allocates_nothing() {
        let mut reader = Reader::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1]));
        assert_eq!(reader.bytes(), Err(Error::Short));
        let mut reader = Reader::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f, 1]));
        assert_eq!(reader.list(1, Reader::u8), Err(Error::Short));
    }

    #[test]
    fn what_is_left_over_is_refused() {
        let mut reader = Reader::new(Bytes::from_static(&[1, 2]));
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.end(), Err(Error::Long));
    }

    #[test]
    fn text_for_the_kernel_has_no_zero_byte() {
        let mut out = Vec::new();
        put_bytes(&mut out, b"a\0b");
        assert_eq!(
            Reader::new(out.into()).text("argument"),
            Err(Error::Value("argument"))
        );
    }
}
