// SPDX-License-Identifier: GPL-2.0

//! Files that clients have open.
//!
//! An open file lives until RELEASE or the end of the session, also when its name is removed, and
//! is closed when the last request that uses it is done.

use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use kernel::{
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        atomic::Relaxed,
        Arc,
        Mutex, //
    },
};
use qtfs_proto::{
    FileId,
    FsClass,
    PollEvents, //
};
use qtfs_vfs::local::{
    fifo::OtherEnd,
    lock::{
        self,
        Owner, //
    },
    watch::WatchedFile,
    File, //
};

use crate::{
    budget::Charge,
    node::Node,
    op::class,
    policy::{
        Policy,
        Rule, //
    },
    poller::Poller,
    queue::ParkKey,
    refusal::{
        Refusal,
        Result, //
    },
    session::Session, //
};

/// Most open files of one session.
const MAX_FILES: usize = 1 << 18;
/// What one takes, with the kernel's file and inode.
const FILE_BYTES: usize = 2048;

/// An open file.
#[pin_data(PinnedDrop)]
pub(crate) struct OpenFile {
    /// The object that is open.
    pub(crate) node: Arc<Node>,
    session: Arc<Session>,
    _charge: Charge,
    /// Where it was opened, for the policy.
    text: KVVec<u8>,
    #[pin]
    checked: Mutex<Checked>,
    /// Held by whoever lists the directory: the position in it belongs to the open file.
    #[pin]
    pub(crate) listing: Mutex<()>,
    /// Owners that may have locks on it.
    #[pin]
    owners: Mutex<KVec<Holder>>,
    /// Files that the client has released, of the same object. An owner of this one took locks
    /// through them that it has not released, and the kernel's locks refer to files.
    #[pin]
    kept: Mutex<KVec<Arc<OpenFile>>>,
    /// Its contents are kept in the page cache.
    cached: bool,
    /// Of a FIFO.
    end: OtherEnd,
    park_key: ParkKey,
    /// The client has released it.
    released: AtomicBool,
    #[pin]
    file: WatchedFile<Poller>,
}

/// An owner that may have locks on an open file.
struct Holder {
    number: u64,
    owner: Arc<Owner>,
    /// It took locks and has not released all.
    holds: bool,
    /// How many locks it took.
    taken: u64,
    /// Requests about its locks that are being executed.
    busy: u32,
}

/// A request about the locks of an owner on an open file, until it is dropped.
pub(crate) struct Locking<'a> {
    open: &'a OpenFile,
    number: u64,
    pub(crate) owner: Arc<Owner>,
    /// How many locks the owner had taken when the request began.
    before: u64,
}

impl Locking<'_> {
    /// Counts the locks that the owner has on the object.
    pub(crate) fn count(&self) {
        self.open.count_locks(self.number, &self.owner);
    }

    /// The owner took a lock.
    pub(crate) fn took(&self) {
        self.open.with_holder(self.number, |holder| {
            holder.holds = true;
            holder.taken += 1;
        });
    }

    /// The owner released all its locks on the object.
    pub(crate) fn released_all(&self) {
        self.open.with_holder(self.number, |holder| {
            // A lock that was taken meanwhile may have come later.
            if holder.taken == self.before {
                holder.holds = false;
            }
        });
    }
}

impl Drop for Locking<'_> {
    fn drop(&mut self) {
        self.open
            .with_holder(self.number, |holder| holder.busy -= 1);
        self.open.forget_idle_owners();
    }
}

/// What a policy says of an open file.
#[derive(Clone, Copy)]
struct Checked {
    /// Number of the policy.
    policy: u64,
    rule: Option<Rule>,
}

impl OpenFile {
    /// Takes over a file that was opened at `text` by the rule of `policy`.
    pub(crate) fn new(
        session: &Arc<Session>,
        node: Arc<Node>,
        file: File,
        end: OtherEnd,
        text: KVVec<u8>,
        rule: Rule,
        policy: &Policy,
    ) -> Result<Arc<Self>> {
        let checked = Checked {
            policy: policy.number(),
            rule: Some(rule),
        };
        let counted = node.clone();
        let cached = !file.is_fifo() && class::of(file.path().magic()) == FsClass::Regular;
        let writes = file.is_writable();
        let charge = session.budget.charge(FILE_BYTES)?;
        let this = Arc::pin_init(
            try_pin_init!(Self {
                node,
                session: session.clone(),
                _charge: charge,
                text,
                checked <- new_mutex!(checked),
                listing <- new_mutex!(()),
                owners <- new_mutex!(KVec::new()),
                kept <- new_mutex!(KVec::new()),
                cached,
                end,
                park_key: ParkKey::new(),
                released: AtomicBool::new(false),
                file <- WatchedFile::new(file),
            }),
            GFP_KERNEL,
        )?;
        if writes {
            counted.writers.fetch_add(1, Relaxed);
        }
        Ok(this)
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        self.file.file()
    }

    /// What requests are parked for that wait until it is ready.
    pub(crate) fn park_key(&self) -> ParkKey {
        self.park_key
    }

    /// The client has released it: nobody is parked for it from now on.
    pub(crate) fn released(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// Whether the client has released it.
    pub(crate) fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// Whether there is something to read, or never will be. Else whoever is parked for it is told
    /// when that changes.
    pub(crate) fn is_ready_to_read(&self) -> Result<bool> {
        let poller = || Ok(Poller::new(&self.session, self.park_key));
        let events = PollEvents::IN.with(PollEvents::HUP);
        let ready = self.file.poll(events, poller, |_| {})?;
        Ok(ready.without(events) != ready)
    }

    /// What it is ready for; the client, which calls it `watch`, is told of the first of each of
    /// `wake` from now on.
    pub(crate) fn poll(&self, watch: u64, wake: PollEvents) -> Result<PollEvents> {
        let poller = || Ok(Poller::new(&self.session, self.park_key));
        let ready = self
            .file
            .poll(wake, poller, |poller| poller.tell(watch, wake))?;
        // Looked at after the watch is set, so that none is missed.
        let partner = self.file().is_fifo() && self.has_partner();
        Ok(ready.with_if(partner, PollEvents::MSG))
    }

    /// Whether the other end of a FIFO has been opened; what is no FIFO needs none.
    pub(crate) fn has_partner(&self) -> bool {
        self.file().has_partner(self.end)
    }

    /// Whether its contents are kept in the page cache, and not made at read time.
    pub(crate) fn is_cached(&self) -> bool {
        self.cached
    }

    /// Where it was opened.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Checks that the policy of now still allows its use.
    ///
    /// A file that HOST renames stays what it is; what counts is where it was opened.
    pub(crate) fn check(&self, policy: &Policy, change: bool) -> Result {
        let mut checked = self.checked.lock();
        if checked.policy != policy.number() {
            *checked = Checked {
                policy: policy.number(),
                rule: policy.rule(&self.text),
            };
        }
        match checked.rule {
            None => Err(Refusal::new(
                EACCES,
                fmt!("HOST does not export the file any more"),
            )),
            Some(Rule { read_only: true }) if change => Err(EROFS.into()),
            Some(_) => Ok(()),
        }
    }

    /// Begins a request about the locks of the owner with a number.
    pub(crate) fn locking(&self, number: u64) -> Result<Locking<'_>> {
        let mut owners = self.owners.lock();
        let at = owners.iter().position(|holder| holder.number == number);
        let at = match at {
            Some(at) => at,
            None => {
                owners.reserve(1, GFP_KERNEL)?;
                let holder = Holder {
                    number,
                    owner: self.session.owners.take(number)?,
                    holds: false,
                    taken: 0,
                    busy: 0,
                };
                // There is room.
                let _ = owners.push_within_capacity(holder);
                owners.len() - 1
            }
        };
        let holder = owners.get_mut(at).ok_or(EIO)?;
        holder.busy += 1;
        Ok(Locking {
            open: self,
            number,
            owner: holder.owner.clone(),
            before: holder.taken,
        })
    }

    fn with_holder(&self, number: u64, f: impl FnOnce(&mut Holder)) {
        let mut owners = self.owners.lock();
        if let Some(holder) = owners.iter_mut().find(|holder| holder.number == number) {
            f(holder);
        }
    }

    /// Forgets owners that have no locks on the file.
    fn forget_idle_owners(&self) {
        self.owners.lock().retain(|holder| {
            let keep = holder.holds || holder.busy > 0;
            if !keep {
                self.session.owners.put(holder.number);
            }
            keep
        });
    }

    fn count_locks(&self, number: u64, owner: &Owner) {
        let count = lock::ranges(self.file(), owner);
        let owners = &self.session.owners;
        owners.set_ranges(number, self.node.id, count);
    }

    /// Whether the owner with a number may have locks on the file.
    fn is_held_by(&self, number: u64) -> bool {
        let owners = self.owners.lock();
        owners.iter().any(|holder| holder.number == number)
    }

    /// The client has released the file, one of several that it had open of the object.
    ///
    /// Closing it releases the locks of its owners, on the object and not only those that were
    /// taken through this file. So it stays open as long as another file that the same owner took
    /// locks through.
    pub(crate) fn leave_locks(self: &Arc<Self>) {
        let numbers = {
            let owners = self.owners.lock();
            let mut numbers = KVec::new();
            for holder in owners.iter().filter(|holder| holder.holds) {
                if numbers.push(holder.number, GFP_KERNEL).is_err() {
                    break;
                }
            }
            numbers
        };
        for number in numbers.iter().copied() {
            let other = self
                .session
                .nodes
                .files(self.node.id)
                .iter()
                .filter_map(|id| self.session.files.get(*id).ok())
                .find(|other| !Arc::ptr_eq(other, self) && other.is_held_by(number));
            let left = other.is_some_and(|other| {
                let mut kept = other.kept.lock();
                kept.push(self.clone(), GFP_KERNEL).is_ok()
            });
            let Ok(locking) = self.locking(number) else {
                continue;
            };
            if left {
                // These the kernel would release with the file.
                let _ = lock::release_flock(self.file(), &locking.owner);
            } else {
                lock::release_all(self.file(), &locking.owner);
                locking.count();
                locking.released_all();
            }
        }
        let kept = core::mem::replace(&mut *self.kept.lock(), KVec::new());
        for file in kept.iter() {
            file.leave_locks();
        }
    }
}

#[pinned_drop]
impl PinnedDrop for OpenFile {
    fn drop(self: Pin<&mut Self>) {
        if self.file().is_writable() {
            self.node.writers.fetch_sub(1, Relaxed);
        }
        let owners = core::mem::replace(&mut *self.owners.lock(), KVec::new());
        for holder in owners.iter() {
            lock::release_all(self.file(), &holder.owner);
            self.count_locks(holder.number, &holder.owner);
            self.session.owners.put(holder.number);
        }
    }
}

/// The open files of a session.
#[pin_data]
pub(crate) struct Files {
    #[pin]
    inner: Mutex<Inner>,
}

/// The fields of [`Files`] protected by the lock.
struct Inner {
    by_id: RBTree<u64, Arc<OpenFile>>,
    count: usize,
    /// Ids are never used again.
    next: u64,
    /// The session has ended.
    closed: bool,
}

impl Files {
    /// No files.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(Inner {
                by_id: RBTree::new(),
                count: 0,
                next: 1,
                closed: false,
            }),
        })
    }

    /// Adds an open file.
    pub(crate) fn insert(&self, file: &Arc<OpenFile>) -> Result<FileId> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(ESTALE.into());
        }
        if inner.count >= MAX_FILES {
            return Err(Refusal::new(
                ENFILE,
                fmt!("the client has {MAX_FILES} files open"),
            ));
        }
        let id = inner.next;
        inner.next += 1;
        inner
            .by_id
            .try_create_and_insert(id, file.clone(), GFP_KERNEL)?;
        inner.count += 1;
        Ok(FileId(id))
    }

    /// The file with an id.
    ///
    /// Fails with [`EBADF`] when there is none.
    pub(crate) fn get(&self, id: FileId) -> Result<Arc<OpenFile>> {
        let inner = self.inner.lock();
        Ok(inner.by_id.get(&id.0).ok_or(EBADF)?.clone())
    }

    /// Takes a file out; dropping it closes it.
    pub(crate) fn remove(&self, id: FileId) -> Option<Arc<OpenFile>> {
        let mut inner = self.inner.lock();
        let file = inner.by_id.remove(&id.0)?;
        inner.count -= 1;
        Some(file)
    }

    /// Closes all; there will be no new ones.
    pub(crate) fn close(&self) {
        let files = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            inner.count = 0;
            core::mem::replace(&mut inner.by_id, RBTree::new())
        };
        // Closing may take long.
        drop(files);
    }
}
