// SPDX-License-Identifier: GPL-2.0

//! One connection: what a program writes goes into the channel, what comes out is written to it.
//!
//! Three things go on at once, in one task: reading from the program, receiving from the channel,
//! writing to the program. Receiving never waits for the program, so that credit always gets
//! through; what it has to keep is bounded by the credit that the other end has.

use crate::channel::Channel;
use crate::datagram;
use crate::datagram::Sender;
use crate::errno_of;
use crate::local::Input;
use crate::local::Kind;
use crate::local::Local;
use crate::local::MAX_RECORD;
use crate::rights::OwnedRight;
use crate::rights::Passing;
use qtfs_proto::relay::cost;
use qtfs_proto::relay::Message;
use qtfs_proto::relay::Passed;
use qtfs_proto::relay::Rights;
use qtfs_proto::relay::MAX_MESSAGE;
use qtfs_proto::relay::MAX_PAYLOAD;
use qtfs_proto::relay::WINDOW;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use tokio::sync::Notify;

/// What is to be written to the program.
enum Item {
    Data {
        more: bool,
        rights: Vec<OwnedRight>,
        bytes: Vec<u8>,
        sender: Option<Sender>,
        cost: u32,
    },
    End,
    Close,
}

/// What [`Connection`] keeps under its lock.
struct State {
    queue: VecDeque<Item>,
    /// What the items in the queue take of the window.
    queued: u32,
    /// What is left of the window for what is sent.
    credit: u32,
    /// Nothing comes out of the channel any more.
    gone: bool,
    /// The other end has said that it is done, and says nothing more.
    closed: bool,
    /// The program writes no more, and the other end knows.
    sent_end: bool,
    /// The other program writes no more, and this one knows.
    wrote_end: bool,
}

struct Connection<P> {
    local: Local,
    channel: Channel,
    passing: Arc<P>,
    state: Mutex<State>,
    /// There is more credit.
    credit: Notify,
    /// There is something in the queue, or `gone` is set.
    queue: Notify,
}

/// Relays until both sides are done, or one of them is lost; then closes both.
///
/// When the connection to the other machine is lost, the program still gets what has come.
pub async fn relay<P: Passing>(local: Local, channel: Channel, passing: Arc<P>) {
    let connection = Connection {
        local,
        channel,
        passing,
        state: Mutex::new(State {
            queue: VecDeque::new(),
            queued: 0,
            credit: WINDOW,
            gone: false,
            closed: false,
            sent_end: false,
            wrote_end: false,
        }),
        credit: Notify::new(),
        queue: Notify::new(),
    };
    let result = tokio::select! {
        result = connection.read() => result,
        result = connection.receive() => result.map(|()| 0),
        result = connection.write() => result.map(|()| 0),
    };
    if result.is_err() || connection.is_lost() {
        connection.passing.lost().await;
    }
    match result {
        Ok(errno) => connection.part(errno).await,
        Err(error) => tracing::debug!("a connection is lost: {error}"),
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl<P: Passing> Connection<P> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the channel has ended without a word of that.
    fn is_lost(&self) -> bool {
        let state = self.state();
        state.gone && !state.closed
    }

    /// Waits for credit for a message with data; how many bytes it may have.
    async fn payload(&self) -> usize {
        loop {
            let more = self.credit.notified();
            let credit = self.state().credit;
            // Not in crumbs while a large piece is on its way.
            if credit > WINDOW / 4 {
                return MAX_PAYLOAD.min((credit - cost(0)) as usize);
            }
            more.await;
        }
    }

    /// From the program into the channel. Returns what to close the channel with when there is
    /// nothing left to do.
    async fn read(&self) -> io::Result<u32> {
        if matches!(self.local.kind(), Kind::PipeWriter | Kind::DatagramWriter) {
            self.local.closed().await?;
            return Ok(0);
        }
        let mut last = Sender::default();
        loop {
            let max = self.payload().await;
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
                Ok(Input::End { closed: true }) => return Ok(0),
                Ok(Input::End { closed: false }) => break,
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
        self.payload().await;
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
            let room = self.payload().await;
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

    /// From the channel into the queue. Returns when the connection to the other machine is lost.
    async fn receive(&self) -> io::Result<()> {
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
    async fn write(&self) -> io::Result<()> {
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

    /// Sends what nobody needs when the channel is lost: what has come is written all the same.
    async fn tell(&self, message: &Message<'_>) {
        if let Err(error) = self.channel.send(message).await {
            tracing::debug!("the other machine is not told: {error}");
        }
    }

    /// Closes the channel once the other end has no more to say. A socket that is closed with
    /// something unread makes its peer lose what *that* has not read yet (`unix_release_sock` sets
    /// the peer's `sk_err`), and credit may come at any time.
    async fn part(self, errno: u32) {
        let Self {
            local,
            channel,
            state,
            ..
        } = self;
        // The program sees the end now.
        drop(local);
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if state.closed || channel.send(&Message::Close(errno)).await.is_err() {
            return;
        }
        while let Ok(bytes) = channel.receive().await {
            if bytes.is_empty() || matches!(Message::decode(&bytes), Ok(Message::Close(_))) {
                return;
            }
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
