// SPDX-License-Identifier: GPL-2.0

//! The parts of udsproxyd, the daemon of qtfs on the DPU.
//!
//! `qtfs.ko` tells it of programs that connect to sockets of HOST, and of sockets that programs bind
//! in HOST's directories; it binds, connects and relays. `Documentation/sockets.md` is the
//! description of it all.
//!
//! - [`cli`]: the command line, also that of the first qtfs.
//! - [`device`]: what `qtfs.ko` tells and does.
//! - [`proxies`]: sockets that stand for those of HOST.
//! - [`bound`]: sockets of this machine that HOST's programs connect to.
//! - [`passing`]: descriptors that programs pass; [`mounts`]: where HOST's files are here.
//! - [`daemon`]: who does what when something is told.
//! - [`failure`]: why it refuses to run, and its exit statuses.

pub mod bound;
pub mod cli;
pub mod daemon;
#[allow(unsafe_code)]
pub mod device;
pub mod failure;
pub mod guard;
pub mod mounts;
pub mod passing;
pub mod proxies;
pub mod users;
