// SPDX-License-Identifier: GPL-2.0

//! What an inode keeps: its place on the server, and how good its caches are.

use core::sync::atomic::{
    AtomicBool,
    AtomicU32,
    AtomicU64,
    AtomicU8,
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
    AttrFlags,
    FsClass,
    NodeId,
    Time, //
};
use qtfs_vfs::{
    inode::{
        Identity,
        Inode,
        Key,
        Stat, //
    },
    lock::is_held_through,
    task::{
        self,
        Moment, //
    },
};

use crate::{
    bound::Bound,
    dir::Listing,
    file::OpenFile,
    fs::Qtfs,
    own,
    session::{
        durable::Unsynced,
        request::Asked,
        Session, //
    }, //
};

mod attributes;
mod fresh;
mod opens;

pub(crate) use attributes::{
    adopt,
    apply,
    is_of,
    take_size, //
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
    /// Questions for extended attributes that it has answered, see [`Question`].
    answered: u32,
}

/// What programs ask for when they list: each is answered by the listing once.
#[derive(Clone, Copy)]
pub(crate) enum Question {
    /// `listxattr(2)`.
    Names = 1,
    /// `security.capability`.
    Capability = 2,
    /// `security.selinux`.
    Selinux = 4,
    /// `system.posix_acl_access`.
    Acl = 8,
    /// `system.posix_acl_default`.
    DefaultAcl = 16,
}

/// The fields of [`Node`] protected by the lock.
struct Inner {
    extra: Extra,
    snapshot: Option<Snapshot>,
    /// When the task in [`Node::fresh`] looked the name up.
    found: Option<Moment>,
    /// When a task opened the file, which got new attributes by that.
    opened: Option<Moment>,
    /// Open files of the inode.
    opens: KVVec<Arc<OpenFile>>,
    /// Number of requests that write pages back.
    writes: usize,
    /// Told when there are none any more.
    written: Option<Arc<Completion>>,
    /// Path of the mount point, if HOST has mounted it somewhere.
    mount_point: KVVec<u8>,
    /// The socket that a program of this machine has bound to it.
    bound: Option<Arc<Bound>>,
}

/// What an inode keeps.
#[pin_data]
pub(crate) struct Node {
    dev: AtomicU64,
    mount: AtomicU64,
    ino: AtomicU64,
    generation: AtomicU32,
    /// [`FsClass`] of the file system on HOST.
    class: AtomicU8,
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
    /// Number of `write(2)` that are changing the page cache; grows under the lock of the size.
    writing: AtomicUsize,
    /// Somebody has locked ranges of the file since it was opened first: what is written must not
    /// touch the bytes beside it.
    ranges_locked: AtomicBool,
    /// See [`Node::is_listed`].
    listed: AtomicBool,
    /// Data that HOST has and no `fsync(2)` has put on its disk.
    pub(crate) unsynced: Unsynced,
    /// Task whose `stat(2)` has just looked the name up, so that its attributes are new.
    fresh: AtomicUsize,
    /// Task whose `rename(2)` has just taken the name of this inode on trust.
    renamed: AtomicUsize,
    /// What HOST tells of it by, when it is watched; else 0.
    watch: AtomicU64,
    /// Task whose request by name failed with ESTALE: its next one is by identity.
    second_try: AtomicUsize,
    /// See [`Node::socket_key`].
    socket_key: AtomicU64,
    #[pin]
    inner: Mutex<Inner>,
    /// Held by whoever drops pages of an older version.
    #[pin]
    pub(crate) refreshing: Mutex<()>,
}

impl Identity for Node {
    fn key(&self) -> Key {
        Key {
            dev: self.dev.load(Ordering::Relaxed),
            mount: self.mount.load(Ordering::Relaxed),
            ino: self.ino.load(Ordering::Relaxed),
            generation: self.generation.load(Ordering::Relaxed),
        }
    }

    fn set_key(&self, key: &Key) {
        self.dev.store(key.dev, Ordering::Relaxed);
        self.mount.store(key.mount, Ordering::Relaxed);
        self.ino.store(key.ino, Ordering::Relaxed);
        self.generation.store(key.generation, Ordering::Relaxed);
    }
}

impl Node {
    /// A node that is nothing yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            dev: AtomicU64::new(0),
            mount: AtomicU64::new(0),
            ino: AtomicU64::new(0),
            generation: AtomicU32::new(0),
            class: AtomicU8::new(FsClass::Regular as u8),
            id: AtomicU64::new(0),
            incarnation: AtomicU32::new(0),
            stamp: AtomicU64::new(0),
            version: AtomicU64::new(0),
            cached: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            writing: AtomicUsize::new(0),
            ranges_locked: AtomicBool::new(false),
            listed: AtomicBool::new(true),
            unsynced: Unsynced::new(),
            fresh: AtomicUsize::new(0),
            renamed: AtomicUsize::new(0),
            watch: AtomicU64::new(0),
            second_try: AtomicUsize::new(0),
            socket_key: AtomicU64::new(0),
            inner <- new_mutex!(Inner {
                extra: Extra::default(),
                snapshot: None,
                found: None,
                opened: None,
                opens: KVVec::new(),
                writes: 0,
                written: None,
                mount_point: KVVec::new(),
                bound: None,
            }),
            refreshing <- new_mutex!(()),
        })
    }

    /// Device of the object on HOST.
    pub(crate) fn dev(&self) -> u64 {
        self.dev.load(Ordering::Relaxed)
    }

    /// Whether it is the client's own and HOST knows nothing of it, see [`crate::own`].
    pub(crate) fn is_own(&self) -> bool {
        own::is_own(self.dev())
    }

    /// Whether the object is on a file system of this class on HOST.
    pub(crate) fn is_of(&self, class: FsClass) -> bool {
        self.class.load(Ordering::Relaxed) == class as u8
    }

    /// What identifies the object on HOST.
    pub(crate) fn identity(&self) -> Key {
        self.key()
    }

    /// Id on the server, if this incarnation of the session has one.
    pub(crate) fn id(&self, session: &Session) -> Option<NodeId> {
        let current = session.incarnation();
        (self.incarnation.load(Ordering::Acquire) == current)
            .then(|| NodeId(self.id.load(Ordering::Acquire)))
    }

    /// Id, stamp, and the incarnation of the session that they are of, to be forgotten.
    pub(crate) fn forget(&self, session: &Session) -> Option<(NodeId, u64, u32)> {
        if self.is_own() {
            return None;
        }
        let incarnation = self.incarnation.load(Ordering::Acquire);
        let stamp = self.stamp.load(Ordering::Acquire);
        Some((self.id(session)?, stamp, incarnation))
    }

    /// A change by this machine has taken effect, or is about to: what was asked before may not
    /// tell of it.
    pub(crate) fn changed(&self, session: &Session) {
        self.not_listed();
        self.clock.fetch_max(session.clock(), Ordering::AcqRel);
    }

    /// Whether this machine has changed it since something was asked.
    pub(crate) fn has_changed(&self, asked: Asked) -> bool {
        self.clock.load(Ordering::Acquire) > asked.clock
    }

    /// Whether who opened the directory last listed it at once.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// Sets [`Node::is_listed`].
    pub(crate) fn set_listed(&self, listed: bool) {
        self.listed.store(listed, Ordering::Relaxed);
    }

    /// The server told the version of the contents in the given incarnation of the session.
    pub(crate) fn saw_version(&self, version: u64, incarnation: u32) {
        // After a new beginning versions are counted anew, which `adopt` takes note of.
        if self.incarnation.load(Ordering::Acquire) == incarnation {
            self.version.fetch_max(version, Ordering::AcqRel);
        }
    }

    /// The current task's `rename(2)` takes on trust that it leads away from here.
    pub(crate) fn note_renamed(&self) {
        self.renamed.store(task::current_id(), Ordering::Relaxed);
    }

    /// Whether [`Node::note_renamed`] was called by the current task.
    pub(crate) fn is_renamed(&self) -> bool {
        self.renamed.load(Ordering::Relaxed) == task::current_id()
    }

    /// The rename goes to the server.
    pub(crate) fn forget_renamed(&self) {
        self.renamed.store(0, Ordering::Relaxed);
    }

    /// The current task's request by name failed with ESTALE. The kernel walks the path again; if
    /// that leads to this very inode it was not reached by that path.
    pub(crate) fn note_try(&self) {
        self.second_try.store(task::current_id(), Ordering::Relaxed);
    }

    /// Whether the current task has called [`Node::note_try`] and not come here by a name that it
    /// took on trust since.
    pub(crate) fn is_second_try(&self) -> bool {
        self.second_try.load(Ordering::Relaxed) == task::current_id()
    }

    /// As [`Node::is_second_try`]. Once only.
    pub(crate) fn take_try(&self) -> bool {
        let (ok, fail) = (Ordering::Relaxed, Ordering::Relaxed);
        self.is_second_try()
            && self
                .second_try
                .compare_exchange(task::current_id(), 0, ok, fail)
                .is_ok()
    }

    /// What HOST tells of it by, or 0.
    pub(crate) fn watch(&self) -> u64 {
        self.watch.load(Ordering::Acquire)
    }

    /// Sets [`Node::watch`]; under the lock of what is watched, see [`crate::session::notices`].
    pub(crate) fn set_watch(&self, watch: u64) {
        self.watch.store(watch, Ordering::Release);
    }

    /// Attributes that the kernel's inode has no place for.
    pub(crate) fn extra(&self) -> Extra {
        self.inner.lock().extra
    }

    /// The newest version of the contents that is known, when the page cache has an older one.
    pub(crate) fn outdated(&self) -> Option<u64> {
        let version = self.version.load(Ordering::Acquire);
        let cached = self.cached.load(Ordering::Acquire);
        (cached != version).then_some(version)
    }

    /// The page cache has nothing that is older than `version`.
    pub(crate) fn cached_is(&self, version: u64) {
        self.cached.store(version, Ordering::Release);
    }

    /// A `write(2)` begins to change the page cache. See [`Inode::with_size_locked`].
    pub(crate) fn cached_write_begins(&self, inode: &Inode<Qtfs>) {
        inode.with_size_locked(|| self.writing.fetch_add(1, Ordering::AcqRel));
    }

    /// It has ended.
    pub(crate) fn cached_write_ended(&self) {
        self.writing.fetch_sub(1, Ordering::AcqRel);
    }

    /// Takes note through which open files programs hold locks, as far as this machine knows.
    pub(crate) fn note_locks(&self, inode: &Inode<Qtfs>) {
        for open in self.inner.lock().opens.iter() {
            open.set_locked(is_held_through(inode, open));
        }
    }

    /// A lock on a range of the file was granted.
    pub(crate) fn lock_ranges(&self) {
        self.ranges_locked.store(true, Ordering::Relaxed);
    }

    /// HOST has mounted it on this path below the shared directory.
    pub(crate) fn mounted_on(&self, path: KVVec<u8>) {
        let old = core::mem::replace(&mut self.inner.lock().mount_point, path);
        drop(old);
    }

    /// A program of this machine binds a socket to it.
    pub(crate) fn set_bound(&self, bound: Arc<Bound>) {
        let old = self.inner.lock().bound.replace(bound);
        drop(old);
    }

    /// The socket that a program of this machine has bound to it.
    pub(crate) fn bound(&self) -> Option<Arc<Bound>> {
        self.inner.lock().bound.clone()
    }

    /// The inode leaves memory.
    pub(crate) fn unbind(&self) {
        let old = self.inner.lock().bound.take();
        if let Some(old) = old {
            old.forget_inode();
        }
    }

    /// A number that no other inode has as long as it is in memory, for sockets.
    pub(crate) fn socket_key(&self) -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let place = &self.socket_key;
        match place.load(Ordering::Acquire) {
            0 => {}
            known => return known,
        }
        let new = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let (ok, fail) = (Ordering::AcqRel, Ordering::Acquire);
        place
            .compare_exchange(0, new, ok, fail)
            .map_or_else(|known| known, |_| new)
    }

    /// The path of [`Node::mounted_on`].
    pub(crate) fn mount_point(&self) -> Result<KVVec<u8>> {
        let mut path = KVVec::new();
        path.extend_from_slice(&self.inner.lock().mount_point, GFP_KERNEL)?;
        Ok(path)
    }

    /// Whether HOST was last seen to refuse all writes.
    pub(crate) fn is_immutable(&self) -> bool {
        self.extra().attributes & Stat::IMMUTABLE != 0
    }

    /// Whether HOST was last seen to refuse some writes.
    pub(crate) fn is_sealed(&self) -> bool {
        self.extra().attributes & (Stat::IMMUTABLE | Stat::APPEND) != 0
    }

    /// What `chattr(1)` made of the file.
    pub(crate) fn seal(&self, immutable: bool, append_only: bool) {
        let mut inner = self.inner.lock();
        for (bit, set) in [(Stat::IMMUTABLE, immutable), (Stat::APPEND, append_only)] {
            if set {
                inner.extra.attributes |= bit;
            } else {
                inner.extra.attributes &= !bit;
            }
        }
    }

    /// Whether [`Node::lock_ranges`] was called since the file was opened first.
    pub(crate) fn has_locked_ranges(&self) -> bool {
        self.ranges_locked.load(Ordering::Relaxed)
    }
}
