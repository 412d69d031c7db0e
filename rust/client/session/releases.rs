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
    /// Files to close.
    pub(crate) files: KVVec<FileId>,
    /// Nodes to forget.
    pub(crate) nodes: KVVec<Forget>,
}

impl Releases {
    /// Nothing queued.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { queue <- new_mutex!(Queue::default()) })
    }

    /// Closes a file, soon.
    pub(crate) fn close(&self, session: &Session, file: FileId) {
        let _nofs = NoFs::enter();
        if self.queue.lock().files.push(file, GFP_KERNEL).is_err() {
            session.log_error("RELEASE", ENOMEM, "a file stays open on HOST until umount");
        }
        session.chores();
    }

    /// Forgets a node, some time.
    pub(crate) fn forget(&self, session: &Session, node: NodeId, stamp: u64) {
        if node.is_none() {
            return;
        }
        let _nofs = NoFs::enter();
        let many = {
            let mut queue = self.queue.lock();
            // Without memory the server remembers the node a bit longer: until umount.
            let _ = queue.nodes.push(Forget { node, stamp }, GFP_KERNEL);
            queue.nodes.len() >= BATCH
        };
        if many {
            session.chores();
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
            files: split(&mut queue.files),
            nodes: split(&mut queue.nodes),
        })
    }

    /// Drops everything: the server does not know the ids any more.
    pub(crate) fn clear(&self) {
        let old = mem::take(&mut *self.queue.lock());
        drop(old);
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
