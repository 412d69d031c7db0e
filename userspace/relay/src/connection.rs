// SPDX-License-Identifier: GPL-2.0

//! One connection: what a program writes goes into the channel, what comes out is written to it.
//!
//! Three things go on at once, in one task: reading from the program, receiving from the channel,
//! writing to the program. Receiving never waits for the program, so that credit always gets
//! through; what it has to keep is bounded by the credit that the other end has.

use crate::channel::Channel;
use crate::datagram::Sender;
use crate::local::Local;
use crate::rights::OwnedRight;
use crate::rights::Passing;
use qtfs_proto::relay::Message;
use qtfs_proto::relay::WINDOW;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use tokio::sync::Notify;

mod from_program;
mod to_program;

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
    /// The other program reads no more. What this one has written since stays in its socket: if it is
    /// there at the end, this program's connection is reset, as on one machine.
    stopped: bool,
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
    /// There is more credit, or `stopped` is set.
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
            stopped: false,
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
}
