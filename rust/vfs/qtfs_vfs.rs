// SPDX-License-Identifier: GPL-2.0

//! The kernel's file system interfaces as safe Rust.
//!
//! For the client, which is a file system:
//!
//! - [`fs`]: the trait that a file system implements, and its registration.
//! - [`context`]: mounting and mount options.
//! - [`sb`]: super blocks.
//! - [`inode`]: inodes and their attributes.
//! - [`dentry`]: directory entries.
//! - [`file`]: open files.
//! - [`flags`]: flags of files and attributes.
//! - [`io`]: reading and writing requests of programs.
//! - [`cache`]: the page cache.
//! - [`xattr`]: extended attributes and ACLs.
//! - [`lock`]: file locks.
//! - [`poll`]: waiting for open files.
//! - [`unix`]: unix sockets; [`anon`]: open files without a file system.
//! - [`global`]: the one object that a module has.
//! - `sysfs`: numbers of mounts in `/sys/fs`.
//! - [`task`]: who calls, and by which system call.
//! - [`trace`]: tracepoints of the client.
//!
//! For the server, which uses file systems: [`local`].
//!
//! All `unsafe` that file systems need is here.

pub mod anon;
pub mod cache;
pub mod context;
pub mod dentry;
pub mod file;
pub mod flags;
pub mod fs;
pub mod global;
pub mod inode;
pub mod io;
pub mod local;
pub mod lock;
pub mod notify;
pub mod param;
pub mod poll;
pub mod random;
pub mod sb;
mod sysfs;
pub mod task;
pub mod trace;
pub mod unix;
pub mod xattr;

use qtfs_bindings as bindings;

/// The prefix of messages that this crate logs.
const __LOG_PREFIX: &[u8] = b"qtfs\0";

/// A table of C function pointers in a `static`.
#[repr(transparent)]
pub(crate) struct Table<T>(pub(crate) T);

// SAFETY: Tables are never written.
unsafe impl<T> Sync for Table<T> {}
