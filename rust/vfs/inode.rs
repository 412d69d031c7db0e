// SPDX-License-Identifier: GPL-2.0

//! Inodes: what one keeps, its attributes, its locks.
//!
//! How one is found and made is in `identity`, its memory in `slab`; the functions that the VFS
//! calls on inodes are in [`ops`].
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    types::Opaque, //
};

use crate::{
    bindings,
    fs::FileSystem,
    sb, //
};
use qtfs_proto::Time;

mod attr;
mod identity;
pub mod ops;
mod slab;

pub use attr::{
    AnonymousDevice,
    Device,
    SetAttr,
    Stat, //
};
pub use identity::{
    Identity,
    Key,
    NewInode, //
};
use slab::Slot;
pub(crate) use slab::{
    alloc_inode,
    evict_inode,
    free_inode,
    Cache, //
};

/// A `struct inode` of the file system `F`.
///
/// # Invariants
///
/// It is the first field of a [`Slot`] whose node is initialized.
#[repr(transparent)]
pub struct Inode<F: FileSystem>(Opaque<bindings::inode>, PhantomData<F>);

// SAFETY: Inodes are shared between tasks; the VFS and the methods order the accesses.
unsafe impl<F: FileSystem> Sync for Inode<F> {}

/// A counted reference to an [`Inode`].
pub struct InodeRef<F: FileSystem>(NonNull<Inode<F>>);

// SAFETY: References may be given to and dropped by other tasks.
unsafe impl<F: FileSystem> Send for InodeRef<F> {}
// SAFETY: As above.
unsafe impl<F: FileSystem> Sync for InodeRef<F> {}

impl<F: FileSystem> InodeRef<F> {
    /// Gives up ownership.
    pub(crate) fn into_raw(self) -> *mut bindings::inode {
        let raw = self.0.as_ptr().cast();
        core::mem::forget(self);
        raw
    }
}

impl<F: FileSystem> Deref for InodeRef<F> {
    type Target = Inode<F>;

    fn deref(&self) -> &Inode<F> {
        // SAFETY: The reference keeps the inode alive.
        unsafe { self.0.as_ref() }
    }
}

impl<F: FileSystem> Drop for InodeRef<F> {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { bindings::iput(self.0.as_ptr().cast()) };
    }
}

/// An inode that may leave memory; whoever keeps this is told when it does.
pub struct WeakInode<F: FileSystem>(NonNull<Inode<F>>);

// SAFETY: As for `InodeRef`.
unsafe impl<F: FileSystem> Send for WeakInode<F> {}
// SAFETY: As above.
unsafe impl<F: FileSystem> Sync for WeakInode<F> {}

impl<F: FileSystem> WeakInode<F> {
    /// A reference, unless the inode is about to be freed.
    pub fn grab(&self) -> Option<InodeRef<F>> {
        // SAFETY: As `Inode::weak` says, [`FileSystem::evict`] has not returned for the inode.
        unsafe { self.0.as_ref() }.grab()
    }
}

/// Attributes that an inode caches.
#[derive(Clone, Copy)]
pub struct Attributes {
    /// Type and permission bits; the type is not changed.
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of contents.
    pub mtime: Time,
    /// Last change of attributes.
    pub ctime: Time,
    /// 512-byte blocks.
    pub blocks: u64,
}

impl<F: FileSystem> Inode<F> {
    /// # Safety
    ///
    /// `raw` is a live inode of `F` and outlives the reference.
    pub(crate) unsafe fn from_raw<'a>(raw: *mut bindings::inode) -> &'a Self {
        // SAFETY: By this function's requirements.
        unsafe { &*raw.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::inode {
        self.0.get()
    }

    /// What the inode keeps.
    pub fn node(&self) -> &F::Node {
        // SAFETY: By the type invariant the node is there and initialized.
        unsafe { (*self.as_raw().cast::<Slot<F>>()).node.assume_init_ref() }
    }

    /// What its super block keeps.
    pub fn mount(&self) -> &F::Mount {
        // SAFETY: Every inode has a super block of its file system, which outlives it.
        unsafe { sb::mount::<F>((*self.as_raw()).i_sb) }
    }

    /// Another reference, unless the inode is about to be freed.
    pub fn grab(&self) -> Option<InodeRef<F>> {
        // SAFETY: The inode is alive as long as `self`.
        NonNull::new(unsafe { bindings::igrab(self.as_raw()) }).map(|p| InodeRef(p.cast()))
    }

    /// For whoever keeps it in a place that [`FileSystem::evict`] empties, under a lock that is also
    /// held while it is used.
    pub fn weak(&self) -> WeakInode<F> {
        WeakInode(NonNull::from(self))
    }

    /// Type and permission bits.
    pub fn mode(&self) -> u32 {
        // SAFETY: The inode is alive.
        u32::from(unsafe { (*self.as_raw()).i_mode })
    }

    /// Type, one of `S_IF*`.
    pub fn kind(&self) -> u32 {
        self.mode() & bindings::S_IFMT
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.kind() == bindings::S_IFREG
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == bindings::S_IFDIR
    }

    /// Whether it is a symlink that is not followed by its text.
    fn is_magic(&self) -> bool {
        // SAFETY: The inode is alive; the table is set before others can have it.
        core::ptr::eq(unsafe { (*self.as_raw()).i_op }, ops::magic::<F>())
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        // SAFETY: The inode is alive.
        u64::try_from(unsafe { bindings::qtfs_i_size_read(self.as_raw()) }).unwrap_or(0)
    }

    /// Sets the size. Sizes that the kernel cannot have become the largest that it can.
    pub fn set_size(&self, size: u64) {
        let size = i64::try_from(size).unwrap_or(bindings::MAX_LFS_FILESIZE);
        // SAFETY: The inode is alive; its lock orders the writers of the size.
        unsafe {
            bindings::qtfs_size_lock(self.as_raw());
            bindings::qtfs_i_size_write(self.as_raw(), size);
            bindings::qtfs_size_unlock(self.as_raw());
        }
    }

    /// Calls `f` while nobody sets the size by [`Inode::set_size_if`]. It must not sleep.
    pub fn with_size_locked<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: The inode is alive.
        unsafe { bindings::qtfs_size_lock(self.as_raw()) };
        let result = f();
        // SAFETY: Locked above.
        unsafe { bindings::qtfs_size_unlock(self.as_raw()) };
        result
    }

    /// Sets the cached size if `condition` holds while nobody is in [`Inode::with_size_locked`].
    /// Returns whether it did. The condition must not sleep.
    pub fn set_size_if(&self, size: u64, condition: impl FnOnce() -> bool) -> bool {
        let size = i64::try_from(size).unwrap_or(bindings::MAX_LFS_FILESIZE);
        self.with_size_locked(|| {
            let holds = condition();
            if holds {
                // SAFETY: The inode is alive; its lock orders the writers of the size.
                unsafe { bindings::qtfs_i_size_write(self.as_raw(), size) };
            }
            holds
        })
    }

    /// Whether the current process may make the file `size` bytes long: [`EFBIG`], and the signal
    /// SIGXFSZ, if it is limited to less and the file is not that long already.
    ///
    /// C: `inode_newsize_ok` of `fs/attr.c`.
    pub fn check_new_size(&self, size: u64) -> Result {
        let size = i64::try_from(size).map_err(|_| EFBIG)?;
        // SAFETY: The inode is alive; callers hold its lock, as those of `setattr` do.
        to_result(unsafe { bindings::inode_newsize_ok(self.as_raw(), size) })
    }

    /// Sets the cached attributes.
    pub fn set_attributes(&self, a: &Attributes) {
        let inode = self.as_raw();
        self.set_nlink(a.nlink);
        // SAFETY: The inode is alive. Readers of single fields see an old or the new value.
        unsafe {
            (*inode).i_mode =
                ((self.mode() & bindings::S_IFMT) | (a.mode & !bindings::S_IFMT)) as u16;
            bindings::qtfs_i_uid_write(inode, a.uid);
            bindings::qtfs_i_gid_write(inode, a.gid);
            bindings::qtfs_inode_set_atime(inode, a.atime.sec, attr::nanoseconds(a.atime));
            bindings::qtfs_inode_set_mtime(inode, a.mtime.sec, attr::nanoseconds(a.mtime));
            bindings::qtfs_inode_set_ctime(inode, a.ctime.sec, attr::nanoseconds(a.ctime));
            (*inode).i_blocks = a.blocks;
        }
    }

    /// Makes now the times of an inode that this machine has made.
    pub fn set_times_now(&self) {
        // SAFETY: The inode is alive.
        unsafe { bindings::simple_inode_init_ts(self.as_raw()) };
    }

    /// Number of hard links.
    pub fn nlink(&self) -> u32 {
        // SAFETY: The inode is alive.
        unsafe { (*self.as_raw()).__bindgen_anon_1.i_nlink }
    }

    /// Sets the number of hard links.
    pub fn set_nlink(&self, nlink: u32) {
        // One after another, since the kernel counts who has lost the last name.
        self.with_size_locked(|| {
            // SAFETY: The inode is alive.
            unsafe { bindings::set_nlink(self.as_raw(), nlink) }
        });
    }

    /// Runs `f` with the inode's lock held.
    ///
    /// Fails with [`EINTR`] when the caller is killed before it has the lock.
    pub fn locked<R>(&self, f: impl FnOnce() -> Result<R>) -> Result<R> {
        // SAFETY: The inode is alive.
        to_result(unsafe { bindings::qtfs_inode_lock_killable(self.as_raw()) })?;
        let result = f();
        // SAFETY: Locked above.
        unsafe { bindings::qtfs_inode_unlock(self.as_raw()) };
        result
    }

    /// Runs `f` while no page of a mapping becomes writable and none is read into the cache.
    pub fn mapping_locked<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: The inode is alive.
        unsafe { bindings::qtfs_mapping_lock(self.as_raw()) };
        let result = f();
        // SAFETY: Locked above.
        unsafe { bindings::qtfs_mapping_unlock(self.as_raw()) };
        result
    }

    /// Has the `syncfs(2)` of each descriptor that is open on this super block fail with an error,
    /// once (`errseq_set()`, lib/errseq.c).
    pub fn tell_syncfs(&self, error: Error) {
        // SAFETY: The super block of a live inode is alive; the function changes the number in one
        // step.
        unsafe {
            let errors = &raw mut (*(*self.as_raw()).i_sb).s_wb_err;
            bindings::errseq_set(errors, error.to_errno());
        }
    }

    /// An entry of this inode, with its directory and name, when the kernel has one.
    pub fn with_alias<R>(&self, f: impl FnOnce(&crate::dentry::Dentry<F>) -> R) -> Option<R> {
        // SAFETY: The inode is alive; the reference to the alias is dropped below.
        let dentry = NonNull::new(unsafe {
            let named = bindings::d_find_alias(self.as_raw());
            if named.is_null() {
                // The root of a mount has no name.
                bindings::d_find_any_alias(self.as_raw())
            } else {
                named
            }
        })?;
        // SAFETY: The alias is an entry of an inode of `F`.
        let result = f(unsafe { crate::dentry::Dentry::from_raw(dentry.as_ptr()) });
        // SAFETY: Taken above.
        unsafe { bindings::dput(dentry.as_ptr()) };
        Some(result)
    }
}

/// The error that a pointer of the VFS may be.
pub(crate) fn check<T>(raw: *mut T) -> Result<*mut T> {
    from_err_ptr(raw)
}
