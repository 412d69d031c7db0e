// SPDX-License-Identifier: GPL-2.0

//! Channels: whole messages, in order. On the DPU a descriptor of `/dev/qtfs`, on HOST one end of
//! a pair of sockets.

use crate::scratch;
use nix::unistd;
use qtfs_proto::relay::Message;
use qtfs_proto::Encode;
use qtfs_proto::Writer;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// A channel. Closing it closes the other end.
#[derive(Debug)]
pub struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    /// Takes over a descriptor that does not block. Needs a runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        crate::sys::register(fd, Interest::READABLE | Interest::WRITABLE).map(Self)
    }

    /// The next message, not decoded yet; empty at the end, once the other end is closed.
    ///
    /// An error is the end as well: the connection between the machines is lost.
    pub async fn receive(&self) -> io::Result<Vec<u8>> {
        let receive = |fd: &OwnedFd| {
            scratch::with(|scratch| {
                let len = unistd::read(fd.as_fd(), scratch)?;
                Ok(scratch.get(..len).unwrap_or_default().to_vec())
            })
        };
        self.0.async_io(Interest::READABLE, receive).await
    }

    /// Sends a message.
    pub async fn send(&self, message: &Message<'_>) -> io::Result<()> {
        let bytes = scratch::with(|scratch| {
            let mut w = Writer::new(scratch);
            message
                .encode(&mut w)
                .map_err(|_| io::Error::from_raw_os_error(nix::libc::EMSGSIZE))?;
            let len = w.len();
            Ok::<_, io::Error>(scratch.get(..len).unwrap_or_default().to_vec())
        })?;
        let send = |fd: &OwnedFd| Ok(unistd::write(fd, &bytes)?);
        let sent = self.0.async_io(Interest::WRITABLE, send).await?;
        if sent == bytes.len() {
            return Ok(());
        }
        Err(io::ErrorKind::WriteZero.into())
    }

    /// Returns when the other end is closed; messages that come before are lost.
    pub async fn closed(&self) {
        while self
            .receive()
            .await
            .is_ok_and(|message| !message.is_empty())
        {}
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
