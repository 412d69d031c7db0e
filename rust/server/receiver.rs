// SPDX-License-Identifier: GPL-2.0

//! Receiving requests from one connection.
//!
//! What a peer sends is not trusted: a frame that is not as the protocol says ends the session's
//! connection with one line in the log.

use kernel::{
    prelude::*,
    str::BStr,
    sync::Arc, //
};
use qtfs_net::{
    Counted,
    Pages, //
};
use qtfs_proto::{
    frame::HEADER_LEN,
    message,
    relay::MAX_MESSAGE,
    Header,
    Kind,
    Op,
    Request, //
};

use crate::{
    hello,
    job::{
        Job,
        Ticket, //
    },
    lane::Lane,
    quick, refusal, reply,
    server::Server,
    session::Session,
    slot::{
        Begin,
        Cancelled, //
    },
};

/// A request that takes less, with its answer, is not counted.
const LITTLE: usize = 4096;
/// READ and WRITE of more than this wait while a session has [`MOST_BULK`] on its way. Requests for
/// less come by another connection.
const BULK: usize = 64 * 1024;
/// Bytes that READ and WRITE of much may have on their way.
const MOST_BULK: usize = 64 << 20;
/// Bytes that a session may have on their way in all. Only a client that does not read its answers
/// comes near.
const MOST: usize = 192 << 20;
/// The same while the client's sessions have much together.
const MOST_CROWDED: usize = 2 << 20;
/// How long to wait for fewer bytes before looking whether the connection is still there.
const LOOK_MS: u32 = 100;

/// Why a connection ends.
pub(crate) enum End {
    /// It was lost or closed.
    Lost(Error),
    /// The peer does not speak the protocol; what is wrong.
    Bad(&'static str),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Lost(error)
    }
}

impl From<qtfs_proto::Error> for End {
    fn from(error: qtfs_proto::Error) -> Self {
        Self::Bad(match error {
            qtfs_proto::Error::Truncated => "a message is too short",
            qtfs_proto::Error::Trailing => "a message is too long",
            qtfs_proto::Error::NoSpace => "a message does not fit",
            qtfs_proto::Error::Invalid(what) => what,
        })
    }
}

/// Receives one frame's header.
pub(crate) fn header(lane: &Lane) -> core::result::Result<Header, End> {
    let mut bytes = [0; HEADER_LEN];
    lane.socket().recv_exact(&mut bytes)?;
    Ok(Header::read(&bytes)?)
}

/// Receives a body; the header has bounded its length.
pub(crate) fn body(lane: &Lane, header: &Header) -> core::result::Result<KVVec<u8>, End> {
    let mut body = KVVec::from_elem(0, header.body_len, GFP_KERNEL).map_err(Error::from)?;
    lane.socket().recv_exact(&mut body)?;
    Ok(body)
}

/// What the thread of a connection does, from HELLO to the end.
pub(crate) fn run(server: &Arc<Server>, lane: &Arc<Lane>) {
    let (session, end) = match hello::receive(server, lane) {
        Ok(session) => {
            let end = requests(server, lane, &session);
            (Some(session), end)
        }
        Err(end) => (None, end),
    };
    match (&session, end) {
        (Some(session), End::Lost(e)) => {
            log_info!("{session}: lane {} is closed ({e:?})\n", lane.number());
        }
        (Some(session), End::Bad(what)) => {
            log_warn!(
                "{session}: bad message from {}: {what}; lane {} is closed\n",
                lane.peer(),
                lane.number()
            );
        }
        (None, End::Lost(e)) => log_info!("{}: left without a HELLO ({e:?})\n", lane.peer()),
        (None, End::Bad(what)) => log_warn!("{}: not a qtfs client: {what}\n", lane.peer()),
    }
    lane.close();
    if let Some(session) = session {
        session.remove_lane(lane);
        server.sessions.look_again();
    }
}

/// Receives requests until the connection ends.
fn requests(server: &Arc<Server>, lane: &Arc<Lane>, session: &Arc<Session>) -> End {
    loop {
        if let Err(end) = request(server, lane, session) {
            if let End::Bad(_) = end {
                // Whatever it meant, it cannot be believed on another connection either.
                server.sessions.end(session);
            }
            return end;
        }
    }
}

fn request(
    server: &Arc<Server>,
    lane: &Arc<Lane>,
    session: &Arc<Session>,
) -> core::result::Result<(), End> {
    let header = header(lane)?;
    match header.kind {
        Kind::Request => {}
        Kind::Cancel if header.body_len == 0 && header.data_len == 0 => {
            cancel(session, &header);
            return Ok(());
        }
        Kind::Ack if header.body_len == 0 && header.data_len == 0 => {
            if let Some(watching) = session.watching() {
                watching.listener().acknowledged(header.seq);
            }
            return Ok(());
        }
        Kind::Bye if header.body_len == 0 && header.data_len == 0 => {
            server.sessions.end(session);
            return Err(End::Lost(ESHUTDOWN));
        }
        _ => return Err(End::Bad("kind")),
    }
    let op = Op::try_from(header.op)?;
    if op == Op::Hello {
        return Err(End::Bad("a second HELLO"));
    }
    let most = match op {
        Op::Write => session.max_data(),
        Op::Send => MAX_MESSAGE.min(session.max_data()),
        _ => 0,
    };
    if header.data_len > most {
        return Err(End::Bad("data length"));
    }
    let body = body(lane, &header)?;
    // Nobody executes what cannot be read; nobody waits for an answer to it either.
    let request = Request::decode(op, &body)?;
    let asked = longest_answer(&request).min(session.max_data());
    let counted = admit(session, lane, op, body.len(), header.data_len.max(asked))?;
    let data = Pages::alloc(header.data_len)?;
    lane.socket().recv_segments(data.segments())?;
    let ticket = Ticket {
        op: header.op,
        slot: header.slot,
        seq: header.seq,
    };
    if op == Op::Ping || op == Op::Credential {
        if begin(session, &ticket, op, lane)? {
            let result = match &request {
                Request::Credential(credential) => register(session, credential),
                _ => Ok(()),
            };
            answer(session, &ticket, result);
        }
        return Ok(());
    }
    // What can fail comes first: a request that was begun is answered.
    let job = Job::new(
        session.clone(),
        ticket,
        op,
        header.cred,
        body,
        data,
        counted,
    )?;
    if begin(session, &ticket, op, lane)? {
        if let Some(job) = quick::execute(server, job) {
            session.submit(job, false);
        }
    }
    Ok(())
}

/// Most bytes that the answer to a request has, as far as the request says.
fn longest_answer(request: &Request<'_>) -> usize {
    let asked = match request {
        Request::Read(r) => r.len,
        Request::Readdir(r) => r.want,
        Request::Open(r) => r.want,
        Request::Receive(r) => r.len,
        Request::Getxattr(r) => r.max,
        Request::Listxattr(r) => r.max,
        _ => 0,
    };
    // CAST: At least 32 bits.
    asked as usize
}

/// Waits until there is room for a request with so many bytes of fields, and of data or answer.
/// Meanwhile the client's connection fills up, and nobody else waits.
fn admit(
    session: &Session,
    lane: &Lane,
    op: Op,
    fields: usize,
    data: usize,
) -> core::result::Result<Option<Counted>, End> {
    let bytes = fields + data;
    if bytes <= LITTLE {
        return Ok(None);
    }
    // With one connection everything comes by the first.
    let bulk = data > BULK && lane.number() != 0 && matches!(op, Op::Read | Op::Write);
    loop {
        let most = if session.budget.is_crowded() {
            MOST_CROWDED
        } else if bulk {
            MOST_BULK
        } else {
            MOST
        };
        if let Some(counted) = session.passing.count_within(bytes, most, LOOK_MS) {
            return Ok(Some(counted));
        }
        if lane.is_closed() {
            return Err(End::Lost(ENOTCONN));
        }
    }
}

/// Takes note of a request; says whether to execute it.
fn begin(
    session: &Session,
    ticket: &Ticket,
    op: Op,
    lane: &Arc<Lane>,
) -> core::result::Result<bool, End> {
    let begin = session.slots().lock().begin(ticket, op, lane);
    match begin {
        Begin::Execute => return Ok(true),
        Begin::Answer(frame) => session.send(frame, Some(lane)),
        Begin::Wait | Begin::Late => {}
        Begin::Gone => return Err(End::Lost(ENOTCONN)),
        Begin::Bad(what) => return Err(End::Bad(what)),
    }
    Ok(false)
}

/// Answers a request that needs no worker and whose reply has no fields.
fn answer(session: &Arc<Session>, ticket: &Ticket, result: refusal::Result) {
    let credits = session.credits();
    let frame = match result {
        Ok(()) => reply::success(ticket, credits, &[], Pages::new()),
        Err(refusal) => reply::failure(ticket, credits, &refusal),
    };
    let lane = session.slots().lock().finish(ticket, None);
    match frame {
        Ok(frame) => session.send(frame, lane.as_ref()),
        Err(e) => log_error!("{session}: an answer is lost: {e:?}\n"),
    }
}

/// CREDENTIAL.
fn register(session: &Arc<Session>, request: &message::Credential<'_>) -> refusal::Result {
    session.callers.register(
        request.index,
        request.uid,
        request.gid,
        request.caps,
        &request.groups,
    )
}

/// CANCEL.
fn cancel(session: &Arc<Session>, header: &Header) {
    let cancelled = session.slots().lock().cancel(header.slot, header.seq);
    match cancelled {
        Cancelled::Nothing | Cancelled::Running => {}
        Cancelled::Waiting(job) => {
            // A worker that has just taken it sees that it is cancelled.
            if session.queue.remove(&job).is_some() {
                session.answer_cancelled(&job);
            }
        }
    }
    log_debug!("{session}: cancel {} of slot {}\n", header.seq, header.slot);
}

/// A name that a peer gave, for logs: printable and short.
pub(crate) fn printable(bytes: &[u8]) -> &BStr {
    BStr::from_bytes(bytes.get(..64).unwrap_or(bytes))
}
