// SPDX-License-Identifier: GPL-2.0

//! Places in the tree of the current task's mount namespace.
//!
//! C header: [`include/linux/namei.h`](srctree/include/linux/namei.h)

use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};
use qtfs_bindings as bindings;

use super::{
    Identity,
    Name, //
};

/// A directory entry that exists, on a mount: `struct path` with references to both.
///
/// # Invariants
///
/// Mount and dentry are alive, this object holds a reference to each, and the dentry is positive
/// when it came from one of the functions here.
pub struct Path(bindings::path);

// SAFETY: Mounts and dentries are counted and may be used and released by any task.
unsafe impl Send for Path {}
// SAFETY: As above.
unsafe impl Sync for Path {}

/// How symlinks are treated on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Symlinks {
    /// Also at the end.
    Follow,
    /// They are an error ([`ELOOP`]), but for the last component, which is returned itself.
    Refuse,
}

impl Symlinks {
    const fn flags(self) -> u32 {
        match self {
            Self::Follow => bindings::LOOKUP_FOLLOW,
            Self::Refuse => bindings::LOOKUP_NO_SYMLINKS,
        }
    }
}

/// What a task may do with an object; bits of [`Path::permits`].
pub mod may {
    use qtfs_bindings as bindings;

    /// Execute or search.
    pub const EXEC: u32 = bindings::MAY_EXEC;
    /// Write.
    pub const WRITE: u32 = bindings::MAY_WRITE;
    /// Read.
    pub const READ: u32 = bindings::MAY_READ;
    /// Go there.
    pub const CHDIR: u32 = bindings::MAY_CHDIR;
    /// Asked by `access(2)` or a look at the permission, not for use.
    pub const ACCESS: u32 = bindings::MAY_ACCESS;
    /// Asked for opening.
    pub const OPEN: u32 = bindings::MAY_OPEN;
}

impl Path {
    /// Looks up an absolute path from the current task's root, with its credential.
    ///
    /// The result is on top of whatever is mounted there.
    pub fn absolute(text: &CStr, symlinks: Symlinks) -> Result<Self> {
        let mut path = MaybeUninit::uninit();
        // SAFETY: `text` ends with a NUL, `path` is a place for the result.
        to_result(unsafe {
            bindings::kern_path(text.as_char_ptr(), symlinks.flags(), path.as_mut_ptr())
        })?;
        // SAFETY: It succeeded, so the place was filled.
        // INVARIANT: The references are ours now; lookups without creation return what exists.
        Ok(Self(unsafe { path.assume_init() }))
    }

    /// Looks up a relative path from here, across mounts, with the current credential.
    ///
    /// Without symlinks the result cannot be outside, provided that `text` has no `..`.
    pub fn beneath(&self, text: &CStr, symlinks: Symlinks) -> Result<Self> {
        let mut path = MaybeUninit::uninit();
        // SAFETY: Mount and dentry are held; `text` ends with a NUL, `path` takes the result.
        to_result(unsafe {
            bindings::vfs_path_lookup(
                self.dentry(),
                self.mnt(),
                text.as_char_ptr(),
                symlinks.flags(),
                path.as_mut_ptr(),
            )
        })?;
        // SAFETY: It succeeded, so the place was filled.
        // INVARIANT: As in `absolute`.
        Ok(Self(unsafe { path.assume_init() }))
    }

    /// What a name in this directory leads to: a symlink itself, the root of what is mounted there.
    pub fn child(&self, name: &Name) -> Result<Self> {
        let mut path = MaybeUninit::uninit();
        // SAFETY: As in `beneath`.
        to_result(unsafe {
            bindings::vfs_path_lookup(
                self.dentry(),
                self.mnt(),
                name.as_c_str().as_char_ptr(),
                0,
                path.as_mut_ptr(),
            )
        })?;
        // SAFETY: It succeeded, so the place was filled.
        // INVARIANT: As in `absolute`.
        Ok(Self(unsafe { path.assume_init() }))
    }

    /// As [`Path::child`], but mounts nothing, whatever the name.
    pub fn entry(&self, name: &Name) -> Result<Self> {
        if !self.is_dir() {
            return Err(ENOTDIR);
        }
        let mut name = name.as_qstr();
        let mut path = MaybeUninit::uninit();
        // SAFETY: Mount and directory are held; the name lives as long as the call, and `path`
        // takes the result.
        to_result(unsafe {
            bindings::qtfs_path_entry(self.as_raw(), &mut name, path.as_mut_ptr())
        })?;
        // SAFETY: It succeeded, so the place was filled.
        // INVARIANT: The references are ours now, and the dentry is positive.
        Ok(Self(unsafe { path.assume_init() }))
    }

    /// Whether looking for a name in this directory asks nobody but this machine's kernel: it is of
    /// no network file system, nor of one that a program serves or that mounts others.
    pub fn is_plain(&self) -> bool {
        // SAFETY: The path is held.
        unsafe { bindings::qtfs_path_plain(self.as_raw()) }
    }

    /// What is on top of this directory for whoever opens it or goes through it: file systems that
    /// are mounted when they are needed are mounted now.
    pub fn entered(mut self) -> Result<Self> {
        // INVARIANT: The call exchanges the references for others; whether it succeeds or not,
        // those that are there afterwards are ours.
        // SAFETY: Mount and dentry are held.
        to_result(unsafe { bindings::follow_down(&mut self.0, bindings::LOOKUP_AUTOMOUNT) })?;
        Ok(self)
    }

    /// The directory that the mount of this path lies on; nothing when it lies on none.
    pub(super) fn mount_point(mut self) -> Option<Self> {
        // INVARIANT: The call exchanges the references, or leaves them alone when it returns 0.
        // SAFETY: Mount and dentry are held.
        let moved = unsafe { bindings::follow_up(&mut self.0) };
        (moved != 0).then_some(self)
    }

    /// Takes over the references in `path`.
    ///
    /// # Safety
    ///
    /// Mount and dentry are alive and the caller gives away one reference to each.
    pub(super) unsafe fn from_raw(path: bindings::path) -> Self {
        // INVARIANT: By this function's requirements.
        Self(path)
    }

    /// The same mount with another dentry of its file system.
    ///
    /// # Safety
    ///
    /// `dentry` is a positive dentry of this mount's file system; the caller gives a reference.
    pub(super) unsafe fn with_dentry(&self, dentry: NonNull<bindings::dentry>) -> Self {
        // SAFETY: The mount is held by `self`.
        let mnt = unsafe { bindings::mntget(self.mnt()) };
        // INVARIANT: The reference to the mount is new, the other one was given.
        Self(bindings::path {
            mnt,
            dentry: dentry.as_ptr(),
        })
    }

    pub(super) fn mnt(&self) -> *mut bindings::vfsmount {
        self.0.mnt
    }

    pub(super) fn dentry(&self) -> *mut bindings::dentry {
        self.0.dentry
    }

    pub(crate) fn as_raw(&self) -> *const bindings::path {
        &self.0
    }

    pub(super) fn inode(&self) -> *mut bindings::inode {
        // SAFETY: The dentry is held.
        unsafe { bindings::qtfs_d_inode(self.dentry()) }
    }

    pub(super) fn super_block(&self) -> *mut bindings::super_block {
        // SAFETY: The dentry is held, and with it its file system.
        unsafe { (*self.dentry()).d_sb }
    }

    pub(super) fn idmap(&self) -> *mut bindings::mnt_idmap {
        // SAFETY: The mount is held.
        unsafe { bindings::qtfs_mnt_idmap(self.mnt()) }
    }

    /// Type bits of the mode: `S_IFDIR`, `S_IFREG` …
    pub fn kind(&self) -> u32 {
        // SAFETY: The inode is held by the dentry; the type of an inode never changes.
        u32::from(unsafe { (*self.inode()).i_mode }) & bindings::S_IFMT
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == bindings::S_IFDIR
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.kind() == bindings::S_IFREG
    }

    /// Whether it is a FIFO.
    pub fn is_fifo(&self) -> bool {
        self.kind() == bindings::S_IFIFO
    }

    /// Whether it is a unix socket.
    pub fn is_socket(&self) -> bool {
        self.kind() == bindings::S_IFSOCK
    }

    /// Whether it is a symlink.
    pub fn is_symlink(&self) -> bool {
        self.kind() == bindings::S_IFLNK
    }

    /// Whether it is a symlink that leads to an object itself, not by its text, as procfs has.
    pub fn is_magic_link(&self) -> bool {
        // SAFETY: The object is held.
        self.is_symlink() && unsafe { bindings::qtfs_inode_needs_user_readlink(self.inode()) }
    }

    /// Who the object is.
    pub fn identity(&self) -> Identity {
        Identity::of(self)
    }

    /// Magic number of the file system, as `statfs(2)` has it in `f_type` for most.
    pub fn magic(&self) -> u64 {
        // SAFETY: The file system is held; the number is set before it can be mounted.
        unsafe { (*self.super_block()).s_magic as u64 }
    }

    /// Whether it is the root of its mount.
    pub fn is_mount_root(&self) -> bool {
        // SAFETY: The mount is held and its root never changes.
        unsafe { (*self.mnt()).mnt_root == self.dentry() }
    }

    /// The root of the mount.
    pub fn mount_root(&self) -> Self {
        // SAFETY: The mount is held and its root never changes.
        let dentry = unsafe { (*self.mnt()).mnt_root };
        let path = bindings::path {
            mnt: self.mnt(),
            dentry,
        };
        // SAFETY: The mount is held, and its root by it.
        unsafe { bindings::path_get(&path) };
        // INVARIANT: The references are the new ones; the root of a mount exists.
        Self(path)
    }

    /// Whether both are on the same mount, so that an object can be renamed or linked.
    pub fn same_mount(&self, other: &Self) -> bool {
        self.mnt() == other.mnt()
    }

    /// Whether both are the same object.
    pub fn same_object(&self, other: &Self) -> bool {
        self.inode() == other.inode()
    }

    /// Whether the name was removed.
    pub fn is_unlinked(&self) -> bool {
        // SAFETY: The dentry is held.
        unsafe { bindings::qtfs_d_unlinked(self.dentry()) }
    }

    /// Whether the mount or its file system is read-only.
    pub fn is_read_only(&self) -> bool {
        // SAFETY: The path is held.
        unsafe { bindings::qtfs_path_read_only(self.as_raw()) }
    }

    /// Whether programs on the mount may not be executed.
    pub fn is_noexec(&self) -> bool {
        // SAFETY: The path is held.
        unsafe { bindings::qtfs_path_noexec(self.as_raw()) }
    }

    /// Whether a new file in this directory needs the umask left to the file system, because a
    /// default ACL takes its place.
    pub fn has_default_acl(&self) -> bool {
        // SAFETY: The inode is held; the result is an error, null or an ACL that we own.
        unsafe {
            if !bindings::qtfs_inode_is_posixacl(self.inode()) {
                return false;
            }
            let acl = bindings::get_inode_acl(self.inode(), bindings::ACL_TYPE_DEFAULT as c_int);
            match kernel::error::from_err_ptr(acl) {
                Ok(acl) if !acl.is_null() => {
                    bindings::qtfs_posix_acl_release(acl);
                    true
                }
                _ => false,
            }
        }
    }

    /// Whether this directory protects a file in it from the current credential's `O_CREAT`, when
    /// `fs.protected_regular` has the value `level`.
    pub fn protects(&self, file: &Self, level: u32) -> bool {
        // SAFETY: Both are held.
        unsafe { bindings::qtfs_sticky_protects(self.as_raw(), file.as_raw(), level) }
    }

    /// Succeeds when the current credential may do what `mask` says (bits of [`may`]).
    pub fn permits(&self, mask: u32) -> Result {
        // CAST: The bits are few and low.
        let mask = mask as c_int;
        // SAFETY: The mount and the inode are held.
        to_result(unsafe { bindings::inode_permission(self.idmap(), self.inode(), mask) })
    }

    /// The path from the current task's root as text in `buf`, which should have `PATH_MAX`
    /// bytes.
    ///
    /// Fails with [`ENOENT`] when the object has no name any more or lies outside of the root.
    pub fn text<'b>(&self, buf: &'b mut [u8]) -> Result<&'b [u8]> {
        if self.is_unlinked() {
            return Err(ENOENT);
        }
        let len = c_int::try_from(buf.len())?;
        // SAFETY: The path is held, `buf` has `len` bytes.
        let text = kernel::error::from_err_ptr(unsafe {
            bindings::d_path(self.as_raw(), buf.as_mut_ptr().cast(), len)
        })?;
        // SAFETY: The text lies in `buf`, to which `text` points, and ends with a NUL there.
        let bytes = unsafe { CStr::from_char_ptr(text) }.to_bytes();
        if bytes.first() != Some(&b'/') {
            return Err(ENOENT);
        }
        Ok(bytes)
    }

    /// How many open files of all tasks write to the object; negative while it is executed.
    pub fn writers(&self) -> i32 {
        // SAFETY: The inode is held.
        unsafe { bindings::qtfs_inode_writers(self.inode()) }
    }

    /// Records that a symlink was read.
    pub fn touch(&self) {
        // SAFETY: The path is held.
        unsafe { bindings::touch_atime(self.as_raw()) };
    }

    /// The errors so far of writing back data of the object's file system.
    pub fn write_errors(&self) -> WriteErrors {
        // SAFETY: The file system is held.
        let errors = unsafe { bindings::qtfs_super_errors(self.super_block()) };
        WriteErrors(Atomic::<u32>::new(errors))
    }

    /// Writes all that is dirty of the object's file system, as `syncfs(2)`.
    ///
    /// Fails also when data could not be written back since `seen`, which becomes what there is
    /// now. Several who ask at the same moment may all be told.
    pub fn sync_file_system(&self, seen: &WriteErrors) -> Result {
        let mut errors = seen.0.load(Relaxed);
        // SAFETY: The file system is held, `errors` is valid.
        let ret = unsafe { bindings::qtfs_sync_super(self.super_block(), &mut errors) };
        seen.0.store(errors, Relaxed);
        to_result(ret)
    }
}

/// Which errors of writing back data of a file system somebody has been told of: `errseq_t`.
pub struct WriteErrors(Atomic<u32>);

impl Clone for Path {
    fn clone(&self) -> Self {
        // SAFETY: The path is held.
        unsafe { bindings::path_get(&self.0) };
        // INVARIANT: The references are the new ones.
        Self(bindings::path {
            mnt: self.0.mnt,
            dentry: self.0.dentry,
        })
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the references are ours.
        unsafe { bindings::path_put(&self.0) };
    }
}
