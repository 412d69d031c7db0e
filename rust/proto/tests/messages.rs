// SPDX-License-Identifier: GPL-2.0

//! Properties of every message: what is written is what the table says, what is read is what was
//! written, and nothing else is accepted.

mod common;

use common::encode;
use common::wire;
use common::Field;
use common::Value;
use proptest::prelude::*;
use qtfs_proto::event::Event;
use qtfs_proto::event::{Notified, Wake};
use qtfs_proto::for_each_message;
use qtfs_proto::message::*;
use qtfs_proto::*;
use std::fmt::Debug;

/// Lengths at which to cut something of `len` bytes: all of a short one, some of a long one.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    let step = (len / 512).max(1);
    (0..len).step_by(step).chain(len.saturating_sub(64)..len)
}

/// The properties of one type. `bytes` is what the table says of `value`.
fn check<'a, T>(value: &'a Value, bytes: &'a [u8])
where
    T: Field<'a> + Encode + Decode<'a> + PartialEq + Debug,
{
    let field = T::view(value);
    assert_eq!(encode(&field), bytes, "written as the table says");

    let mut r = Reader::new(bytes);
    assert_eq!(r.get::<T>(), Ok(field), "read as it was written");
    assert_eq!(r.remaining(), 0);

    for len in cuts(bytes.len()) {
        let mut r = Reader::new(&bytes[..len]);
        assert_eq!(r.get::<T>(), Err(Error::Truncated), "cut to {len} bytes");
        let mut space = vec![0; len];
        let mut w = Writer::new(&mut space);
        assert_eq!(
            w.put(&T::view(value)),
            Err(Error::NoSpace),
            "only {len} bytes to write to"
        );
    }
}

/// Changes one byte.
fn spoil(bytes: &mut [u8], at: prop::sample::Index, bits: u8) {
    if !bytes.is_empty() {
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
    }
}

/// One module of tests per row of the table of messages.
macro_rules! tests_of_message {
    ($req:ident $rep:ident) => {
        #[allow(non_snake_case)]
        mod $req {
            use super::*;
            use qtfs_proto::message::$rep;
            use qtfs_proto::message::$req;

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(64))]

                #[test]
                fn request(value in <$req as Field>::strategy()) {
                    let bytes = wire::<$req>(&value);
                    check::<$req>(&value, &bytes);
                    let op = <$req as Call>::OP;
                    let request = Request::decode(op, &bytes).unwrap();
                    assert_eq!(request, Request::$req(<$req as Field>::view(&value)));
                    assert_eq!(request.op(), op);
                    assert!(bytes.len() <= MAX_BODY);
                    let mut longer = bytes.clone();
                    longer.push(0);
                    assert_eq!(Request::decode(op, &longer), Err(Error::Trailing));
                }

                #[test]
                fn reply(value in <$rep as Field>::strategy()) {
                    let bytes = wire::<$rep>(&value);
                    check::<$rep>(&value, &bytes);
                    assert_eq!(decode_reply::<$req>(&bytes), Ok(<$rep as Field>::view(&value)));
                    let answer = Answer::decode(<$req as Call>::OP, &bytes);
                    assert_eq!(answer, Ok(Answer::$req(<$rep as Field>::view(&value))));
                    assert!(bytes.len() <= MAX_BODY);
                    let mut longer = bytes.clone();
                    longer.push(0);
                    assert_eq!(decode_reply::<$req>(&longer), Err(Error::Trailing));
                    let answer = Answer::decode(<$req as Call>::OP, &longer);
                    assert_eq!(answer, Err(Error::Trailing));
                }

                #[test]
                fn spoiled(
                    value in <$req as Field>::strategy(),
                    reply in <$rep as Field>::strategy(),
                    at in any::<prop::sample::Index>(),
                    bits in 1..=255u8,
                ) {
                    let mut bytes = wire::<$req>(&value);
                    spoil(&mut bytes, at, bits);
                    if let Ok(Request::$req(request)) = Request::decode(<$req as Call>::OP, &bytes) {
                        assert_eq!(encode(&request), bytes, "each value has one form");
                    }
                    let mut bytes = wire::<$rep>(&reply);
                    spoil(&mut bytes, at, bits);
                    if let Ok(reply) = decode_reply::<$req>(&bytes) {
                        assert_eq!(encode(&reply), bytes, "each value has one form");
                    }
                }

                #[test]
                fn noise(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
                    if let Ok(Request::$req(request)) = Request::decode(<$req as Call>::OP, &bytes) {
                        assert_eq!(encode(&request), bytes);
                    }
                    if let Ok(reply) = decode_reply::<$req>(&bytes) {
                        assert_eq!(encode(&reply), bytes);
                    }
                }
            }
        }
    };
}

mod of {
    use super::*;

    for_each_message!(tests_of_message);
}

#[test]
fn opcodes_are_known_both_ways() {
    let mut rows = Vec::new();
    macro_rules! row {
        ($req:ident $rep:ident) => {
            rows.push(<$req as Call>::OP);
        };
    }
    for_each_message!(row);
    assert_eq!(rows, Op::ALL);
    let mut known = 0;
    for number in 0..=u8::MAX {
        if let Ok(op) = Op::try_from(number) {
            assert_eq!(op as u8, number);
            known += 1;
        } else {
            assert_eq!(Op::try_from(number), Err(Error::Invalid("opcode")));
        }
    }
    assert_eq!(known, Op::ALL.len());
    assert!(Op::ALL.iter().all(|op| !op.name().is_empty()));
}

/// The server keeps the reply of what must not happen twice, or says something only once, and only
/// of that.
#[test]
fn what_changes_something_is_executed_once() {
    let once = |op: &&Op| !op.repeatable();
    let names: Vec<_> = Op::ALL.iter().filter(once).map(|op| op.name()).collect();
    let expected = "RELEASE SETATTR OPEN WRITE FSYNC MKDIR MKNOD SYMLINK LINK UNLINK RENAME \
                    SETXATTR REMOVEXATTR LOCK FALLOCATE COPY SETFLAGS SYNCFS POLL RECEIVE CHANNEL SEND";
    assert_eq!(names.join(" "), expected);
}

proptest! {
    #[test]
    fn events(value in Wake::strategy(), op in any::<u8>()) {
        let bytes = wire::<Wake>(&value);
        check::<Wake>(&value, &bytes);
        assert_eq!(Event::decode(Event::WAKE, &bytes), Ok(Event::Wake(Wake::view(&value))));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Event::decode(Event::WAKE, &longer), Err(Error::Trailing));
        if ![Event::WAKE, Event::NOTIFIED].contains(&op) {
            assert_eq!(Event::decode(op, &bytes), Err(Error::Invalid("event")));
        }
    }

    #[test]
    fn notified(value in Notified::strategy()) {
        let bytes = wire::<Notified<'_>>(&value);
        check::<Notified<'_>>(&value, &bytes);
        let view = Notified::view(&value);
        assert_eq!(Event::decode(Event::NOTIFIED, &bytes), Ok(Event::Notified(view)));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Event::decode(Event::NOTIFIED, &longer), Err(Error::Trailing));
    }
}

/// The longest of everything fits into a frame.
#[test]
fn the_longest_messages_fit() {
    let long = |len| Value::Bytes(vec![b'x'; len]);
    let target = Value::Group(vec![Value::Num(1), Value::Num(2), long(NAME_MAX)]);
    let setxattr = Value::Group(vec![
        target.clone(),
        long(NAME_MAX),
        long(XATTR_MAX),
        Value::Num(0),
    ]);
    assert!(encode(&Setxattr::view(&setxattr)).len() <= MAX_BODY);
    let getxattr = Value::Group(vec![Value::Num(0), long(XATTR_MAX)]);
    assert!(encode(&GetxattrReply::view(&getxattr)).len() <= MAX_BODY);
    let groups = Value::Group(vec![Value::Num(7); MAX_GROUPS]);
    let numbers = [Value::Num(1), Value::Num(2), Value::Num(3), Value::Num(4)];
    let credential = Value::Group([&numbers[..], &[groups]].concat());
    assert!(encode(&Credential::view(&credential)).len() <= MAX_BODY);
    let symlink = Value::Group(vec![Value::Num(1), long(NAME_MAX), long(PATH_MAX)]);
    assert!(encode(&Symlink::view(&symlink)).len() <= MAX_BODY);
}
