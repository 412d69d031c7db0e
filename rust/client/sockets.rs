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

use core::sync::atomic::{
    AtomicBool,
    AtomicI64,
    AtomicU32,
    Ordering, //
};
use kernel::{
    ioctl::{
        _IO,
        _IOR,
        _IOW,
        _IOWR, //
    },
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
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
        SocketType, //
    },
    FileId,
    PollEvents,
    Target, //
};
use qtfs_vfs::{
    anon,
    global::Global,
    inode::Inode,
    local::{
        device::Service,
        File, //
    },
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
    place::Place, //
};

const MAGIC: u32 = 0x71;
/// The next event.
const NEXT: u32 = _IOR::<[u8; 48]>(MAGIC, 1);
/// The answer to an event.
const ANSWER: u32 = _IOW::<[u8; 16]>(MAGIC, 2);
/// Opens a channel.
const OPEN: u32 = _IOWR::<[u8; 32]>(MAGIC, 3);
/// A descriptor of the directory in which sockets are bound.
const DIRECTORY: u32 = _IOR::<[u8; 4]>(MAGIC, 4);
/// Version of all this.
const VERSION: u32 = _IO(MAGIC, 5);

/// How long a program that binds a socket waits at most until HOST's programs can connect to it.
const BIND_MS: u32 = 5_000;
/// How often is said that the daemon is not running, in microseconds.
const COMPLAINT_US: i64 = 60_000_000;

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
}

/// The fields of [`Sockets`] protected by the lock.
struct Inner {
    /// Process of the daemon.
    daemon: Option<i32>,
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

/// What the daemon is told: the numbers of the structure that NEXT fills.
#[derive(Default)]
struct Event {
    what: u32,
    kind: u32,
    id: u64,
    key: u64,
    channel: i32,
    object: i32,
    process: i32,
    uid: u32,
    gid: u32,
}

impl Event {
    const CONNECTED: u32 = 1;
    const BOUND: u32 = 2;
    const CLOSED: u32 = 3;
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
        match waiter.errno.load(Ordering::Acquire) {
            0 => Ok(()),
            errno => Err(errno_of(errno)),
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
            self.complain(
                inode,
                "HOST's programs cannot connect to a socket that was bound here",
            );
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
        match self.daemon() {
            None => {
                self.complain(inode, "a program cannot connect to a socket of HOST");
                return Ok(false);
            }
            Some(daemon) if daemon == current_process() => return Ok(true),
            Some(_) => {}
        }
        let mount = inode.mount();
        let place = inode
            .with_alias(|dentry| Place::of(dentry, true))
            .unwrap_or(Place::anywhere());
        let node = mount.id(inode)?;
        let channel = Channel::open(mount, node, || {
            Ok(OpenChannel {
                target: place.target(mount, inode)?,
                purpose: Purpose::Connect,
                kind: SocketType::Stream,
                token: 0,
                file: FileId::NONE,
            })
        })?;
        let result = self.connected(inode, &channel);
        if result.is_err() {
            channel.end();
        }
        result.map(|()| true)
    }

    /// Engine connects; then the daemon is told.
    fn connected(&self, inode: &Inode<Qtfs>, channel: &Arc<Channel>) -> Result {
        // Only who is killed may leave: others would connect twice.
        let first = channel.wait()?;
        let kind = match Message::decode(&first) {
            Ok(Message::Opened { errno: 0, kind }) => kind,
            Ok(Message::Opened { errno, .. }) => return Err(errno_of(errno)),
            // Engine has ended.
            _ => return Err(ECONNREFUSED),
        };
        let object = unix::open_inode(inode)?;
        let caller = Caller::current();
        let waiter = {
            let mut inner = self.inner.lock();
            if inner.daemon.is_none() {
                return Err(ECONNREFUSED);
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
            };
            inner.connected.push(event, GFP_KERNEL)?;
            waiter
        };
        self.events.queue.wake(PollEvents::NONE);
        self.answer(&waiter, None)?;
        match waiter.gone.load(Ordering::Acquire) {
            true => Err(ECONNREFUSED),
            false => Ok(()),
        }
    }

    /// NEXT: waits for an event, and fills the structure with it.
    fn next(&self) -> Result<Event> {
        loop {
            let seen = self.events.queue.generation();
            if let Some(event) = self.event()? {
                return Ok(event);
            }
            self.events.queue.sleep(seen).map_err(|_| EINTR)?;
        }
    }

    fn event(&self) -> Result<Option<Event>> {
        let connected = {
            let mut inner = self.inner.lock();
            match inner.connected.is_empty() {
                true => None,
                false => inner.connected.remove(0).ok(),
            }
        };
        if let Some(connected) = connected {
            return connected.install().map(Some);
        }
        loop {
            let mut inner = self.inner.lock();
            let mut news = |bound: &Arc<Bound>| bound.has_news();
            let Some(at) = inner.bound.iter().position(&mut news) else {
                return Ok(None);
            };
            let bound = inner.bound.get(at).ok_or(EIO)?.clone();
            if bound.is_closed() {
                let removed = inner.bound.remove(at);
                drop(inner);
                drop(removed);
                if bound.was_told() {
                    let event = Event {
                        what: Event::CLOSED,
                        kind: bound.kind as u32,
                        id: bound.id,
                        ..Event::default()
                    };
                    return Ok(Some(event));
                }
                continue;
            }
            bound.tell();
            drop(inner);
            // It may be gone by now.
            let Some(object) = bound.open() else { continue };
            let event = Event {
                what: Event::BOUND,
                kind: bound.kind as u32,
                id: bound.id,
                key: bound.waiter(),
                object: unix::install(object?)?,
                channel: -1,
                ..Event::default()
            };
            return Ok(Some(event));
        }
    }

    /// ANSWER: `u64` number of the waiter, `u32` errno.
    fn answered(&self, id: u64, errno: u32) {
        let inner = self.inner.lock();
        let waiter = inner.waiters.iter().find(|waiter| waiter.id == id);
        if let Some(waiter) = waiter {
            waiter.errno.store(errno, Ordering::Release);
            waiter.done.complete();
        }
    }

    /// OPEN: a channel beside another one, or about a socket that is bound here.
    fn open_channel(&self, request: &Open) -> Result<i32> {
        let purpose = Purpose::ALL.iter().copied();
        let purpose = purpose.into_iter().find(|p| *p as u32 == request.purpose);
        let kind = SocketType::ALL.iter().copied();
        let kind = kind.into_iter().find(|k| *k as u32 == request.kind);
        let (purpose, kind) = (purpose.ok_or(EINVAL)?, kind.ok_or(EINVAL)?);
        let token = request.token;
        let channel = if purpose == Purpose::Listen {
            let bound = {
                let inner = self.inner.lock();
                let mut bound = inner.bound.iter();
                let of_id = |bound: &&Arc<Bound>| bound.id == request.bound;
                bound.find(of_id).ok_or(ENOENT)?.clone()
            };
            bound.listen(kind)?
        } else {
            let beside = anon::from_fd::<Channel>(request.beside)?;
            let file = match purpose {
                Purpose::File => {
                    let session = &beside.session;
                    crate::file::passed(request.file, session, beside.incarnation)?
                }
                _ => FileId::NONE,
            };
            beside.open_beside(&OpenChannel {
                target: Target::node(beside.node),
                purpose,
                kind,
                token,
                file,
            })?
        };
        anon::install(channel)
    }
}

/// Argument of OPEN.
struct Open {
    bound: u64,
    token: u64,
    beside: i32,
    purpose: u32,
    kind: u32,
    file: i32,
}

impl Connected {
    /// Gives the daemon, which is the current task, what it needs.
    fn install(self) -> Result<Event> {
        let object = unix::install(self.object)?;
        let channel = anon::install(self.channel)?;
        Ok(Event {
            what: Event::CONNECTED,
            kind: self.kind as u32,
            id: self.waiter.id,
            key: self.key,
            channel,
            object,
            process: self.process,
            uid: self.uid,
            gid: self.gid,
        })
    }
}

/// The errno that a number of the peer stands for.
fn errno_of(errno: u32) -> Error {
    i32::try_from(errno).map_or(EIO, |errno| Error::from_errno(-errno))
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

impl Service for Sockets {
    type Module = crate::LocalModule;

    fn open(&self) -> Result {
        let mut inner = self.inner.lock();
        if inner.daemon.is_some() {
            return Err(EBUSY);
        }
        inner.daemon = Some(current_process());
        for bound in inner.bound.iter() {
            bound.tell_again();
        }
        drop(inner);
        let aliases = Aliases::start().inspect_err(|_| self.inner.lock().daemon = None)?;
        self.inner.lock().aliases = Some(aliases);
        Ok(())
    }

    fn close(&self) {
        let (aliases, connected, waiters) = {
            let mut inner = self.inner.lock();
            inner.daemon = None;
            (
                inner.aliases.take(),
                core::mem::take(&mut inner.connected),
                core::mem::take(&mut inner.waiters),
            )
        };
        for waiter in waiters.iter() {
            waiter.gone.store(true, Ordering::Release);
            waiter.done.complete();
        }
        for event in connected {
            event.channel.end();
        }
        drop(aliases);
    }

    fn command(&self, command: u32, argument: usize) -> Result<isize> {
        match command {
            NEXT => {
                let e = self.next()?;
                let bytes = [
                    e.id.to_ne_bytes(),
                    e.key.to_ne_bytes(),
                    pair(e.what, e.kind),
                    pair(e.channel as u32, e.object as u32),
                    pair(e.process as u32, e.uid),
                    pair(e.gid, 0),
                ];
                write(argument, bytes.as_flattened())?;
            }
            ANSWER => {
                let [id, errno] = read::<2>(argument)?;
                // CAST: The lower half, as the structure has it first.
                self.answered(id, first(errno));
            }
            OPEN => {
                let [bound, token, a, b] = read::<4>(argument)?;
                let request = Open {
                    bound,
                    token,
                    beside: first(a) as i32,
                    purpose: second(a),
                    kind: first(b),
                    file: second(b) as i32,
                };
                return Ok(self.open_channel(&request)? as isize);
            }
            DIRECTORY => write(argument, &unix::directory()?.to_ne_bytes())?,
            VERSION => return Ok(1),
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}

/// Two numbers of a structure beside each other.
fn pair(a: u32, b: u32) -> [u8; 8] {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.to_ne_bytes(), b.to_ne_bytes());
    [a0, a1, a2, a3, b0, b1, b2, b3]
}

fn first(both: u64) -> u32 {
    let [a, b, c, d, ..] = both.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

fn second(both: u64) -> u32 {
    let [_, _, _, _, a, b, c, d] = both.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

fn write(argument: usize, bytes: &[u8]) -> Result {
    let slice = UserSlice::new(UserPtr::from_addr(argument), bytes.len());
    slice.writer().write_slice(bytes)
}

/// Reads a structure as numbers of eight bytes.
fn read<const N: usize>(argument: usize) -> Result<[u64; N]> {
    let mut reader = UserSlice::new(UserPtr::from_addr(argument), N * 8).reader();
    let mut numbers = [0; N];
    for number in &mut numbers {
        let mut bytes = [0; 8];
        reader.read_slice(&mut bytes)?;
        *number = u64::from_ne_bytes(bytes);
    }
    Ok(numbers)
}
