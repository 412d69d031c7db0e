// SPDX-License-Identifier: GPL-2.0

//! The first message of a connection.

use kernel::{
    prelude::*,
    str::BStr,
    sync::Arc, //
};
use qtfs_net::{
    Frame,
    Pages, //
};
use qtfs_proto::{
    message::{
        Hello,
        HelloReply, //
    },
    Encode,
    Kind,
    Op,
    Request,
    Writer,
    MAGIC,
    MAX_DATA,
    VERSION_MAX,
    VERSION_MIN, //
};

use crate::{
    job::Ticket,
    lane::Lane,
    receiver::{
        self,
        printable,
        End, //
    },
    refusal::Refusal,
    reply,
    server::Server,
    session::{
        Origin,
        Session, //
    },
    sessions, //
};

/// How long a new connection may take to say HELLO.
const TIMEOUT_MS: u32 = 10_000;
/// Longest HELLO: its fields and a name.
const MAX_LEN: usize = 512;
/// The least that a client must take in one data section.
const MIN_DATA: usize = 4096;
/// Connections of one session.
pub(crate) const MAX_LANES: u16 = 16;

/// Receives HELLO and answers it; the session that the lane now belongs to.
pub(crate) fn receive(
    server: &Arc<Server>,
    lane: &Arc<Lane>,
) -> core::result::Result<Arc<Session>, End> {
    lane.socket().set_recv_timeout(TIMEOUT_MS);
    let header = receiver::header(lane)?;
    if header.kind != Kind::Request || header.op != Op::Hello as u8 {
        return Err(End::Bad("the first message is no HELLO"));
    }
    if header.body_len > MAX_LEN || header.data_len > 0 || header.slot != 0 || header.seq != 0 {
        return Err(End::Bad("HELLO"));
    }
    let body = receiver::body(lane, &header)?;
    let Request::Hello(hello) = Request::decode(Op::Hello, &body)? else {
        return Err(End::Bad("HELLO"));
    };
    if hello.magic != MAGIC {
        return Err(End::Bad("magic number"));
    }
    lane.socket().set_recv_timeout(0);
    let ticket = Ticket {
        op: header.op,
        slot: 0,
        seq: 0,
    };
    let version = common_version(&hello);
    if version == 0 {
        log_warn!(
            "{} ({}): speaks versions {} to {} of the protocol, this server {VERSION_MIN} to \
             {VERSION_MAX}: update the older of the two\n",
            lane.peer(),
            printable(hello.client.bytes()),
            hello.version_min,
            hello.version_max
        );
        lane.send(greeting(&ticket, 0, 0, None)?)?;
        return Err(End::Bad("no common version"));
    }
    match join(server, lane, &hello, |session| {
        greeting(&ticket, version, server.boot(), Some(session))
    }) {
        Ok(session) => Ok(session),
        Err(refusal) => {
            let stranger = printable(hello.client.bytes());
            let (error, text) = (refusal.error(), BStr::from_bytes(refusal.text()));
            if error == ESTALE {
                // Usual after this module was loaded anew.
                log_info!("{} ({stranger}): {text}\n", lane.peer());
            } else {
                log_warn!("{} ({stranger}): refused: {error:?} {text}\n", lane.peer());
            }
            lane.forget_number();
            let frame = reply::failure(&ticket, 0, &refusal)?;
            lane.send(frame)?;
            // What was refused is read before the connection is closed under it.
            lane.socket().set_recv_timeout(TIMEOUT_MS);
            let _ = lane.socket().recv_exact(&mut [0]);
            Err(End::Lost(refusal.error()))
        }
    }
}

/// The highest version that both speak, or 0.
fn common_version(hello: &Hello<'_>) -> u16 {
    let version = hello.version_max.min(VERSION_MAX);
    if hello.version_min > hello.version_max || version < hello.version_min || version < VERSION_MIN
    {
        return 0;
    }
    version
}

/// Finds or makes the session, adds the lane to it, and greets; nothing is sent when it fails.
fn join(
    server: &Arc<Server>,
    lane: &Arc<Lane>,
    hello: &Hello<'_>,
    greeting: impl Fn(&Session) -> Result<Arc<Frame>>,
) -> core::result::Result<Arc<Session>, Refusal> {
    if hello.lane >= MAX_LANES {
        return Err(Refusal::new(
            EINVAL,
            fmt!("a session has at most {MAX_LANES} connections"),
        ));
    }
    let max_data = usize::try_from(hello.max_data)?.min(MAX_DATA);
    if max_data < MIN_DATA {
        return Err(Refusal::new(
            EINVAL,
            fmt!("data sections must be allowed at least {MIN_DATA} bytes"),
        ));
    }
    lane.set_number(hello.lane);
    if let Some(session) = server.sessions.find(&hello.session) {
        match session.add_lane(lane, greeting(&session)?) {
            // It has just ended.
            Err(ESTALE) => {}
            result => {
                result?;
                if let Some(watching) = session.watching() {
                    watching.listener().send_again();
                }
                log_info!(
                    "{session}: lane {} is connected from {}\n",
                    hello.lane,
                    lane.peer()
                );
                return Ok(session);
            }
        }
    }
    if hello.lane != 0 {
        return Err(Refusal::new(
            ESTALE,
            fmt!("the session does not exist (any more): begin with connection 0"),
        ));
    }
    if !server.is_ready() {
        return Err(Refusal::new(
            EHOSTDOWN,
            fmt!("engine is not running on HOST: start engine"),
        ));
    }
    let session = Session::new(
        &server.queue,
        server.sessions.next_number(),
        Origin {
            peer: *lane.peer(),
            machine: hello.machine,
            instance: hello.instance,
        },
        server.sessions.budget(lane.peer())?,
        hello.client.bytes(),
        max_data,
        hello.slots,
    )?;
    let greeting = greeting(&session)?;
    server.sessions.end_older(&session);
    server.sessions.insert(&session)?;
    if let Err(e) = session.add_lane(lane, greeting) {
        server.sessions.end(&session);
        return Err(e.into());
    }
    log_info!("{session}: begins, from {}\n", lane.peer());
    Ok(session)
}

/// The answer to HELLO: the session, or that there is none because of the versions.
fn greeting(
    ticket: &Ticket,
    version: u16,
    boot: u64,
    session: Option<&Session>,
) -> Result<Arc<Frame>> {
    let greeting = HelloReply {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        version,
        features: 0,
        // CAST: At most `MAX_DATA`.
        max_data: session.map_or(0, |s| s.max_data() as u32),
        slots: session.map_or(0, Session::credits),
        session: session.map_or([0; 16], |s| *s.id()),
        ttl: sessions::TTL_MS as u32,
        boot,
    };
    let mut body = [0; 64];
    let mut writer = Writer::new(&mut body);
    greeting.encode(&mut writer).map_err(|_| EMSGSIZE)?;
    let len = writer.len();
    let body = body.get(..len).ok_or(EIO)?;
    reply::success(ticket, greeting.slots, body, Pages::new())
}
