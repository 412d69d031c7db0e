// SPDX-License-Identifier: GPL-2.0

//! The qtfs server: lets the DPU use HOST's files.
//!
//! Who does what:
//!
//! - A *listener* thread accepts connections, and each connection (a [`lane`]) has a thread that
//!   receives requests. They never touch a file: kernel threads have no root directory.
//! - *Workers* are threads of the daemon engine that enter by the device file ([`engine`]) and
//!   execute requests in engine's root and mount namespace, as the caller that the request names
//!   ([`caller`]). In between, requests lie in the [`queue`].
//! - A [`session`] is what a client has here: lanes, [`slot`]s, [`node`]s, open [`file`]s, callers.
//!   It survives the loss of its connections and the restart of engine.
//! - [`dispatch`] leads from a request to one function per operation in [`op`]; these find objects by
//!   [`resolve`] and check the [`policy`] there, and use `qtfs_vfs::local` to act.
//! - Nobody waits here for a file to become ready, or for the lock of a range: a [`poller`] hangs in
//!   the wait queues of the file and sends an event, and requests that wait are parked, see
//!   [`parking`].
//! - What happens to objects that a client watches is in [`notices`] until the client has it.
//!
//! - Connections of unix sockets are [`channels`] between the client and engine.
//!
//! Locks, outer to inner; none is held over a wait for the peer or while a file system works, but
//! the order of [`version`]: list of sessions, lanes of a session, slots, queue; and on its own each
//! table of nodes, files, callers, owners.

#![crate_name = "qtfs_server"]

use kernel::prelude::*;

#[macro_use]
mod log;

mod budget;
mod caller;
mod channels;
mod dirents;
mod dispatch;
mod engine;
mod file;
mod hello;
mod job;
mod lane;
mod listener;
mod node;
mod notices;
mod op;
mod owner;
mod parking;
mod policy;
mod poller;
mod queue;
mod quick;
mod receiver;
mod refusal;
mod reply;
mod resolve;
mod server;
mod session;
mod sessions;
mod slot;
mod version;
mod way;
mod worker;

use listener::Listening;
use qtfs_vfs::local::device::Device;
use server::Server;

module! {
    type: Module,
    name: "qtfs_server",
    authors: ["The qtfs project"],
    description: "Network file system server",
    license: "GPL",
}

/// The loaded module.
///
/// Drop order matters: first nobody can come in any more, then everybody who is there is sent
/// away. The module cannot be unloaded while engine has the device open, so there are no workers
/// then.
struct Module {
    _device: Pin<KBox<Device<Server>>>,
    _listening: Listening,
}

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let server = Server::new()?;
        let listening = Listening::start(server.clone())?;
        let device = KBox::pin_init(Device::register(c"qtfs_server", server), GFP_KERNEL)
            .inspect_err(|e| {
                pr_err!("/dev/qtfs_server cannot be made: {e:?}\n");
            })?;
        Ok(Self {
            _device: device,
            _listening: listening,
        })
    }
}
