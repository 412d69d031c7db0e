// SPDX-License-Identifier: GPL-2.0

//! Attributes: what `stat(2)` is told, what `setattr` changes, device numbers.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::prelude::*;

use super::Inode;
use crate::{
    bindings,
    file::File,
    fs::FileSystem, //
};
use qtfs_proto::Time;

/// What `setattr` is to change.
pub struct SetAttr<'a, F: FileSystem> {
    raw: &'a bindings::iattr,
    kind: PhantomData<F>,
}

impl<'a, F: FileSystem> SetAttr<'a, F> {
    pub(crate) fn new(raw: &'a bindings::iattr) -> Self {
        Self {
            raw,
            kind: PhantomData,
        }
    }

    /// `ATTR_*` bits.
    pub fn valid(&self) -> u32 {
        self.raw.ia_valid
    }

    /// Permission bits.
    pub fn mode(&self) -> u32 {
        self.raw.ia_mode.into()
    }

    /// Owner.
    pub fn uid(&self) -> u32 {
        // SAFETY: Both views of the union are a number; the mount is not idmapped.
        unsafe { bindings::qtfs_kuid(self.raw.__bindgen_anon_1.ia_uid) }
    }

    /// Group.
    pub fn gid(&self) -> u32 {
        // SAFETY: As above.
        unsafe { bindings::qtfs_kgid(self.raw.__bindgen_anon_2.ia_gid) }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        u64::try_from(self.raw.ia_size).unwrap_or(0)
    }

    /// Access time.
    pub fn atime(&self) -> Time {
        time(&self.raw.ia_atime)
    }

    /// Modification time.
    pub fn mtime(&self) -> Time {
        time(&self.raw.ia_mtime)
    }

    /// The file that `ftruncate(2)` was called with, or `open(2)` truncates.
    pub fn file(&self) -> Option<&'a File<F>> {
        if self.raw.ia_valid & bindings::ATTR_FILE == 0 {
            return None;
        }
        // SAFETY: With ATTR_FILE the field is a file of this file system.
        NonNull::new(self.raw.ia_file).map(|f| unsafe { File::from_raw(f.as_ptr()) })
    }
}

pub(super) fn nanoseconds(t: Time) -> c_long {
    // CAST: Nanoseconds of a second fit into 30 bits.
    t.nsec as c_long
}

fn time(t: &bindings::timespec64) -> Time {
    Time {
        sec: t.tv_sec,
        nsec: u32::try_from(t.tv_nsec).unwrap_or(0),
    }
}

/// Attributes for `stat(2)`.
#[repr(transparent)]
pub struct Stat(bindings::kstat);

impl Stat {
    /// # Safety
    ///
    /// `raw` is valid and nobody else uses it while the reference lives.
    pub(crate) unsafe fn from_raw<'a>(raw: *mut bindings::kstat) -> &'a mut Self {
        // SAFETY: By this function's requirements.
        unsafe { &mut *raw.cast() }
    }

    /// Of `STATX_ATTR_*`: nothing may be written.
    pub const IMMUTABLE: u64 = bindings::STATX_ATTR_IMMUTABLE as u64;
    /// Of `STATX_ATTR_*`: files are opened for appending only.
    pub const APPEND: u64 = bindings::STATX_ATTR_APPEND as u64;

    /// Sets the device that the object lies on.
    pub fn set_dev(&mut self, dev: Device) {
        self.0.dev = dev.0;
    }

    /// Sets the inode number.
    pub fn set_ino(&mut self, ino: u64) {
        self.0.ino = ino;
    }

    /// Sets the preferred I/O size in bytes.
    pub fn set_blksize(&mut self, blksize: u32) {
        self.0.blksize = blksize;
    }

    /// Sets the time of creation.
    pub fn set_btime(&mut self, t: Time) {
        self.0.btime.tv_sec = t.sec;
        self.0.btime.tv_nsec = nanoseconds(t);
        self.0.result_mask |= bindings::STATX_BTIME;
    }

    /// Sets `STATX_ATTR_*` bits, and which of them are known.
    pub fn set_attributes(&mut self, attributes: u64, mask: u64) {
        self.0.attributes |= attributes;
        self.0.attributes_mask |= mask;
    }
}

/// A device number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Device(u32);

impl<F: FileSystem> Inode<F> {
    /// The device number of the super block.
    pub fn device(&self) -> Device {
        // SAFETY: The super block of a live inode is alive.
        Device(unsafe { (*(*self.as_raw()).i_sb).s_dev })
    }
}

/// An anonymous device number, given back on drop.
pub struct AnonymousDevice(Device);

impl AnonymousDevice {
    /// Takes a free number.
    pub fn new() -> Result<Self> {
        let mut dev = 0;
        // SAFETY: `dev` is a place for the number.
        kernel::error::to_result(unsafe { bindings::get_anon_bdev(&mut dev) })?;
        Ok(Self(Device(dev)))
    }

    /// The number.
    pub fn device(&self) -> Device {
        self.0
    }
}

impl Drop for AnonymousDevice {
    fn drop(&mut self) {
        // SAFETY: Taken in `new`.
        unsafe { bindings::free_anon_bdev(self.0 .0) };
    }
}
