// SPDX-License-Identifier: GPL-2.0

//! Hooks of containers that are programs of the DPU.
//!
//! dockerd has runc call `/proc/PID/exe libnetwork-setkey` once a container's network namespace is there, where
//! PID is its own: a process of the DPU, which on HOST is another one or nobody. `qtfs-runc` stands before
//! runc on HOST and has runc call itself instead; as `libnetwork-setkey` it tells dockerd over
//! the socket that dockerd has bound in a shared directory, as dockerd's own helper does.

mod bundle;
mod setkey;

pub use bundle::bundle_of;
pub use bundle::redirect;
pub use setkey::set_key;

/// What dockerd calls the hook.
pub const SET_KEY: &str = "libnetwork-setkey";
