// SPDX-License-Identifier: GPL-2.0

//! What the daemon of this machine says and is told through `/dev/qtfs`.

use core::{
    mem,
    sync::atomic::Ordering, //
};
use kernel::{
    ioctl::{
        _IO,
        _IOR,
        _IOW,
        _IOWR, //
    },
    prelude::*,
    sync::Arc,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};
use qtfs_net::time::now_us;
use qtfs_proto::{
    message::Channel as OpenChannel,
    relay::{
        Purpose,
        SocketType,
        User, //
    },
    FileId,
    Target, //
};
use qtfs_vfs::{
    anon,
    local::device::Service,
    task::current_process,
    unix::{
        self,
        Aliases, //
    },
};

use super::{
    Connected,
    Inner,
    Sockets, //
};
use crate::{
    bound::Bound,
    channel::Channel, //
};

const MAGIC: u32 = 0x71;
/// The next event.
const NEXT: u32 = _IOR::<[u8; 56]>(MAGIC, 1);
/// The answer to an event.
const ANSWER: u32 = _IOW::<[u8; 16]>(MAGIC, 2);
/// Opens a channel.
const OPEN: u32 = _IOWR::<[u8; 32]>(MAGIC, 3);
/// A descriptor of the directory in which sockets are bound.
const DIRECTORY: u32 = _IOR::<[u8; 4]>(MAGIC, 4);
/// Version of all this.
const VERSION: u32 = _IO(MAGIC, 5);

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
    listener: User,
}

impl Event {
    const CONNECTED: u32 = 1;
    const BOUND: u32 = 2;
    const CLOSED: u32 = 3;
}

impl Sockets {
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
            let object = match bound.open() {
                // It, or its mount, is gone by now.
                None | Some(Err(ENXIO)) => continue,
                Some(object) => object?,
            };
            let event = Event {
                what: Event::BOUND,
                kind: bound.kind as u32,
                id: bound.id,
                key: bound.waiter(),
                object: unix::install(object)?,
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
            listener: self.listener,
        })
    }
}

impl Sockets {
    /// Nobody answers who waits, and nobody takes the connections that were made; `close` is called
    /// with the lock.
    fn end_all<T>(&self, close: impl FnOnce(&mut Inner) -> T) -> T {
        let (connected, waiters, closed) = {
            let mut inner = self.inner.lock();
            let closed = close(&mut inner);
            (
                mem::take(&mut inner.connected),
                mem::take(&mut inner.waiters),
                closed,
            )
        };
        for waiter in waiters.iter() {
            waiter.gone.store(true, Ordering::Release);
            waiter.done.complete();
        }
        for event in connected {
            event.channel.end();
        }
        closed
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
        let aliases =
            Aliases::start().inspect_err(|_| self.end_all(|inner| inner.daemon = None))?;
        let arrival = {
            let mut inner = self.inner.lock();
            inner.aliases = Some(aliases);
            inner.arrival.take()
        };
        if let Some(arrival) = arrival {
            arrival.complete();
        }
        Ok(())
    }

    fn close(&self) {
        let aliases = self.end_all(|inner| {
            inner.ended = Some(now_us());
            inner.aliases.take()
        });
        // The next daemon makes a directory of its own, and there is one at a time.
        drop(aliases);
        self.end_all(|inner| inner.daemon = None);
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
                    pair(e.gid, e.listener.uid),
                    pair(e.listener.gid, 0),
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
            VERSION => return Ok(2),
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
