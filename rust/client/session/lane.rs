// SPDX-License-Identifier: GPL-2.0

//! Lanes: each is one TCP connection after the other, kept by a thread that also receives.

use core::sync::atomic::{
    AtomicU64,
    Ordering, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::{
    time::{
        now_us,
        ticks, //
    },
    NoFs,
    Outbox,
    Pages,
    Socket,
    Thread, //
};
use qtfs_proto::{
    event::Event,
    frame::HEADER_LEN,
    message::{
        decode_reply,
        Hello, //
    },
    Bytes,
    Header,
    Kind,
    Op,
    Reader,
    Writer,
    MAGIC,
    MAX_DATA,
    VERSION_MAX,
    VERSION_MIN, //
};
use qtfs_vfs::{
    param::{
        node_name,
        Level, //
    },
    random, //
};

use super::{
    notices::Notice,
    request::{
        Reply,
        Request,
        NO_LANE, //
    },
    verify,
    Session,
    SLOTS, //
};
use crate::options::Text;

/// How long to wait for a connection, and for the answer to HELLO, in milliseconds.
const CONNECT_MS: u32 = 8_000;
/// First and longest pause between two tries to connect, in milliseconds.
const PAUSE_MS: (u32, u32) = (10, 1_000);

/// A connected lane; dropping it ends the connection.
pub(super) struct Connected {
    socket: Arc<Socket>,
    outbox: Arc<Outbox>,
    /// Ends once the outbox is closed, and is waited for when it is dropped.
    _sender: Thread,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

/// Keeps a lane connected and receives, until the session is stopped.
pub(super) fn run(session: &Arc<Session>, lane: u16, first: Option<Connected>) {
    let _nofs = NoFs::enter();
    let mut connected = first;
    let mut pause = PAUSE_MS.0;
    loop {
        {
            let mut inner = session.inner.lock();
            // After `umount -f` there is nothing to connect for.
            while session.is_aborted() && !inner.stopped {
                let _ = session.changed.wait_interruptible(&mut inner);
            }
            if inner.stopped {
                return;
            }
        }
        match connected.take().map_or_else(|| connect(session, lane), Ok) {
            Ok(connected) => {
                let began = now_us();
                let (error, is_useful) = receive(session, lane, &connected.socket);
                down(session, lane, &connected.outbox);
                drop(connected);
                if !session.inner.lock().stopped {
                    let what = "connection lost, connecting again";
                    session.log(Level::Warn, fmt!("lane {lane}: {error:?}: {what}"));
                    session.stats.reconnected();
                    session.trace_reconnect(lane, error);
                }
                let lasted = now_us().saturating_sub(began);
                if is_useful || lasted >= u64::from(PAUSE_MS.1) * 1000 {
                    pause = PAUSE_MS.0;
                } else {
                    // A server that greets and goes is to be as little trouble as one that is away.
                    rest(session, pause);
                    pause = (pause * 2).min(PAUSE_MS.1);
                }
            }
            Err(error) => {
                let level = if pause == PAUSE_MS.1 {
                    Level::Debug
                } else {
                    Level::Info
                };
                session.log(level, fmt!("lane {lane}: cannot connect: {error:?}"));
                let mut inner = session.inner.lock();
                if !inner.stopped {
                    let ticks = ticks(pause);
                    let _ = session
                        .changed
                        .wait_interruptible_timeout(&mut inner, ticks);
                }
                pause = (pause * 2).min(PAUSE_MS.1);
            }
        }
    }
}

/// Waits so many milliseconds, whatever happens, unless the session is stopped.
fn rest(session: &Session, pause: u32) {
    let end = now_us().saturating_add(u64::from(pause) * 1000);
    let mut inner = session.inner.lock();
    loop {
        let left = end.saturating_sub(now_us()).div_ceil(1000);
        if inner.stopped || left == 0 {
            return;
        }
        let ticks = ticks(u32::try_from(left).unwrap_or(pause));
        let _ = session
            .changed
            .wait_interruptible_timeout(&mut inner, ticks);
    }
}

/// Connects a lane and says HELLO; sends again what was sent by this lane or by none.
pub(super) fn connect(session: &Arc<Session>, lane: u16) -> Result<Connected> {
    let known = session.inner.lock().id;
    if lane > 0 && known == [0; 16] {
        // Lane 0 makes the session.
        return Err(EAGAIN);
    }
    let socket = Arc::new(
        Socket::connect(&session.config.server, CONNECT_MS)?,
        GFP_KERNEL,
    )?;
    socket.set_recv_timeout(CONNECT_MS);
    let hello = hello(session, lane, known, &socket)?;
    socket.set_recv_timeout(0);
    let (outbox, sender) = Outbox::new(socket.clone(), fmt!("qtfs-send/{lane}"))?;
    let connected = Connected {
        socket,
        outbox: outbox.clone(),
        _sender: sender,
    };
    let result = if hello.session == known {
        Ok(())
    } else if lane == 0 {
        begin(session, hello)
    } else {
        // The session is gone; lane 0 finds that out for itself.
        Err(EAGAIN)
    };
    result.and_then(|()| up(session, lane, &outbox))?;
    Ok(connected)
}

/// What HELLO brought.
struct Agreed {
    session: [u8; 16],
    boot: u64,
    slots: u16,
}

/// Chosen at random when it is used first: tells the server that this machine, or the module, was
/// started anew.
fn instance() -> u64 {
    static INSTANCE: AtomicU64 = AtomicU64::new(0);
    let new = random::number().max(1);
    match INSTANCE.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => new,
        Err(known) => known,
    }
}

fn hello(session: &Session, lane: u16, known: [u8; 16], socket: &Socket) -> Result<Agreed> {
    let mut name = [0; 65];
    let mut machine = [0; 16];
    if let (Some(start), Some(address)) = (machine.first_chunk_mut(), socket.hardware_address()) {
        *start = address;
    }
    let message = Hello {
        magic: MAGIC,
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        features: 0,
        max_data: u32::try_from(MAX_DATA)?,
        slots: SLOTS,
        lane,
        session: known,
        machine,
        instance: instance(),
        client: Bytes::new(node_name(&mut name)).map_err(|_| EINVAL)?,
    };
    let mut head = [0; HEADER_LEN + 256];
    let (place, body) = head.split_first_chunk_mut::<HEADER_LEN>().ok_or(EINVAL)?;
    let mut writer = Writer::new(body);
    writer.put(&message).map_err(|_| EINVAL)?;
    let mut header = Header::new(Kind::Request, Op::Hello as u8);
    header.body_len = writer.len();
    header.write(place).map_err(|_| EINVAL)?;
    let len = HEADER_LEN + header.body_len;
    let sent = socket.send_some(head.get(..len).ok_or(EINVAL)?, &Pages::new(), 0, true)?;
    if sent != len {
        return Err(ECONNRESET);
    }

    let (header, body) = receive_head(socket)?;
    let expected = header.kind == Kind::Reply && header.op == Op::Hello as u8;
    if !expected || header.data_len != 0 {
        return Err(bad(session, "the first message is no answer to HELLO"));
    }
    let reply = Reply {
        status: header.status,
        body,
        data_len: 0,
        asked: session.asked(),
    };
    if let Err(e) = reply.error() {
        let text = match reply.text() {
            [] => b"no reason was given",
            text => text,
        };
        let text = Text(text);
        session.log(Level::Error, fmt!("the server refuses: {text}"));
        return Err(e);
    }
    let unreadable = |_| bad(session, "the answer to HELLO cannot be read");
    // What follows these is of the version that they name.
    let mut reader = Reader::new(&reply.body);
    let min: u16 = reader.get().map_err(unreadable)?;
    let max: u16 = reader.get().map_err(unreadable)?;
    let version: u16 = reader.get().map_err(unreadable)?;
    if version < VERSION_MIN || version > VERSION_MAX {
        session.log(
            Level::Error,
            fmt!(
                "the server speaks protocol versions {min} to {max}, this module {VERSION_MIN} \
                 to {VERSION_MAX}: install qtfs of the same version on both machines"
            ),
        );
        return Err(EPROTONOSUPPORT);
    }
    let agreed = decode_reply::<Hello<'_>>(&reply.body).map_err(unreadable)?;
    if agreed.slots == 0 || agreed.slots > qtfs_proto::MAX_SLOTS || agreed.session == [0; 16] {
        return Err(bad(session, "the answer to HELLO makes no sense"));
    }
    if usize::try_from(agreed.max_data)? < MAX_DATA {
        let max = agreed.max_data;
        let what = "bytes of data in a message, this module sends up to";
        session.log(
            Level::Error,
            fmt!("the server takes {max} {what} {MAX_DATA}"),
        );
        return Err(EPROTONOSUPPORT);
    }
    Ok(Agreed {
        session: agreed.session,
        boot: agreed.boot,
        slots: agreed.slots,
    })
}

/// Begins a new session: the server has no other, or has lost it.
fn begin(session: &Arc<Session>, agreed: Agreed) -> Result {
    let (old, outboxes) = {
        let mut inner = session.inner.lock();
        let again = inner.id != [0; 16];
        // A request that a lane is receiving is ended by that lane.
        let mut old = inner.slots.reset(agreed.slots)?;
        old.retain(|request| !request.receiving.load(Ordering::Relaxed));
        inner.id = agreed.session;
        session.durable.booted(agreed.boot.max(1));
        session.incarnation.fetch_add(1, Ordering::AcqRel);
        let mut outboxes = KVVec::new();
        for outbox in inner.lanes.iter_mut() {
            outboxes.push(outbox.take(), GFP_KERNEL)?;
        }
        if again {
            session.log(
                Level::Warn,
                fmt!("HOST or its module was started anew: finding files again"),
            );
        }
        (old, outboxes)
    };
    for outbox in outboxes.iter().flatten() {
        outbox.close();
    }
    for request in old {
        session.finish(&request, Err(request.lost()));
    }
    session.notices.lost();
    Ok(())
}

/// The lane is there: it takes requests, beginning with those that wait for it.
fn up(session: &Arc<Session>, lane: u16, outbox: &Arc<Outbox>) -> Result {
    let mut inner = session.inner.lock();
    if inner.stopped || session.is_aborted() {
        return Err(ENOTCONN);
    }
    let mut frames = KVVec::new();
    for (slot, seq, request) in inner.slots.iter() {
        let sent_by = request.lane.load(Ordering::Relaxed);
        if sent_by == lane || sent_by == NO_LANE {
            request.lane.store(lane, Ordering::Relaxed);
            let again = sent_by == lane;
            session.stats.sent(request.op, request.len(), again);
            frames.push(request.frame(slot, seq, again)?, GFP_KERNEL)?;
            if request.given_up.load(Ordering::Relaxed) {
                frames.push(request.cancel(slot, seq)?, GFP_KERNEL)?;
            }
        }
    }
    let place = inner.lanes.get_mut(usize::from(lane)).ok_or(ENOTCONN)?;
    *place = Some(outbox.clone());
    drop(inner);
    for frame in frames {
        outbox.send(frame)?;
    }
    session.changed.notify_all();
    session.watches.wake_all();
    session.log(Level::Info, fmt!("lane {lane}: connected"));
    Ok(())
}

/// The lane is gone.
fn down(session: &Session, lane: u16, outbox: &Arc<Outbox>) {
    outbox.close();
    let mut inner = session.inner.lock();
    if let Some(place) = inner.lanes.get_mut(usize::from(lane)) {
        if place
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, outbox))
        {
            *place = None;
        }
    }
}

/// Receives until the connection ends. Returns why it did, and whether a reply came.
fn receive(session: &Arc<Session>, lane: u16, socket: &Socket) -> (Error, bool) {
    let mut is_useful = false;
    loop {
        match receive_one(session, lane, socket) {
            Ok(ends_request) => is_useful |= ends_request,
            Err(e) => return (e, is_useful),
        }
    }
}

fn receive_head(socket: &Socket) -> Result<(Header, KVVec<u8>)> {
    let mut raw = [0; HEADER_LEN];
    socket.recv_exact(&mut raw)?;
    let header = Header::read(&raw).map_err(|_| EPROTO)?;
    let mut body = KVVec::from_elem(0u8, header.body_len, GFP_KERNEL)?;
    socket.recv_exact(&mut body)?;
    Ok((header, body))
}

/// Receives a frame. Returns whether it was the reply to a request.
fn receive_one(session: &Arc<Session>, lane: u16, socket: &Socket) -> Result<bool> {
    let (header, body) = receive_head(socket).map_err(|e| {
        if e == EPROTO {
            return bad(session, "a header is no header");
        }
        e
    })?;
    match header.kind {
        Kind::Reply => {}
        Kind::Event => return event(session, &header, &body).map(|()| false),
        _ => {
            return Err(bad(
                session,
                "something that is no reply came from the server",
            ));
        }
    }
    let request: Option<Arc<Request>> = {
        let inner = session.inner.lock();
        let found = inner.slots.find(header.slot, header.seq).cloned();
        if let Some(request) = &found {
            // From now on only this lane ends the request.
            if request.receiving.swap(true, Ordering::AcqRel) {
                return Err(bad(session, "two replies to one request at the same time"));
            }
            request.receiver.store(lane, Ordering::Relaxed);
        }
        found
    };
    let Some(request) = request else {
        // The reply to a request that was sent twice; the other one came first.
        let rest = Pages::alloc(header.data_len)?;
        return socket.recv_segments(rest.segments()).map(|()| false);
    };
    let result = receive_data(session, socket, &header, &request);
    let wrong = match header.status {
        0 if result.is_ok() => verify::check(request.op, request.body(), &body).err(),
        _ => None,
    };
    // In one step, so that either this lane ends the request or whoever resets the slots.
    let (has_slot, next) = {
        let mut inner = session.inner.lock();
        request.receiving.store(false, Ordering::Release);
        let in_slot = inner.slots.find(header.slot, header.seq);
        let has_slot = in_slot.is_some_and(|there| Arc::ptr_eq(there, &request));
        let mut next = None;
        if has_slot && (result.is_ok() || session.is_aborted()) {
            inner.slots.release(header.slot, header.seq);
            next = session.pass_on(&mut inner);
        }
        (has_slot, next)
    };
    session.send_placed(next);
    if request.unwanted.load(Ordering::Acquire) {
        // Somebody waits until nothing is written to the sink any more.
        session.changed.notify_all();
    }
    if !has_slot {
        session.finish(&request, Err(request.lost()));
    } else if result.is_ok() {
        let size = HEADER_LEN + header.body_len + header.data_len;
        session.stats.received(request.op, size);
        let reply = Reply {
            status: header.status,
            body,
            data_len: header.data_len,
            asked: request.asked(),
        };
        // The server would say the same once more: the request ends too.
        session.finish(&request, wrong.map_or(Ok(reply), |_| Err(EPROTO)));
    } else if session.is_aborted() {
        session.finish(&request, Err(EIO));
    }
    // Otherwise the request is sent again when the lane is back.
    result.inspect_err(|e| {
        session.log(
            Level::Debug,
            fmt!("lane {lane}: {e:?} in the middle of a reply"),
        );
    })?;
    wrong.map_or(Ok(true), |what| Err(bad(session, what)))
}

/// Acts on what the server tells without being asked.
fn event(session: &Session, header: &Header, body: &[u8]) -> Result {
    if header.data_len != 0 {
        return Err(bad(session, "an event has data"));
    }
    match Event::decode(header.op, body) {
        Ok(Event::Wake(wake)) => session.watches.wake(wake.watch, wake.events),
        Ok(Event::Notified(notified)) => {
            let mut name = KVec::new();
            name.extend_from_slice(notified.name.bytes(), GFP_KERNEL)?;
            name.push(0, GFP_KERNEL)?;
            let notice = Notice {
                watch: notified.watch,
                parent: notified.parent,
                mask: notified.mask,
                cookie: notified.cookie,
                name,
            };
            session.notices.came(header.seq, notice)?;
        }
        Err(_) => return Err(bad(session, "an event cannot be read")),
    }
    Ok(())
}

fn receive_data(session: &Session, socket: &Socket, header: &Header, request: &Request) -> Result {
    if header.op != request.op as u8 {
        return Err(bad(session, "the reply is to another operation"));
    }
    if header.data_len == 0 {
        return Ok(());
    }
    match &request.sink {
        Some(_) if request.unwanted.load(Ordering::Acquire) => {
            socket.recv_segments(Pages::alloc(header.data_len)?.segments())
        }
        Some(sink) if header.data_len <= sink.len() => {
            socket.recv_segments(&sink.range(0, header.data_len)?)
        }
        _ => Err(bad(session, "there is more data than was asked for")),
    }
}

/// Says why the connection is ended, and gives the error for it.
fn bad(session: &Session, what: &str) -> Error {
    let ended = "bad message, the connection is ended";
    session.log(Level::Error, fmt!("{ended}: {what}"));
    EPROTO
}
