// SPDX-License-Identifier: GPL-2.0

//! Messages of a channel.

use proptest::prelude::*;
use qtfs_proto::relay::*;
use qtfs_proto::{Bytes, Encode, Error, List, OpenFlags, Writer};

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut buf = vec![0; MAX_MESSAGE];
    let mut w = Writer::new(&mut buf);
    message.encode(&mut w).expect("it fits");
    let len = w.len();
    buf.truncate(len);
    buf
}

fn right(path: &[u8]) -> Right<'_> {
    Right {
        passed: Passed::File,
        flags: OpenFlags::READ,
        token: 7,
        offset: 8,
        ino: 9,
        path: Bytes::new(path).expect("any bytes will do"),
    }
}

fn sender(name: &[u8]) -> Sender<'_> {
    Sender {
        uid: 1000,
        gid: 100,
        name: Bytes::new(name).expect("any bytes will do"),
    }
}

#[test]
fn messages_come_back_as_they_were_sent() {
    let (mut rights, mut groups) = ([0; 256], [0; 64]);
    let rights = Rights::pack([right(b"/a"), right(b"")], &mut rights).expect("they fit");
    let groups = List::pack([4, 5], &mut groups).expect("they fit");
    let peer = Peer {
        pid: 1,
        uid: 2,
        gid: 3,
        groups,
    };
    let messages = [
        Message::Opened {
            errno: 111,
            kind: SocketType::Seqpacket,
            listener: User { uid: 6, gid: 7 },
        },
        Message::Data {
            more: true,
            rights,
            bytes: b"abc",
        },
        Message::Data {
            more: false,
            rights: Rights::NONE,
            bytes: b"",
        },
        Message::Credit(5),
        Message::End,
        Message::Stop,
        Message::Close(104),
        Message::Incoming { token: 6, peer },
        Message::Sender(sender(b"/run/x")),
        Message::Sender(sender(b"")),
    ];
    for message in &messages {
        let bytes = encoded(message);
        assert_eq!(Message::decode(&bytes), Ok(*message));
        // None is the beginning of another one, but for data.
        if !matches!(message, Message::Data { .. }) {
            for len in 0..bytes.len() {
                assert!(Message::decode(&bytes[..len]).is_err(), "{message:?} {len}");
            }
            let longer = [&bytes[..], b"x"].concat();
            assert!(Message::decode(&longer).is_err());
        }
    }
    let Message::Data { rights, .. } = messages[1] else {
        panic!("it is data")
    };
    let paths: Vec<_> = rights.iter().map(|right| right.path.bytes()).collect();
    assert_eq!(paths, [&b"/a"[..], b""]);
}

#[test]
fn what_is_too_much_is_refused() {
    let long = vec![0; MAX_PAYLOAD + 1];
    let data = Message::Data {
        more: false,
        rights: Rights::NONE,
        bytes: &long,
    };
    let mut buf = vec![0; MAX_MESSAGE + 64];
    assert_eq!(data.encode(&mut Writer::new(&mut buf)), Err(Error::NoSpace));
    let mut many = vec![2, 0];
    many.extend(254u16.to_le_bytes());
    assert_eq!(
        Message::decode(&many),
        Err(Error::Invalid("number of descriptors"))
    );
    assert_eq!(
        Message::decode(&[3, 0, 0, 0, 0]),
        Err(Error::Invalid("credit"))
    );
    assert_eq!(
        Message::decode(&[6, 0, 16, 0, 0]),
        Err(Error::Invalid("errno"))
    );
    assert_eq!(
        Message::decode(&[9]),
        Err(Error::Invalid("kind of a message"))
    );
    assert_eq!(Message::decode(&[]), Err(Error::Truncated));
    assert_eq!(
        Message::decode(&vec![2; MAX_MESSAGE + 1]),
        Err(Error::Invalid("length of a message"))
    );
    // Data without descriptors, the end of its record.
    let data = [&[2, 0, 0, 0], &*vec![0; MAX_PAYLOAD + 1]].concat();
    assert_eq!(
        Message::decode(&data),
        Err(Error::Invalid("length of data"))
    );
    let long = vec![b'x'; MAX_NAME + 1];
    let unsent = Message::Sender(sender(&long));
    assert_eq!(
        unsent.encode(&mut Writer::new(&mut buf)),
        Err(Error::NoSpace)
    );
    let mut received = encoded(&Message::Sender(sender(&long[1..])));
    // One more byte, and a length that says so.
    received.push(b'x');
    received[9] += 1;
    assert_eq!(
        Message::decode(&received),
        Err(Error::Invalid("name of a socket"))
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..10u8) {
        let bytes = [&[kind], &bytes[..]].concat();
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(encoded(&message), bytes);
        }
    }
}
