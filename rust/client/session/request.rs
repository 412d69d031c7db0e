// SPDX-License-Identifier: GPL-2.0

//! One request, from its making to the end of its reply.

use core::sync::atomic::{
    AtomicBool,
    AtomicU16,
    AtomicU32,
    AtomicU64,
    Ordering, //
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
    Completion,
    Frame,
    Pages, //
};
use qtfs_proto::{
    frame::{
        errno,
        flag,
        HEADER_LEN, //
    },
    message::{
        self,
        Call, //
    },
    Header,
    Kind,
    Op,
    Writer,
    MAX_BODY, //
};

use super::{
    then::Then,
    Acting, //
};

/// The server has lost the session after the request was sent: ids of nodes and files mean nothing
/// any more, and whether the request was executed is not known.
///
/// No server can send it, see [`Reply::error`].
pub(crate) const LOST: Error = ENETRESET;

/// The same, but the request was not sent.
pub(crate) const UNSENT: Error = ENOLINK;

/// Whether the server has lost the session, so that a request can be made anew.
pub(crate) fn is_lost(error: Error) -> bool {
    error == LOST || error == UNSENT
}

/// Longest text that explains a failure, in bytes.
const MAX_TEXT: usize = 512;

/// No lane has sent the request yet.
pub(crate) const NO_LANE: u16 = u16::MAX;

/// When something was asked, for those who must know whether the answer is out of date.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    /// What [`Session::clock`](super::Session::clock) said.
    pub(crate) clock: u64,
    /// The incarnation of the session in which ids of the answer mean something.
    pub(crate) incarnation: u32,
}

/// The error that a number of another machine, or of the daemon, stands for; 0 is none.
pub(crate) fn errno_of(number: u32) -> Option<Error> {
    // CAST: There are few of them.
    match errno(number) as i32 {
        0 => None,
        errno => Some(Error::from_errno(-errno)),
    }
}

/// What the server answered.
pub(crate) struct Reply {
    /// Errno, 0 for success.
    pub(crate) status: u32,
    /// Fields of the reply, or a text that explains the failure.
    pub(crate) body: KVVec<u8>,
    /// Bytes of data, which are in the request's sink.
    pub(crate) data_len: usize,
    /// When the request was sent first.
    pub(crate) asked: Asked,
}

impl Reply {
    /// The failure that the reply tells of.
    pub(crate) fn error(&self) -> Result {
        match errno_of(self.status) {
            None => Ok(()),
            Some(error) if is_lost(error) => Err(EIO),
            Some(error) => Err(error),
        }
    }

    /// What a failure says for people.
    pub(crate) fn text(&self) -> &[u8] {
        let len = self.body.len().min(MAX_TEXT);
        self.body.get(..len).unwrap_or_default()
    }

    /// The fields of a reply to `C`.
    ///
    /// Fails with [`EPROTO`] when the bytes are none.
    pub(crate) fn decode<C: Call>(&self) -> Result<C::Reply<'_>> {
        self.error()?;
        message::decode_reply::<C>(&self.body).map_err(|_| EPROTO)
    }
}

/// The fields of [`Request`] protected by the lock.
pub(crate) struct State {
    /// What the waiting caller has not fetched yet.
    pub(crate) result: Option<Result<Reply>>,
    /// What happens when the reply is there.
    pub(crate) then: Then,
}

/// A request that is on its way, or its reply.
#[pin_data]
pub(crate) struct Request {
    pub(crate) op: Op,
    /// Who acts; root when there is none.
    pub(crate) cred: Option<Acting>,
    /// Header, left free, and body.
    head: KVVec<u8>,
    /// Data section of the request.
    data: Arc<Pages>,
    /// Where the data section of the reply goes.
    pub(crate) sink: Option<Arc<Pages>>,
    /// Lane that sent it last.
    pub(crate) lane: AtomicU16,
    /// A lane is receiving the reply; changes under the lock of the session.
    pub(crate) receiving: AtomicBool,
    /// That lane.
    pub(crate) receiver: AtomicU16,
    /// Nobody wants the data of the reply any more, so `sink` must not be written; set under the
    /// lock of the session.
    pub(crate) unwanted: AtomicBool,
    /// The caller gave up: the server is told when the request is sent again.
    pub(crate) given_up: AtomicBool,
    /// See [`Asked`].
    clock: AtomicU64,
    incarnation: AtomicU32,
    /// When it was made, in microseconds since boot.
    pub(crate) started: u64,
    #[pin]
    pub(crate) done: Completion,
    #[pin]
    pub(crate) state: Mutex<State>,
}

impl Request {
    /// Makes a request of the message `call`.
    pub(crate) fn new<C: Call>(
        call: &C,
        cred: Option<Acting>,
        data: Arc<Pages>,
        sink: Option<Arc<Pages>>,
        then: Then,
    ) -> Result<Arc<Self>> {
        // Almost all bodies are short; a second try takes what the longest needs.
        let mut head = KVVec::from_elem(0u8, HEADER_LEN + 1024, GFP_KERNEL)?;
        let len = match encode(call, &mut head) {
            Err(qtfs_proto::Error::NoSpace) => {
                head = KVVec::from_elem(0u8, HEADER_LEN + MAX_BODY, GFP_KERNEL)?;
                encode(call, &mut head).map_err(|_| EMSGSIZE)?
            }
            other => other.map_err(|_| EINVAL)?,
        };
        head.truncate(HEADER_LEN + len);
        let this = Arc::pin_init(
            pin_init!(Self {
                op: C::OP,
                cred,
                head,
                data,
                sink,
                lane: AtomicU16::new(NO_LANE),
                receiving: AtomicBool::new(false),
                receiver: AtomicU16::new(NO_LANE),
                unwanted: AtomicBool::new(false),
                given_up: AtomicBool::new(false),
                clock: AtomicU64::new(0),
                incarnation: AtomicU32::new(0),
                started: now_us(),
                done <- Completion::new(),
                state <- new_mutex!(State { result: None, then }),
            }),
            GFP_KERNEL,
        )?;
        Ok(this)
    }

    /// The bytes to send, with the place that the request has among others.
    pub(crate) fn frame(&self, slot: u16, seq: u32, again: bool) -> Result<Arc<Frame>> {
        let mut header = Header::new(Kind::Request, self.op as u8);
        header.slot = slot;
        header.seq = seq;
        header.cred = self.cred.as_ref().map_or(0, Acting::index);
        header.flags = if again { flag::RETRANSMIT } else { 0 };
        header.body_len = self.head.len().saturating_sub(HEADER_LEN);
        header.data_len = self.data.len();
        let mut head = KVVec::with_capacity(self.head.len(), GFP_KERNEL)?;
        head.extend_from_slice(&self.head, GFP_KERNEL)?;
        let place = head.first_chunk_mut::<HEADER_LEN>().ok_or(EINVAL)?;
        header.write(place).map_err(|_| EMSGSIZE)?;
        Ok(Arc::new(
            Frame {
                head,
                data: self.data.clone(),
            },
            GFP_KERNEL,
        )?)
    }

    /// What tells the server that nobody waits for it any more.
    pub(crate) fn cancel(&self, slot: u16, seq: u32) -> Result<Arc<Frame>> {
        let mut header = Header::new(Kind::Cancel, self.op as u8);
        header.slot = slot;
        header.seq = seq;
        super::bare(&header)
    }

    /// Notes that it is sent for the first time.
    pub(crate) fn sent(&self, asked: Asked) {
        self.clock.store(asked.clock, Ordering::Relaxed);
        self.incarnation.store(asked.incarnation, Ordering::Relaxed);
    }

    /// When it was sent for the first time.
    pub(crate) fn asked(&self) -> Asked {
        Asked {
            clock: self.clock.load(Ordering::Relaxed),
            incarnation: self.incarnation.load(Ordering::Relaxed),
        }
    }

    /// How it fails when the server has lost the session.
    pub(crate) fn lost(&self) -> Error {
        if self.lane.load(Ordering::Relaxed) == NO_LANE {
            UNSENT
        } else {
            LOST
        }
    }

    /// The fields of the message.
    pub(crate) fn body(&self) -> &[u8] {
        self.head.get(HEADER_LEN..).unwrap_or_default()
    }

    /// Bytes of request and reply data; decides which lane takes it.
    pub(crate) fn bulk(&self) -> usize {
        self.data.len() + self.sink.as_ref().map_or(0, |sink| sink.len())
    }

    /// Bytes that the request takes on the wire.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.data.len()
    }
}

fn encode<C: Call>(call: &C, head: &mut [u8]) -> qtfs_proto::wire::Result<usize> {
    let body = head
        .get_mut(HEADER_LEN..)
        .ok_or(qtfs_proto::Error::NoSpace)?;
    let mut writer = Writer::new(body);
    writer.put(call)?;
    Ok(writer.len())
}
