// SPDX-License-Identifier: GPL-2.0

//! The list of directory entries that a READDIR reply carries as data.

use crate::{
    attr::Attr,
    types::Name,
    wire::{Decode, Encode, Error, Reader, Result, Writer},
};

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where to go on after this entry; HOST's `d_off`.
    pub next: u64,
    /// HOST's inode number as the directory has it.
    pub ino: u64,
    /// `DT_*`.
    pub kind: u8,
    /// Name; `.` and `..` are never sent.
    pub name: Name<'a>,
    /// Attributes, when they were asked for and the entry could be looked up.
    pub attr: Option<Attr>,
}

impl Encode for Entry<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.put(&self.next)?;
        w.put(&self.ino)?;
        w.put(&self.kind)?;
        w.put(&u8::from(self.attr.is_some()))?;
        w.put(&self.name)?;
        match &self.attr {
            Some(attr) => w.put(attr),
            None => Ok(()),
        }
    }
}

impl<'a> Decode<'a> for Entry<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let (next, ino, kind) = (r.get()?, r.get()?, r.get::<u8>()?);
        if kind > 15 {
            return Err(Error::Invalid("entry type"));
        }
        let has_attr = match r.get::<u8>()? {
            0 => false,
            1 => true,
            _ => return Err(Error::Invalid("entry attributes")),
        };
        let name = r.get()?;
        let attr = if has_attr { Some(r.get()?) } else { None };
        Ok(Self {
            next,
            ino,
            kind,
            name,
            attr,
        })
    }
}

/// Reads the entries of a data section one by one; ends after the last or the first bad one.
pub fn entries(data: &[u8]) -> impl Iterator<Item = Result<Entry<'_>>> {
    let mut r = Reader::new(data);
    let mut bad = false;
    core::iter::from_fn(move || {
        if bad || r.remaining() == 0 {
            return None;
        }
        let entry = r.get();
        bad = entry.is_err();
        Some(entry)
    })
}
