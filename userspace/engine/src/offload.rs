// SPDX-License-Identifier: GPL-2.0

//! What programs of the DPU have done on HOST: mounts, unmounts, signals and scheduling, as far as
//! the policy allows.
//!
//! `qtfs-offload run` on the DPU connects to a unix socket of engine (see `qtfs_control`). Only root
//! does; what root of the DPU may ask for is a matter of the policy's `[offload]`.

mod kill;
mod kind;
mod mounts;
mod rules;
mod schedule;
mod server;

pub use rules::Rules;
pub use server::Server;
