// SPDX-License-Identifier: GPL-2.0

//! Directory entries.
//!
//! C header: [`include/linux/dcache.h`](srctree/include/linux/dcache.h)

use core::{
    marker::PhantomData,
    ptr::NonNull,
    slice, //
};
use kernel::{
    error::from_result,
    prelude::*,
    types::Opaque, //
};

use crate::{
    bindings,
    fs::FileSystem,
    inode::{
        check,
        Inode,
        InodeRef, //
    },
    Table, //
};

/// Why a name is looked up, as `LOOKUP_*`.
#[derive(Clone, Copy)]
pub struct LookupFlags(u32);

impl LookupFlags {
    pub(crate) const fn new(flags: u32) -> Self {
        Self(flags)
    }

    /// For no reason that matters.
    pub const fn none() -> Self {
        Self(0)
    }

    const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// Nothing may sleep.
    pub const fn rcu(self) -> bool {
        self.has(bindings::LOOKUP_RCU)
    }

    /// Second try after ESTALE: nothing is taken for granted.
    pub const fn reval(self) -> bool {
        self.has(bindings::LOOKUP_REVAL)
    }

    /// More components follow.
    pub const fn intermediate(self) -> bool {
        self.has(bindings::LOOKUP_PARENT)
    }

    /// The file is about to be opened.
    pub const fn open(self) -> bool {
        self.has(bindings::LOOKUP_OPEN)
    }

    /// It must be a directory.
    pub const fn directory(self) -> bool {
        self.has(bindings::LOOKUP_DIRECTORY)
    }

    /// A symlink at the end is followed.
    pub const fn follow(self) -> bool {
        self.has(bindings::LOOKUP_FOLLOW)
    }

    /// The name is about to be made.
    pub const fn create(self) -> bool {
        self.has(bindings::LOOKUP_CREATE)
    }

    /// The operation fails when the name exists.
    pub const fn exclusive(self) -> bool {
        self.has(bindings::LOOKUP_EXCL)
    }

    /// The look-up is not to cross mount points (`openat2(RESOLVE_NO_XDEV)`).
    pub const fn no_xdev(self) -> bool {
        self.has(bindings::LOOKUP_NO_XDEV)
    }

    /// The name is about to be renamed over.
    pub const fn rename_target(self) -> bool {
        self.has(bindings::LOOKUP_RENAME_TARGET)
    }
}

/// A `struct dentry` of the file system `F`.
#[repr(transparent)]
pub struct Dentry<F: FileSystem>(Opaque<bindings::dentry>, PhantomData<F>);

impl<F: FileSystem> Dentry<F> {
    /// # Safety
    ///
    /// `raw` is a live dentry of `F` and outlives the reference.
    pub(crate) unsafe fn from_raw<'a>(raw: *mut bindings::dentry) -> &'a Self {
        // SAFETY: By this function's requirements.
        unsafe { &*raw.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::dentry {
        self.0.get()
    }

    /// The inode; at a mount point that of what is mounted there.
    ///
    /// Fails with [`ENOENT`] when the entry is negative.
    pub fn inode(&self) -> Result<&Inode<F>> {
        // SAFETY: The dentry is alive, and holds its inode as long as the caller holds it. A
        // mount point holds what is mounted there.
        let inode = unsafe { bindings::qtfs_mount_root(bindings::qtfs_d_inode(self.as_raw())) };
        if inode.is_null() {
            return Err(ENOENT);
        }
        // SAFETY: As above.
        Ok(unsafe { Inode::from_raw(inode) })
    }

    /// Calls `f` with the directory and the name, unless the entry is a root or has lost its
    /// name.
    pub fn with_name<R>(&self, f: impl FnOnce(&Inode<F>, &[u8]) -> R) -> Option<R> {
        let raw = self.as_raw();
        // SAFETY: The dentry is alive.
        if unsafe { bindings::qtfs_d_is_root(raw) || bindings::qtfs_d_unhashed(raw) } {
            return None;
        }
        let mut name: bindings::name_snapshot = pin_init::zeroed();
        // SAFETY: The dentry is alive, and `name` is a place for the snapshot.
        let parent = unsafe {
            bindings::take_dentry_name_snapshot(&mut name, raw);
            bindings::dget_parent(raw)
        };
        // SAFETY: The parent is held, and the snapshot keeps the name.
        let result = unsafe {
            let dir = Inode::<F>::from_raw((*parent).d_inode);
            f(dir, bytes(&name.name))
        };
        // SAFETY: Both were taken above.
        unsafe {
            bindings::dput(parent);
            bindings::release_dentry_name_snapshot(&mut name);
        }
        Some(result)
    }

    /// Whether it was found as [`crate::fs::Found::MountRoot`].
    fn is_mount_point(&self) -> bool {
        // SAFETY: The dentry is alive.
        unsafe { bindings::qtfs_d_is_mount_point(self.as_raw()) }
    }

    /// The root of the tree that the entry is in, unless that is the root of the file system:
    /// what HOST has mounted somewhere.
    pub fn submount(&self) -> Option<InodeRef<F>> {
        // SAFETY: The dentry is alive; the reference is dropped below.
        unsafe {
            let top = bindings::qtfs_d_top(self.as_raw());
            let root = match core::ptr::eq(top, (*(*top).d_sb).s_root) {
                true => None,
                false => Self::from_raw(top).inode().ok().and_then(Inode::grab),
            };
            bindings::dput(top);
            root
        }
    }

    /// The path below the root of its tree, without a leading slash, as long as `buf` can take
    /// it; see [`Dentry::submount`].
    ///
    /// Fails with [`ENOENT`] when the entry was removed.
    pub fn path<'b>(&self, buf: &'b mut [u8]) -> Result<&'b [u8]> {
        // SAFETY: The dentry is alive and the buffer has the given length.
        let start = crate::inode::check(unsafe {
            bindings::dentry_path_raw(self.as_raw(), buf.as_mut_ptr().cast(), buf.len() as c_int)
        })?;
        let raw = self.as_raw();
        // SAFETY: The dentry is alive.
        if unsafe { bindings::qtfs_d_unhashed(raw) && !bindings::qtfs_d_is_root(raw) } {
            return Err(ENOENT);
        }
        // SAFETY: The function left a string that ends with NUL in the buffer.
        let path = unsafe { CStr::from_char_ptr(start.cast_const().cast()) }.to_bytes();
        Ok(path.strip_prefix(b"/").unwrap_or(path))
    }
}

/// The bytes of a name.
///
/// # Safety
///
/// The name is stable while the result is used.
pub(crate) unsafe fn bytes<'a>(name: *const bindings::qstr) -> &'a [u8] {
    // SAFETY: By this function's requirements.
    unsafe {
        let len = (*name).__bindgen_anon_1.__bindgen_anon_1.len as usize;
        slice::from_raw_parts((*name).name.cast::<u8>(), len)
    }
}

/// The table of functions of `F`'s directory entries.
struct Ops<F>(PhantomData<F>);

impl<F: FileSystem> Ops<F> {
    const TABLE: &'static Table<bindings::dentry_operations> = &Table({
        let mut ops: bindings::dentry_operations = pin_init::zeroed();
        ops.d_revalidate = Some(d_revalidate::<F>);
        ops.d_manage = Some(bindings::qtfs_d_manage);
        ops.d_automount = Some(d_automount::<F>);
        ops
    });
}

pub(crate) fn operations<F: FileSystem>() -> *const bindings::dentry_operations {
    &raw const Ops::<F>::TABLE.0
}

/// # Safety
///
/// Called by the VFS with entries of `F`; `dir` and `name` are stable.
unsafe extern "C" fn d_revalidate<F: FileSystem>(
    dir: *mut bindings::inode,
    name: *const bindings::qstr,
    dentry: *mut bindings::dentry,
    flags: c_uint,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says. Under RCU the inode may be on its way out, but its memory and
        // node stay until the grace period is over, see `free_inode`.
        let valid = unsafe {
            let inode = bindings::qtfs_d_inode_rcu(dentry);
            let child = NonNull::new(bindings::qtfs_mount_root(inode));
            F::revalidate(
                Inode::from_raw(dir),
                bytes(name),
                child.map(|inode| Inode::from_raw(inode.as_ptr())),
                Dentry::<F>::from_raw(dentry).is_mount_point(),
                LookupFlags::new(flags),
            )?
        };
        Ok(valid.into())
    })
}

/// Ties an inode to the entry of its name, which may be `mounted` as [`crate::fs::Found::MountRoot`]
/// says. Returns the entry in its place, an error, or null if that is the one.
///
/// # Safety
///
/// `dentry` is a negative entry of `F` that is being looked up.
pub(crate) unsafe fn splice<F: FileSystem>(
    dentry: *mut bindings::dentry,
    inode: InodeRef<F>,
    mounted: bool,
) -> *mut bindings::dentry {
    // SAFETY: By this function's requirements. Nobody finds the entry before it is marked, and the
    // inode of a mount point has no other entry. The calls take over what they are given.
    unsafe {
        if !mounted {
            return bindings::d_splice_alias(inode.into_raw(), dentry);
        }
        bindings::qtfs_d_set_mount_point(dentry);
        bindings::d_splice_alias(bindings::qtfs_new_mount_point(inode.into_raw()), dentry)
    }
}

/// # Safety
///
/// Called by the VFS with a path that ends at an entry of `F` which is a mount point.
unsafe extern "C" fn d_automount<F: FileSystem>(
    path: *mut bindings::path,
) -> *mut bindings::vfsmount {
    // SAFETY: As the VFS says.
    let source = unsafe {
        let point = Dentry::<F>::from_raw((*path).dentry);
        point.inode().and_then(|root| F::automount(root, point))
    };
    match source {
        // SAFETY: As the VFS says; the text ends with NUL.
        Ok(source) => unsafe { bindings::qtfs_submount(path, source.as_char_ptr()) },
        Err(e) => e.to_ptr(),
    }
}

impl<F: FileSystem> Dentry<F> {
    /// Makes the kernel know that `name` in this directory leads to what `get` gives, as a
    /// listing told, `mounted` as [`crate::fs::Found::MountRoot`]. An entry that leads to something
    /// else is dropped.
    pub fn learn(
        &self,
        name: &[u8],
        mounted: bool,
        is_it: impl Fn(&Inode<F>) -> bool,
        get: impl FnOnce() -> Result<InodeRef<F>>,
    ) -> Result<InodeRef<F>> {
        let parent = self.as_raw();
        let mut qname: bindings::qstr = pin_init::zeroed();
        // SAFETY: The name has the given length, and the parent is alive.
        unsafe {
            qname.name = name.as_ptr();
            bindings::qtfs_hash_name(parent, &mut qname, name.len() as c_uint);
        }
        for _ in 0..2 {
            // SAFETY: The parent is alive; the reference is dropped below.
            let entry = check(unsafe {
                let known = bindings::d_lookup(parent, &qname);
                if known.is_null() {
                    bindings::d_alloc_parallel(parent, &qname)
                } else {
                    known
                }
            })?;
            // SAFETY: The entry is ours.
            if !unsafe { bindings::qtfs_d_in_lookup(entry) } {
                // SAFETY: As above.
                let known = unsafe { Dentry::<F>::from_raw(entry) };
                let inode = known
                    .inode()
                    .ok()
                    .filter(|i| is_it(i) && known.is_mount_point() == mounted)
                    .and_then(Inode::grab);
                // SAFETY: As above.
                unsafe {
                    if inode.is_none() {
                        bindings::d_invalidate(entry);
                    }
                    bindings::dput(entry);
                }
                if let Some(inode) = inode {
                    return Ok(inode);
                }
                continue;
            }
            let result = get().and_then(|inode| {
                let keep = inode.grab().ok_or(ESTALE)?;
                // SAFETY: The entry is being looked up by us; the reference goes to it.
                let alias = check(unsafe { splice(entry, inode, mounted) })?;
                if !alias.is_null() {
                    // SAFETY: The call gave us a reference.
                    unsafe { bindings::dput(alias) };
                }
                Ok(keep)
            });
            // SAFETY: The entry is ours, and no longer being looked up from now on.
            unsafe {
                bindings::qtfs_d_lookup_done(entry);
                bindings::dput(entry);
            }
            return result;
        }
        Err(ESTALE)
    }
}
