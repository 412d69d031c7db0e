// SPDX-License-Identifier: GPL-2.0

//! Files to close and nodes to forget: told to the server without anybody waiting.

use core::mem;
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};
use qtfs_net::NoFs;
use qtfs_proto::{
    FileId,
    Forget,
    NodeId, //
};

use super::Session;

/// Most entries of each kind in one message.
const BATCH: usize = 256;

/// The queue. It may be filled from memory reclaim, so whoever holds its lock must not begin one.
#[pin_data]
pub(crate) struct Releases {
    #[pin]
    queue: Mutex<Queue>,
}

/// The fields of [`Releases`] protected by the lock.
#[derive(Default)]
pub(crate) struct Queue {
    /// The incarnation of the session in which the ids mean something.
    pub(crate) incarnation: u32,
    /// Files to close.
    pub(crate) files: KVVec<FileId>,
    /// Nodes to forget.
    pub(crate) nodes: KVVec<Forget>,
}

impl Queue {
    /// Whether ids of `incarnation` can be queued. Those of older ones are gone, with what they
    /// named.
    fn takes(&mut self, incarnation: u32) -> bool {
        // Incarnations are counted up; a difference of half of all numbers is one backwards.
        let newer = incarnation.wrapping_sub(self.incarnation);
        if newer != 0 && newer < u32::MAX / 2 {
            self.incarnation = incarnation;
            self.files.clear();
            self.nodes.clear();
        }
        incarnation == self.incarnation
    }
}

impl Releases {
    /// Nothing queued.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { queue <- new_mutex!(Queue::default()) })
    }

    /// Closes a file of the given incarnation of the session, soon.
    pub(crate) fn close(&self, session: &Session, file: FileId, incarnation: u32) {
        let _nofs = NoFs::enter();
        let queued = {
            let mut queue = self.queue.lock();
            !queue.takes(incarnation) || queue.files.push(file, GFP_KERNEL).is_ok()
        };
        if !queued {
            session.log_error("RELEASE", ENOMEM, "a file stays open on HOST until umount");
        }
        session.chores();
    }

    /// Forgets a node of the given incarnation of the session, some time.
    pub(crate) fn forget(&self, session: &Session, node: NodeId, stamp: u64, incarnation: u32) {
        if node.is_none() {
            return;
        }
        let _nofs = NoFs::enter();
        let many = {
            let mut queue = self.queue.lock();
            if !queue.takes(incarnation) {
                return;
            }
            // Without memory the server remembers the node a bit longer: until umount.
            let _ = queue.nodes.push(Forget { node, stamp }, GFP_KERNEL);
            queue.nodes.len() >= BATCH
        };
        if many {
            session.chores();
        }
    }

    /// Queues a batch again that could not be sent.
    pub(crate) fn put_back(&self, batch: Queue) {
        let _nofs = NoFs::enter();
        let mut queue = self.queue.lock();
        if queue.takes(batch.incarnation) {
            // Without memory the server remembers them until umount.
            let _ = queue.files.extend_from_slice(&batch.files, GFP_KERNEL);
            let _ = queue.nodes.extend_from_slice(&batch.nodes, GFP_KERNEL);
        }
    }

    /// Takes the next batch, if there is something to say.
    pub(crate) fn next(&self) -> Option<Queue> {
        let _nofs = NoFs::enter();
        let mut queue = self.queue.lock();
        if queue.files.is_empty() && queue.nodes.len() < BATCH {
            return None;
        }
        Some(Queue {
            incarnation: queue.incarnation,
            files: split(&mut queue.files),
            nodes: split(&mut queue.nodes),
        })
    }
}

/// Takes up to [`BATCH`] items from the end.
fn split<T: Copy>(items: &mut KVVec<T>) -> KVVec<T> {
    if items.len() <= BATCH {
        return mem::take(items);
    }
    let mut batch = KVVec::new();
    while batch.len() < BATCH {
        let Some(item) = items.pop() else { break };
        if batch.push(item, GFP_KERNEL).is_err() {
            let _ = items.push_within_capacity(item);
            break;
        }
    }
    batch
}
