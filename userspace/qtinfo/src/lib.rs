// SPDX-License-Identifier: GPL-2.0

//! The parts of qtinfo, which shows what the mounts of qtfs did.
//!
//! - [`cli`]: the command line.
//! - [`files`]: the files of /proc and /sys that everything comes from.
//! - [`mountstats`]: what the kernel counted, as `/proc/self/mountstats` has it.
//! - [`mountinfo`]: where what is mounted, as `/proc/self/mountinfo` has it.
//! - [`mounts`]: both together, one [`mounts::Mount`] for each mount.
//! - [`text`]: the view for people.
//! - [`json`]: the view for programs.
//! - [`watch`]: the view that goes on.
//! - [`level`]: the log level of the modules.
//! - [`failure`]: why qtinfo gives up, and its exit statuses.
//!
//! `Documentation/qtinfo.md` is the manual.

pub mod cli;
pub mod failure;
pub mod files;
pub mod json;
pub mod level;
pub mod mountinfo;
pub mod mounts;
pub mod mountstats;
pub mod text;
pub mod watch;
