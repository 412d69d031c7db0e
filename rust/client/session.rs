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
        AtomicUsize,
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
    time::now_us,
    Address,
    Completion,
    Frame,
    NoFs,
    Outbox,
    Pages,
    Thread, //
};
use qtfs_proto::{
    frame::HEADER_LEN,
    message::{
        Call,
        Lock, //
    },
    Attr,
    Header,
    Kind,
    Op, //
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
mod keeper;
mod lane;
pub(crate) mod notices;
mod releases;
pub(crate) mod request;
mod slots;
pub(crate) mod then;
mod watches;

pub(crate) use credentials::Acting;
use credentials::Credentials;
use notices::Notices;
use releases::Releases;
use request::{
    Asked,
    Reply,
    Request,
    UNSENT, //
};
use slots::Slots;
use then::{
    Then,
    Writeback, //
};
pub(crate) use watches::Watched;
use watches::Watches;

/// Frames with more data than this go by a lane of their own.
const BULK: usize = 64 * 1024;
/// How long [`Wait::Briefly`] waits, in milliseconds.
const BRIEFLY_MS: u32 = 1000;
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
    /// Writes that begin anew because the session was lost.
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
    pub(crate) releases: Pin<KBox<Releases>>,
    pub(crate) credentials: Pin<KBox<Credentials>>,
    pub(crate) watches: Pin<KBox<Watches>>,
    pub(crate) notices: Pin<KBox<Notices>>,
    /// Counts the sessions that the server made for this mount; ids belong to one of them.
    incarnation: AtomicU32,
    /// Which boot of HOST the session is with.
    boot: AtomicU64,
    /// How many inodes HOST has acknowledged data of in this boot that may not be on its disk.
    unsynced: AtomicUsize,
    /// HOST was booted again while there were some, which no `syncfs(2)` was told yet.
    rebooted: AtomicBool,
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
                releases: KBox::pin_init(Releases::new(), GFP_KERNEL)?,
                credentials: KBox::pin_init(Credentials::new(), GFP_KERNEL)?,
                watches: KBox::pin_init(Watches::new(), GFP_KERNEL)?,
                notices: KBox::pin_init(Notices::new(), GFP_KERNEL)?,
                incarnation: AtomicU32::new(0),
                boot: AtomicU64::new(0),
                unsynced: AtomicUsize::new(0),
                rebooted: AtomicBool::new(false),
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
        let (outboxes, idle) = {
            let mut inner = self.inner.lock();
            let outboxes = mem::take(&mut inner.lanes);
            let mut idle = KVVec::new();
            for (slot, seq, request) in inner.slots.iter() {
                // A request that is being received is ended by its lane, which fails now.
                if !request.receiving.load(Ordering::Relaxed) {
                    let _ = idle.push((slot, seq), GFP_KERNEL);
                }
            }
            inner.slots.wake_all();
            (outboxes, idle)
        };
        for outbox in outboxes.iter().flatten() {
            outbox.close();
        }
        for (slot, seq) in idle {
            self.end(slot, seq, Err(EIO));
        }
        self.watches.wake_all();
        self.changed.notify_all();
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

    /// Which boot of HOST the session is with; never 0.
    pub(crate) fn boot(&self) -> u64 {
        self.boot.load(Ordering::Acquire)
    }

    /// HOST, in this boot, has made the session.
    fn set_boot(&self, boot: u64) {
        let before = self.boot.swap(boot, Ordering::AcqRel);
        if before != boot && self.unsynced.swap(0, Ordering::AcqRel) > 0 {
            self.rebooted.store(true, Ordering::Release);
        }
    }

    /// HOST has acknowledged data of one inode more that may not be on its disk.
    pub(crate) fn note_unsynced(&self) {
        self.unsynced.fetch_add(1, Ordering::AcqRel);
    }

    /// The data of one of them is on the disk.
    pub(crate) fn note_synced(&self) {
        let (ok, fail) = (Ordering::AcqRel, Ordering::Relaxed);
        let less = |count: usize| count.checked_sub(1);
        let _ = self.unsynced.fetch_update(ok, fail, less);
    }

    /// The data of all of them is on the disk. Returns whether that of others is lost, once.
    pub(crate) fn note_all_synced(&self) -> bool {
        self.unsynced.store(0, Ordering::Release);
        self.rebooted.swap(false, Ordering::AcqRel)
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

    /// Sends `call` with the current caller's identity, and waits for the reply. Ids in it are of
    /// `incarnation`; when that is over, or ends before the reply comes, it fails as
    /// [`request::is_lost`] says.
    pub(crate) fn exchange<C: Call>(
        self: &Arc<Self>,
        call: &C,
        sink: Option<Arc<Pages>>,
        wait: Wait,
        incarnation: u32,
    ) -> Result<Reply> {
        let cred = self.credentials.current(self, wait)?;
        let none = Arc::new(Pages::new(), GFP_KERNEL)?;
        self.exchange_as(call, Some(cred), none, sink, wait, incarnation)
    }

    /// Sends `call` with data and the identity `cred`, and waits for the reply, whose data goes
    /// to `sink`.
    pub(crate) fn exchange_as<C: Call>(
        self: &Arc<Self>,
        call: &C,
        cred: Option<Acting>,
        data: Arc<Pages>,
        sink: Option<Arc<Pages>>,
        wait: Wait,
        incarnation: u32,
    ) -> Result<Reply> {
        let request = Request::new(call, cred, data, sink, Then::Wake)?;
        self.stats.waits(C::OP);
        self.place(&request, incarnation, wait)?;
        self.traced(&request).wait();
        let mut interrupted = false;
        let waited = match (wait, self.config.timeout) {
            (Wait::Killable, None) => request.done.wait_killable(),
            (Wait::Killable, Some(ms)) => request.done.wait_killable_timeout(ms),
            (Wait::Briefly, _) => request.done.wait_killable_timeout(BRIEFLY_MS),
            (Wait::Interruptible, _) => request.done.wait_interruptible().or_else(|_| {
                interrupted = true;
                self.cancel(&request);
                request.done.wait_killable()
            }),
        };
        match waited {
            Ok(()) => {
                let result = request.state.lock().result.take().unwrap_or(Err(EIO));
                match result {
                    // The program's handler decides whether the system call goes on after it.
                    Ok(reply) if interrupted && matches!(reply.error(), Err(e) if e == EINTR) => {
                        Err(ERESTARTSYS)
                    }
                    result => result,
                }
            }
            Err(e) => self.give_up(&request, e, wait),
        }
    }

    /// Sends `call` without waiting; `then` is told when the reply is there, or that it will not
    /// come.
    pub(crate) fn submit<C: Call>(
        self: &Arc<Self>,
        call: &C,
        cred: Option<Acting>,
        data: Arc<Pages>,
        sink: Option<Arc<Pages>>,
        then: Then,
        incarnation: u32,
    ) {
        if matches!(then, Then::Read(..) | Then::Write(..)) {
            // Some program waits for it in the end.
            self.stats.waits(C::OP);
        }
        match Request::new(call, cred, data, sink, Then::Forget) {
            Ok(request) => {
                request.state.lock().then = then;
                if let Err(e) = self.place(&request, incarnation, Wait::Killable) {
                    self.finish(&request, Err(e));
                }
            }
            Err(e) => then.fail(self, e),
        }
    }

    /// Gives the request a slot, waiting for one if need be, and sends it.
    fn place(&self, request: &Arc<Request>, incarnation: u32, wait: Wait) -> Result {
        let deadline = self
            .config
            .timeout
            .map(|ms| now_us() + u64::from(ms) * 1000);
        loop {
            let waiter: Arc<Completion> = {
                let _nofs = NoFs::enter();
                let mut inner = self.inner.lock();
                if self.is_aborted() || inner.stopped {
                    return Err(EIO);
                }
                if self.incarnation() != incarnation {
                    return Err(UNSENT);
                }
                if let Some((slot, seq)) = inner.slots.take(request) {
                    let (lane, outbox) = inner.lane_for(request);
                    request.lane.store(lane, Ordering::Relaxed);
                    request.sent(Asked {
                        clock: self.clock(),
                        incarnation,
                    });
                    self.traced(request).start();
                    drop(inner);
                    // Without a lane the request waits until one is connected again.
                    if let Some(outbox) = outbox {
                        self.stats.sent(request.op, request.len(), false);
                        let frame = request.frame(slot, seq, false);
                        // A lane that fails sends the request again when it is back.
                        let _ = frame.and_then(|frame| outbox.send(frame));
                    }
                    return Ok(());
                }
                let waiter = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
                inner.slots.wait(waiter.clone())?;
                waiter
            };
            let waited = match (deadline, wait) {
                (Some(deadline), _) => {
                    let left = deadline.saturating_sub(now_us()) / 1000;
                    waiter.wait_killable_timeout(u32::try_from(left).unwrap_or(u32::MAX))
                }
                (None, Wait::Killable) => waiter.wait_killable(),
                (None, Wait::Interruptible) => waiter.wait_interruptible(),
                (None, Wait::Briefly) => waiter.wait_killable_timeout(BRIEFLY_MS),
            };
            if let Err(e) = waited {
                self.inner.lock().slots.give_up(&waiter);
                return Err(e);
            }
        }
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

    /// Tells the server that nobody waits for the request any more.
    fn cancel(&self, request: &Arc<Request>) {
        let _nofs = NoFs::enter();
        let (outbox, frame) = {
            let inner = self.inner.lock();
            request.given_up.store(true, Ordering::Relaxed);
            let Some((slot, seq)) = inner.slots.place_of(request) else {
                return;
            };
            let lane = request.lane.load(Ordering::Relaxed);
            let outbox = inner.lanes.get(usize::from(lane)).and_then(Clone::clone);
            (outbox, request.cancel(slot, seq))
        };
        // Without a lane the server is told by the next one; without memory it executes the
        // request to its end.
        let _ = outbox.map(|outbox| outbox.send(frame?));
    }

    /// The caller does not wait any more: what the reply brings is given back when it comes.
    fn give_up(
        self: &Arc<Self>,
        request: &Arc<Request>,
        error: Error,
        wait: Wait,
    ) -> Result<Reply> {
        if wait != Wait::Briefly {
            self.cancel(request);
        }
        // What these bring is given back, and nobody else has their pages.
        let is_own = matches!(request.op, Op::Readdir | Op::Open);
        if request.sink.is_some() && !is_own {
            self.withdraw_sink(request);
        }
        let result = {
            let mut state = request.state.lock();
            state.then = Then::Forget;
            state.result.take()
        };
        match result {
            // The reply came at the last moment.
            Some(result) => then::give_back(self, request, &result),
            None => self.stats.failed(request.op),
        }
        Err(error)
    }

    /// Returns when nothing is written to the sink of the request any more: its pages may be in the
    /// page cache, where others use them from now on.
    fn withdraw_sink(&self, request: &Request) {
        let mut inner = self.inner.lock();
        request.unwanted.store(true, Ordering::Release);
        while request.receiving.load(Ordering::Acquire) {
            // The rest of the reply may take as long as the peer likes.
            let lane = request.receiver.load(Ordering::Relaxed);
            let outbox = inner.lanes.get(usize::from(lane)).and_then(Clone::clone);
            if let Some(outbox) = outbox {
                outbox.close();
            }
            self.changed.wait(&mut inner);
        }
    }

    /// Ends the request in a slot.
    fn end(self: &Arc<Self>, slot: u16, seq: u32, result: Result<Reply>) {
        let request = self.inner.lock().slots.release(slot, seq);
        if let Some(request) = request {
            self.finish(&request, result);
        }
    }

    /// Tells whoever is interested what became of a request.
    fn finish(self: &Arc<Self>, request: &Arc<Request>, result: Result<Reply>) {
        let failed = !matches!(&result, Ok(reply) if reply.status == 0);
        let us = now_us().saturating_sub(request.started);
        self.stats.ended(request.op, us, failed);
        let status = match &result {
            Ok(reply) => i64::from(reply.status),
            Err(e) => i64::from(-e.to_errno()),
        };
        self.traced(request).finish(status, us);
        let name = request.op.name();
        self.log(Level::Debug, fmt!("{name}: status {status} after {us} us"));
        let acting = {
            let mut state = request.state.lock();
            match mem::replace(&mut state.then, Then::Forget) {
                // In one step: whoever gives up finds the one or leaves the other.
                Then::Wake => {
                    state.result = Some(result);
                    None
                }
                then => Some((then, result)),
            }
        };
        if let Some((then, result)) = acting {
            then.run(self, request, result);
        }
        request.done.complete();
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
        pr_err!("{}: {operation}: {error:?}: {what}\n", self.config);
    }

    /// Logs what is worth knowing.
    pub(crate) fn log(&self, level: Level, args: core::fmt::Arguments<'_>) {
        if logs(level) {
            match level {
                Level::Error => pr_err!("{}: {args}\n", self.config),
                Level::Warn => pr_warn!("{}: {args}\n", self.config),
                Level::Info | Level::Debug => pr_info!("{}: {args}\n", self.config),
            }
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

impl Inner {
    /// The lane that takes a request, if one is connected.
    fn lane_for(&self, request: &Request) -> (u16, Option<Arc<Outbox>>) {
        let bulk = request.bulk() > BULK;
        let count = self.lanes.len();
        // Bulk data goes by the lanes after the first, all of them in turn.
        let first = if bulk && count > 1 {
            1 + (request.started as usize >> 4) % (count - 1)
        } else {
            0
        };
        for lane in [first, 0] {
            if let Some(Some(outbox)) = self.lanes.get(lane) {
                return (u16::try_from(lane).unwrap_or(0), Some(outbox.clone()));
            }
        }
        (request::NO_LANE, None)
    }
}
