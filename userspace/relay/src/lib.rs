// SPDX-License-Identifier: GPL-2.0

//! Relays connections of unix sockets between two machines.
//!
//! engine on HOST and udsproxyd on the DPU have a *channel* for each connection, which carries
//! messages ([`qtfs_proto::relay`]), and a socket that is the other end of the program's.
//!
//! - [`channel`]: whole messages, in and out.
//! - [`local`]: the program's side: a socket, or a pipe that was passed.
//! - [`connection`]: everything from the one to the other until both are done.
//! - [`rights`]: descriptors that programs pass with their data.
//! - [`datagram`]: who sends datagrams, and the sockets that do so in their place.
//! - [`identity`]: acting as the program of the other machine.
//! - [`listener`]: sockets that are bound to inodes that exist.
//! - [`sys`]: all unsafe code.
//!
//! `Documentation/sockets.md` is the description of it all.

pub mod channel;
pub mod connection;
pub mod datagram;
pub mod identity;
pub mod listener;
pub mod local;
pub mod rights;
mod scratch;
#[allow(unsafe_code)]
pub mod sys;

/// An errno as channels carry it.
pub fn errno_of(error: &std::io::Error) -> u32 {
    let errno = error.raw_os_error().unwrap_or(nix::libc::EIO);
    u32::try_from(errno).unwrap_or(nix::libc::EIO as u32)
}

/// A number that nobody guesses, and that stands for nothing else.
pub fn token() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(u64::from_ne_bytes(bytes))
}
