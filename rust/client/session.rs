// SPDX-License-Identifier: GPL-2.0

//! A session with one server: requests go out, replies come back, whatever the link does.
//!
//! There is one session for each mount. It has slots, which limit how many requests are on their
//! way, and lanes, which are TCP connections; each lane has a thread that keeps it connected
//! and receives. `Documentation/protocol.md` section 2 is what all this implements.
//!
//! Locks, in the order in which they nest: `inner`, the lock of an outbox, [`request::State`];
//! the lock of the releases nests in none of them.

use core::{
    mem,
    sync::atomic::{
        AtomicBool,
        AtomicU32,
        AtomicU64,
        Ordering, //
    },
};
use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        CondVar,
        Mutex, //
    },
};
use qtfs_net::{
    Address,
    Frame,
    NoFs,
    Outbox,
    Pages,
    Thread, //
};
use qtfs_proto::{
    frame::HEADER_LEN,
    message::Lock,
    Attr,
    Header,
    Kind, //
};
use qtfs_vfs::{
    param::{
        logs,
        Level, //
    },
    trace, //
};

use crate::{
    channel::Ahead,
    options::Text,
    stats::Stats, //
};

mod credentials;
pub(crate) mod durable;
mod exchange;
mod keeper;
mod lane;
mod limit;
pub(crate) mod notices;
mod releases;
pub(crate) mod request;
mod slots;
pub(crate) mod then;
pub(crate) mod verify;
mod watches;

pub(crate) use credentials::Acting;
use credentials::Credentials;
use durable::Durable;
use limit::Limit;
use notices::Notices;
use releases::Releases;
use request::{
    Asked,
    Request, //
};
use slots::Slots;
use then::Writeback;
pub(crate) use watches::Watched;
use watches::Watches;

/// Slots that are asked for.
const SLOTS: u16 = 128;

/// What a session is made from.
pub(crate) struct Config {
    /// The server.
    pub(crate) server: Address,
    /// The directory on the server.
    pub(crate) path: KVVec<u8>,
    /// Number of connections.
    pub(crate) lanes: u16,
    /// After how many milliseconds without a reply a request fails; `None` waits for ever.
    pub(crate) timeout: Option<u32>,
}

/// The mount, as log lines begin: the server and the directory there.
impl kernel::fmt::Display for Config {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        f.write_fmt(fmt!("{}:{}", self.server, Text(&self.path)))
    }
}

/// How a caller waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until it is killed.
    Killable,
    /// Until a signal comes; then the request is cancelled on the server.
    Interruptible,
    /// For a moment; the server executes the request in any case.
    Briefly,
    /// For a moment; then the request is cancelled on the server.
    Shortly,
}

/// Room for a LOCK that waits on the server.
pub(crate) struct WaitingLock<'a>(&'a AtomicU32);

impl Drop for WaitingLock<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The fields of [`Session`] protected by the lock.
struct Inner {
    slots: Slots,
    /// The sending side of each lane that is connected.
    lanes: KVVec<Option<Arc<Outbox>>>,
    /// The session as the server knows it; all 0 before the first.
    id: [u8; 16],
    /// Nothing happens any more: unmounted.
    stopped: bool,
    /// Writes that begin anew, each when it is due.
    again: KVVec<Writeback>,
    /// Locks to release that were granted when nobody waited for them any more: the message, the
    /// identity to send it with, and the incarnation of its ids.
    unlocks: KVVec<(Lock, Option<Acting>, u32)>,
    /// The housekeeper has something to do.
    chores: bool,
}

/// A session with one server.
#[pin_data]
pub(crate) struct Session {
    pub(crate) config: Config,
    pub(crate) stats: Stats,
    /// The mount, as `config` shows it.
    name: CString,
    /// Lines in the kernel log, of each level that is limited.
    limits: [Limit; 3],
    pub(crate) releases: Pin<KBox<Releases>>,
    pub(crate) credentials: Pin<KBox<Credentials>>,
    pub(crate) watches: Pin<KBox<Watches>>,
    pub(crate) notices: Pin<KBox<Notices>>,
    /// Counts the sessions that the server made for this mount; ids belong to one of them.
    incarnation: AtomicU32,
    pub(crate) durable: Pin<KBox<Durable>>,
    /// Number of RECEIVE requests of channels that wait on the server.
    pub(crate) ahead: Ahead,
    /// Number of LOCK requests that wait on the server.
    waiting_locks: AtomicU32,
    /// `umount -f`: everything fails.
    aborted: AtomicBool,
    /// Orders replies and what happens on this machine, see [`Session::clock`].
    clock: AtomicU64,
    #[pin]
    inner: Mutex<Inner>,
    /// `inner` has changed in a way that lanes or the housekeeper wait for.
    #[pin]
    pub(crate) changed: CondVar,
}

impl Session {
    /// Connects to the server and makes a session. Returns it with the threads of its lanes,
    /// which end after [`Session::stop`].
    pub(crate) fn start(config: Config) -> Result<(Arc<Self>, KVec<Thread>)> {
        let lanes = config.lanes;
        let stats = Stats::new()?;
        let name = CString::try_from_fmt(fmt!("{config}"))?;
        let this = Arc::pin_init(
            try_pin_init!(Self {
                config,
                stats,
                name,
                limits: [const { Limit::new() }; 3],
                releases: KBox::pin_init(Releases::new(), GFP_KERNEL)?,
                credentials: KBox::pin_init(Credentials::new(), GFP_KERNEL)?,
                watches: KBox::pin_init(Watches::new(), GFP_KERNEL)?,
                notices: KBox::pin_init(Notices::new(), GFP_KERNEL)?,
                incarnation: AtomicU32::new(0),
                durable: KBox::pin_init(Durable::new(), GFP_KERNEL)?,
                ahead: Ahead::new(0),
                waiting_locks: AtomicU32::new(0),
                aborted: AtomicBool::new(false),
                clock: AtomicU64::new(1),
                inner <- new_mutex!(Inner {
                    slots: Slots::new(),
                    lanes: KVVec::new(),
                    id: [0; 16],
                    stopped: false,
                    again: KVVec::new(),
                    unlocks: KVVec::new(),
                    chores: false,
                }),
                changed <- new_condvar!(),
            }),
            GFP_KERNEL,
        )?;
        for _ in 0..lanes {
            this.inner.lock().lanes.push(None, GFP_KERNEL)?;
        }
        let first = lane::connect(&this, 0)?;
        let mut threads = KVec::with_capacity(usize::from(lanes) + 1, GFP_KERNEL)?;
        let keeper = this.clone();
        threads.push(
            Thread::spawn(fmt!("qtfs-keeper"), move || keeper.keep_house())?,
            GFP_KERNEL,
        )?;
        let mut first = Some(first);
        for lane in 0..lanes {
            let session = this.clone();
            let connected = first.take();
            let spawned = Thread::spawn(fmt!("qtfs-lane/{lane}"), move || {
                lane::run(&session, lane, connected)
            });
            match spawned {
                Ok(thread) => threads.push(thread, GFP_KERNEL)?,
                Err(e) => {
                    this.stop();
                    return Err(e);
                }
            }
        }
        Ok((this, threads))
    }

    /// Ends the session: whoever waits fails, the threads of the lanes return.
    pub(crate) fn stop(self: &Arc<Self>) {
        let outbox = {
            let mut inner = self.inner.lock();
            inner.stopped = true;
            inner.lanes.first().and_then(Clone::clone)
        };
        // Without it the server waits for us to come back.
        let _ = outbox.map(|outbox| outbox.send(bare(&Header::new(Kind::Bye, 0))?));
        self.abort();
    }

    /// Fails everything from now on, as `umount -f` asks for.
    pub(crate) fn abort(self: &Arc<Self>) {
        let _nofs = NoFs::enter();
        self.aborted.store(true, Ordering::Relaxed);
        let (outboxes, idle, waiting) = {
            let mut inner = self.inner.lock();
            let outboxes = mem::take(&mut inner.lanes);
            let mut idle = KVVec::new();
            for (slot, seq, request) in inner.slots.iter() {
                // A request that is being received is ended by its lane, which fails now.
                if !request.receiving.load(Ordering::Relaxed) {
                    let _ = idle.push((slot, seq), GFP_KERNEL);
                }
            }
            (outboxes, idle, inner.slots.end_waiting())
        };
        for outbox in outboxes.iter().flatten() {
            outbox.close();
        }
        for (slot, seq) in idle {
            self.end(slot, seq, Err(EIO));
        }
        for request in waiting {
            self.finish(&request, Err(EIO));
        }
        self.watches.wake_all();
        self.changed.notify_all();
    }

    /// The server told what cannot be true, by whichever connection: all of them are ended, with a
    /// line in the log. Gives the error for it.
    pub(crate) fn end_connections(&self, what: &str) -> Error {
        self.log(
            Level::Error,
            fmt!("bad message, the connections are ended: {what}"),
        );
        for outbox in self.inner.lock().lanes.iter().flatten() {
            outbox.close();
        }
        EPROTO
    }

    /// Whether a lane is connected at this moment.
    pub(crate) fn is_connected(&self) -> bool {
        self.inner.lock().lanes.iter().any(Option::is_some)
    }

    /// Whether [`Session::abort`] was called.
    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Which of the sessions that the server made this is.
    pub(crate) fn incarnation(&self) -> u32 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// A number that is larger each time. What began at a lower number than something that
    /// happened on this machine may not know of it.
    pub(crate) fn clock(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::AcqRel)
    }

    /// Asks for room for a LOCK that waits on the server, which holds a slot meanwhile; some must
    /// be left for whoever releases the lock.
    pub(crate) fn may_wait_for_lock(&self) -> Option<WaitingLock<'_>> {
        let waiting = &self.waiting_locks;
        let waiting_lock = WaitingLock(waiting);
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        (before < u32::from(SLOTS) / 4).then_some(waiting_lock)
    }

    /// What answers are measured by that are asked for now.
    pub(crate) fn asked(&self) -> Asked {
        Asked {
            clock: self.clock(),
            incarnation: self.incarnation(),
        }
    }

    /// Number of requests that are on their way.
    pub(crate) fn in_flight(&self) -> usize {
        self.inner.lock().slots.in_use()
    }

    /// Sends what belongs to no request, by the first lane that is connected.
    pub(crate) fn send_first(&self, frame: Arc<Frame>) -> Result {
        let outbox = self.inner.lock().lanes.iter().flatten().next().cloned();
        outbox.ok_or(ENOTCONN)?.send(frame)
    }

    /// Forgets what a reply told of, some time.
    pub(crate) fn forget(&self, attr: &Attr, incarnation: u32) {
        self.releases
            .forget(self, attr.node, attr.stamp, incarnation);
    }

    /// A request for tracepoints.
    fn traced<'a>(&'a self, request: &'a Request) -> trace::Request<'a> {
        trace::Request {
            mount: self.name.to_bytes(),
            op: request.op.name(),
            address: core::ptr::from_ref(request) as usize,
            len: request.len(),
        }
    }

    /// Tells whoever traces that a lane lost its connection.
    fn trace_reconnect(&self, lane: u16, error: Error) {
        trace::reconnect(self.name.to_bytes(), lane, error);
    }

    /// Logs that `operation` failed.
    pub(crate) fn log_error(&self, operation: &str, error: Error, what: &str) {
        self.log(Level::Error, fmt!("{operation}: {error:?}: {what}"));
    }

    /// Logs what is worth knowing, unless there is too much of it.
    pub(crate) fn log(&self, level: Level, args: core::fmt::Arguments<'_>) {
        if !logs(level) {
            return;
        }
        if let Some(limit) = self.limits.get(level as usize) {
            match limit.take() {
                None => return,
                Some(0) => {}
                Some(lines) => pr_warn!("{}: {lines} messages were left out\n", self.config),
            }
        }
        match level {
            Level::Error => pr_err!("{}: {args}\n", self.config),
            Level::Warn => pr_warn!("{}: {args}\n", self.config),
            Level::Info | Level::Debug => pr_info!("{}: {args}\n", self.config),
        }
    }
}

/// A frame that is nothing but its header.
pub(crate) fn bare(header: &Header) -> Result<Arc<Frame>> {
    let mut head = KVVec::from_elem(0u8, HEADER_LEN, GFP_KERNEL)?;
    let place = head.first_chunk_mut::<HEADER_LEN>().ok_or(EINVAL)?;
    header.write(place).map_err(|_| EINVAL)?;
    let data = Arc::new(Pages::new(), GFP_KERNEL)?;
    Ok(Arc::new(Frame { head, data }, GFP_KERNEL)?)
}
