// SPDX-License-Identifier: GPL-2.0

//! Channels: whole messages, in order. On the DPU a descriptor of `/dev/qtfs`, on HOST one end of
//! a pair of sockets.

use crate::scratch;
use nix::unistd;
use qtfs_proto::relay::cost;
use qtfs_proto::relay::Message;
use qtfs_proto::relay::WINDOW;
use qtfs_proto::Encode;
use qtfs_proto::Writer;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// A channel. Closing it closes the other end.
#[derive(Debug)]
pub struct Channel {
    fd: AsyncFd<OwnedFd>,
    early: Mutex<Early>,
}

/// What [`Channel::abandoned`] has received.
#[derive(Debug, Default)]
struct Early {
    messages: VecDeque<Vec<u8>>,
    /// What all of them would take of the window.
    cost: u32,
    /// There is data among them.
    data: bool,
}

impl Channel {
    /// Takes over a descriptor that does not block. Needs a runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            fd: crate::sys::register(fd, Interest::READABLE | Interest::WRITABLE)?,
            early: Mutex::default(),
        })
    }

    fn early(&self) -> MutexGuard<'_, Early> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message, not decoded yet; empty at the end, once the other end is closed.
    ///
    /// An error is the end as well: the connection between the machines is lost.
    pub async fn receive(&self) -> io::Result<Vec<u8>> {
        let early = self.early().messages.pop_front();
        match early {
            Some(message) => Ok(message),
            None => self.receive_next().await,
        }
    }

    async fn receive_next(&self) -> io::Result<Vec<u8>> {
        let receive = |fd: &OwnedFd| {
            scratch::with(|scratch| {
                let len = unistd::read(fd.as_fd(), scratch)?;
                Ok(scratch.get(..len).unwrap_or_default().to_vec())
            })
        };
        self.fd.async_io(Interest::READABLE, receive).await
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
        let sent = self.fd.async_io(Interest::WRITABLE, send).await?;
        if sent == bytes.len() {
            return Ok(());
        }
        Err(io::ErrorKind::WriteZero.into())
    }

    /// Returns when nobody needs the connection any more that is to be relayed: the other end is closed,
    /// or its program has closed its own and has written nothing. Messages that come before are there
    /// for [`Self::receive`].
    pub async fn abandoned(&self) {
        // More than there is credit for is no connection.
        while self.early().cost <= 2 * WINDOW {
            let bytes = match self.receive_next().await {
                Ok(bytes) if !bytes.is_empty() => bytes,
                _ => return,
            };
            let mut early = self.early();
            // As the sender counts.
            let mut len = bytes.len();
            match Message::decode(&bytes) {
                Ok(Message::Close(_)) if !early.data => return,
                Ok(Message::Data { bytes, .. }) => {
                    early.data = true;
                    len = bytes.len();
                }
                _ => {}
            }
            early.cost += cost(len);
            early.messages.push_back(bytes);
        }
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
        self.fd.get_ref().as_fd()
    }
}
