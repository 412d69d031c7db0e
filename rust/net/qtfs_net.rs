// SPDX-License-Identifier: GPL-2.0

//! The network as both modules use it: TCP sockets, pages to send and receive, threads.
//!
//! - [`address`]: IPv4 and IPv6 addresses.
//! - [`socket`]: connections and listeners.
//! - [`pages`]: bulk data in pages, sent in place.
//! - [`outbox`]: the sending side of a connection, which never blocks its callers.
//! - [`thread`]: kernel threads.
//! - [`completion`]: waiting for something that happens once.
//! - [`memory`]: allocation without recursion into file systems.
//! - [`time`]: the clock.
//!
//! All `unsafe` that the network needs is here.

pub mod address;
pub mod completion;
pub mod memory;
pub mod meter;
pub mod outbox;
pub mod pages;
pub mod socket;
pub mod thread;
pub mod time;

pub use address::Address;
pub use completion::Completion;
pub use memory::NoFs;
pub use meter::{Counted, Meter};
pub use outbox::{Frame, Outbox};
pub use pages::{Pages, Segment};
pub use socket::{Listener, Socket};
pub use thread::Thread;

use qtfs_bindings as bindings;

/// The prefix of messages that this crate logs.
const __LOG_PREFIX: &[u8] = b"qtfs\0";
