// SPDX-License-Identifier: GPL-2.0

//! From the channel to the program.

use super::broken;
use super::Connection;
use super::Item;
use crate::datagram;
use crate::datagram::Sender;
use crate::local::Kind;
use crate::local::MAX_RECORD;
use crate::rights::OwnedRight;
use crate::rights::Passing;
use qtfs_proto::relay::cost;
use qtfs_proto::relay::Message;
use qtfs_proto::relay::Passed;
use qtfs_proto::relay::WINDOW;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl<P: Passing> Connection<P> {
    /// From the channel into the queue. Returns when the connection to the other machine is lost.
    pub(super) async fn receive(&self) -> io::Result<()> {
        // Of the datagrams that follow, and what was said of it takes until the first.
        let mut sender = None;
        let mut said = 0;
        loop {
            let bytes = match self.channel.receive().await {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::debug!("a channel is lost: {error}");
                    break;
                }
            };
            let message = Message::decode(&bytes).map_err(|error| {
                tracing::warn!("the other machine has sent no message: {error:?}");
                broken("no message")
            })?;
            let item = match message {
                Message::Data {
                    more,
                    rights,
                    bytes,
                } => Item::Data {
                    more,
                    rights: rights.iter().map(|right| OwnedRight::of(&right)).collect(),
                    bytes: bytes.to_vec(),
                    sender: sender.clone(),
                    cost: cost(bytes.len()) + std::mem::take(&mut said),
                },
                Message::Sender(next) if self.local.kind() == Kind::DatagramWriter => {
                    sender = Some(Sender::of(&next));
                    said += cost(0);
                    if said > WINDOW {
                        return Err(broken("more senders than there is credit for"));
                    }
                    continue;
                }
                Message::Credit(credit) => {
                    let mut state = self.state();
                    let credit = state.credit.checked_add(credit);
                    state.credit = credit
                        .filter(|credit| *credit <= WINDOW)
                        .ok_or_else(|| broken("too much credit"))?;
                    drop(state);
                    self.credit.notify_one();
                    continue;
                }
                Message::Stop => {
                    if matches!(self.local.kind(), Kind::PipeReader | Kind::DatagramReader) {
                        return Ok(());
                    }
                    self.state().stopped = true;
                    self.credit.notify_one();
                    self.local.end_reading();
                    continue;
                }
                Message::End => Item::End,
                Message::Close(_) => {
                    self.state().closed = true;
                    Item::Close
                }
                Message::Opened { .. } | Message::Incoming { .. } | Message::Sender(_) => {
                    return Err(broken("a message that is not for a connection"))
                }
            };
            let mut state = self.state();
            if let Item::Data { cost, .. } = &item {
                state.queued += cost;
                if state.queued > WINDOW {
                    return Err(broken("more data than there is credit for"));
                }
            }
            state.queue.push_back(item);
            drop(state);
            self.queue.notify_one();
        }
        // What is in the queue is written yet.
        self.state().gone = true;
        self.queue.notify_one();
        std::future::pending().await
    }

    /// The next item; none when no more will come.
    async fn next(&self) -> Option<Item> {
        loop {
            let more = self.queue.notified();
            {
                let mut state = self.state();
                if let Some(item) = state.queue.pop_front() {
                    return Some(item);
                }
                if state.gone {
                    return None;
                }
            }
            more.await;
        }
    }

    /// From the queue to the program. Returns when there is nothing left to do.
    pub(super) async fn write(&self) -> io::Result<()> {
        let mut record = Vec::new();
        let mut passed = Vec::new();
        let mut consumed = 0;
        let mut refused = false;
        while let Some(item) = self.next().await {
            let Item::Data {
                more,
                rights,
                bytes,
                sender,
                cost,
            } = item
            else {
                let is_end = matches!(item, Item::End);
                if !is_end || !matches!(self.local.kind(), Kind::Stream | Kind::Seqpacket) {
                    return Ok(());
                }
                self.local.end_writing();
                let mut state = self.state();
                state.wrote_end = true;
                if state.sent_end {
                    return Ok(());
                }
                continue;
            };
            for right in rights {
                passed.extend(self.realize(right).await);
            }
            let whole = if self.local.kind().has_records() {
                record.extend_from_slice(&bytes);
                if record.len() > MAX_RECORD {
                    return Err(broken("a record that is too long"));
                }
                (!more).then(|| std::mem::take(&mut record))
            } else {
                Some(bytes)
            };
            if let Some(bytes) = whole.filter(|_| !refused) {
                let fds = std::mem::take(&mut passed);
                if let Err(error) = self.deliver(&bytes, fds, sender).await {
                    tracing::debug!("a program takes no more data: {error}");
                    refused = true;
                    self.tell(&Message::Stop).await;
                }
            }
            self.state().queued -= cost;
            consumed += cost;
            if consumed >= WINDOW / 2 {
                self.tell(&Message::Credit(consumed)).await;
                consumed = 0;
            }
        }
        Ok(())
    }

    /// Gives a program its data. Fails when it takes none any more.
    async fn deliver(
        &self,
        bytes: &[u8],
        fds: Vec<OwnedFd>,
        sender: Option<Sender>,
    ) -> io::Result<()> {
        if self.local.kind() != Kind::DatagramWriter {
            return self.local.send(bytes, fds).await;
        }
        let sender = sender.unwrap_or_default();
        let here = |name| self.passing.name_here(name);
        match self.local.send_as(&sender, here, bytes, &fds).await {
            Err(error) if !datagram::is_gone(&error) => {
                tracing::warn!("a datagram of {} bytes is not taken: {error}", bytes.len());
                Ok(())
            }
            done => done,
        }
    }

    async fn realize(&self, right: OwnedRight) -> Option<OwnedFd> {
        if right.passed == Passed::Lost {
            return None;
        }
        let fd = Arc::clone(&self.passing).realize(&self.channel, right);
        let fd = fd.await.inspect_err(|error| {
            tracing::warn!("a descriptor that a program has passed does not arrive: {error}");
        });
        fd.ok()
    }
}
