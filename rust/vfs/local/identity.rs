// SPDX-License-Identifier: GPL-2.0

//! What stays the same of an object while names and mounts change.
//!
//! C header: [`include/linux/exportfs.h`](srctree/include/linux/exportfs.h)

use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    error::from_err_ptr,
    prelude::*, //
};
use qtfs_bindings as bindings;

use super::{
    magic,
    Path, //
};

/// Tells an object from all others, without holding it. A directory that is mounted at several
/// places is as many objects.
///
/// Device numbers of file systems without a disk are used again after an unmount, and so are the
/// addresses of super blocks. So the file system's UUID is part of it, which tmpfs too makes anew
/// for every mount; only what has neither UUID nor inode generations can be mistaken for what was
/// mounted in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// First, so that all of a file system, and of a mount, stand together when they are sorted.
    file_system: u64,
    /// Of a directory, where its mount is; 0 of anything else.
    mount: u64,
    ino: u64,
    /// Number of the file system, or of the part of it that has inode numbers of its own.
    dev: u32,
    generation: u32,
}

impl Identity {
    /// The identity of what `path` leads to.
    pub(super) fn of(path: &Path) -> Self {
        let (inode, sb) = (path.inode(), path.super_block());
        // SAFETY: Inode and file system are held by the path; the fields do not change.
        unsafe {
            let uuid = (*sb).s_uuid.b;
            let file_system = match uuid {
                [0, ..] if uuid.iter().all(|&b| b == 0) => sb as u64,
                [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] => {
                    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
                        ^ u64::from_ne_bytes([i, j, k, l, m, n, o, p]).rotate_left(1)
                }
            };
            let mut this = Self {
                ino: (*inode).i_ino,
                file_system,
                mount: place_of_mount(path),
                dev: (*sb).s_dev,
                generation: bindings::qtfs_inode_generation(inode),
            };
            this.look_closer(path);
            this
        }
    }

    /// Asks file systems whose inode numbers are not unique: snapshots of btrfs have the same, and
    /// so may the layers of overlayfs.
    fn look_closer(&mut self, path: &Path) {
        if !matches!(
            path.magic(),
            magic::BTRFS | magic::OVERLAY | magic::BCACHEFS
        ) {
            return;
        }
        let mut stat = MaybeUninit::<bindings::kstat>::zeroed();
        // SAFETY: The path is held, `stat` is a place for the result, and all bits zero are valid.
        unsafe {
            let failed = bindings::vfs_getattr_nosec(
                path.as_raw(),
                stat.as_mut_ptr(),
                bindings::STATX_INO,
                bindings::AT_STATX_DONT_SYNC,
            );
            if failed == 0 {
                let stat = stat.assume_init();
                self.dev = stat.dev;
                self.ino = stat.ino;
            }
        }
    }

    /// Inode generation, 0 where the file system has none.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Of a directory, a number for the place where its mount is; 0 of anything else.
    pub const fn mount(&self) -> u64 {
        self.mount
    }

    /// What no object of this mount comes after, when they are sorted.
    pub const fn last_of_mount(&self) -> Self {
        Self {
            file_system: self.file_system,
            mount: self.mount,
            ino: u64::MAX,
            dev: u32::MAX,
            generation: u32::MAX,
        }
    }

    /// Whether both are on the same file system.
    pub const fn same_file_system(&self, other: &Self) -> bool {
        self.file_system == other.file_system
    }

    /// Whether both are on the same file system, and not on two copies of a disk.
    pub const fn same_device(&self, other: &Self) -> bool {
        self.file_system == other.file_system && self.dev == other.dev
    }

    /// Whether both are the same object, on whatever mount.
    pub fn same_object(&self, other: &Self) -> bool {
        let mount = other.mount;
        Self { mount, ..*self } == *other
    }

    /// Whether an object with this identity can be on the mount that a directory is on.
    pub const fn may_be_on_mount_of(&self, dir: &Self) -> bool {
        self.file_system == dir.file_system && (self.mount == 0 || self.mount == dir.mount)
    }
}

/// A number for the place where the mount of a directory is: the directories that it, and the
/// mounts that these are on, lie on. So it stays the same when the mounts are made anew, also those
/// of a namespace when engine is started again. 0 for what is no directory.
fn place_of_mount(path: &Path) -> u64 {
    if !path.is_dir() {
        return 0;
    }
    let mut place = 1u64;
    let mut at = path.clone();
    while let Some(point) = at.mount_point() {
        // SAFETY: Inode and file system are held by the path; the fields do not change.
        let (ino, generation, dev) = unsafe {
            let inode = point.inode();
            (
                (*inode).i_ino,
                bindings::qtfs_inode_generation(inode),
                (*point.super_block()).s_dev,
            )
        };
        for part in [ino, u64::from(generation), u64::from(dev)] {
            place = mix(place ^ part);
        }
        at = point;
    }
    place
}

/// Spreads the bits of a number (splitmix64).
const fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A file handle: how a file system finds an object again without its name.
pub struct Handle {
    kind: c_int,
    /// Whole 32-bit words.
    words: KVec<u32>,
}

/// Bytes of the longest handle.
const MAX_WORDS: usize = bindings::MAX_HANDLE_SZ as usize / 4;

impl Handle {
    /// The handle of what `path` leads to, or nothing when the file system has none.
    pub fn of(path: &Path) -> Result<Option<Self>> {
        // SAFETY: The inode is held by the path.
        if !unsafe { bindings::qtfs_can_decode_handle(path.inode()) } {
            return Ok(None);
        }
        let mut words = [0u32; MAX_WORDS];
        // CAST: A small constant.
        let mut len = MAX_WORDS as c_int;
        // SAFETY: The dentry is held, `words` has room for `len` words.
        let mut kind = unsafe {
            bindings::exportfs_encode_fh(
                path.dentry(),
                words.as_mut_ptr().cast(),
                &mut len,
                bindings::EXPORT_FH_CONNECTABLE as c_int,
            )
        };
        if !Self::is_valid(kind) {
            len = MAX_WORDS as c_int;
            // SAFETY: As above.
            kind = unsafe {
                bindings::exportfs_encode_fh(path.dentry(), words.as_mut_ptr().cast(), &mut len, 0)
            };
        }
        let words = usize::try_from(len).ok().and_then(|len| words.get(..len));
        let (true, Some(words)) = (Self::is_valid(kind), words) else {
            return Ok(None);
        };
        let mut copy = KVec::with_capacity(words.len(), GFP_KERNEL)?;
        copy.extend_from_slice(words, GFP_KERNEL)?;
        Ok(Some(Self { kind, words: copy }))
    }

    /// Types are positive and below `FILEID_INVALID`.
    fn is_valid(kind: c_int) -> bool {
        (1..0xff).contains(&kind)
    }

    /// Finds the object again on the mount of `on`, which must be of the same file system.
    ///
    /// Fails with [`ESTALE`] when it is gone, or when its place cannot be found.
    pub fn find(&self, on: &Path) -> Result<Path> {
        let mut words = [0u32; MAX_WORDS];
        let space = words.get_mut(..self.words.len()).ok_or(ESTALE)?;
        space.copy_from_slice(&self.words);
        let len = c_int::try_from(self.words.len())?;
        // SAFETY: The mount is held, `words` is a handle of `len` words, and `connected` accepts
        // what this function passes it.
        let dentry = from_err_ptr(unsafe {
            bindings::exportfs_decode_fh(
                on.mnt(),
                words.as_mut_ptr().cast(),
                len,
                self.kind,
                Some(connected),
                core::ptr::null_mut(),
            )
        })
        .map_err(|e| if e == ENOMEM { e } else { ESTALE })?;
        let dentry = NonNull::new(dentry).ok_or(ESTALE)?;
        // SAFETY: The reference is ours, and handles lead to what exists on the mount's file
        // system.
        Ok(unsafe { on.with_dentry(dentry) })
    }
}

/// Accepts what has a name: otherwise nobody could say whether it may be reached.
///
/// # Safety
///
/// `dentry` is alive.
unsafe extern "C" fn connected(_context: *mut c_void, dentry: *mut bindings::dentry) -> c_int {
    // SAFETY: By this function's requirements.
    let ok = unsafe {
        !bindings::qtfs_d_unlinked(dentry) && !bindings::qtfs_dentry_disconnected(dentry)
    };
    c_int::from(ok)
}
