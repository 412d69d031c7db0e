// SPDX-License-Identifier: GPL-2.0

//! Unix sockets: channels of clients, and the sockets of HOST's programs that they lead to.
//!
//! One thread fetches channels from the module; all else are tasks of a small runtime. What is
//! offered under a token (a connection that HOST's program made to a socket of the DPU, a descriptor
//! that is passed) is kept until the other machine, or the data that names it, comes for it.

use crate::device::NewChannel;
use crate::device::Sockets;
use nix::errno::Errno;
use qtfs_proto::relay::Message;
use qtfs_proto::relay::Passed;
use qtfs_proto::relay::Purpose;
use qtfs_proto::relay::SocketType;
use qtfs_proto::relay::User;
use qtfs_proto::OpenFlags;
use qtfs_relay::channel::Channel;
use qtfs_relay::connection::relay;
use qtfs_relay::errno_of;
use qtfs_relay::identity::Identity;
use qtfs_relay::listener;
use qtfs_relay::listener::Listener;
use qtfs_relay::local::Kind;
use qtfs_relay::local::Local;
use qtfs_relay::rights;
use qtfs_relay::rights::Boxed;
use qtfs_relay::rights::OwnedRight;
use qtfs_relay::rights::Passing;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::io::ErrorKind;
use std::io::Seek;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

/// Threads that relay: with more, each message wakes them in turn, which takes a quarter longer.
const THREADS: usize = 1;
/// Threads that connect as somebody, at most.
const BLOCKING: usize = 8;
/// How many connections to one socket of the DPU are offered at a time; the others wait in the queue of
/// the listener here.
const OFFERS: usize = 64;
/// How long a descriptor is offered that nobody comes for.
const OFFER: Duration = Duration::from_secs(120);
/// How long a connection waits for room in the queue of a listener, at first.
const RETRY: Duration = Duration::from_millis(2);

/// What is kept under a token.
enum Offered {
    /// This machine's end of a connection, with its place among those to one socket if it is one of
    /// those.
    Local(Local, Option<OwnedSemaphorePermit>),
    /// A channel that goes on with a descriptor of the DPU.
    Channel(Channel),
    /// A file that is passed.
    File(OwnedFd),
}

/// A session and a token of it.
type Token = (u32, u64);

struct Host {
    /// Where sockets are bound.
    directory: OwnedFd,
    offers: Mutex<HashMap<Token, Offered>>,
    /// Something was offered.
    offered: Notify,
}

/// The thread and the runtime. Dropping it closes all connections.
pub struct Relays {
    runtime: Option<Runtime>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Relays {
    /// Starts to relay.
    pub fn start<S: Sockets>(module: Arc<S>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING)
            .thread_name("engine/relay")
            .enable_all()
            .build()?;
        let host = Arc::new(Host {
            directory: module.directory()?,
            offers: Mutex::default(),
            offered: Notify::new(),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let (handle, stopped, device) = (runtime.handle().clone(), stop.clone(), module);
        let thread = std::thread::Builder::new().name("engine/channels".into());
        let thread = thread.spawn(move || fetch(&*device, &host, &handle, &stopped))?;
        Ok(Self {
            runtime: Some(runtime),
            thread: Some(thread),
            stop,
        })
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() {
                crate::sys::interrupt(&thread);
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Fetches channels until it is to stop.
fn fetch(
    module: &impl Sockets,
    host: &Arc<Host>,
    runtime: &tokio::runtime::Handle,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        match module.channel() {
            Ok(new) => {
                let host = Arc::clone(host);
                runtime.spawn(async move {
                    let purpose = new.purpose;
                    if let Err(error) = host.serve(new).await {
                        tracing::debug!("a channel ({purpose:?}) is closed: {error}");
                    }
                });
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::error!("fetching a channel of a unix socket failed: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

impl Host {
    fn offers(&self) -> MutexGuard<'_, HashMap<Token, Offered>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps something until it is taken.
    fn keep(&self, token: Token, offered: Offered) {
        self.offers().insert(token, offered);
        self.offered.notify_waiters();
    }

    /// The same, but not for ever.
    fn offer(self: &Arc<Self>, token: Token, offered: Offered) {
        self.keep(token, offered);
        let host = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(OFFER).await;
            let late = host.offers().remove(&token);
            drop(late);
        });
    }

    fn take(&self, token: Token) -> Option<Offered> {
        self.offers().remove(&token)
    }

    /// Takes what is offered under a token, now or soon.
    async fn wait_for(&self, token: Token) -> io::Result<Offered> {
        let wait = async {
            loop {
                let more = self.offered.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                if let Some(offered) = self.take(token) {
                    return offered;
                }
                more.await;
            }
        };
        let waited = tokio::time::timeout(OFFER, wait).await;
        waited.map_err(|_| io::Error::from(ErrorKind::TimedOut))
    }

    async fn serve(self: Arc<Self>, new: NewChannel) -> io::Result<()> {
        let channel = Channel::new(new.end)?;
        let token = (new.session, new.token);
        match new.purpose {
            Purpose::Connect | Purpose::ConnectNow => {
                let waits = new.purpose == Purpose::Connect;
                self.connect(channel, new.object, new.kind, new.who, new.session, waits)
                    .await
            }
            Purpose::Listen => {
                self.listen(channel, new.object, new.kind, new.who, new.session)
                    .await
            }
            Purpose::Take => {
                let Some(Offered::Local(local, place)) = self.take(token) else {
                    return opened(&channel, Err(Errno::ECONNABORTED.into()), new.kind).await;
                };
                drop((place, new.object));
                opened(&channel, Ok(()), new.kind).await?;
                self.relay(local, channel, new.session).await;
                Ok(())
            }
            Purpose::Offer => {
                self.offer(token, Offered::Channel(channel));
                Ok(())
            }
            Purpose::File => {
                let file = new.passed.ok_or(ErrorKind::InvalidData)?;
                self.offer(token, Offered::File(file));
                Ok(())
            }
        }
    }

    async fn relay(self: &Arc<Self>, local: Local, channel: Channel, session: u32) {
        let passing = Arc::new(OfSession {
            host: Arc::clone(self),
            session,
        });
        relay(local, channel, passing).await;
    }

    /// Connects to a socket of HOST as a program of the DPU.
    async fn connect(
        self: &Arc<Self>,
        channel: Channel,
        object: OwnedFd,
        kind: SocketType,
        who: Identity,
        session: u32,
        waits: bool,
    ) -> io::Result<()> {
        let object = Arc::new(object);
        let mut pause = RETRY;
        let connected = loop {
            let (object, as_who) = (Arc::clone(&object), who.clone());
            let connect = move || listener::connect_to(kind, &*object, &as_who);
            let connected = tokio::task::spawn_blocking(connect).await;
            match connected.map_err(io::Error::other)? {
                // The queue of the listener is full.
                Err(error) if waits && error.raw_os_error() == Some(Errno::EAGAIN as i32) => {}
                connected => break connected,
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(1)),
                () = channel.closed() => return Ok(()),
            }
        };
        let socket = match connected {
            Ok(socket) => socket,
            Err(error) => return opened(&channel, Err(error), kind).await,
        };
        let listener = Identity::of_peer(&socket).unwrap_or_default();
        let (uid, gid) = (listener.uid, listener.gid);
        opened_by(&channel, Ok(()), kind, User { uid, gid }).await?;
        // HOST's program sees who connected; data does not say it once more.
        let local = Local::connected(socket, kind, object, &who)?;
        self.relay(local, channel, session).await;
        Ok(())
    }

    /// Lets HOST's programs connect to a socket that `who` has bound on the DPU, until the channel is
    /// closed.
    async fn listen(
        self: &Arc<Self>,
        channel: Channel,
        object: OwnedFd,
        kind: SocketType,
        who: Identity,
        session: u32,
    ) -> io::Result<()> {
        let bound = self.bind(object, kind);
        let bound = match bound {
            Ok(bound) => bound,
            Err(error) => return opened(&channel, Err(error), kind).await,
        };
        if kind == SocketType::Datagram {
            opened(&channel, Ok(()), kind).await?;
            let local = Local::new(bound, Kind::from(kind), &Identity::default())?;
            self.relay(local, channel, session).await;
            return Ok(());
        }
        let listener = Listener::new(bound, &who)?;
        opened(&channel, Ok(()), kind).await?;
        let mut offered = Offers {
            host: self,
            tokens: Vec::new(),
        };
        let places = Arc::new(Semaphore::new(OFFERS));
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place.ok(), listener.accept().await)
            };
            let (place, socket) = tokio::select! {
                next = next => next,
                () = channel.closed() => return Ok(()),
            };
            let socket = match socket {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::warn!("a connection to a socket of the DPU is not taken: {error}");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let dialer = Identity::of_peer(&socket)?;
            let token = qtfs_relay::token()?;
            let local = Local::new(socket, Kind::from(kind), &who)?;
            offered.add((session, token));
            self.keep((session, token), Offered::Local(local, place));
            let mut groups = Vec::new();
            let peer = dialer.message(&mut groups);
            channel.send(&Message::Incoming { token, peer }).await?;
        }
    }

    /// Binds a socket to a file, unless HOST's programs have one there.
    fn bind(&self, object: OwnedFd, kind: SocketType) -> io::Result<OwnedFd> {
        // Sockets of other types do not notice.
        let other = match kind {
            SocketType::Datagram => SocketType::Stream,
            SocketType::Stream | SocketType::Seqpacket => SocketType::Datagram,
        };
        let probe = listener::connect_to(other, &object, &Identity::default());
        match probe.map_err(|error| error.raw_os_error()) {
            Err(Some(errno)) if errno == Errno::ECONNREFUSED as i32 => {}
            Err(Some(errno)) if errno != Errno::EPROTOTYPE as i32 => {
                return Err(io::Error::from_raw_os_error(errno))
            }
            _ => return Err(Errno::EADDRINUSE.into()),
        }
        listener::bind_to(kind, &self.directory, &object)
    }
}

/// Connections to one listener that nobody has come for yet; closed when they are not listened for.
struct Offers<'a> {
    host: &'a Host,
    tokens: Vec<Token>,
}

impl Offers<'_> {
    fn add(&mut self, token: Token) {
        if self.tokens.len() == self.tokens.capacity() {
            let offers = self.host.offers();
            self.tokens.retain(|token| offers.contains_key(token));
        }
        self.tokens.push(token);
    }
}

impl Drop for Offers<'_> {
    fn drop(&mut self) {
        for token in &self.tokens {
            let late = self.host.take(*token);
            drop(late);
        }
    }
}

/// Tells the client what came of a channel.
async fn opened(channel: &Channel, result: io::Result<()>, kind: SocketType) -> io::Result<()> {
    opened_by(channel, result, kind, User::default()).await
}

/// The same, with who listens at a socket that was connected to.
async fn opened_by(
    channel: &Channel,
    result: io::Result<()>,
    kind: SocketType,
    listener: User,
) -> io::Result<()> {
    let errno = result.as_ref().map_or_else(errno_of, |()| 0);
    let message = Message::Opened {
        errno,
        kind,
        listener,
    };
    channel.send(&message).await?;
    result
}

/// Descriptors that are passed in connections of one session.
struct OfSession {
    host: Arc<Host>,
    session: u32,
}

impl OfSession {
    fn describe_now(&self, fd: OwnedFd) -> io::Result<OwnedRight> {
        let passed = rights::classify(&fd)?;
        if passed == Passed::File {
            return describe_file(fd);
        }
        let token = qtfs_relay::token()?;
        let (kind, own) = rights::passing_side(passed, fd)?;
        let local = Local::new(own, kind, &Identity::default())?;
        self.host
            .offer((self.session, token), Offered::Local(local, None));
        Ok(OwnedRight::relayed(passed, token))
    }

    async fn realize_soon(&self, right: OwnedRight) -> io::Result<OwnedFd> {
        let offered = self.host.wait_for((self.session, right.token)).await?;
        match (right.passed, offered) {
            (Passed::File, Offered::File(file)) => {
                // What may be done with it is what HOST has let the DPU do, whatever that says.
                let access = OpenFlags::READ.with(OpenFlags::WRITE);
                let has = rights::open_flags(&file)?;
                if right.flags.without(access.without(has)) != right.flags {
                    return Err(ErrorKind::PermissionDenied.into());
                }
                rights::open_again(&file, &right)
            }
            (passed, Offered::Channel(channel)) => {
                let (theirs, kind, ours) = rights::receiving_side(passed)?;
                let local = Local::new(ours, kind, &Identity::default())?;
                let (host, session) = (Arc::clone(&self.host), self.session);
                spawn_relay(host, local, channel, session);
                Ok(theirs)
            }
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// A task of its own, whose type does not contain itself.
fn spawn_relay(host: Arc<Host>, local: Local, channel: Channel, session: u32) {
    let task: Boxed<'static, ()> =
        Box::pin(async move { host.relay(local, channel, session).await });
    tokio::spawn(task);
}

fn describe_file(fd: OwnedFd) -> io::Result<OwnedRight> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = std::fs::read_link(link)?;
    let flags = rights::open_flags(&fd)?;
    let mut file = File::from(fd);
    let meta = file.metadata()?;
    let there = std::fs::symlink_metadata(&path);
    if !there.is_ok_and(|there| (there.dev(), there.ino()) == (meta.dev(), meta.ino())) {
        return Err(io::Error::other(
            "a file without a name, or out of engine's reach, cannot be passed",
        ));
    }
    let offset = if meta.is_file() {
        file.stream_position()?
    } else {
        0
    };
    Ok(OwnedRight {
        passed: Passed::File,
        flags,
        token: 0,
        offset,
        ino: meta.ino(),
        path: path.as_os_str().as_bytes().to_vec(),
    })
}

impl Passing for OfSession {
    fn describe(
        self: Arc<Self>,
        _channel: &Channel,
        fd: OwnedFd,
    ) -> Boxed<'_, io::Result<OwnedRight>> {
        Box::pin(async move { self.describe_now(fd) })
    }

    fn realize(
        self: Arc<Self>,
        _channel: &Channel,
        right: OwnedRight,
    ) -> Boxed<'_, io::Result<OwnedFd>> {
        Box::pin(async move { self.realize_soon(right).await })
    }
}
