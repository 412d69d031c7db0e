// SPDX-License-Identifier: GPL-2.0

//! The parts of qtfs-probe, a client of the qtfs protocol for tests.
//!
//! The client that people use is in the kernel, keeps all rules and shows little of the protocol.
//! This one sends whatever a test wants, in any order, and prints what comes back.
//!
//! - [`text`]: words, byte strings and errnos as they are written in scripts.
//! - [`args`]: `key=value` arguments, turned into the types of the protocol.
//! - [`table`]: the fields of every message, to make requests from arguments and to print replies.
//! - [`conn`]: frames on a connection.
//! - [`session`]: HELLO, slots and lanes.
//! - [`script`]: the language that [`script::HELP`] describes.
//! - [`hostile`]: clients that do not keep the rules, and whether the server survives them.
//! - [`liar`]: a server that does not keep the rules.
//! - [`load`]: clients that want much at once.
//! - [`mangle`]: a relay that changes what a client and a server say.
//! - [`files`]: look at exported files as with `ls`, `stat` and `cat`.

pub mod args;
pub mod conn;
pub mod files;
pub mod hostile;
pub mod liar;
pub mod load;
pub mod mangle;
pub mod script;
pub mod session;
pub mod table;
pub mod text;
