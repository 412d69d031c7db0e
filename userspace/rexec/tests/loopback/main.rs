// SPDX-License-Identifier: GPL-2.0

//! rexec and rexec_server as programs, on one machine over loopback: all that a user can see of
//! them, and all that they must not leave behind.

mod agent;
mod common;
mod connections;
mod crashes;
mod detached;
mod endings;
mod many;
mod policies;
mod refusals;
mod signals;
mod streams;
mod surroundings;
mod terminal;
mod trust;
mod wrappers;
