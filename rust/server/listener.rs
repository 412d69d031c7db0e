// SPDX-License-Identifier: GPL-2.0

//! Accepting connections, and ending them all when the module is unloaded.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};
use qtfs_net::{
    Address,
    Listener,
    Socket,
    Thread, //
};
use qtfs_vfs::param;

use crate::{
    hello::MAX_LANES,
    lane::Lane,
    receiver,
    server::Server,
    sessions::MAX_SESSIONS, //
};

/// Connections that may be there at once: those of all sessions, and some that have not said
/// HELLO yet.
const MAX_CONNECTIONS: usize = MAX_SESSIONS * MAX_LANES as usize + 2 * MAX_STRANGERS;
/// Connections that have not said HELLO yet.
const MAX_STRANGERS: usize = 64;

/// All connections.
#[pin_data]
pub(crate) struct Connections {
    #[pin]
    list: Mutex<List>,
}

/// The fields of [`Connections`] protected by the lock.
struct List {
    connections: KVec<Connection>,
    /// No new ones are taken.
    closed: bool,
}

/// A connection and its threads, which end after [`Lane::close`] and are waited for on drop.
struct Connection {
    lane: Arc<Lane>,
    _receiver: Thread,
    _sender: Thread,
}

impl Connections {
    /// No connections.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_mutex!(List {
                connections: KVec::new(),
                closed: false,
            }),
        })
    }

    /// Forgets connections that are lost; says whether there were any.
    pub(crate) fn reap(&self) -> bool {
        let mut any = false;
        loop {
            // Waiting for its threads is done without the lock, and takes no time.
            let lost = {
                let mut list = self.list.lock();
                let at = list.connections.iter().position(|c| c.lane.is_finished());
                at.and_then(|at| list.connections.remove(at).ok())
            };
            if lost.is_none() {
                return any;
            }
            any = true;
        }
    }

    /// Whether a connection is lost and was not reaped yet.
    pub(crate) fn has_lost(&self) -> bool {
        let list = self.list.lock();
        list.connections.iter().any(|c| c.lane.is_finished())
    }

    /// Takes a new connection.
    fn take(&self, server: &Arc<Server>, socket: Socket) -> Result {
        // Only one thread accepts, so there are not more of them by the time this one is added.
        if self.list.lock().connections.len() >= MAX_CONNECTIONS {
            log_warn!(
                "{}: refused, there are too many connections\n",
                socket.peer()?
            );
            return Err(EUSERS);
        }
        let (lane, sender) = Lane::new(socket)?;
        // If anything fails from here on, the sender ends when it is dropped.
        let closing = Closing(&lane);
        let mut list = self.list.lock();
        if list.closed {
            return Err(ESHUTDOWN);
        }
        let mut strangers = list.connections.iter().filter(|c| c.lane.is_stranger());
        let oldest = strangers.next();
        // Whoever came first has had the most time to say HELLO.
        if let Some(oldest) = oldest.filter(|_| strangers.count() + 1 >= MAX_STRANGERS) {
            log_warn!(
                "{}: closed, too many others have not said HELLO either\n",
                oldest.lane.peer()
            );
            oldest.lane.close();
        }
        list.connections.reserve(1, GFP_KERNEL)?;
        let (server, mine) = (server.clone(), lane.clone());
        let receiver = Thread::spawn(fmt!("qtfs_receive"), move || {
            receiver::run(&server, &mine);
            mine.finish();
            server.sessions.look_again();
        })?;
        core::mem::forget(closing);
        let connection = Connection {
            lane,
            _receiver: receiver,
            _sender: sender,
        };
        // There is room, see above.
        let _ = list.connections.push_within_capacity(connection);
        Ok(())
    }

    /// Takes no new connections from now on.
    fn close_for_new(&self) {
        self.list.lock().closed = true;
    }

    fn is_closed(&self) -> bool {
        self.list.lock().closed
    }

    /// Ends all connections and takes no new ones.
    fn close(&self) {
        let connections = {
            let mut list = self.list.lock();
            list.closed = true;
            core::mem::replace(&mut list.connections, KVec::new())
        };
        for connection in connections.iter() {
            connection.lane.close();
        }
        // Dropping them waits for the threads.
    }
}

/// Closes a lane on drop.
struct Closing<'a>(&'a Lane);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The open port, and the threads that live as long as it.
pub(crate) struct Listening {
    server: Arc<Server>,
    listener: Arc<Listener>,
    acceptor: Option<Thread>,
    reaper: Option<Thread>,
}

impl Listening {
    /// Opens the port that the parameters of the module say.
    pub(crate) fn start(server: Arc<Server>) -> Result<Self> {
        let text = param::server_ip();
        let address = Address::parse(text.to_bytes(), param::server_port()).inspect_err(|_| {
            pr_err!("qtfs_server_ip={text:?} is no IPv4 or IPv6 address of HOST\n");
        })?;
        let listener = Listener::bind(&address).inspect_err(|&e| {
            let hint = match e {
                EADDRINUSE => "something else listens there: set qtfs_server_port=",
                EADDRNOTAVAIL => "HOST has no such address: set qtfs_server_ip=",
                _ => "see qtfs_server_ip= and qtfs_server_port=",
            };
            pr_err!("cannot listen on {address} ({e:?}): {hint}\n");
        })?;
        let listener = Arc::new(listener, GFP_KERNEL)?;
        let mut this = Self {
            server,
            listener,
            acceptor: None,
            reaper: None,
        };
        let server = this.server.clone();
        let reaper = Thread::spawn(fmt!("qtfs_reap"), move || server.reap_until_closed())?;
        this.reaper = Some(reaper);
        let (server, listener) = (this.server.clone(), this.listener.clone());
        let acceptor = Thread::spawn(fmt!("qtfs_accept"), move || accept(&server, &listener))?;
        this.acceptor = Some(acceptor);
        log_info!("listening on {address}\n");
        Ok(this)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // The order: nobody new, nobody who sends requests, nothing of those who were there.
        self.server.connections.close_for_new();
        self.listener.shutdown();
        self.acceptor = None;
        self.server.connections.close();
        self.server.sessions.close();
        self.reaper = None;
    }
}

/// What the accepting thread does.
fn accept(server: &Arc<Server>, listener: &Listener) {
    loop {
        match listener.accept() {
            Ok(socket) => {
                if let Err(e) = server.connections.take(server, socket) {
                    log_debug!("a connection was not taken: {e:?}\n");
                }
            }
            Err(_) if server.connections.is_closed() => return,
            Err(e) => {
                log_warn!("a connection cannot be accepted: {e:?}\n");
                fsleep(Delta::from_millis(100));
            }
        }
    }
}
