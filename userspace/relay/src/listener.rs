// SPDX-License-Identifier: GPL-2.0

//! Sockets that are bound to, or connected to, an inode that exists.
//!
//! `rust/shim/alias.c` makes the directory in which they are bound.

use crate::identity::Identity;
use crate::local::MAX_RECORD;
use nix::sys::socket;
use nix::sys::socket::accept4;
use nix::sys::socket::bind;
use nix::sys::socket::listen;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::sockopt::SndBufForce;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::Backlog;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::UnixAddr;
use qtfs_proto::relay::SocketType;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// A socket that does not block.
pub fn new_socket(kind: SocketType) -> io::Result<OwnedFd> {
    let kind = match kind {
        SocketType::Stream => SockType::Stream,
        SocketType::Datagram => SockType::Datagram,
        SocketType::Seqpacket => SockType::SeqPacket,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket::socket(AddressFamily::Unix, kind, flags, None)?)
}

/// Binds a socket to the inode of `object`; `directory` is where.
pub fn bind_to(kind: SocketType, directory: &impl AsFd, object: &impl AsFd) -> io::Result<OwnedFd> {
    let (directory, object) = (directory.as_fd().as_raw_fd(), object.as_fd().as_raw_fd());
    let path = format!("/proc/self/fd/{directory}/{object}");
    let socket = new_socket(kind)?;
    if kind == SocketType::Datagram {
        // Before anybody can send: the kernel notes who sends for those who ask.
        setsockopt(&socket, PassCred, &true)?;
    }
    bind(socket.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
    Ok(socket)
}

/// Connects to what is bound to the inode of `object`, as `who`. Blocks for no longer than it takes
/// the kernel.
pub fn connect_to(kind: SocketType, object: &impl AsFd, who: &Identity) -> io::Result<OwnedFd> {
    let socket = match kind {
        SocketType::Datagram => new_outlet()?,
        SocketType::Stream | SocketType::Seqpacket => new_socket(kind)?,
    };
    who.act(|| connect(&socket, object))?;
    Ok(socket)
}

/// A socket to send datagrams with. How long they may be was a matter of who has sent them.
pub(crate) fn new_outlet() -> io::Result<OwnedFd> {
    let socket = new_socket(SocketType::Datagram)?;
    setsockopt(&socket, SndBufForce, &MAX_RECORD)?;
    Ok(socket)
}

/// Connects a socket to what is bound to the inode of `object`, as the calling thread.
pub(crate) fn connect(socket: &OwnedFd, object: &impl AsFd) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", object.as_fd().as_raw_fd());
    let address = UnixAddr::new(path.as_str())?;
    Ok(socket::connect(socket.as_raw_fd(), &address)?)
}

/// The kernel notes who listens, each time that somebody does (net/unix/af_unix.c).
fn listen_as(socket: &OwnedFd, who: &Identity) -> io::Result<()> {
    // As many as the system allows.
    let backlog = Backlog::new(4096).unwrap_or(Backlog::MAXCONN);
    who.act(|| Ok(listen(socket, backlog)?))
}

/// Accepts connections.
#[derive(Debug)]
pub struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    /// Begins to listen; who connects sees `who` (`SO_PEERCRED`).
    pub fn new(socket: OwnedFd, who: &Identity) -> io::Result<Self> {
        listen_as(&socket, who)?;
        crate::sys::register(socket, Interest::READABLE).map(Self)
    }

    /// Whoever connects from now on sees `who`.
    pub fn show(&self, who: &Identity) -> io::Result<()> {
        listen_as(self.0.get_ref(), who)
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let accept = |socket: &OwnedFd| Ok(accept4(socket.as_raw_fd(), flags)?);
        let fd = self.0.async_io(Interest::READABLE, accept).await?;
        Ok(crate::sys::owned(fd))
    }
}
