// SPDX-License-Identifier: GPL-2.0

//! The parts of engine, the daemon of qtfs on HOST.
//!
//! `qtfs_server.ko` takes the connections; the threads that serve requests are engine's. They
//! enter the module by ioctl and work there in engine's own context: its root, its mount
//! namespace, its credentials. When engine ends, requests wait for the next one.
//!
//! - [`cli`]: the command line, also those of the first qtfs.
//! - [`policy`]: the file that says which directories are exported.
//! - [`exports`]: a policy that was checked against the file system, and its form for the module.
//! - [`device`]: what the module offers, as a trait, so that tests run without the module.
//! - [`sys`]: the system calls; all unsafe code.
//! - [`pool`]: the worker threads.
//! - [`sockets`]: unix sockets of HOST and of the DPU.
//! - [`failure`]: why engine refuses to run, and its exit statuses.
//!
//! `Documentation/engine.md` and `Documentation/policy.md` are the manuals.

pub mod cli;
pub mod device;
pub mod exports;
pub mod failure;
pub mod offload;
pub mod policy;
pub mod pool;
pub mod sockets;
#[allow(unsafe_code)]
pub mod sys;
