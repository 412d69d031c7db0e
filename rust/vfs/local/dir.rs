// SPDX-License-Identifier: GPL-2.0

//! Listing directories.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use core::mem::offset_of;
use kernel::{
    error::to_result,
    prelude::*, //
};
use qtfs_bindings as bindings;

use super::File;

/// Bytes of an entry in a [`Listing`] before the name: next, ino, kind, length of the name.
const FIXED: usize = 8 + 8 + 1 + 1;

/// A piece of a directory's list.
pub struct Listing {
    /// Entries one after the other, never more than the capacity.
    bytes: KVVec<u8>,
    /// Start of the last entry, whose `next` is filled when it is known.
    last: Option<usize>,
    /// Nothing comes after the last entry.
    end: bool,
}

/// One entry of a directory.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// Where to go on after it.
    pub next: u64,
    /// Inode number as the directory has it.
    pub ino: u64,
    /// `DT_*`.
    pub kind: u8,
    /// Name.
    pub name: &'a [u8],
}

/// What [`fill`] works on.
#[repr(C)]
struct Context {
    inner: bindings::dir_context,
    listing: *mut Listing,
    /// Entries were seen, so the position has moved.
    any: bool,
    full: bool,
}

impl Listing {
    /// Bytes of the longest entry, for which there is room in any list.
    pub const MIN_SPACE: usize = FIXED + 255;

    /// An empty list with room for `space` bytes; an entry needs 18 and its name.
    pub fn with_space(space: usize) -> Result<Self> {
        Ok(Self {
            bytes: KVVec::with_capacity(space.max(Self::MIN_SPACE), GFP_KERNEL)?,
            last: None,
            end: false,
        })
    }

    /// Whether the list reaches the end of the directory.
    pub fn is_end(&self) -> bool {
        self.end
    }

    /// The entries in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut rest: &[u8] = &self.bytes;
        core::iter::from_fn(move || {
            let (fixed, tail) = rest.split_first_chunk::<FIXED>()?;
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, kind, len] = *fixed;
            let (name, tail) = tail.split_at_checked(usize::from(len))?;
            rest = tail;
            Some(Entry {
                next: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
                ino: u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
                kind,
                name,
            })
        })
    }

    /// Notes where the directory goes on after the last entry.
    fn set_next(&mut self, next: u64) {
        let Some(start) = self.last.take() else {
            return;
        };
        if let Some(place) = self.bytes.get_mut(start..start + 8) {
            place.copy_from_slice(&next.to_ne_bytes());
        }
    }

    /// Appends an entry; says whether there was room.
    fn push(&mut self, name: &[u8], ino: u64, kind: u8) -> bool {
        let start = self.bytes.len();
        let Ok(len) = u8::try_from(name.len()) else {
            // Longer than any name may be; nobody could look it up.
            return true;
        };
        if self.bytes.capacity() - start < FIXED + name.len() {
            return false;
        }
        let ino = ino.to_ne_bytes();
        let parts: [&[u8]; 4] = [&[0; 8], &ino, &[kind, len], name];
        for part in parts {
            // There is room, so nothing is allocated.
            if self.bytes.extend_from_slice(part, GFP_KERNEL).is_err() {
                self.bytes.truncate(start);
                return false;
            }
        }
        self.last = Some(start);
        true
    }
}

/// Takes one entry from the file system.
///
/// # Safety
///
/// `ctx` is the first field of a [`Context`]; `name` has `len` bytes.
unsafe extern "C" fn fill(
    ctx: *mut bindings::dir_context,
    name: *const c_char,
    len: c_int,
    offset: bindings::loff_t,
    ino: u64,
    kind: c_uint,
) -> bool {
    const { assert!(offset_of!(Context, inner) == 0) };
    // SAFETY: By this function's requirements.
    let ctx = unsafe { &mut *ctx.cast::<Context>() };
    // SAFETY: The listing outlives the call of `iterate_dir`, and nobody else uses it meanwhile.
    let listing = unsafe { &mut *ctx.listing };
    // SAFETY: By this function's requirements.
    let name = unsafe {
        core::slice::from_raw_parts(name.cast::<u8>(), usize::try_from(len).unwrap_or(0))
    };
    ctx.any = true;
    let previous = listing.last;
    // CAST: Positions are bits to us: hashes of names in some file systems.
    listing.set_next(offset as u64);
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return true;
    }
    // CAST: `DT_*` is at most 15.
    ctx.full = !listing.push(name, ino, (kind & 0xf) as u8);
    if ctx.full {
        listing.last = previous;
    }
    !ctx.full
}

impl File {
    /// Lists a directory from `position` on: 0, or `next` of an entry.
    ///
    /// One caller at a time, which is what `&mut` of the guard around the file is for: the
    /// position belongs to the open file.
    pub fn list(&self, _exclusive: &mut (), position: u64, listing: &mut Listing) -> Result {
        // CAST: Positions are bits to us.
        let position = position as i64;
        // SAFETY: The file is held.
        let at =
            unsafe { bindings::vfs_llseek(self.as_ptr(), position, bindings::SEEK_SET as c_int) };
        if at != position {
            return Err(if at < 0 {
                // CAST: Errors are small negative numbers.
                Error::from_errno(at as c_int)
            } else {
                EINVAL
            });
        }
        loop {
            let mut ctx = Context {
                inner: pin_init::zeroed(),
                listing,
                any: false,
                full: false,
            };
            ctx.inner.actor = Some(fill);
            // SAFETY: The file is held; `fill` gets the context that it expects.
            let result = to_result(unsafe { bindings::iterate_dir(self.as_ptr(), &mut ctx.inner) });
            // CAST: Positions are bits to us.
            let after = ctx.inner.pos as u64;
            if ctx.full {
                // Where the directory itself goes on: tracefs tells a place behind the entry.
                listing.set_next(after);
                return Ok(());
            }
            let empty = listing.last.is_none() && listing.bytes.is_empty();
            listing.set_next(after);
            match result {
                Err(e) if empty => return Err(e),
                Err(_) => return Ok(()),
                Ok(()) if !ctx.any => {
                    listing.end = true;
                    return Ok(());
                }
                Ok(()) => {}
            }
        }
    }
}
