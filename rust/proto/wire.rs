// SPDX-License-Identifier: GPL-2.0

//! Little-endian fields, read and written with checked access only.

/// Why bytes could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The message ends inside a field.
    Truncated,
    /// Bytes are left after the last field.
    Trailing,
    /// The buffer to write into is full.
    NoSpace,
    /// A field has a value that it may not have; the text names the field.
    Invalid(&'static str),
}

/// Result of reading or writing a message.
pub type Result<T> = core::result::Result<T, Error>;

/// Reads fields from the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes the next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(Error::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    /// Takes the next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Error::Truncated)
    }

    /// Bytes not read yet.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Reads one field.
    pub fn get<T: Decode<'a>>(&mut self) -> Result<T> {
        T::decode(self)
    }

    /// Ends reading; bytes that are left are an error.
    pub const fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Error::Trailing)
        }
    }
}

/// Writes fields to the front of a byte slice.
#[derive(Debug)]
pub struct Writer<'b> {
    buf: &'b mut [u8],
    len: usize,
}

impl<'b> Writer<'b> {
    /// Starts at the first byte of `buf`.
    pub fn new(buf: &'b mut [u8]) -> Self {
        Self { buf, len: 0 }
    }

    /// Appends bytes as they are.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.len.checked_add(bytes.len()).ok_or(Error::NoSpace)?;
        self.buf
            .get_mut(self.len..end)
            .ok_or(Error::NoSpace)?
            .copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Appends one field.
    pub fn put<T: Encode + ?Sized>(&mut self, value: &T) -> Result<()> {
        value.encode(self)
    }

    /// Bytes written so far.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written so far.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that still fit.
    pub const fn space(&self) -> usize {
        self.buf.len() - self.len
    }

    /// Goes back to an earlier length, as [`Writer::len`] gave it.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

/// Something that can be written to the wire.
pub trait Encode {
    /// Appends the value.
    fn encode(&self, w: &mut Writer<'_>) -> Result<()>;
}

/// Something that can be read from the wire.
pub trait Decode<'a>: Sized {
    /// Reads the value and checks it.
    fn decode(r: &mut Reader<'a>) -> Result<Self>;
}

macro_rules! integers {
    ($($ty:ty)*) => { $(
        impl Encode for $ty {
            fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
                w.put_bytes(&self.to_le_bytes())
            }
        }

        impl Decode<'_> for $ty {
            fn decode(r: &mut Reader<'_>) -> Result<Self> {
                Ok(<$ty>::from_le_bytes(r.array()?))
            }
        }
    )* };
}

integers!(u8 u16 u32 u64 i64);

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.put_bytes(self)
    }
}

impl<const N: usize> Decode<'_> for [u8; N] {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        r.array()
    }
}

/// Makes structures whose wire format is their fields in order.
#[macro_export]
macro_rules! wire_struct {
    ($(
        $(#[$meta:meta])*
        $name:ident $(<$lt:lifetime>)? { $( $(#[$fmeta:meta])* $field:ident: $ty:ty, )* }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name $(<$lt>)? { $( $(#[$fmeta])* pub $field: $ty, )* }

        impl $(<$lt>)? $crate::wire::Encode for $name $(<$lt>)? {
            fn encode(&self, w: &mut $crate::wire::Writer<'_>) -> $crate::wire::Result<()> {
                $( w.put(&self.$field)?; )*
                let _ = w;
                Ok(())
            }
        }

        impl<'a> $crate::wire::Decode<'a> for $name $(<$lt>)? {
            fn decode(r: &mut $crate::wire::Reader<'a>) -> $crate::wire::Result<Self> {
                let _ = &r;
                Ok(Self { $( $field: r.get()?, )* })
            }
        }
    )* };
}
