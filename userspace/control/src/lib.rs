// SPDX-License-Identifier: GPL-2.0

//! What `qtfs-offload` (on the DPU) and engine (on HOST) say to each other, and how the DPU knows
//! where HOST's files are.
//!
//! The two talk over a unix socket of engine in a shared directory: to the DPU it is one more
//! socket of HOST (`Documentation/sockets.md`), so it has the session's authentication and needs no
//! port of its own.

pub mod guard;
pub mod message;
pub mod mountinfo;
pub mod schedule;

/// The shared directory with engine's socket.
pub const DIRECTORY: &str = "/run/qtfs/offload";
/// Name of engine's socket there.
pub const SOCKET: &str = "engine.sock";
