// SPDX-License-Identifier: GPL-2.0

//! From the program into the channel.

use super::broken;
use super::Connection;
use crate::datagram::Sender;
use crate::errno_of;
use crate::local::Input;
use crate::local::Kind;
use crate::rights::OwnedRight;
use crate::rights::Passing;
use qtfs_proto::relay::cost;
use qtfs_proto::relay::Message;
use qtfs_proto::relay::Passed;
use qtfs_proto::relay::Rights;
use qtfs_proto::relay::MAX_MESSAGE;
use qtfs_proto::relay::MAX_PAYLOAD;
use qtfs_proto::relay::WINDOW;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl<P: Passing> Connection<P> {
    /// Waits for credit for a message with data; how many bytes it may have. None when nobody reads
    /// them.
    async fn payload(&self) -> Option<usize> {
        loop {
            let more = self.credit.notified();
            {
                let state = self.state();
                if state.stopped {
                    return None;
                }
                // Not in crumbs while a large piece is on its way.
                if state.credit > WINDOW / 4 {
                    return Some(MAX_PAYLOAD.min((state.credit - cost(0)) as usize));
                }
            }
            more.await;
        }
    }

    /// From the program into the channel. Returns what to close the channel with when there is
    /// nothing left to do.
    pub(super) async fn read(&self) -> io::Result<u32> {
        if matches!(self.local.kind(), Kind::PipeWriter | Kind::DatagramWriter) {
            self.local.closed().await?;
            return Ok(0);
        }
        let mut last = Sender::default();
        let mut reset = 0;
        while let Some(max) = self.payload().await {
            match self.local.receive(max).await {
                Ok(Input::Data { bytes, fds, sender }) => {
                    let sent = async {
                        if let Some(sender) = sender.filter(|sender| *sender != last) {
                            self.say_sender(&sender).await?;
                            last = sender;
                        }
                        self.send(&bytes, fds).await
                    };
                    if let Err(error) = sent.await {
                        return self.lost(error).await;
                    }
                }
                Ok(Input::End { closed: true }) => return Ok(reset),
                Ok(Input::End { closed: false }) => break,
                // The kernel says so before it gives the records that the program has written.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && reset == 0 => {
                    reset = errno_of(&error);
                }
                Err(error) => return Ok(errno_of(&error)),
            }
        }
        if let Err(error) = self.channel.send(&Message::End).await {
            return self.lost(error).await;
        }
        let done = {
            let mut state = self.state();
            state.sent_end = true;
            state.wrote_end
        };
        if !done {
            self.local.closed().await?;
        }
        Ok(0)
    }

    /// The channel takes nothing any more. The program cannot write from now on, but still gets what
    /// has come.
    async fn lost(&self, error: io::Error) -> io::Result<u32> {
        if !matches!(self.local.kind(), Kind::Stream | Kind::Seqpacket) {
            return Err(error);
        }
        tracing::debug!("a channel is lost: {error}");
        self.passing.lost().await;
        self.local.end_reading();
        std::future::pending().await
    }

    /// Says who has sent the datagrams that follow.
    async fn say_sender(&self, sender: &Sender) -> io::Result<()> {
        if self.payload().await.is_none() {
            return Ok(());
        }
        self.state().credit -= cost(0);
        let sender = Sender {
            name: self.passing.name_there(sender.name.clone()),
            ..*sender
        };
        self.channel.send(&Message::Sender(sender.message())).await
    }

    /// Sends what the program has written: one piece of a stream, or one record.
    async fn send(&self, bytes: &[u8], fds: Vec<OwnedFd>) -> io::Result<()> {
        let mut rights = Vec::with_capacity(fds.len());
        for fd in fds {
            let described = Arc::clone(&self.passing).describe(&self.channel, fd).await;
            rights.push(described.unwrap_or_else(|error| {
                tracing::warn!("a descriptor that a program has passed does not arrive: {error}");
                OwnedRight::relayed(Passed::Lost, 0)
            }));
        }
        let mut rest = bytes;
        loop {
            let Some(room) = self.payload().await else {
                return Ok(());
            };
            let (piece, behind) = rest.split_at(rest.len().min(room));
            let space = if rights.is_empty() {
                0
            } else {
                MAX_MESSAGE - MAX_PAYLOAD - 64
            };
            let mut buf = vec![0; space];
            let packed = loop {
                if let Ok(packed) = Rights::pack(rights.iter().map(OwnedRight::message), &mut buf) {
                    break packed;
                }
                // Those with the longest paths are missed by the program that they were for.
                let long = rights.iter_mut().max_by_key(|right| right.path.len());
                let long = long.filter(|long| long.passed != Passed::Lost);
                let long = long.ok_or_else(|| broken("descriptors"))?;
                tracing::warn!(
                    "a descriptor that a program has passed does not arrive: with the others of the \
                     message its path is too long: {}",
                    String::from_utf8_lossy(&long.path)
                );
                *long = OwnedRight::relayed(Passed::Lost, 0);
            };
            self.state().credit -= cost(piece.len());
            self.channel
                .send(&Message::Data {
                    more: !behind.is_empty() && self.local.kind().has_records(),
                    rights: packed,
                    bytes: piece,
                })
                .await?;
            rights.clear();
            rest = behind;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}
