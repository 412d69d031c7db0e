// SPDX-License-Identifier: GPL-2.0

//! Inodes: what one keeps, how it is found and made, its attributes.
//!
//! The functions that the VFS calls on inodes are in [`ops`].
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use core::{
    marker::PhantomData,
    mem::{
        size_of,
        MaybeUninit, //
    },
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
pub mod ops;

pub use attr::{
    AnonymousDevice,
    Device,
    SetAttr,
    Stat, //
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

/// An inode and what it keeps, in one allocation.
#[repr(C)]
struct Slot<F: FileSystem> {
    inode: bindings::inode,
    node: MaybeUninit<F::Node>,
}

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

    /// Finds or makes an inode of the same super block.
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

/// The slab cache of `F`'s inodes. There is one for each registered file system.
pub(crate) struct Cache<F: FileSystem>(PhantomData<F>);

/// The cache that [`alloc_inode`] takes inodes from; a module has one file system.
static CACHE: core::sync::atomic::AtomicPtr<bindings::kmem_cache> =
    core::sync::atomic::AtomicPtr::new(core::ptr::null_mut());

impl<F: FileSystem> Cache<F> {
    /// Makes the cache.
    pub(crate) fn new() -> Result<Self> {
        let mut args: bindings::kmem_cache_args = pin_init::zeroed();
        args.align = core::mem::align_of::<Slot<F>>() as c_uint;
        args.ctor = Some(init_once);
        // SAFETY: The name is static, the constructor fits the objects.
        let cache = unsafe {
            bindings::__kmem_cache_create_args(
                c"qtfs_inode".as_char_ptr(),
                size_of::<Slot<F>>() as c_uint,
                &mut args,
                bindings::qtfs_inode_cache_flags(),
            )
        };
        if cache.is_null() {
            return Err(ENOMEM);
        }
        CACHE.store(cache, core::sync::atomic::Ordering::Release);
        Ok(Self(PhantomData))
    }
}

impl<F: FileSystem> Drop for Cache<F> {
    fn drop(&mut self) {
        // Inodes are freed by RCU callbacks, which must have run before.
        // SAFETY: No super block is left, so no inode is made any more.
        unsafe {
            bindings::rcu_barrier();
            bindings::kmem_cache_destroy(CACHE.load(core::sync::atomic::Ordering::Acquire));
        }
    }
}

/// # Safety
///
/// Called by the slab allocator with memory for a slot.
unsafe extern "C" fn init_once(slot: *mut c_void) {
    // SAFETY: The inode is the first field of a slot.
    unsafe { bindings::inode_init_once(slot.cast()) };
}

/// # Safety
///
/// Called by the VFS with a super block of `F`.
pub(crate) unsafe extern "C" fn alloc_inode<F: FileSystem>(
    sb: *mut bindings::super_block,
) -> *mut bindings::inode {
    let cache = CACHE.load(core::sync::atomic::Ordering::Acquire);
    // SAFETY: The cache lives as long as the file system is registered.
    let inode = unsafe { bindings::qtfs_alloc_inode_sb(sb, cache) };
    if !inode.is_null() {
        // SAFETY: The slot is ours; the node is not initialized yet.
        unsafe {
            let node = (*inode.cast::<Slot<F>>()).node.as_mut_ptr();
            pin_init::raw_init(node, F::node());
        }
    }
    inode
}

/// # Safety
///
/// Called by the VFS when nobody can have the inode any more, not even under RCU.
pub(crate) unsafe extern "C" fn free_inode<F: FileSystem>(inode: *mut bindings::inode) {
    // SAFETY: By this function's requirements; `alloc_inode` initialized the node.
    unsafe {
        (*inode.cast::<Slot<F>>()).node.assume_init_drop();
        let cache = CACHE.load(core::sync::atomic::Ordering::Acquire);
        bindings::kmem_cache_free(cache, inode.cast());
    }
}

/// # Safety
///
/// Called by the VFS with an inode of `F` that leaves memory.
pub(crate) unsafe extern "C" fn evict_inode<F: FileSystem>(inode: *mut bindings::inode) {
    // SAFETY: By this function's requirements.
    unsafe {
        bindings::truncate_inode_pages_final(&raw mut (*inode).i_data);
        bindings::clear_inode(inode);
        let root = bindings::qtfs_mount_root(inode);
        if core::ptr::eq(root, inode) {
            F::evict(Inode::from_raw(inode));
        } else {
            bindings::iput(root);
        }
    }
}

/// The error that a pointer of the VFS may be.
pub(crate) fn check<T>(raw: *mut T) -> Result<*mut T> {
    from_err_ptr(raw)
}
