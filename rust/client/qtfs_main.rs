// SPDX-License-Identifier: GPL-2.0

//! `qtfs.ko`: the file system on the DPU that shows HOST's directories.
//!
//! - [`fs`]: which function does what the VFS asks for; the list to start reading from.
//! - [`names`], [`attr`], [`file`], [`data`], [`space`], [`dir`], [`xattr`], [`lock`], [`poll`]: the
//!   operations; [`own`]: what is not HOST's in HOST's procfs.
//! - [`node`]: what an inode keeps; [`mount`]: what a mount keeps; [`place`]: how requests name
//!   objects.
//! - [`session`]: requests and replies, slots, connections.
//! - [`options`]: mount options; [`stats`]: counters.

#![crate_name = "qtfs_client"]

use kernel::prelude::*;
use qtfs_vfs::fs::Registration;

mod attr;
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
#[pin_data]
struct Client {
    #[pin]
    registration: Registration<fs::Qtfs>,
}

impl kernel::InPlaceModule for Client {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self { registration <- Registration::new(module) })
    }
}
