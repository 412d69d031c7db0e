// SPDX-License-Identifier: GPL-2.0

//! What identifies an inode, and how one is found by that or made.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::prelude::*;

use super::{
    ops,
    Inode,
    InodeRef, //
};
use crate::{
    bindings,
    flags::kind,
    fs::FileSystem, //
};

/// What identifies an inode among those of its super block, as [`Identity`] keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// File system on the server.
    pub dev: u64,
    /// Mount on the server, of a directory; 0 of anything else. The only part that may change.
    pub mount: u64,
    /// Inode number.
    pub ino: u64,
    /// Inode generation.
    pub generation: u32,
}

impl Key {
    /// Whether both are of the same object, on whatever mount.
    pub fn is_same_object(&self, other: &Self) -> bool {
        let mount = other.mount;
        Self { mount, ..*self } == *other
    }
}

/// A node that knows its [`Key`].
pub trait Identity {
    /// The key. Called with spinlocks held.
    fn key(&self) -> Key;
    /// Sets the key of a new node. Called with spinlocks held.
    fn set_key(&self, key: &Key);
}

/// An inode to be found or made.
pub struct NewInode<F: FileSystem> {
    /// What identifies it.
    pub key: Key,
    /// Type and permission bits.
    pub mode: u32,
    /// Device number of a device node.
    pub rdev: (u32, u32),
    /// A symlink that is not followed by its text, see [`FileSystem::follow`].
    pub magic: bool,
    /// The file system that it belongs to.
    pub kind: PhantomData<F>,
}

impl<F: FileSystem> Inode<F> {
    /// Finds or makes an inode of the same super block.
    ///
    /// Fails with [`EPROTO`] when there are no objects of such a type.
    pub fn get(&self, new: NewInode<F>) -> Result<InodeRef<F>> {
        // SAFETY: The super block of a live inode is alive.
        unsafe { Self::get_in((*self.as_raw()).i_sb, new) }
    }

    /// Finds an inode of the same super block that is in memory: one of those that are where `key`
    /// would be, whatever its mount. `is_it` is called with spinlocks held.
    pub fn find(&self, key: &Key, mut is_it: impl Fn(&Self) -> bool) -> Option<InodeRef<F>> {
        // SAFETY: The super block of a live inode is alive; the function takes the closure, which
        // lives during the call.
        let inode = unsafe {
            bindings::ilookup5(
                (*self.as_raw()).i_sb,
                hash(key),
                Some(ask(&is_it)),
                (&raw mut is_it).cast(),
            )
        };
        // The reference is ours.
        Some(InodeRef(NonNull::new(inode)?.cast()))
    }

    /// # Safety
    ///
    /// `sb` is a live super block of `F`.
    pub(crate) unsafe fn get_in(
        sb: *mut bindings::super_block,
        mut new: NewInode<F>,
    ) -> Result<InodeRef<F>> {
        if !kind::ALL.contains(&(new.mode & bindings::S_IFMT)) {
            return Err(EPROTO);
        }
        loop {
            // SAFETY: `test` and `set` take a `NewInode`, which lives during the call.
            let inode = NonNull::new(unsafe {
                bindings::iget5_locked(
                    sb,
                    hash(&new.key),
                    Some(test::<F>),
                    Some(set::<F>),
                    (&raw mut new).cast(),
                )
            })
            .ok_or(ENOMEM)?;
            let this = InodeRef(inode.cast::<Inode<F>>());
            // SAFETY: The inode is ours.
            if unsafe { bindings::qtfs_inode_is_new(inode.as_ptr()) } {
                // SAFETY: A new inode is locked and ours to fill.
                unsafe {
                    Self::fill(inode.as_ptr(), &new);
                    bindings::unlock_new_inode(inode.as_ptr());
                }
                return Ok(this);
            }
            if this.kind() == new.mode & bindings::S_IFMT && this.is_magic() == new.magic {
                return Ok(this);
            }
            // The server uses the number again for another kind of object: the old one is gone.
            // SAFETY: The inode is ours.
            unsafe { bindings::__remove_inode_hash(inode.as_ptr()) };
        }
    }

    /// # Safety
    ///
    /// `inode` is a new inode of `F` that is still locked.
    unsafe fn fill(inode: *mut bindings::inode, new: &NewInode<F>) {
        // SAFETY: By this function's requirements.
        unsafe {
            (*inode).i_ino = new.key.ino;
            (*inode).i_mode = new.mode as u16;
            // The server keeps the times.
            (*inode).i_flags |= bindings::S_NOATIME | bindings::S_NOCMTIME;
            bindings::qtfs_acl_dont_cache(inode);
            match new.mode & bindings::S_IFMT {
                bindings::S_IFREG => {
                    (*inode).i_op = ops::file::<F>();
                    (*inode).__bindgen_anon_3.i_fop = crate::file::regular::<F>();
                    (*inode).i_data.a_ops = crate::cache::operations::<F>();
                    bindings::qtfs_mapping_set_folio_limit(
                        &raw mut (*inode).i_data,
                        qtfs_proto::MAX_DATA,
                    );
                    // The server removes privileges when it writes.
                    (*inode).i_flags |= bindings::S_NOSEC;
                }
                bindings::S_IFDIR => {
                    (*inode).i_op = ops::directory::<F>();
                    (*inode).__bindgen_anon_3.i_fop = crate::file::directory::<F>();
                }
                bindings::S_IFIFO => {
                    (*inode).i_op = ops::special::<F>();
                    (*inode).__bindgen_anon_3.i_fop = crate::file::fifo::<F>();
                }
                bindings::S_IFLNK if new.magic => (*inode).i_op = ops::magic::<F>(),
                bindings::S_IFLNK => (*inode).i_op = ops::symlink::<F>(),
                _ => {
                    (*inode).i_op = ops::special::<F>();
                    let dev = bindings::qtfs_mkdev(new.rdev.0, new.rdev.1);
                    bindings::init_special_inode(inode, new.mode as u16, dev);
                }
            }
        }
    }
}

/// The function that gives [`ilookup5`](bindings::ilookup5) the answers of a closure of this type.
fn ask<F: FileSystem, T: Fn(&Inode<F>) -> bool>(
    _: &T,
) -> unsafe extern "C" fn(*mut bindings::inode, *mut c_void) -> c_int {
    /// # Safety
    ///
    /// Called with an inode of `F` and a `T`.
    unsafe extern "C" fn ask<F: FileSystem, T: Fn(&Inode<F>) -> bool>(
        inode: *mut bindings::inode,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: By this function's requirements.
        unsafe { (*data.cast::<T>())(Inode::<F>::from_raw(inode)).into() }
    }
    ask::<F, T>
}

/// Where the kernel looks for an inode.
fn hash(key: &Key) -> u64 {
    key.ino ^ key.dev.rotate_left(32)
}

/// # Safety
///
/// Called by `iget5_locked` with an inode of `F` and a [`NewInode`].
unsafe extern "C" fn test<F: FileSystem>(inode: *mut bindings::inode, data: *mut c_void) -> c_int {
    // SAFETY: By this function's requirements.
    unsafe {
        (Inode::<F>::from_raw(inode).node().key() == (*data.cast::<NewInode<F>>()).key).into()
    }
}

/// # Safety
///
/// Called by `iget5_locked` with a new inode of `F` and a [`NewInode`].
unsafe extern "C" fn set<F: FileSystem>(inode: *mut bindings::inode, data: *mut c_void) -> c_int {
    // SAFETY: By this function's requirements.
    unsafe {
        Inode::<F>::from_raw(inode)
            .node()
            .set_key(&(*data.cast::<NewInode<F>>()).key)
    };
    0
}
