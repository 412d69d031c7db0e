// SPDX-License-Identifier: GPL-2.0

//! Lists of items that have one length.

use super::{FileId, Forget};
use crate::wire::{Decode, Encode, Error, Reader, Result, Writer};

/// Items of one fixed-size type, decoded one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List<'a, T> {
    bytes: &'a [u8],
    item: core::marker::PhantomData<T>,
}

/// A type whose wire format has always the same length.
pub trait Fixed: for<'a> Decode<'a> + Encode {
    /// Bytes on the wire.
    const LEN: usize;
}

impl Fixed for u32 {
    const LEN: usize = 4;
}

impl Fixed for FileId {
    const LEN: usize = 8;
}

impl Fixed for Forget {
    const LEN: usize = 16;
}

impl<'a, T: Fixed> List<'a, T> {
    /// Writes `items` to `buf` and makes them a list.
    pub fn pack(items: impl IntoIterator<Item = T>, buf: &'a mut [u8]) -> Result<Self> {
        let mut w = Writer::new(buf);
        for item in items {
            w.put(&item)?;
        }
        let len = w.len();
        Ok(Self {
            bytes: &buf[..len],
            item: core::marker::PhantomData,
        })
    }

    /// An empty list.
    pub const fn empty() -> Self {
        Self {
            bytes: &[],
            item: core::marker::PhantomData,
        }
    }

    /// Number of items.
    pub const fn len(&self) -> usize {
        self.bytes.len() / T::LEN
    }

    /// Whether there are no items.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The items in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + 'a {
        let mut r = Reader::new(self.bytes);
        core::iter::from_fn(move || r.get().ok())
    }
}

impl<T: Fixed> Encode for List<'_, T> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.put(&u32::try_from(self.len()).map_err(|_| Error::NoSpace)?)?;
        w.put_bytes(self.bytes)
    }
}

impl<'a, T: Fixed> Decode<'a> for List<'a, T> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let len = usize::try_from(r.get::<u32>()?)
            .ok()
            .and_then(|n| n.checked_mul(T::LEN))
            .ok_or(Error::Truncated)?;
        Ok(Self {
            bytes: r.take(len)?,
            item: core::marker::PhantomData,
        })
    }
}
