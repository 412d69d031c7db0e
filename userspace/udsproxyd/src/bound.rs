// SPDX-License-Identifier: GPL-2.0

//! Sockets of this machine that HOST's programs connect to.
//!
//! For each there is a channel, as long as the program has it open: engine listens in its place on
//! HOST, and tells of each connection.

use crate::device::Device;
use crate::passing;
use crate::passing::ByDevice;
use nix::errno::Errno;
use qtfs_proto::relay::Message;
use qtfs_proto::relay::SocketType;
use qtfs_relay::channel::Channel;
use qtfs_relay::connection::relay;
use qtfs_relay::errno_of;
use qtfs_relay::identity::Identity;
use qtfs_relay::listener;
use qtfs_relay::local::Local;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use tokio::sync::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

/// How many sockets wait at a time for their HOST to listen, each with a thread, for as long as it does
/// not answer.
pub const LISTENS: usize = 256;
/// How long to wait before engine is asked once more.
const RETRY: Duration = Duration::from_millis(50);
/// Longest of these.
const MAX_RETRY: Duration = Duration::from_secs(2);
/// How long a connection waits for a program that has bound its socket to listen.
const LISTEN: Duration = Duration::from_secs(3);
/// How many connections to one socket wait for room in its queue. The others wait in that of engine's
/// listener, and when it is full HOST's programs do.
const WAITING: usize = 64;
/// How many of them are taken over from engine at a time, each by a thread.
const TAKEN: usize = 8;

/// A socket that a program has bound.
pub struct Bound {
    device: Arc<Device>,
    id: u64,
    kind: SocketType,
    /// The socket file.
    object: Arc<OwnedFd>,
    /// Room for sockets that wait for HOST, of all of them.
    listens: Arc<Semaphore>,
    /// Room for connections that wait.
    waiting: Arc<Semaphore>,
    /// For those that are taken over.
    taken: Semaphore,
    /// Whose turn it is to connect.
    turn: Mutex<()>,
}

impl Bound {
    /// The socket with the number `id`. There is one `listens`, of [`LISTENS`], for all sockets.
    pub fn new(
        device: Arc<Device>,
        id: u64,
        kind: SocketType,
        object: OwnedFd,
        listens: Arc<Semaphore>,
    ) -> Self {
        Self {
            device,
            id,
            kind,
            object: Arc::new(object),
            listens,
            waiting: Arc::new(Semaphore::new(WAITING)),
            taken: Semaphore::new(TAKEN),
            turn: Mutex::new(()),
        }
    }

    /// Keeps a listener on HOST until the task is ended. `waiter` is told of the first attempt.
    pub async fn serve(self, waiter: u64) {
        let this = Arc::new(self);
        let mut waiter = Some(waiter).filter(|waiter| *waiter != 0);
        let mut pause = RETRY;
        loop {
            let listening = this.listen().await;
            if let Some(waiter) = waiter.take() {
                let errno = listening.as_ref().map_or_else(errno_of, |_| 0);
                // Whoever waits sees by itself that nobody answers.
                let _ = this.device.answer(waiter, errno);
            }
            match listening {
                Ok(channel) => {
                    let channel = Arc::new(channel);
                    if this.kind == SocketType::Datagram {
                        if this.datagrams(channel).await {
                            pause = RETRY;
                        }
                    } else if let Err(error) = this.relay_all(&channel).await {
                        tracing::debug!("a listener on HOST is gone: {error}");
                        pause = RETRY;
                    }
                }
                Err(error) => {
                    tracing::debug!(
                        "HOST does not listen for a socket that is bound here: {error}"
                    );
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_RETRY);
        }
    }

    async fn listen(self: &Arc<Self>) -> io::Result<Channel> {
        let one = Arc::clone(&self.listens).acquire_owned().await;
        let one = one.map_err(io::Error::other)?;
        let this = Arc::clone(self);
        let listen = move || {
            // The thread waits on when the task is ended.
            let _one = one;
            this.device.listen(this.id, this.kind)
        };
        let opened = tokio::task::spawn_blocking(listen).await;
        let channel = Channel::new(opened.map_err(io::Error::other)??)?;
        passing::opened(&channel).await?;
        Ok(channel)
    }

    /// Relays connections of HOST's programs until engine is gone.
    async fn relay_all(self: &Arc<Self>, channel: &Arc<Channel>) -> io::Result<()> {
        loop {
            let room = Arc::clone(&self.waiting).acquire_owned().await;
            let room = room.map_err(io::Error::other)?;
            let bytes = channel.receive().await?;
            let Ok(Message::Incoming { token, peer }) = Message::decode(&bytes) else {
                return Err(io::ErrorKind::ConnectionReset.into());
            };
            let who = Identity::of_message(&peer);
            let (this, beside) = (Arc::clone(self), Arc::clone(channel));
            tokio::spawn(async move {
                if let Err(error) = this.relay_one(beside, token, who, room).await {
                    tracing::debug!("a connection of HOST's is not relayed: {error}");
                }
            });
        }
    }

    async fn relay_one(
        self: Arc<Self>,
        beside: Arc<Channel>,
        token: u64,
        who: Identity,
        room: OwnedSemaphorePermit,
    ) -> io::Result<()> {
        let begun = Instant::now();
        let taken = {
            let _one = self.taken.acquire().await.map_err(io::Error::other)?;
            self.take(&beside, token).await?
        };
        // The listener goes when the program closes its socket, whatever connections there are.
        drop(beside);
        let in_turn = async {
            let _turn = self.turn.lock().await;
            self.connect(&who, begun).await
        };
        let connected = tokio::select! {
            connected = in_turn => connected,
            () = taken.abandoned() => return Ok(()),
        };
        drop(room);
        let socket = match connected {
            Ok(socket) => socket,
            Err(error) => return taken.send(&Message::Close(errno_of(&error))).await,
        };
        let local = Local::connected(socket, self.kind, Arc::clone(&self.object), &who)?;
        let passing = Arc::new(ByDevice(Arc::clone(&self.device)));
        relay(local, taken, passing).await;
        Ok(())
    }

    /// Goes on with a connection that engine keeps for this listener until it is taken.
    async fn take(&self, beside: &Arc<Channel>, token: u64) -> io::Result<Channel> {
        let mut told = false;
        loop {
            let error = match passing::take(&self.device, beside, token).await {
                Ok(channel) => return Ok(channel),
                Err(error) => error,
            };
            match error.raw_os_error().map(Errno::from_raw) {
                // It waits meanwhile, as in the queue of a program that has no room.
                Some(
                    Errno::EMFILE
                    | Errno::ENFILE
                    | Errno::ENOMEM
                    | Errno::EAGAIN
                    | Errno::ETIMEDOUT,
                ) => {}
                _ => return Err(error),
            }
            if !told {
                tracing::warn!("a connection of HOST's waits: {error}");
                told = true;
            }
            tokio::time::sleep(MAX_RETRY / 10).await;
        }
    }

    /// Connects to the program's socket. It may not listen yet, or not have taken others.
    async fn connect(self: &Arc<Self>, who: &Identity, begun: Instant) -> io::Result<OwnedFd> {
        let mut pause = Duration::from_millis(1);
        loop {
            let (this, as_who) = (Arc::clone(self), who.clone());
            let connect = move || listener::connect_to(this.kind, &*this.object, &as_who);
            let connected = tokio::task::spawn_blocking(connect).await;
            let error = match connected.map_err(io::Error::other)? {
                Ok(socket) => return Ok(socket),
                Err(error) => error,
            };
            match error.raw_os_error().map(Errno::from_raw) {
                // The program takes its time.
                Some(Errno::EAGAIN) => {}
                Some(Errno::ECONNREFUSED) if begun.elapsed() < LISTEN => {}
                _ => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Passes datagrams of HOST's programs on, as long as engine is there. Whether that could be done.
    async fn datagrams(self: &Arc<Self>, channel: Arc<Channel>) -> bool {
        let Ok(channel) = Arc::try_unwrap(channel) else {
            return false;
        };
        let nobody = Identity::default();
        let to = Arc::clone(&self.object);
        let socket = self.connect(&nobody, Instant::now()).await;
        match socket.and_then(|socket| Local::connected(socket, self.kind, to, &nobody)) {
            Ok(local) => {
                let passing = Arc::new(ByDevice(Arc::clone(&self.device)));
                relay(local, channel, passing).await;
                true
            }
            Err(error) => {
                tracing::debug!("a datagram socket cannot be reached: {error}");
                false
            }
        }
    }
}
