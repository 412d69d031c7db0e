// SPDX-License-Identifier: GPL-2.0

//! What an inode keeps: its place on the server, and how good its caches are.

use core::sync::atomic::{
    AtomicU32,
    AtomicU64,
    AtomicUsize,
    Ordering, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};
use qtfs_net::Completion;
use qtfs_proto::{
    Attr,
    AttrFlags,
    NodeId,
    OpenFlags,
    Time, //
};
use qtfs_vfs::{
    inode::{
        Attributes,
        Identity,
        Inode,
        Key, //
    },
    task, //
};

use crate::{
    dir::Listing,
    file::OpenFile,
    fs::Qtfs,
    session::Session, //
};

/// Attributes that the kernel's inode has no place for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extra {
    pub(crate) blksize: u32,
    pub(crate) btime: Time,
    pub(crate) attributes: u64,
    pub(crate) attributes_mask: u64,
    pub(crate) flags: AttrFlags,
}

/// Attributes that came with a listing: good for the process that lists, while it does.
struct Snapshot {
    listing: Arc<Listing>,
    /// `stat(2)` has not used them yet.
    fresh: bool,
}

/// The fields of [`Node`] protected by the lock.
struct Inner {
    extra: Extra,
    snapshot: Option<Snapshot>,
    /// Open files of the inode.
    opens: KVVec<Arc<OpenFile>>,
    /// Number of requests that write pages back.
    writes: usize,
    /// Told when there are none any more.
    written: Option<Arc<Completion>>,
}

/// What an inode keeps.
#[pin_data]
pub(crate) struct Node {
    dev: AtomicU64,
    ino: AtomicU64,
    generation: AtomicU32,
    /// Id on the server, and the incarnation of the session in which it means this inode.
    id: AtomicU64,
    incarnation: AtomicU32,
    /// Highest stamp that came with the id.
    stamp: AtomicU64,
    /// Version of the contents that the server told last.
    version: AtomicU64,
    /// Version of the contents that the page cache has; 0 before there are any.
    cached: AtomicU64,
    /// [`Session::clock`] of the last change by this machine.
    clock: AtomicU64,
    /// Task whose `stat(2)` has just looked the name up, so that its attributes are new.
    fresh: AtomicUsize,
    /// Task whose `open(2)` by name just failed with ESTALE: its next one is by identity.
    second_try: AtomicUsize,
    #[pin]
    inner: Mutex<Inner>,
}

impl Identity for Node {
    fn key(&self) -> Key {
        Key {
            dev: self.dev.load(Ordering::Relaxed),
            ino: self.ino.load(Ordering::Relaxed),
            generation: self.generation.load(Ordering::Relaxed),
        }
    }

    fn set_key(&self, key: &Key) {
        self.dev.store(key.dev, Ordering::Relaxed);
        self.ino.store(key.ino, Ordering::Relaxed);
        self.generation.store(key.generation, Ordering::Relaxed);
    }
}

impl Node {
    /// A node that is nothing yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            dev: AtomicU64::new(0),
            ino: AtomicU64::new(0),
            generation: AtomicU32::new(0),
            id: AtomicU64::new(0),
            incarnation: AtomicU32::new(0),
            stamp: AtomicU64::new(0),
            version: AtomicU64::new(0),
            cached: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            fresh: AtomicUsize::new(0),
            second_try: AtomicUsize::new(0),
            inner <- new_mutex!(Inner {
                extra: Extra::default(),
                snapshot: None,
                opens: KVVec::new(),
                writes: 0,
                written: None,
            }),
        })
    }

    /// Device of the object on HOST.
    pub(crate) fn dev(&self) -> u64 {
        self.dev.load(Ordering::Relaxed)
    }

    /// What identifies the object on HOST.
    pub(crate) fn identity(&self) -> Key {
        self.key()
    }

    /// Whether `ino` is its inode number.
    pub(crate) fn is_ino(&self, ino: u64) -> bool {
        self.ino.load(Ordering::Relaxed) == ino
    }

    /// Id on the server, if this incarnation of the session has one.
    pub(crate) fn id(&self, session: &Session) -> Option<NodeId> {
        let current = session.incarnation();
        (self.incarnation.load(Ordering::Acquire) == current)
            .then(|| NodeId(self.id.load(Ordering::Acquire)))
    }

    /// Id and stamp, to be forgotten.
    pub(crate) fn forget(&self, session: &Session) -> Option<(NodeId, u64)> {
        Some((self.id(session)?, self.stamp.load(Ordering::Acquire)))
    }

    /// A change by this machine has taken effect, or is about to: what was asked before may not
    /// tell of it.
    pub(crate) fn changed(&self, session: &Session) {
        self.not_listed();
        self.clock.fetch_max(session.clock(), Ordering::AcqRel);
    }

    /// The server told the version of the contents.
    pub(crate) fn saw_version(&self, session: &Session, version: u64) {
        if self.incarnation.load(Ordering::Acquire) == session.incarnation() {
            self.version.fetch_max(version, Ordering::AcqRel);
        } else {
            self.version.store(version, Ordering::Release);
        }
    }

    /// The current task's request by name failed with ESTALE. The kernel walks the path again; if
    /// that leads to this very inode it was not reached by that path.
    pub(crate) fn note_try(&self) {
        self.second_try.store(task::current_id(), Ordering::Relaxed);
    }

    /// Whether [`Node::note_try`] was the last thing that the current task did here. Once only.
    pub(crate) fn is_second_try(&self) -> bool {
        let task = task::current_id();
        let (ok, fail) = (Ordering::Relaxed, Ordering::Relaxed);
        self.second_try.compare_exchange(task, 0, ok, fail).is_ok()
    }

    /// Attributes that the kernel's inode has no place for.
    pub(crate) fn extra(&self) -> Extra {
        self.inner.lock().extra
    }

    /// The current task's system call has just looked the name up.
    pub(crate) fn set_fresh(&self) {
        self.fresh.store(task::current_id(), Ordering::Relaxed);
    }

    /// Whether the attributes are new as far as the current system call can tell. Once only.
    pub(crate) fn take_fresh(&self) -> bool {
        let task = task::current_id();
        if self
            .fresh
            .compare_exchange(task, 0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            return true;
        }
        let mut inner = self.inner.lock();
        match &mut inner.snapshot {
            Some(snapshot) if snapshot.listing.is_current() => {
                snapshot.listing.note_use();
                core::mem::take(&mut snapshot.fresh)
            }
            _ => false,
        }
    }

    /// Whether a listing that the current process has open said that there are no extended
    /// attributes.
    pub(crate) fn listed_without_xattrs(&self) -> bool {
        let inner = self.inner.lock();
        inner.extra.flags.has(AttrFlags::NO_XATTR)
            && inner
                .snapshot
                .as_ref()
                .is_some_and(|snapshot| snapshot.listing.is_current())
    }

    /// The attributes have come with a listing.
    pub(crate) fn listed(&self, listing: &Arc<Listing>) {
        let snapshot = Snapshot {
            listing: listing.clone(),
            fresh: true,
        };
        let old = self.inner.lock().snapshot.replace(snapshot);
        drop(old);
    }

    /// What a listing said does not hold any more.
    pub(crate) fn not_listed(&self) {
        let old = self.inner.lock().snapshot.take();
        drop(old);
    }

    /// Remembers an open file.
    pub(crate) fn opened(&self, open: &Arc<OpenFile>) -> Result {
        Ok(self.inner.lock().opens.push(open.clone(), GFP_KERNEL)?)
    }

    /// Forgets an open file.
    pub(crate) fn closed(&self, open: &Arc<OpenFile>) {
        let gone = {
            let mut inner = self.inner.lock();
            let at = inner
                .opens
                .iter()
                .position(|other| Arc::ptr_eq(other, open));
            at.and_then(|at| inner.opens.remove(at).ok())
        };
        drop(gone);
    }

    /// A request that writes pages back begins.
    pub(crate) fn write_begins(&self) {
        self.inner.lock().writes += 1;
    }

    /// A request that writes pages back has ended.
    pub(crate) fn write_ended(&self) {
        let told = {
            let mut inner = self.inner.lock();
            inner.writes = inner.writes.saturating_sub(1);
            match inner.writes {
                0 => inner.written.take(),
                _ => None,
            }
        };
        if let Some(told) = told {
            told.complete();
        }
    }

    /// Waits until no request writes pages back.
    ///
    /// Fails with [`EINTR`] when the caller is killed, [`ETIMEDOUT`] after `timeout` milliseconds.
    pub(crate) fn wait_writes(&self, timeout: Option<u32>) -> Result {
        loop {
            let written = {
                let mut inner = self.inner.lock();
                if inner.writes == 0 {
                    return Ok(());
                }
                match &inner.written {
                    Some(written) => written.clone(),
                    None => {
                        let new = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
                        inner.written = Some(new.clone());
                        new
                    }
                }
            };
            match timeout {
                Some(ms) => written.wait_killable_timeout(ms)?,
                None => written.wait_killable()?,
            }
        }
    }

    /// An open file that can do what `how` says.
    pub(crate) fn any_open(&self, how: OpenFlags) -> Option<Arc<OpenFile>> {
        let inner = self.inner.lock();
        inner.opens.iter().find(|open| open.flags.has(how)).cloned()
    }

    /// Whether the page cache is that of an older version of the contents; it is taken for one of
    /// the newest from now on.
    pub(crate) fn take_outdated(&self) -> bool {
        let version = self.version.load(Ordering::Acquire);
        let cached = self.cached.swap(version, Ordering::AcqRel);
        cached != 0 && cached != version
    }

    /// The page cache could not be dropped: it is still the one of an older version.
    pub(crate) fn still_outdated(&self) {
        self.cached.store(u64::MAX, Ordering::Release);
    }
}

/// Takes over the id of an inode and the version of its contents. Callers may hold folios locked.
pub(crate) fn adopt(inode: &Inode<Qtfs>, attr: &Attr) {
    let session = &inode.mount().session;
    let node = inode.node();
    node.id.store(attr.node.0, Ordering::Release);
    let current = session.incarnation();
    if node.incarnation.swap(current, Ordering::AcqRel) == current {
        node.stamp.fetch_max(attr.stamp, Ordering::AcqRel);
        node.version.fetch_max(attr.version, Ordering::AcqRel);
    } else {
        node.stamp.store(attr.stamp, Ordering::Release);
        node.version.store(attr.version, Ordering::Release);
    }
}

/// Takes over what the server told of an inode, in a reply to a request that was made when the
/// clock stood at `asked`. May wait for folios, so callers hold none.
pub(crate) fn apply(inode: &Inode<Qtfs>, attr: &Attr, asked: u64) {
    adopt(inode, attr);
    let node = inode.node();
    if node.clock.load(Ordering::Acquire) > asked {
        // The reply may not know what this machine did meanwhile.
        return;
    }
    inode.set_attributes(&Attributes {
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        blocks: attr.blocks,
    });
    node.inner.lock().extra = Extra {
        blksize: attr.blksize,
        btime: attr.btime,
        attributes: attr.attributes,
        attributes_mask: attr.attributes_mask,
        flags: attr.flags,
    };
    // What this machine has written but not sent yet counts too.
    if inode.is_regular() && inode.is_dirty() {
        return;
    }
    let old = inode.size();
    if old != attr.size {
        inode.set_size(attr.size);
        if inode.is_regular() && attr.size < old {
            inode.drop_behind(attr.size);
        }
    }
}
