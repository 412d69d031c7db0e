// SPDX-License-Identifier: GPL-2.0

//! What is watched on HOST for programs of this machine, and what HOST tells of it.
//!
//! Who receives events must not wait, and what they set off may: a thread of its own acts on them,
//! in their order, and acknowledges them. It begins with the first watch.

use core::mem;
use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        Arc,
        CondVar,
        Mutex, //
    },
};
use qtfs_net::{
    time::{
        now_us,
        ticks, //
    },
    NoFs,
    Thread, //
};
use qtfs_proto::NotifyMask;
use qtfs_vfs::inode::{
    Inode,
    InodeRef,
    Key, //
};

use super::Session;
use crate::{
    fs::Qtfs,
    own, //
};

/// How long after HOST agreed to a watch it is kept though nobody seems to watch: the kernel adds the
/// watch after it has asked the file system for permission.
const FRESH_US: u64 = 10_000_000;

/// How long the thread waits, in milliseconds, before it asks HOST once more to watch something anew:
/// at first, and at most, doubled each time.
const FIRST_PAUSE_MS: u32 = 500;
const LAST_PAUSE_MS: u32 = 60_000;

/// Most events that wait for the thread. HOST has not so many on the way, since inotify has not;
/// after a new connection it tells again what was not acknowledged.
const MAX_WAITING: usize = 1 << 16;

/// See the module.
#[pin_data]
pub(crate) struct Notices {
    #[pin]
    inner: Mutex<Inner>,
    /// There is something to do for the thread.
    #[pin]
    changed: CondVar,
    #[pin]
    thread: Mutex<Option<Thread>>,
}

/// An inode that HOST watches for us. Its number is that of the node from its beginning to its end,
/// see [`Node::watch`](crate::node::Node::watch).
#[derive(Clone, Copy)]
pub(crate) struct Watched {
    key: Key,
    /// What HOST was asked to tell, by whomever; it tells no more than that.
    pub(crate) mask: NotifyMask,
    /// When HOST last agreed, or may have, in microseconds since boot.
    agreed: u64,
    /// How many ask just now.
    asking: usize,
    /// HOST watches, or may: not all who have asked were refused.
    granted: bool,
    /// HOST was asked to tell less, and has not answered yet.
    narrowing: bool,
    /// The inode has left memory.
    evicted: bool,
    /// HOST may tell less than `mask`, since the server has lost the session or somebody asked for
    /// more while it was to tell less, and was not asked anew yet.
    stale: bool,
}

impl Watched {
    /// Whether somebody may be about to watch.
    fn is_fresh(&self) -> bool {
        self.asking > 0 || now_us().saturating_sub(self.agreed) < FRESH_US
    }
}

/// What came of asking HOST to watch.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Answer {
    /// It does.
    Granted,
    /// It does not, for who asked.
    Refused,
    /// Whoever asked did not wait for the answer.
    Unknown,
}

/// Something that HOST told.
pub(crate) struct Notice {
    pub(crate) watch: u64,
    pub(crate) parent: u64,
    pub(crate) mask: NotifyMask,
    pub(crate) cookie: u32,
    /// With a NUL at its end.
    pub(crate) name: KVec<u8>,
}

impl Notice {
    /// The name of an entry of a directory; empty if it is about none.
    pub(crate) fn name(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.name).unwrap_or_default()
    }
}

/// What the thread does next.
pub(crate) enum Chore {
    /// Tell programs of this.
    Tell(Notice),
    /// Acknowledge events up to this number.
    Acknowledge(u32),
    /// HOST need not watch by this number any more.
    Forget(u64),
    /// Watch anew what HOST may have forgotten, and say that something may be missing.
    Renew,
}

/// The fields of [`Notices`] protected by the lock.
struct Inner {
    by_number: RBTree<u64, Watched>,
    /// Numbers are never used again; 0 is none.
    next: u64,
    /// What HOST told and programs were not told of yet.
    waiting: KVVec<Notice>,
    /// Number of the last event of this incarnation of the session, and what was acknowledged.
    last: u32,
    acknowledged: u32,
    /// Some are stale.
    lost: bool,
    /// It did not answer about some that it is to watch anew: when to ask again, in microseconds
    /// since boot, and how long to wait the next time.
    again: Option<u64>,
    pause_ms: u32,
    /// How many have left memory that HOST still watches.
    evicted: usize,
    /// An inode by which others of the mount are found.
    any: Option<InodeRef<Qtfs>>,
    /// The mount goes away.
    closed: bool,
}

impl Notices {
    /// Nothing is watched.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(Inner {
                by_number: RBTree::new(),
                next: 1,
                waiting: KVVec::new(),
                last: 0,
                acknowledged: 0,
                lost: false,
                again: None,
                pause_ms: FIRST_PAUSE_MS,
                evicted: 0,
                any: None,
                closed: false,
            }),
            changed <- new_condvar!(),
            thread <- new_mutex!(None),
        })
    }

    /// Notes that HOST is going to be asked to watch an inode, until [`Notices::answered`] is called.
    /// Returns the number by which it is: all who ask at the same time have the same.
    pub(crate) fn begin(
        &self,
        session: &Arc<Session>,
        inode: &Inode<Qtfs>,
        mask: NotifyMask,
    ) -> Result<u64> {
        // One that nobody can see keeps no other in memory.
        let any = own::stranger(inode)?;
        let mut thread = self.thread.lock();
        let number = {
            // Inodes that leave memory come through this lock.
            let _nofs = NoFs::enter();
            let mut inner = self.inner.lock();
            if inner.closed {
                return Err(EIO);
            }
            if inner.any.is_none() {
                inner.any = Some(any);
            }
            inner.begin(inode, mask)?
        };
        if thread.is_none() {
            let session = session.clone();
            let spawned = Thread::spawn(fmt!("qtfs-notify"), move || crate::notify::run(&session))
                .inspect_err(|_| {
                    self.answered(inode, number, Answer::Refused);
                })?;
            *thread = Some(spawned);
        }
        Ok(number)
    }

    /// Notes what came of asking HOST. Nobody loses by it what others have got or may get: the number
    /// is ended only if all were refused. Says whether the number was ended before, so that HOST
    /// watches in vain.
    pub(crate) fn answered(&self, inode: &Inode<Qtfs>, number: u64, answer: Answer) -> bool {
        let mut inner = self.inner.lock();
        let Some(watched) = inner.by_number.get_mut(&number) else {
            return answer != Answer::Refused;
        };
        watched.asking = watched.asking.saturating_sub(1);
        if answer != Answer::Refused {
            watched.granted = true;
            watched.agreed = now_us();
        }
        if watched.asking == 0 && !watched.granted {
            inner.end(inode, number);
        }
        false
    }

    /// Nothing is watched by this number any more.
    pub(crate) fn end(&self, inode: &Inode<Qtfs>, number: u64) {
        self.inner.lock().end(inode, number);
    }

    /// What HOST is to be asked for by a number, if programs want to be told of less than it tells.
    /// With nothing the number is ended; otherwise [`Notices::narrowed`] is called when HOST has
    /// answered.
    pub(crate) fn narrow(&self, inode: &Inode<Qtfs>, number: u64) -> Option<NotifyMask> {
        let mut inner = self.inner.lock();
        let watched = inner.by_number.get_mut(&number)?;
        let wanted = inode.watched();
        let is_settled = !watched.is_fresh() && !watched.narrowing;
        if !is_settled || watched.mask.without(wanted) == NotifyMask::NONE {
            return None;
        }
        if wanted == NotifyMask::NONE {
            inner.end(inode, number);
        } else {
            watched.mask = wanted;
            watched.narrowing = true;
        }
        Some(wanted)
    }

    /// HOST has answered that it tells only of `mask` by a number, or will not answer. Somebody may
    /// have asked for more meanwhile, and HOST have heard of that first.
    pub(crate) fn narrowed(&self, number: u64, mask: NotifyMask) {
        let mut inner = self.inner.lock();
        let Some(watched) = inner.by_number.get_mut(&number) else {
            return;
        };
        watched.narrowing = false;
        if watched.mask.without(mask) != NotifyMask::NONE {
            watched.stale = true;
            inner.lost = true;
            self.changed.notify_all();
        }
    }

    /// The inode of a number leaves memory. Waits for nothing, and needs no memory.
    pub(crate) fn evicted(&self, number: u64) {
        let _nofs = NoFs::enter();
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        if let Some(watched) = inner.by_number.get_mut(&number) {
            watched.evicted = true;
            inner.evicted += 1;
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// What is watched by a number; nothing when the mount goes away.
    pub(crate) fn watched(&self, number: u64) -> Option<Watched> {
        let inner = self.inner.lock();
        let watched = inner.by_number.get(&number).copied();
        watched.filter(|_| !inner.closed)
    }

    /// All numbers.
    pub(crate) fn numbers(&self) -> Result<KVVec<u64>> {
        self.numbers_if(|_| true)
    }

    /// The numbers that HOST is to be asked for anew.
    pub(crate) fn stale(&self) -> Result<KVVec<u64>> {
        self.numbers_if(|watched| watched.stale)
    }

    fn numbers_if(&self, wanted: impl Fn(&Watched) -> bool) -> Result<KVVec<u64>> {
        let _nofs = NoFs::enter();
        let inner = self.inner.lock();
        let mut numbers = KVVec::new();
        for (number, _) in inner.by_number.iter().filter(|(_, w)| wanted(w)) {
            numbers.push(*number, GFP_KERNEL)?;
        }
        Ok(numbers)
    }

    /// HOST was asked for a number anew, if that is so still: the server may have lost the session
    /// once more.
    pub(crate) fn renewed(&self, number: u64, is_so: impl FnOnce() -> bool) {
        let mut inner = self.inner.lock();
        if let Some(watched) = inner.by_number.get_mut(&number) {
            watched.granted = true;
            watched.stale &= !is_so();
        }
    }

    /// HOST is to be asked once more for those that it did not answer about.
    pub(crate) fn renew_later(&self) {
        let mut inner = self.inner.lock();
        inner.again = Some(now_us().saturating_add(u64::from(inner.pause_ms) * 1000));
        inner.pause_ms = (inner.pause_ms * 2).min(LAST_PAUSE_MS);
    }

    /// There is no memory to tell all that something is missing: they are told when HOST was asked
    /// anew.
    pub(crate) fn overflow_later(&self) {
        for (_, watched) in self.inner.lock().by_number.iter_mut() {
            watched.stale = true;
        }
        self.renew_later();
    }

    /// The inode of a number, if it is in memory.
    pub(crate) fn inode(&self, number: u64) -> Option<InodeRef<Qtfs>> {
        let (any, key) = {
            let inner = self.inner.lock();
            let key = inner.by_number.get(&number)?.key;
            (inner.any.as_ref()?.grab()?, key)
        };
        any.find(&key, |inode| inode.node().watch() == number)
    }

    /// HOST has told something; `seq` is its number in this incarnation of the session. What is told
    /// once more is forgotten, and what comes after something that is missing comes once more.
    pub(crate) fn came(&self, seq: u32, notice: Notice) -> Result {
        // Lanes come here, and must not wait for pages to be written.
        let _nofs = NoFs::enter();
        let mut inner = self.inner.lock();
        if seq == inner.last.wrapping_add(1) {
            // What nobody watches any more is of no use to anybody.
            if !inner.by_number.is_empty() {
                if inner.waiting.len() >= MAX_WAITING {
                    return Err(ENOBUFS);
                }
                inner.waiting.push(notice, GFP_KERNEL)?;
            }
            inner.last = seq;
        } else if seq.wrapping_sub(inner.last) as i32 <= 0 {
            // The acknowledgement was lost.
            inner.acknowledged = inner.last.wrapping_sub(1);
        }
        drop(inner);
        self.changed.notify_all();
        Ok(())
    }

    /// The server has begun a new session, and tells by new numbers.
    pub(crate) fn lost(&self) {
        let old = {
            let mut inner = self.inner.lock();
            inner.last = 0;
            inner.acknowledged = 0;
            // The first session of a mount has lost nothing.
            inner.lost = !inner.by_number.is_empty();
            inner.again = None;
            inner.pause_ms = FIRST_PAUSE_MS;
            for (_, watched) in inner.by_number.iter_mut() {
                watched.stale = true;
            }
            mem::take(&mut inner.waiting)
        };
        drop(old);
        self.changed.notify_all();
    }

    /// What is to be done next; nothing when the mount goes away.
    pub(crate) fn next(&self) -> Option<Chore> {
        let mut inner = self.inner.lock();
        loop {
            if inner.closed {
                return None;
            }
            if mem::take(&mut inner.lost) {
                return Some(Chore::Renew);
            }
            if let Ok(notice) = inner.waiting.remove(0) {
                return Some(Chore::Tell(notice));
            }
            if inner.evicted > 0 {
                inner.evicted -= 1;
                let gone = inner.by_number.iter().find(|(_, watched)| watched.evicted);
                if let Some(number) = gone.map(|(number, _)| *number) {
                    let _ = inner.by_number.remove(&number);
                    return Some(Chore::Forget(number));
                }
                continue;
            }
            if inner.acknowledged != inner.last {
                inner.acknowledged = inner.last;
                return Some(Chore::Acknowledge(inner.last));
            }
            // No signal comes; the kernel takes this for idle, not for stuck.
            match inner.again.map(|at| at.saturating_sub(now_us())) {
                None => {
                    let _ = self.changed.wait_interruptible(&mut inner);
                }
                Some(0) => {
                    inner.again = None;
                    inner.lost = true;
                }
                Some(us) => {
                    let pause = ticks(u32::try_from(us.div_ceil(1000)).unwrap_or(LAST_PAUSE_MS));
                    let _ = self.changed.wait_interruptible_timeout(&mut inner, pause);
                }
            }
        }
    }

    /// The mount goes away: the thread ends, whatever it waits for, and no inode is held afterwards.
    pub(crate) fn close(&self) {
        let any = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            inner.any.take()
        };
        self.changed.notify_all();
        let thread = self.thread.lock().take();
        if let Some(thread) = &thread {
            // It may wait for room for a request, which a server that does not answer never makes.
            thread.kill();
        }
        drop(thread);
        drop(any);
    }
}

impl Inner {
    /// Notes that somebody asks HOST to watch an inode. Returns its number.
    fn begin(&mut self, inode: &Inode<Qtfs>, mask: NotifyMask) -> Result<u64> {
        let node = inode.node();
        if let Some(watched) = self.by_number.get_mut(&node.watch()) {
            watched.key = node.identity();
            watched.mask = watched.mask.with(mask);
            watched.asking += 1;
            return Ok(node.watch());
        }
        let number = self.next;
        let watched = Watched {
            key: node.identity(),
            mask,
            agreed: now_us(),
            asking: 1,
            granted: false,
            narrowing: false,
            evicted: false,
            stale: false,
        };
        self.by_number
            .try_create_and_insert(number, watched, GFP_KERNEL)?;
        self.next += 1;
        node.set_watch(number);
        Ok(number)
    }

    /// Nothing is watched by this number any more.
    fn end(&mut self, inode: &Inode<Qtfs>, number: u64) {
        let _ = self.by_number.remove(&number);
        if inode.node().watch() == number {
            inode.node().set_watch(0);
        }
    }
}
