// SPDX-License-Identifier: GPL-2.0

//! Making frames of answers and events.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::{
    Frame,
    Pages, //
};
use qtfs_proto::{
    frame::HEADER_LEN,
    Encode,
    Header,
    Kind,
    Writer,
    NAME_MAX, //
};

use crate::{
    job::Ticket,
    refusal::{
        self,
        Refusal, //
    },
};

/// Longest body of an event.
const MAX_EVENT: usize = 64 + NAME_MAX;

/// The frame of an answer that has `body` and `data`.
pub(crate) fn success(
    ticket: &Ticket,
    credits: u16,
    body: &[u8],
    data: Pages,
) -> Result<Arc<Frame>> {
    frame(ticket, credits, 0, body, data)
}

/// The frame of an answer that says why there is none.
pub(crate) fn failure(ticket: &Ticket, credits: u16, refusal: &Refusal) -> Result<Arc<Frame>> {
    let status = refusal::status(refusal.error());
    frame(ticket, credits, status, refusal.text(), Pages::new())
}

/// The frame of an event that needs no acknowledgement.
pub(crate) fn event(op: u8, body: &dyn Encode) -> Result<Arc<Frame>> {
    numbered_event(op, 0, body)
}

/// The frame of an event that the client acknowledges by this number.
pub(crate) fn numbered_event(op: u8, number: u32, body: &dyn Encode) -> Result<Arc<Frame>> {
    let mut bytes = [0; MAX_EVENT];
    let mut writer = Writer::new(&mut bytes);
    body.encode(&mut writer).map_err(|_| EMSGSIZE)?;
    let len = writer.len();
    let body = bytes.get(..len).unwrap_or_default();
    let mut header = Header::new(Kind::Event, op);
    header.seq = number;
    with_header(header, body, Pages::new())
}

fn frame(
    ticket: &Ticket,
    credits: u16,
    status: u32,
    body: &[u8],
    data: Pages,
) -> Result<Arc<Frame>> {
    let mut header = Header::new(Kind::Reply, ticket.op);
    header.slot = ticket.slot;
    header.seq = ticket.seq;
    header.credits = credits;
    header.status = status;
    with_header(header, body, data)
}

fn with_header(mut header: Header, body: &[u8], data: Pages) -> Result<Arc<Frame>> {
    header.body_len = body.len();
    header.data_len = data.len();
    let mut bytes = [0; HEADER_LEN];
    header.write(&mut bytes).map_err(|_| EMSGSIZE)?;
    let mut head = KVVec::with_capacity(HEADER_LEN + body.len(), GFP_KERNEL)?;
    head.extend_from_slice(&bytes, GFP_KERNEL)?;
    head.extend_from_slice(body, GFP_KERNEL)?;
    let frame = Frame {
        head,
        data: Arc::new(data, GFP_KERNEL)?,
    };
    Ok(Arc::new(frame, GFP_KERNEL)?)
}
