// SPDX-License-Identifier: GPL-2.0

//! `qtfs.ko`: the file system on the DPU that shows HOST's directories.
//!
//! - [`fs`]: which function does what the VFS asks for; the list to start reading from.
//! - [`names`], [`attr`], [`file`], [`data`], [`space`], [`dir`], [`xattr`], [`lock`], [`poll`]: the
//!   operations; [`own`]: what is not HOST's in HOST's procfs.
//! - [`node`]: what an inode keeps; [`mount`]: what a mount keeps; [`place`]: how requests name
//!   objects.
//! - [`sockets`]: unix sockets, and the device file of the daemon that helps with them; [`bound`]:
//!   those of this machine; [`channel`]: how their bytes get to HOST.
//! - [`session`]: requests and replies, slots, connections.
//! - [`options`]: mount options; [`stats`]: counters.

#![crate_name = "qtfs_client"]

use kernel::prelude::*;
use qtfs_vfs::{
    fs::Registration,
    global::Installed,
    local::device::Device, //
};
use sockets::{
    Sockets,
    SOCKETS, //
};

mod attr;
mod bound;
mod channel;
mod data;
mod dir;
mod fifo;
mod file;
mod fs;
mod lock;
mod mount;
mod names;
mod node;
mod notify;
mod options;
mod own;
mod place;
mod poll;
mod session;
mod sockets;
mod space;
mod stats;
mod xattr;

module! {
    type: Client,
    name: "qtfs",
    authors: ["qtfs maintainers"],
    description: "File system that shows another machine's directories (client)",
    license: "GPL",
    alias: ["fs-qtfs"],
}

/// The module: a file system that is registered as long as it is loaded.
///
/// Fields are dropped in order: nobody asks for the sockets once there is no file system.
#[pin_data]
struct Client {
    #[pin]
    registration: Registration<fs::Qtfs>,
    device: Pin<KBox<Device<Sockets>>>,
    sockets: Installed<Sockets>,
}

impl kernel::InPlaceModule for Client {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            sockets: SOCKETS.set(Sockets::new()?),
            device: KBox::pin_init(
                Device::register(c"qtfs", sockets.object().clone()),
                GFP_KERNEL,
            )
            .inspect_err(|e| {
                pr_err!("/dev/qtfs cannot be made: {e:?}\n");
            })?,
            registration <- Registration::new(module),
        })
    }
}
