// SPDX-License-Identifier: GPL-2.0

//! The caller's side: what rexec does from its command line to its exit status.
//!
//! - [`connect`]: the way to the server.
//! - [`caller`]: what a program inherits from its caller: identity, limits, environment.
//! - [`session`]: from START to EXIT.
//! - `signals`: signals for rexec that are for the program.
//! - `stdio`: rexec's own streams.
//! - `terminal`: rexec's terminal, and putting it back as it was.

pub mod caller;
pub mod connect;
pub mod session;
mod signals;
mod stdio;
mod terminal;
