// SPDX-License-Identifier: GPL-2.0

//! One connection of a client.
//!
//! A session has several: lane 0 for metadata, the others for bulk data. Each has two threads, one
//! that receives ([`crate::receiver`]) and one that sends what the socket does not take at once.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};
use qtfs_net::{
    Address,
    Frame,
    Meter,
    Outbox,
    Socket,
    Thread, //
};

/// Frames that may wait to be sent, besides one answer for each slot.
const SPARE_BACKLOG: u32 = 16;
/// Most frames that may wait to be sent without having been asked for.
const MAX_UNTOLD: usize = 1 << 16;

/// The number of a lane that belongs to no session yet.
const STRANGER: u32 = u32::MAX;

/// See the module.
pub(crate) struct Lane {
    socket: Arc<Socket>,
    outbox: Arc<Outbox>,
    peer: Address,
    /// Number within the session; [`STRANGER`] before HELLO.
    number: Atomic<u32>,
    /// Frames that may wait to be sent to a client that does not read them.
    max_backlog: Atomic<u32>,
    /// The receiving thread is done.
    finished: Atomic<bool>,
    /// The connection was closed by this side.
    closed: Atomic<bool>,
}

impl Lane {
    /// Makes the lane of a connection and the thread that sends.
    pub(crate) fn new(socket: Socket) -> Result<(Arc<Self>, Thread)> {
        let peer = socket.peer()?;
        let socket = Arc::new(socket, GFP_KERNEL)?;
        let (outbox, thread) = Outbox::new(socket.clone(), fmt!("qtfs_send"))?;
        let guard = CloseOnDrop(Some(outbox.clone()));
        let lane = Arc::new(
            Self {
                socket,
                outbox,
                peer,
                number: Atomic::<u32>::new(STRANGER),
                max_backlog: Atomic::<u32>::new(SPARE_BACKLOG),
                finished: Atomic::<bool>::new(false),
                closed: Atomic::<bool>::new(false),
            },
            GFP_KERNEL,
        )?;
        guard.keep();
        Ok((lane, thread))
    }

    /// The connection, to receive from.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Where the client is.
    pub(crate) fn peer(&self) -> &Address {
        &self.peer
    }

    /// Number within the session.
    pub(crate) fn number(&self) -> u16 {
        // CAST: Set from a `u16`.
        self.number.load(Relaxed) as u16
    }

    /// Whether it has not said HELLO yet and may still do so.
    pub(crate) fn is_stranger(&self) -> bool {
        self.number.load(Relaxed) == STRANGER && !self.closed.load(Relaxed)
    }

    /// Sets the number within the session.
    pub(crate) fn set_number(&self, number: u16) {
        self.number.store(u32::from(number), Relaxed);
    }

    /// The lane was refused and belongs to no session again.
    pub(crate) fn forget_number(&self) {
        self.number.store(STRANGER, Relaxed);
    }

    /// Sets how many answers the client may have to expect, and what counts them.
    pub(crate) fn set_credits(&self, credits: u16, meter: &Arc<Meter>) {
        self.outbox.count_by(meter);
        let max = u32::from(credits).saturating_add(SPARE_BACKLOG);
        self.max_backlog.store(max, Relaxed);
    }

    /// Sends a frame, or leaves it to the thread; fails when the connection is lost.
    pub(crate) fn send(&self, frame: Arc<Frame>) -> Result {
        if self.outbox.backlog() >= self.max_backlog.load(Relaxed) as usize {
            log_warn!("{}: does not read its answers, disconnected\n", self.peer);
            self.close();
            return Err(ENOTCONN);
        }
        self.outbox.send(frame)
    }

    /// Sends what the client has not asked for. Who reads has few of these on the way: one for each
    /// thing that it wants to be told of, and it asks for the next when it has read one.
    pub(crate) fn tell(&self, frame: Arc<Frame>) -> Result {
        if self.outbox.untold() >= MAX_UNTOLD {
            log_warn!(
                "{}: does not read what it is told, disconnected\n",
                self.peer
            );
            self.close();
            return Err(ENOTCONN);
        }
        self.outbox.tell(frame)
    }

    /// Ends the connection; both threads end soon.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
        self.outbox.close();
    }

    /// Whether this side ended the connection. What the client sent by it until then can still be
    /// received.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Says that the receiving thread is done.
    pub(crate) fn finish(&self) {
        self.close();
        self.finished.store(true, Relaxed);
    }

    /// Whether the receiving thread is done.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Relaxed)
    }
}

/// Closes an outbox, so that its thread ends, unless told otherwise.
struct CloseOnDrop(Option<Arc<Outbox>>);

impl CloseOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(outbox) = &self.0 {
            outbox.close();
        }
    }
}
