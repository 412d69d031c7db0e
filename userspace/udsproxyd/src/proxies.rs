// SPDX-License-Identifier: GPL-2.0

//! Sockets that stand for those of HOST.
//!
//! A program of this machine that connects to a socket of HOST finds a listener of ours, which is
//! bound to the same inode. When it does, the channel to HOST's socket is there already; who comes is
//! told from others by the process.

use crate::device::Connected;
use crate::device::Device;
use crate::guard::Guarded;
use crate::passing::ByDevice;
use crate::users;
use nix::sys::socket::shutdown;
use nix::sys::socket::Shutdown;
use qtfs_proto::relay::Message;
use qtfs_proto::relay::SocketType;
use qtfs_relay::channel::Channel;
use qtfs_relay::connection::relay;
use qtfs_relay::errno_of;
use qtfs_relay::identity::Identity;
use qtfs_relay::listener;
use qtfs_relay::listener::Listener;
use qtfs_relay::local::Kind;
use qtfs_relay::local::Local;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;
use tokio::task::JoinHandle;

/// How long a channel waits for the program that it was opened for. The kernel has only to finish
/// its system call, which is not to come when the types of the sockets differ.
const ARRIVAL: Duration = Duration::from_secs(10);
/// How long a listener stays that nobody connects to.
const IDLE: Duration = Duration::from_secs(10);
/// How often is looked for both.
const TICK: Duration = Duration::from_secs(1);

/// A connection that was made on HOST for a program that has not come yet.
struct Expected {
    channel: Channel,
    who: Identity,
    /// Who listens on HOST.
    listener: Identity,
    since: Instant,
}

/// What is known of a socket of HOST.
struct Proxy {
    kind: SocketType,
    /// Of connections, what programs of this machine find, and whom they see there.
    listener: Option<(Arc<Listener>, Identity)>,
    /// Of connections, which datagrams have not.
    expected: Vec<Expected>,
    used: Instant,
    /// Tells it from the one before.
    number: u64,
    /// What relays datagrams.
    relay: Option<JoinHandle<()>>,
    /// It takes no more of them, and goes once it has relayed those that have come.
    ends: bool,
}

/// All of them, by the key of the inode.
pub struct Proxies {
    device: Arc<Device>,
    directory: OwnedFd,
    by_key: Mutex<HashMap<u64, Proxy>>,
    next: AtomicU64,
}

impl Proxies {
    /// None.
    pub fn new(device: Arc<Device>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            directory: device.directory()?,
            device,
            by_key: Mutex::default(),
            next: AtomicU64::new(0),
        }))
    }

    fn by_key(&self) -> MutexGuard<'_, HashMap<u64, Proxy>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program is about to connect. It goes on once there is a listener.
    pub fn connected(self: &Arc<Self>, connected: Connected) -> io::Result<()> {
        let waiter = connected.waiter;
        let errno = match self.expect(connected) {
            Ok(()) => 0,
            Err(error) => {
                tracing::warn!("a program cannot connect to a socket of HOST: {error}");
                errno_of(&error)
            }
        };
        self.device.answer(waiter, errno)
    }

    fn expect(self: &Arc<Self>, connected: Connected) -> io::Result<()> {
        let Connected {
            key,
            kind,
            channel,
            object,
            who,
            listener: shown,
            ..
        } = connected;
        let channel = Channel::new(channel)?;
        if kind == SocketType::Datagram {
            return self.expect_datagrams(key, channel, &object);
        }
        let now = Instant::now();
        let mut by_key = self.by_key();
        // HOST may have a socket of another type there by now.
        if by_key.get(&key).is_none_or(|proxy| proxy.kind != kind) {
            let socket = listener::bind_to(kind, &self.directory, &object)?;
            let listener = Arc::new(Listener::new(socket, &shown)?);
            let mut proxy = self.new_proxy(kind);
            proxy.listener = Some((Arc::clone(&listener), shown.clone()));
            by_key.insert(key, proxy);
            let this = Arc::clone(self);
            tokio::spawn(async move { this.accept(key, kind, listener).await });
        }
        if let Some(proxy) = by_key.get_mut(&key) {
            // HOST's program may be another's than that of the last connection.
            if let Some((listener, seen)) = &mut proxy.listener {
                if *seen != shown {
                    listener.show(&shown)?;
                    *seen = shown.clone();
                }
            }
            proxy.used = now;
            proxy.expected.push(Expected {
                channel,
                who,
                listener: shown,
                since: now,
            });
        }
        Ok(())
    }

    fn new_proxy(&self, kind: SocketType) -> Proxy {
        Proxy {
            kind,
            listener: None,
            expected: Vec::new(),
            used: Instant::now(),
            number: self.next.fetch_add(1, Ordering::Relaxed),
            relay: None,
            ends: false,
        }
    }

    /// A program is about to send datagrams. All of them are relayed by one channel, which says of
    /// each who has sent it; the others have served when HOST has let their programs send.
    fn expect_datagrams(
        self: &Arc<Self>,
        key: u64,
        channel: Channel,
        object: &OwnedFd,
    ) -> io::Result<()> {
        let kind = SocketType::Datagram;
        let mut by_key = self.by_key();
        let known = by_key.get_mut(&key).filter(|proxy| proxy.kind == kind);
        let before = match known {
            Some(proxy) if proxy.ends => proxy.relay.take(),
            Some(proxy) => {
                proxy.used = Instant::now();
                drop(by_key);
                tokio::spawn(async move { channel.send(&Message::Close(0)).await });
                return Ok(());
            }
            None => None,
        };
        let socket = listener::bind_to(kind, &self.directory, object)?;
        // Nobody has found it yet.
        let unused = users::references(&socket)?;
        let watched = socket.try_clone()?;
        let local = Local::new(socket, Kind::from(kind), &Identity::default())?;
        let mut proxy = self.new_proxy(kind);
        let number = proxy.number;
        let passing = Arc::new(ByDevice(Arc::clone(&self.device)));
        let this = Arc::clone(self);
        proxy.relay = Some(tokio::spawn(async move {
            // What was sent before arrives before.
            if let Some(before) = before {
                let _ = before.await;
            }
            let relayed = relay(local, channel, passing);
            tokio::pin!(relayed);
            loop {
                tokio::select! {
                    () = &mut relayed => break,
                    () = tokio::time::sleep(IDLE) => {}
                }
                if this.end_unused((key, number), &watched, unused) {
                    relayed.await;
                    break;
                }
            }
            let mut by_key = this.by_key();
            if by_key.get(&key).is_some_and(|proxy| proxy.number == number) {
                by_key.remove(&key);
            }
        }));
        by_key.insert(key, proxy);
        Ok(())
    }

    /// Has a relay of datagrams that nobody uses end once it has relayed what has come.
    fn end_unused(&self, (key, number): (u64, u64), socket: &OwnedFd, unused: u32) -> bool {
        let mut by_key = self.by_key();
        let proxy = by_key.get_mut(&key);
        let proxy = proxy.filter(|proxy| proxy.number == number);
        if proxy
            .as_ref()
            .is_some_and(|proxy| proxy.used.elapsed() < IDLE)
        {
            return false;
        }
        match users::references(socket) {
            Ok(references) if references <= unused => {}
            Ok(_) => return false,
            Err(error) => {
                tracing::warn!("whether a socket of datagrams is in use cannot be seen: {error}");
                return false;
            }
        }
        // Under the lock: whoever is told of from now on makes another.
        if let Some(proxy) = proxy {
            proxy.ends = true;
        }
        // It is open.
        let _ = shutdown(socket.as_raw_fd(), Shutdown::Read);
        true
    }

    /// Takes connections of programs until nobody has come for a while.
    async fn accept(self: Arc<Self>, key: u64, kind: SocketType, listener: Arc<Listener>) {
        loop {
            match tokio::time::timeout(TICK, listener.accept()).await {
                Ok(Ok(socket)) => self.accepted(key, kind, socket),
                Ok(Err(error)) => {
                    tracing::warn!("a connection of a program is not taken: {error}");
                    tokio::time::sleep(TICK / 10).await;
                }
                Err(_) => {}
            }
            let mut by_key = self.by_key();
            let Some(proxy) = by_key.get_mut(&key).filter(|proxy| proxy.kind == kind) else {
                return;
            };
            proxy
                .expected
                .retain(|expected| expected.since.elapsed() < ARRIVAL);
            if proxy.expected.is_empty() && proxy.used.elapsed() >= IDLE {
                // Under the lock: whoever is told of from now on finds none and makes another.
                by_key.remove(&key);
                drop(listener);
                return;
            }
        }
    }

    fn accepted(&self, key: u64, kind: SocketType, socket: OwnedFd) {
        let expected = Identity::of_peer(&socket).and_then(|who| {
            let expected = self.expected(key, &who).ok_or_else(|| {
                io::Error::other("a program has connected that the kernel did not tell of")
            })?;
            Ok((who, expected))
        });
        let passing = Arc::new(ByDevice(Arc::clone(&self.device)));
        tokio::spawn(async move {
            let relayed = async {
                let (who, expected) = expected?;
                let guarded = Guarded::new(passing, who.pid, &socket).await;
                let local = Local::new(socket, Kind::from(kind), &expected.listener)?;
                relay(local, expected.channel, Arc::clone(&guarded)).await;
                guarded.done();
                Ok::<_, io::Error>(())
            };
            if let Err(error) = relayed.await {
                tracing::warn!("a connection of a program is closed: {error}");
            }
        });
    }

    /// The channel that was opened for a program: by its process or, where the numbers of processes
    /// are not those of the kernel, by its user.
    fn expected(&self, key: u64, who: &Identity) -> Option<Expected> {
        let mut by_key = self.by_key();
        let proxy = by_key.get_mut(&key)?;
        proxy.used = Instant::now();
        let expected = &mut proxy.expected;
        let by_process = expected.iter().position(|e| e.who.pid == who.pid);
        let at = by_process.or_else(|| expected.iter().position(|e| e.who.uid == who.uid))?;
        Some(expected.remove(at))
    }
}
