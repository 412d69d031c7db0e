// SPDX-License-Identifier: GPL-2.0

//! The memory of inodes: where it is from, and what the VFS does with it.

use core::{
    marker::PhantomData,
    mem::{
        size_of,
        MaybeUninit, //
    },
};
use kernel::prelude::*;

use super::Inode;
use crate::{
    bindings,
    fs::FileSystem, //
};

/// An inode and what it keeps, in one allocation.
#[repr(C)]
pub(super) struct Slot<F: FileSystem> {
    inode: bindings::inode,
    pub(super) node: MaybeUninit<F::Node>,
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
