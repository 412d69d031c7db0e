// SPDX-License-Identifier: GPL-2.0

//! Unix sockets: what the kernel asks about socket inodes, and `/dev/qtfs`, by which the daemon of
//! this machine helps.
//!
//! A program connects: the kernel asks for write permission and then looks for a socket that is
//! bound to the inode. In between, engine connects to the socket on HOST, as the caller; what comes of
//! that is what the caller gets. If it is connected, the daemon is given the channel and makes sure
//! that a socket of its own is bound to the inode, and the kernel finds that one.
//!
//! A program binds: HOST makes the inode as any other. The daemon is told, and has engine bind
//! a socket of its own to it on HOST; it is told again when the program closes its socket.

use core::{
    slice,
    sync::atomic::{
        AtomicBool,
        AtomicI64,
        AtomicU32,
        Ordering, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};
use qtfs_net::{
    time::now_us,
    Completion, //
};
use qtfs_proto::{
    message::Channel as OpenChannel,
    relay::{
        Message,
        Purpose,
        SocketType,
        User, //
    },
    FileId,
    PollEvents, //
};
use qtfs_vfs::{
    global::Global,
    inode::Inode,
    local::File,
    param::Level,
    poll::PollQueue,
    task::{
        current_process,
        Caller, //
    },
    unix::{
        self,
        Aliases,
        Binding, //
    },
};

use crate::{
    bound::Bound,
    channel::Channel,
    fs::Qtfs,
    place::Place,
    session::request::errno_of, //
};

/// How long a program that binds a socket waits at most until HOST's programs can connect to it.
const BIND_MS: u32 = 5_000;
/// How long the next daemon is waited for by who connects, from when the last one ended. systemd, or
/// qtfs-offload, starts it again after a second.
const RESTART_MS: u64 = 10_000;
/// How often is said that the daemon is not running, in microseconds.
const COMPLAINT_US: i64 = 60_000_000;

mod device;

/// The one of the module.
pub(crate) static SOCKETS: Global<Sockets> = Global::new();

/// Whoever waits for an answer of the daemon.
#[pin_data]
struct Waiter {
    id: u64,
    /// What the daemon said: an errno, 0 for none.
    errno: AtomicU32,
    /// The daemon has ended.
    gone: AtomicBool,
    /// Whoever waited has given up.
    given_up: AtomicBool,
    #[pin]
    done: Completion,
}

/// A connection to a socket of HOST for the daemon.
struct Connected {
    waiter: Arc<Waiter>,
    channel: Arc<Channel>,
    kind: SocketType,
    /// The inode, to bind a socket to, and what tells it from others.
    object: File,
    key: u64,
    process: i32,
    uid: u32,
    gid: u32,
    /// Who listens on HOST.
    listener: User,
}

/// The fields of [`Sockets`] protected by the lock.
struct Inner {
    /// Process of the daemon.
    daemon: Option<i32>,
    /// When the last one ended, in microseconds.
    ended: Option<u64>,
    /// The next one is there, for those who wait for it.
    arrival: Option<Arc<Completion>>,
    aliases: Option<Aliases>,
    connected: KVVec<Connected>,
    waiters: KVVec<Arc<Waiter>>,
    /// Sockets that programs of this machine have bound.
    bound: KVVec<Arc<Bound>>,
    next: u64,
}

/// See the module.
#[pin_data]
pub(crate) struct Sockets {
    #[pin]
    inner: Mutex<Inner>,
    /// Where the daemon waits for events.
    events: Arc<Events>,
    /// When it was said last that there is no daemon.
    complained: AtomicI64,
}

/// See [`Sockets::events`].
#[pin_data]
pub(crate) struct Events {
    #[pin]
    pub(crate) queue: PollQueue,
}

impl Sockets {
    /// Without a daemon.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let events = Arc::pin_init(
            pin_init!(Events {
                queue <- PollQueue::new(),
            }),
            GFP_KERNEL,
        )?;
        Arc::pin_init(
            pin_init!(Self {
                inner <- new_mutex!(Inner {
                    daemon: None,
                    ended: None,
                    arrival: None,
                    aliases: None,
                    connected: KVVec::new(),
                    waiters: KVVec::new(),
                    bound: KVVec::new(),
                    next: 1,
                }),
                events,
                complained: AtomicI64::new(-COMPLAINT_US),
            }),
            GFP_KERNEL,
        )
    }

    fn daemon(&self) -> Option<i32> {
        self.inner.lock().daemon
    }

    /// Milliseconds in which the next daemon is to be expected still; 0 when there is one, or was none.
    fn due(inner: &Inner) -> u64 {
        match (&inner.aliases, inner.ended) {
            (None, Some(ended)) => RESTART_MS.saturating_sub(now_us().saturating_sub(ended) / 1000),
            _ => 0,
        }
    }

    /// The daemon. When one has just ended, the next is waited for.
    fn daemon_or_next(&self) -> Result<Option<i32>> {
        let (arrival, ms) = {
            let mut inner = self.inner.lock();
            let ms = Self::due(&inner);
            if ms == 0 {
                return Ok(inner.daemon);
            }
            let arrival = match &inner.arrival {
                Some(arrival) => arrival.clone(),
                None => {
                    let arrival = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
                    inner.arrival.insert(arrival).clone()
                }
            };
            (arrival, ms)
        };
        // CAST: Not more than `RESTART_MS`.
        match arrival.wait_killable_timeout(ms as u32) {
            Err(e) if e != ETIMEDOUT => Err(e),
            _ => Ok(self.daemon()),
        }
    }

    /// Says, not too often, that something does not work without the daemon.
    fn complain(&self, inode: &Inode<Qtfs>, what: &str) {
        // CAST: Microseconds since boot.
        let now = now_us() as i64;
        let last = self.complained.load(Ordering::Relaxed);
        let (ok, fail) = (Ordering::Relaxed, Ordering::Relaxed);
        let due = now - last >= COMPLAINT_US
            && self
                .complained
                .compare_exchange(last, now, ok, fail)
                .is_ok();
        if due {
            let session = &inode.mount().session;
            session.log(
                Level::Error,
                fmt!("{what}: udsproxyd is not running on this machine; start it with: udsproxyd"),
            );
        }
    }

    /// A new waiter for the daemon's answer; none without a daemon.
    fn waiter(inner: &mut Inner) -> Result<Arc<Waiter>> {
        let id = inner.next;
        let waiter = Arc::pin_init(
            pin_init!(Waiter {
                id,
                errno: AtomicU32::new(0),
                gone: AtomicBool::new(false),
                given_up: AtomicBool::new(false),
                done <- Completion::new(),
            }),
            GFP_KERNEL,
        )?;
        inner.waiters.push(waiter.clone(), GFP_KERNEL)?;
        inner.next += 1;
        Ok(waiter)
    }

    /// Waits for the daemon's answer, for at most so many milliseconds.
    fn answer(&self, waiter: &Arc<Waiter>, timeout: Option<u32>) -> Result {
        let waited = match timeout {
            Some(ms) => waiter.done.wait_killable_timeout(ms),
            None => waiter.done.wait_killable(),
        };
        waiter.given_up.store(true, Ordering::Release);
        let event = {
            let mut inner = self.inner.lock();
            let mut at = |w: &Arc<Waiter>| Arc::ptr_eq(w, waiter);
            if let Some(at) = inner.waiters.iter().position(&mut at) {
                let _ = inner.waiters.remove(at);
            }
            let mut of = |c: &Connected| Arc::ptr_eq(&c.waiter, waiter);
            match inner.connected.iter().position(&mut of) {
                Some(at) => inner.connected.remove(at).ok(),
                None => None,
            }
        };
        if let Some(event) = event {
            event.channel.end();
        }
        waited?;
        match errno_of(waiter.errno.load(Ordering::Acquire)) {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// A program binds a socket to `inode`, which was just made for that.
    pub(crate) fn bound(&self, inode: &Inode<Qtfs>, binding: Binding) -> Result {
        let Some(kind) = binding.kind() else {
            return Ok(());
        };
        let waiter = {
            let mut inner = self.inner.lock();
            let without = inner.daemon.is_none();
            // Nobody will be told of them.
            let of_nobody =
                |bound: &Arc<Bound>| bound.is_closed() && (without || !bound.was_told());
            inner.bound.retain(|bound| !of_nobody(bound));
            let id = inner.next;
            inner.next += 1;
            let bound = Bound::new(id, inode, binding, kind, &self.events)?;
            inner.bound.push(bound.clone(), GFP_KERNEL)?;
            inode.node().set_bound(bound.clone());
            if without {
                None
            } else {
                let waiter = Self::waiter(&mut inner)?;
                bound.set_waiter(waiter.id);
                Some(waiter)
            }
        };
        let Some(waiter) = waiter else {
            // The next daemon is told, if one is due.
            let absent = {
                let inner = self.inner.lock();
                inner.daemon.is_none() && Self::due(&inner) == 0
            };
            if absent {
                self.complain(
                    inode,
                    "HOST's programs cannot connect to a socket that was bound here",
                );
            }
            return Ok(());
        };
        self.events.queue.wake(PollEvents::NONE);
        match self.answer(&waiter, Some(BIND_MS)) {
            Err(e) if e == EINTR => Err(e),
            Err(e) => {
                let what = "HOST's programs cannot connect yet to a socket that was bound here";
                let session = &inode.mount().session;
                session.log(Level::Warn, fmt!("{what}: {e:?}"));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// A program connects to a socket. Fails as that does on HOST; the permission to write is asked
    /// for there. Without a daemon the caller asks by itself: `false`.
    fn connect(&self, inode: &Inode<Qtfs>) -> Result<bool> {
        if inode.node().bound().is_some_and(|bound| !bound.is_closed()) {
            // It is this machine's.
            return Ok(self.daemon() == Some(current_process()));
        }
        // A daemon may end meanwhile, or engine; the caller has not been told of a connection then.
        for _ in 0..2 {
            match self.daemon_or_next()? {
                None => {
                    self.complain(inode, "a program cannot connect to a socket of HOST");
                    return Ok(false);
                }
                Some(daemon) if daemon == current_process() => return Ok(true),
                Some(_) => {}
            }
            if self.connect_once(inode)? {
                return Ok(true);
            }
        }
        Err(ECONNREFUSED)
    }

    /// As [`Sockets::connect`], with the daemon and the engine that there are. `false`: one of them has ended.
    fn connect_once(&self, inode: &Inode<Qtfs>) -> Result<bool> {
        let known = unix::connecting_type();
        let kinds = match &known {
            Some(kind) => slice::from_ref(kind),
            None => SocketType::ALL,
        };
        let mut result = Err(EPROTOTYPE);
        for kind in kinds {
            result = self.connect_as(inode, *kind);
            if !matches!(result, Err(EPROTOTYPE)) {
                break;
            }
        }
        result
    }

    /// As [`Sockets::connect_once`], with a socket of this type.
    fn connect_as(&self, inode: &Inode<Qtfs>, kind: SocketType) -> Result<bool> {
        let mount = inode.mount();
        let place = inode
            .with_alias(|dentry| Place::of(dentry, true))
            .unwrap_or(Place::anywhere());
        let node = mount.id(inode)?;
        let purpose = match unix::waits_for_connection() {
            true => Purpose::Connect,
            false => Purpose::ConnectNow,
        };
        let channel = Channel::open(mount, node, || {
            Ok(OpenChannel {
                target: place.target(mount, inode)?,
                purpose,
                kind,
                token: 0,
                file: FileId::NONE,
            })
        })?;
        let result = self.connected(inode, &channel);
        if !matches!(result, Ok(true)) {
            channel.end();
        }
        result
    }

    /// Engine connects; then the daemon is told. `false`: one of them has ended.
    fn connected(&self, inode: &Inode<Qtfs>, channel: &Arc<Channel>) -> Result<bool> {
        // Who left at once would connect twice. Who waits for room in the listener's queue may.
        let first = channel.wait()?;
        let Ok(Message::Opened {
            errno,
            kind,
            listener,
        }) = Message::decode(&first)
        else {
            return Ok(false);
        };
        if let Some(error) = errno_of(errno) {
            return Err(error);
        }
        // The daemon begins, or ends.
        let object = match unix::open_inode(inode) {
            Err(ENXIO) => return Ok(false),
            object => object?,
        };
        let caller = Caller::current();
        let waiter = {
            let mut inner = self.inner.lock();
            if inner.daemon.is_none() {
                return Ok(false);
            }
            let waiter = Self::waiter(&mut inner)?;
            let event = Connected {
                waiter: waiter.clone(),
                channel: channel.clone(),
                kind,
                object,
                key: inode.node().socket_key(),
                process: current_process(),
                uid: caller.uid,
                gid: caller.gid,
                listener,
            };
            inner.connected.push(event, GFP_KERNEL)?;
            waiter
        };
        self.events.queue.wake(PollEvents::NONE);
        self.answer(&waiter, None)?;
        Ok(!waiter.gone.load(Ordering::Acquire))
    }
}

/// Whether a program may connect to a socket.
///
/// `Ok(false)`: the caller asks HOST by itself.
pub(crate) fn connect(inode: &Inode<Qtfs>) -> Result<bool> {
    if !unix::is_connecting() {
        return Ok(false);
    }
    match SOCKETS.get() {
        Some(sockets) => sockets.connect(inode),
        None => Ok(false),
    }
}

/// A socket inode was made. When a program binds a socket to it, HOST's programs can connect to that
/// once this returns.
pub(crate) fn made(inode: &Inode<Qtfs>) -> Result {
    match (Binding::of_current(), SOCKETS.get()) {
        (Some(binding), Some(sockets)) => sockets.bound(inode, binding),
        _ => Ok(()),
    }
}
