// SPDX-License-Identifier: GPL-2.0

//! What the lock of [`super::Nodes`] protects.

use kernel::{
    prelude::*,
    rbtree::RBTree,
    sync::{
        atomic::Atomic,
        Arc, //
    },
};
use qtfs_proto::{
    FileId,
    NodeId, //
};
use qtfs_vfs::{
    local::{
        identity::Handle,
        path::WriteErrors,
        Identity, //
    },
    random, //
};

use super::{
    Chain,
    Node, //
};
use crate::{
    budget::Budget,
    refusal::{
        Refusal,
        Result, //
    },
    version::Version, //
};

/// Most nodes of one session.
const MAX_NODES: usize = 1 << 20;
/// What one takes, with its name and its places in the trees.
const NODE_BYTES: usize = 512;

/// What changes of a node, under the lock of the table.
pub(super) struct Record {
    pub(super) node: Arc<Node>,
    pub(super) place: Place,
    /// The client knows it since it was handed out with this stamp, and did not forget it.
    pub(super) known: bool,
    pub(super) stamp: u64,
    /// Nodes whose directory it is.
    pub(super) children: u32,
    /// Open files of it.
    pub(super) files: KVec<FileId>,
}

/// Where an object was seen last.
pub(super) enum Place {
    /// At this path on HOST, which ATTACH named.
    Root(KVVec<u8>),
    /// Under a name in a directory.
    Entry { dir: NodeId, name: KVec<u8> },
    /// Nobody knows.
    Lost,
}

/// All nodes of a session.
pub(super) struct Inner {
    pub(super) by_id: RBTree<u64, Record>,
    pub(super) by_identity: RBTree<Identity, u64>,
    pub(super) count: usize,
    /// Directories that ATTACH named.
    pub(super) roots: KVec<NodeId>,
    /// Ids are never used again.
    pub(super) next: u64,
    pub(super) stamp: u64,
    /// Versions begin differently in each session.
    pub(super) first_version: u64,
    /// The session has ended.
    pub(super) closed: bool,
    /// What they may take.
    budget: Arc<Budget>,
}

impl Inner {
    /// No nodes.
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            by_id: RBTree::new(),
            by_identity: RBTree::new(),
            count: 0,
            roots: KVec::new(),
            next: 1,
            stamp: 0,
            first_version: random::number(),
            closed: false,
            budget: budget.clone(),
        }
    }

    pub(super) fn find_root(&self, text: &[u8]) -> Option<Arc<Node>> {
        self.roots
            .iter()
            .filter_map(|id| self.by_id.get(&id.0))
            .find(|record| matches!(&record.place, Place::Root(root) if **root == *text))
            .map(|record| record.node.clone())
    }

    /// Makes a node's identity lead to it.
    pub(super) fn name(&mut self, node: &Node) -> Result {
        let added = self
            .by_identity
            .try_create_and_insert(node.identity, node.id.0, GFP_KERNEL);
        if let Err(e) = added {
            self.remove(node.id);
            return Err(e.into());
        }
        Ok(())
    }

    pub(super) fn insert(
        &mut self,
        identity: Identity,
        write_errors: WriteErrors,
        handle: Option<Handle>,
        place: Place,
    ) -> Result<Arc<Node>> {
        if self.closed {
            return Err(ESTALE.into());
        }
        if self.count >= MAX_NODES {
            return Err(Refusal::new(
                ENFILE,
                fmt!("the client knows {MAX_NODES} objects"),
            ));
        }
        let charge = self.budget.charge(NODE_BYTES)?;
        let id = NodeId(self.next);
        let first = self.first_version.wrapping_add(id.0 << 20);
        let node = Arc::pin_init(
            try_pin_init!(Node {
                id,
                identity,
                handle,
                writers: Atomic::<i32>::new(0),
                write_errors,
                version <- Version::new(first),
                _charge: charge,
            }),
            GFP_KERNEL,
        )?;
        let record = Record {
            node: node.clone(),
            place,
            known: false,
            stamp: 0,
            children: 0,
            files: KVec::new(),
        };
        self.by_id.try_create_and_insert(id.0, record, GFP_KERNEL)?;
        self.next += 1;
        self.count += 1;
        Ok(node)
    }

    /// The node with this identity, which is now seen under `name` in `dir`.
    pub(super) fn move_known(
        &mut self,
        identity: &Identity,
        dir: NodeId,
        name: &[u8],
    ) -> Result<Option<Arc<Node>>> {
        let Some(id) = self.by_identity.get(identity).copied() else {
            return Ok(None);
        };
        let Some(record) = self.by_id.get(&id) else {
            return Ok(None);
        };
        let node = record.node.clone();
        if let Place::Entry { dir: d, name: n } = &record.place {
            if *d == dir && **n == *name {
                return Ok(Some(node));
            }
        }
        let place = Place::Entry {
            dir,
            name: copy_name(name)?,
        };
        // A directory in itself: the name is another object's by now.
        if dir == node.id || self.by_id.get(&dir.0).is_none() {
            return Err(ESTALE.into());
        }
        self.cut_cycle(node.id, dir);
        if let Some(parent) = self.by_id.get_mut(&dir.0) {
            parent.children += 1;
        }
        let old = match self.by_id.get_mut(&id) {
            Some(record) => core::mem::replace(&mut record.place, place),
            None => return Ok(None),
        };
        self.leave(old);
        Ok(Some(node))
    }

    /// Makes sure that `dir` is not below `id`: it cannot be, so what the chain says of the object
    /// in between is out of date.
    fn cut_cycle(&mut self, id: NodeId, dir: NodeId) {
        let mut below = dir;
        while let Some(Record {
            place: Place::Entry { dir: above, .. },
            ..
        }) = self.by_id.get(&below.0)
        {
            if *above == id {
                if let Some(record) = self.by_id.get_mut(&below.0) {
                    let old = core::mem::replace(&mut record.place, Place::Lost);
                    self.leave(old);
                }
                return;
            }
            below = *above;
        }
    }

    /// A node was at `place` and is not any more.
    fn leave(&mut self, place: Place) {
        if let Place::Entry { dir, .. } = place {
            if let Some(parent) = self.by_id.get_mut(&dir.0) {
                parent.children = parent.children.saturating_sub(1);
                self.free_unused(dir);
            }
        }
    }

    /// Frees a node that nobody needs, and the directories above that only it needed.
    pub(super) fn free_unused(&mut self, mut id: NodeId) {
        while let Some(record) = self.by_id.get(&id.0) {
            if record.known || record.children > 0 || !record.files.is_empty() {
                return;
            }
            let above = match record.place {
                Place::Entry { dir, .. } => Some(dir),
                _ => None,
            };
            self.remove(id);
            let Some(dir) = above else {
                return;
            };
            if let Some(parent) = self.by_id.get_mut(&dir.0) {
                parent.children = parent.children.saturating_sub(1);
            }
            id = dir;
        }
    }

    fn remove(&mut self, id: NodeId) {
        if let Some(record) = self.by_id.remove(&id.0) {
            self.count = self.count.saturating_sub(1);
            match record.place {
                Place::Root(_) => self.roots.retain(|root| *root != id),
                _ => {
                    self.by_identity.remove(&record.node.identity);
                }
            }
        }
    }

    pub(super) fn mounts(&self) -> Result<KVec<NodeId>> {
        let mut tops = KVec::new();
        let mut at = self.by_identity.cursor_front();
        while let Some((identity, id)) = at.as_ref().map(|cursor| cursor.current()) {
            tops.push(self.top(NodeId(*id)), GFP_KERNEL)?;
            let last = identity.last_of_mount();
            at = self.by_identity.cursor_lower_bound(&last);
        }
        Ok(tops)
    }

    /// The directory above a node that is nearest to the top of its file system, or the node itself.
    fn top(&self, id: NodeId) -> NodeId {
        let mut top = id;
        while let Some(record) = self.by_id.get(&top.0) {
            let Place::Entry { dir, .. } = record.place else {
                break;
            };
            let here = |above: &Record| above.node.identity.same_file_system(&record.node.identity);
            if !self.by_id.get(&dir.0).is_some_and(here) {
                break;
            }
            top = dir;
        }
        top
    }

    pub(super) fn way(&self, id: NodeId) -> Result<Chain> {
        let node = self.by_id.get(&id.0).ok_or(ESTALE)?.node.clone();
        // Once to find the length, once to write from the end.
        let mut len = 0usize;
        let mut at = id;
        let root = loop {
            match &self.by_id.get(&at.0).ok_or(ESTALE)?.place {
                Place::Root(root) => break root,
                Place::Entry { dir, name } => {
                    len += name.len() + 1;
                    at = *dir;
                }
                Place::Lost => return Err(ESTALE.into()),
            }
        };
        // The root directory has its `/` already.
        let base = root.strip_suffix(b"/").unwrap_or(root);
        let total = match len {
            0 => root.len(),
            len => base.len() + len,
        };
        let mut text = KVVec::from_elem(b'/', total, GFP_KERNEL)?;
        let mut end = total;
        at = id;
        while let Some(Record {
            place: Place::Entry { dir, name },
            ..
        }) = self.by_id.get(&at.0)
        {
            let start = end.saturating_sub(name.len());
            text.get_mut(start..end).ok_or(EIO)?.copy_from_slice(name);
            end = start.saturating_sub(1);
            at = *dir;
        }
        text.get_mut(..base.len()).ok_or(EIO)?.copy_from_slice(base);
        let below = match len {
            0 => total,
            _ => base.len() + 1,
        };
        Ok(Chain { text, below, node })
    }
}

/// A copy of a name.
pub(super) fn copy_name(name: &[u8]) -> Result<KVec<u8>> {
    let mut copy = KVec::with_capacity(name.len(), GFP_KERNEL)?;
    copy.extend_from_slice(name, GFP_KERNEL)?;
    Ok(copy)
}
