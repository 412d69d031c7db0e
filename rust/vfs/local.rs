// SPDX-License-Identifier: GPL-2.0

//! The kernel's own file operations, as the server uses them on HOST's files.
//!
//! What is here acts on files of this machine in the context of the current task: its root, its
//! mount namespace, and the credential that [`cred::Cred::enter`] put on. Nothing here knows the
//! protocol. Everything that comes in pairs in C (references, write access of a mount, a locked
//! parent directory, an overridden credential) is a guard.
//!
//! - [`path`]: places in the tree, and how to get from one to another.
//! - [`identity`]: what stays the same of an object while its name changes.
//! - [`stat`]: attributes; [`magic`]: numbers of file systems.
//! - [`file`]: open files and their data; [`window`]: files that know user memory only;
//!   [`watch`]: waiting until they are ready; [`notify`]: being told of what happens to them; [`fifo`]: opening without waiting.
//! - [`dir`]: listing directories.
//! - [`make`], [`remove`], [`rename`]: changing directories.
//! - [`change`]: changing attributes; [`xattr`], [`acl`]: extended ones; [`flags`]: inode flags.
//! - [`space`]: allocation, holes, copies.
//! - [`lock`]: locks that hold against local processes; [`lock_wait`]: waiting for them.
//! - [`cred`]: acting as somebody; [`task`]: what an engine thread needs to know of itself.
//! - [`device`]: the device file by which engine enters.

pub mod acl;
pub mod change;
pub mod cred;
pub mod device;
pub mod dir;
pub mod fifo;
pub mod file;
pub mod flags;
pub mod identity;
pub mod lock;
pub mod lock_wait;
pub mod magic;
pub mod make;
pub mod notify;
pub mod path;
pub mod remove;
pub mod rename;
pub mod space;
pub mod stat;
pub mod task;
pub mod watch;
pub mod window;
pub mod xattr;

pub use cred::Cred;
pub use file::File;
pub use identity::Identity;
pub use path::Path;
pub use stat::Stat;

use kernel::{
    error::to_result,
    prelude::*, //
};
use qtfs_bindings as bindings;

/// A name of a directory entry with a NUL at its end, as C wants it.
///
/// # Invariants
///
/// `buf[len]` is the first NUL.
pub struct Name {
    buf: [u8; bindings::NAME_MAX as usize + 1],
    len: usize,
}

impl Name {
    /// Copies a name; fails with [`ENAMETOOLONG`] or, when it is empty, has a NUL or a `/`, is `.`
    /// or `..`, with [`EINVAL`].
    pub fn new(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty()
            || bytes == b"."
            || bytes == b".."
            || bytes.iter().any(|&b| b == 0 || b == b'/')
        {
            return Err(EINVAL);
        }
        let mut buf = [0; bindings::NAME_MAX as usize + 1];
        let space = buf.get_mut(..bytes.len()).ok_or(ENAMETOOLONG)?;
        space.copy_from_slice(bytes);
        if bytes.len() == buf.len() {
            return Err(ENAMETOOLONG);
        }
        // INVARIANT: The name has no NUL and is shorter than the buffer, which was all NUL.
        Ok(Self {
            buf,
            len: bytes.len(),
        })
    }

    /// The name as a string of C.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.buf).unwrap_or_default()
    }

    /// The name as the directory cache takes it; points into `self`.
    fn as_qstr(&self) -> bindings::qstr {
        let mut qstr: bindings::qstr = pin_init::zeroed();
        qstr.name = self.buf.as_ptr();
        // CAST: A name is at most 255 bytes long.
        qstr.__bindgen_anon_1.__bindgen_anon_1.len = self.len as u32;
        qstr
    }
}

/// Permission to change something on a mount: `mnt_want_write`.
///
/// # Invariants
///
/// Write access of the mount was granted and not given back.
struct WriteAccess<'a>(&'a Path);

impl<'a> WriteAccess<'a> {
    fn get(path: &'a Path) -> Result<Self> {
        // SAFETY: The path holds its mount.
        to_result(unsafe { bindings::mnt_want_write(path.mnt()) })?;
        // INVARIANT: It was just granted.
        Ok(Self(path))
    }
}

impl Drop for WriteAccess<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant access was granted; the path holds its mount.
        unsafe { bindings::mnt_drop_write(self.0.mnt()) };
    }
}

/// Runs `op` until no delegation of an NFS client or the like stands in its way.
///
/// The holder of a delegation is asked to give it back before `op` changes anything; that may
/// take a while, and no locks may be held meanwhile. So `op` is called anew after each wait.
fn with_delegations<T>(
    mut op: impl FnMut(*mut bindings::delegated_inode) -> Result<T>,
) -> Result<T> {
    loop {
        let mut inode: bindings::delegated_inode = pin_init::zeroed();
        let result = op(&mut inode);
        if inode.di_inode.is_null() {
            return result;
        }
        // SAFETY: `op` left an inode that it holds for us; this call releases it.
        to_result(unsafe { bindings::qtfs_break_deleg_wait(&mut inode) })?;
    }
}
