// SPDX-License-Identifier: GPL-2.0

//! Whatever bytes come: decoding never panics, and what is accepted has one form only, so that
//! writing it again gives the same bytes.
//!
//! The first byte of an input chooses what the rest is: 0 a header, 1 a stream of frames, 2
//! directory entries, 3 to 125 the body of the request with that number less 2, 126 a message of a channel, 127 an event,
//! from 128 on the body of the reply to request number less 127.

#![no_main]

use libfuzzer_sys::fuzz_target;
use libfuzzer_sys::Corpus;
use qtfs_proto::dirent::entries;
use qtfs_proto::event::Event;
use qtfs_proto::for_each_message;
use qtfs_proto::frame::HEADER_LEN;
use qtfs_proto::message::*;
use qtfs_proto::*;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((&what, bytes)) = input.split_first() else {
        return Corpus::Reject;
    };
    match what {
        0 => header(bytes),
        1 => frames(bytes),
        2 => directory(bytes),
        126 => relay(bytes),
        127 => event(bytes),
        3..=125 => body(what - 2, false, bytes),
        128.. => body(what - 127, true, bytes),
    }
    Corpus::Keep
});

fn same(field: &impl Encode, bytes: &[u8]) {
    let mut buf = vec![0; bytes.len()];
    let mut w = Writer::new(&mut buf);
    w.put(field).expect("as long as what was read");
    assert_eq!(w.len(), bytes.len());
    assert_eq!(buf, bytes);
    if let Some(shorter) = buf.len().checked_sub(1) {
        assert_eq!(
            Writer::new(&mut buf[..shorter]).put(field),
            Err(Error::NoSpace)
        );
    }
}

fn header(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else {
        return;
    };
    if let Ok(header) = Header::read(bytes) {
        assert!(header.body_len <= MAX_BODY && header.data_len <= MAX_DATA);
        let mut again = [0; HEADER_LEN];
        header.write(&mut again).expect("the lengths were checked");
        assert_eq!(&again, bytes);
    }
}

/// As a receiver takes frames from a connection.
fn frames(mut bytes: &[u8]) {
    while let Some((head, rest)) = bytes.split_first_chunk::<HEADER_LEN>() {
        header(head);
        let Ok(header) = Header::read(head) else {
            return;
        };
        let Some((content, rest)) = rest.split_at_checked(header.body_len + header.data_len) else {
            return;
        };
        let (content, data) = content.split_at(header.body_len);
        body(header.op, header.kind == Kind::Reply, content);
        directory(data);
        bytes = rest;
    }
}

fn directory(bytes: &[u8]) {
    let mut rest = bytes;
    for entry in entries(bytes) {
        let Ok(entry) = entry else { return };
        let mut r = Reader::new(rest);
        let again = r.get::<dirent::Entry>().expect("it was read before");
        assert_eq!(again, entry);
        let (read, after) = rest.split_at(rest.len() - r.remaining());
        same(&entry, read);
        rest = after;
    }
    assert!(
        rest.is_empty(),
        "entries end with the data or with an error"
    );
}

/// A message between engine and the daemon of the DPU, which the client's kernel reads too.
fn relay(bytes: &[u8]) {
    let Ok(message) = relay::Message::decode(bytes) else {
        return;
    };
    same(&message, bytes);
    match message {
        relay::Message::Data { rights, .. } => assert_eq!(rights.iter().count(), rights.len()),
        relay::Message::Incoming { peer, .. } => {
            assert_eq!(peer.groups.iter().count(), peer.groups.len());
        }
        _ => {}
    }
}

/// An event: its number and its body.
fn event(bytes: &[u8]) {
    let Some((&op, bytes)) = bytes.split_first() else {
        return;
    };
    match Event::decode(op, bytes) {
        Ok(Event::Wake(wake)) => same(&wake, bytes),
        Ok(Event::Notified(notified)) => same(&notified, bytes),
        Err(_) => {}
    }
}

fn body(op: u8, reply: bool, bytes: &[u8]) {
    let Ok(op) = Op::try_from(op) else { return };
    match (reply, Request::decode(op, bytes)) {
        (false, Ok(Request::Credential(r))) => assert_eq!(r.groups.iter().count(), r.groups.len()),
        (false, Ok(Request::Release(r))) => {
            assert_eq!(r.files.iter().count(), r.files.len());
            assert_eq!(r.nodes.iter().count(), r.nodes.len());
        }
        _ => {}
    }
    macro_rules! message {
        ($req:ident $rep:ident) => {
            if op == <$req as Call>::OP {
                if reply {
                    // As whoever waits reads it, and as it is checked when it comes.
                    let checked = Answer::decode(op, bytes);
                    match decode_reply::<$req>(bytes) {
                        Ok(reply) => {
                            assert_eq!(checked, Ok(Answer::$req(reply)));
                            same(&reply, bytes);
                        }
                        Err(error) => assert_eq!(checked, Err(error)),
                    }
                } else if let Ok(request) = Request::decode(op, bytes) {
                    assert_eq!(request.op(), op);
                    let Request::$req(request) = request else {
                        panic!("{} was read as another request", op.name());
                    };
                    same(&request, bytes);
                }
            }
        };
    }
    for_each_message!(message);
}
