// SPDX-License-Identifier: GPL-2.0

//! Channels between clients and engine that engine has not fetched yet.
//!
//! A channel is a connection of two sockets: one end is an open file of the session, the other one
//! engine's. The module only moves messages; what they mean is the business of engine and of the
//! daemon on the DPU.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};
use qtfs_proto::{
    relay::{
        Purpose,
        SocketType, //
    },
    PollEvents, //
};
use qtfs_vfs::{
    local::File,
    poll::PollQueue,
    unix, //
};

use crate::caller::Caller;

/// Most channels that engine has not fetched. Those of a session that ends are closed by engine, which
/// finds their other end closed.
const MAX_WAITING: usize = 4096;

/// A channel for engine.
pub(crate) struct NewChannel {
    /// Engine's end.
    pub(crate) end: File,
    /// The socket that it is about, as by `O_PATH`.
    pub(crate) object: File,
    /// A file that the client passes.
    pub(crate) passed: Option<File>,
    pub(crate) purpose: Purpose,
    pub(crate) kind: SocketType,
    pub(crate) token: u64,
    /// Number of the session.
    pub(crate) session: u32,
    /// Who asks.
    pub(crate) caller: Arc<Caller>,
}

/// Descriptors of a channel in the current task.
pub(crate) struct Descriptors {
    pub(crate) end: i32,
    pub(crate) object: i32,
    /// -1: none.
    pub(crate) passed: i32,
}

impl NewChannel {
    /// Gives the current task descriptors of its files.
    pub(crate) fn install(self) -> Result<Descriptors> {
        // One that is not the last is left to engine, which ends when it has no more room.
        Ok(Descriptors {
            end: unix::install(self.end)?,
            object: unix::install(self.object)?,
            passed: match self.passed {
                Some(file) => unix::install(file)?,
                None => -1,
            },
        })
    }
}

/// See the module.
#[pin_data]
pub(crate) struct Channels {
    #[pin]
    waiting: Mutex<KVVec<NewChannel>>,
    #[pin]
    queue: PollQueue,
}

impl Channels {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            waiting <- new_mutex!(KVVec::new()),
            queue <- PollQueue::new(),
        })
    }

    /// Adds a channel.
    ///
    /// Fails with [`EAGAIN`] when engine does not fetch them.
    pub(crate) fn push(&self, channel: NewChannel) -> Result {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            return Err(EAGAIN);
        }
        waiting.push(channel, GFP_KERNEL)?;
        drop(waiting);
        self.queue.wake(PollEvents::NONE);
        Ok(())
    }

    /// Waits for the next channel.
    ///
    /// Fails with [`EINTR`] when a signal comes.
    pub(crate) fn next(&self) -> Result<NewChannel> {
        loop {
            let seen = self.queue.generation();
            {
                let mut waiting = self.waiting.lock();
                if !waiting.is_empty() {
                    return waiting.remove(0).map_err(|_| EIO);
                }
            }
            self.queue.sleep(seen).map_err(|_| EINTR)?;
        }
    }
}
