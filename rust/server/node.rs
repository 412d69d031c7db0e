// SPDX-License-Identifier: GPL-2.0

//! Objects that a client knows.
//!
//! A node says under which directory and name an object was seen last and who it is; it holds
//! nothing of HOST's. The chain of names leads up to a directory that ATTACH named by its path. It
//! may be wrong at any time, because HOST renames what it likes: [`crate::resolve`] walks it and
//! compares what it finds.
//!
//! A node stays while the client knows it, while it is the directory of another node, and while it
//! is open. The directories that ATTACH named have nodes of their own, apart from those of the same
//! objects found by a name, because they stand for a path whatever is there.

mod table;

use kernel::{
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        atomic::Atomic,
        Arc,
        Mutex, //
    },
};
use qtfs_proto::{
    FileId,
    NodeId, //
};
use qtfs_vfs::local::{
    identity::Handle,
    path::WriteErrors,
    Identity,
    Path, //
};

use crate::{
    budget::{
        Budget,
        Charge, //
    },
    refusal::{
        Refusal,
        Result, //
    },
    version::Version, //
};
use table::{
    copy_name,
    Inner,
    Place, //
};

/// Most directories that ATTACH named.
const MAX_ROOTS: usize = 1024;

/// What never changes of a node, and what has a lock of its own.
#[pin_data]
pub(crate) struct Node {
    /// Number in the session.
    pub(crate) id: NodeId,
    /// Who it is; of a directory that ATTACH named, who it was then.
    pub(crate) identity: Identity,
    /// How it can be found without its name.
    pub(crate) handle: Option<Handle>,
    pub(crate) _charge: Charge,
    /// Open files of the session that write to it.
    pub(crate) writers: Atomic<i32>,
    /// What SYNCFS was told of the file system that the object was on when the client got to know
    /// it.
    pub(crate) write_errors: WriteErrors,
    /// When cached contents are good.
    #[pin]
    pub(crate) version: Version,
}

/// How to get to an object by names.
pub(crate) struct Chain {
    /// Path of the directory that ATTACH named, `/`, names below it. No `/` when there are none.
    pub(crate) text: KVVec<u8>,
    /// Where the names begin in the text.
    pub(crate) below: usize,
    /// The object.
    pub(crate) node: Arc<Node>,
}

impl Chain {
    /// Path of the directory that ATTACH named.
    pub(crate) fn root(&self) -> &[u8] {
        let end = match self.below {
            n if n >= self.text.len() => self.text.len(),
            n => n.saturating_sub(1).max(1),
        };
        self.text.get(..end).unwrap_or_default()
    }

    /// The names below it, separated by `/`.
    pub(crate) fn names(&self) -> &[u8] {
        self.text.get(self.below..).unwrap_or_default()
    }
}

/// The nodes of a session.
#[pin_data]
pub(crate) struct Nodes {
    #[pin]
    inner: Mutex<Inner>,
}

impl Nodes {
    /// No nodes.
    pub(crate) fn new(budget: &Arc<Budget>) -> impl PinInit<Self> + use<> {
        let inner = Inner::new(budget);
        pin_init!(Self {
            inner <- new_mutex!(inner),
        })
    }

    /// The node of a directory that ATTACH names by `text`.
    pub(crate) fn root(&self, text: &[u8], path: &Path) -> Result<Arc<Node>> {
        let mut inner = self.inner.lock();
        if let Some(node) = inner.find_root(text) {
            return Ok(node);
        }
        if inner.roots.len() >= MAX_ROOTS {
            return Err(Refusal::new(
                ENFILE,
                fmt!("the client uses {MAX_ROOTS} directories"),
            ));
        }
        let mut copy = KVVec::with_capacity(text.len(), GFP_KERNEL)?;
        copy.extend_from_slice(text, GFP_KERNEL)?;
        inner.roots.reserve(1, GFP_KERNEL)?;
        let place = Place::Root(copy);
        let node = inner.insert(path.identity(), path.write_errors(), None, place)?;
        // There is room.
        let _ = inner.roots.push_within_capacity(node.id);
        Ok(node)
    }

    /// The node of what `name` in `dir` led to, made or moved there.
    pub(crate) fn entry(&self, dir: NodeId, name: &[u8], path: &Path) -> Result<Arc<Node>> {
        let identity = path.identity();
        if let Some(node) = self.inner.lock().move_known(&identity, dir, name)? {
            return Ok(node);
        }
        // Asking for a handle may make the file system work, so it is done without the lock.
        let handle = Handle::of(path)?;
        let mut inner = self.inner.lock();
        if let Some(node) = inner.move_known(&identity, dir, name)? {
            return Ok(node);
        }
        let place = Place::Entry {
            dir,
            name: copy_name(name)?,
        };
        let parent = inner.by_id.get(&dir.0).is_some();
        if !parent {
            return Err(ESTALE.into());
        }
        let node = inner.insert(identity, path.write_errors(), handle, place)?;
        inner.name(&node)?;
        if let Some(parent) = inner.by_id.get_mut(&dir.0) {
            parent.children += 1;
        }
        Ok(node)
    }

    /// The node of an object that was found without a name, if the client knows it.
    pub(crate) fn find(&self, identity: &Identity) -> Option<Arc<Node>> {
        let inner = self.inner.lock();
        let id = inner.by_identity.get(identity)?;
        Some(inner.by_id.get(id)?.node.clone())
    }

    /// The node of an object without a name, such as a nameless file.
    pub(crate) fn nameless(&self, path: &Path) -> Result<Arc<Node>> {
        let identity = path.identity();
        let handle = Handle::of(path)?;
        let mut inner = self.inner.lock();
        if let Some(id) = inner.by_identity.get(&identity).copied() {
            if let Some(record) = inner.by_id.get(&id) {
                return Ok(record.node.clone());
            }
        }
        let node = inner.insert(identity, path.write_errors(), handle, Place::Lost)?;
        inner.name(&node)?;
        Ok(node)
    }

    /// The node with an id.
    ///
    /// Fails with [`ESTALE`] when the client has forgotten it.
    pub(crate) fn get(&self, id: NodeId) -> Result<Arc<Node>> {
        let inner = self.inner.lock();
        Ok(inner.by_id.get(&id.0).ok_or(ESTALE)?.node.clone())
    }

    /// For each mount of HOST that the client knows objects of, the one that is nearest to the top
    /// of the file system there.
    pub(crate) fn mounts(&self) -> Result<KVec<NodeId>> {
        self.inner.lock().mounts()
    }

    /// How to get to a node by names.
    ///
    /// Fails with [`ESTALE`] when its place, or that of a directory above, is lost.
    pub(crate) fn way(&self, id: NodeId) -> Result<Chain> {
        self.inner.lock().way(id)
    }

    /// The node of the directory of a node.
    pub(crate) fn parent(&self, id: NodeId) -> Option<NodeId> {
        let inner = self.inner.lock();
        match inner.by_id.get(&id.0)?.place {
            Place::Entry { dir, .. } => Some(dir),
            _ => None,
        }
    }

    /// Takes note that a reply carries a node; returns the stamp that goes with it.
    pub(crate) fn hand_out(&self, node: &Node) -> Result<u64> {
        let mut inner = self.inner.lock();
        inner.stamp += 1;
        let stamp = inner.stamp;
        let record = inner.by_id.get_mut(&node.id.0).ok_or(ESTALE)?;
        record.stamp = stamp;
        record.known = true;
        Ok(stamp)
    }

    /// The stamp of the last reply that made the client know a node.
    pub(crate) fn stamp(&self, node: &Node) -> Result<u64> {
        let inner = self.inner.lock();
        Ok(inner.by_id.get(&node.id.0).ok_or(ESTALE)?.stamp)
    }

    /// The client forgets a node, unless it was handed out again after `stamp`.
    pub(crate) fn forget(&self, id: NodeId, stamp: u64) {
        let mut inner = self.inner.lock();
        if let Some(record) = inner.by_id.get_mut(&id.0) {
            if record.stamp <= stamp {
                record.known = false;
                inner.free_unused(id);
            }
        }
    }

    /// Takes note that a node is open.
    pub(crate) fn opened(&self, id: NodeId, file: FileId) -> Result {
        let mut inner = self.inner.lock();
        let record = inner.by_id.get_mut(&id.0).ok_or(ESTALE)?;
        record.files.push(file, GFP_KERNEL)?;
        Ok(())
    }

    /// Takes note that an open file of a node is closed.
    pub(crate) fn closed(&self, id: NodeId, file: FileId) {
        let mut inner = self.inner.lock();
        if let Some(record) = inner.by_id.get_mut(&id.0) {
            record.files.retain(|f| *f != file);
            inner.free_unused(id);
        }
    }

    /// An open file of a node, if there is one.
    pub(crate) fn file(&self, id: NodeId) -> Option<FileId> {
        let inner = self.inner.lock();
        inner.by_id.get(&id.0)?.files.first().copied()
    }

    /// The open files of a node; none of them when there is no memory for the list.
    pub(crate) fn files(&self, id: NodeId) -> KVec<FileId> {
        let inner = self.inner.lock();
        let mut files = KVec::new();
        if let Some(record) = inner.by_id.get(&id.0) {
            let _ = files.extend_from_slice(&record.files, GFP_KERNEL);
        }
        files
    }

    /// The directories that ATTACH named.
    pub(crate) fn roots(&self) -> Result<KVec<NodeId>> {
        let inner = self.inner.lock();
        let mut roots = KVec::with_capacity(inner.roots.len(), GFP_KERNEL)?;
        roots.extend_from_slice(&inner.roots, GFP_KERNEL)?;
        Ok(roots)
    }

    /// Frees nodes that were made on the way to another and that the client never saw.
    pub(crate) fn trim(&self, id: NodeId) {
        self.inner.lock().free_unused(id);
    }

    /// Forgets all; there will be no new ones.
    pub(crate) fn close(&self) {
        let (by_id, by_identity) = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            inner.count = 0;
            inner.roots.clear();
            (
                core::mem::replace(&mut inner.by_id, RBTree::new()),
                core::mem::replace(&mut inner.by_identity, RBTree::new()),
            )
        };
        drop((by_id, by_identity));
    }
}
