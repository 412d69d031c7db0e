// SPDX-License-Identifier: GPL-2.0

//! The encoding: what is written is read as it was, and whatever comes is read without harm.

use bytes::Bytes;
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use qtfs_rexec::channel;
use qtfs_rexec::channel::Receiver;
use qtfs_rexec::codec::Header;
use qtfs_rexec::codec::HEADER;
use qtfs_rexec::message::Hello;
use qtfs_rexec::message::Message;
use qtfs_rexec::message::Outcome;
use qtfs_rexec::message::Reason;
use qtfs_rexec::message::Refusal;
use qtfs_rexec::message::Stream;
use qtfs_rexec::process::launch::Launch;
use qtfs_rexec::start::Identity;
use qtfs_rexec::start::Limit;
use qtfs_rexec::start::Size;
use qtfs_rexec::start::Start;

/// A text without zero bytes, of any others.
fn text(most: usize) -> impl Strategy<Value = Bytes> {
    vec(1..=u8::MAX, 0..most).prop_map(Bytes::from)
}

fn stream() -> impl Strategy<Value = Stream> {
    prop_oneof![
        Just(Stream::Stdin),
        Just(Stream::Stdout),
        Just(Stream::Stderr)
    ]
}

prop_compose! {
    fn size()(rows: u16, columns: u16, width: u16, height: u16) -> Size {
        Size { rows, columns, width, height }
    }
}

prop_compose! {
    fn identity()(uid: u32, gid: u32, groups in vec(any::<u32>(), 0..40)) -> Identity {
        Identity { uid, gid, groups }
    }
}

prop_compose! {
    fn limit()(resource: u8, one: u64, other: u64) -> Limit {
        Limit { resource, soft: one.min(other), hard: one.max(other) }
    }
}

prop_compose! {
    fn place()(
        window: u32, umask in 0..=0o777_u32, nice in -20..=19_i32, ignored: u64, user in text(20),
        directory in text(100), program in vec(1..=u8::MAX, 1..30),
    ) -> Start {
        Start {
            window, umask, nice, ignored, user,
            directory: [b"/", &directory[..]].concat().into(),
            arguments: vec![program.into()],
            ..Start::default()
        }
    }
}

prop_compose! {
    fn start()(
        place in place(), tty in option::of(size()), detach: bool, null_stdin: bool, caller in identity(),
        limits in vec(limit(), 0..=64), arguments in vec(text(200), 0..20), environment in vec(text(200), 0..40),
    ) -> Start {
        let arguments = [place.arguments.clone(), arguments].concat();
        Start { tty, detach, null_stdin, caller, limits, arguments, environment, ..place }
    }
}

fn message() -> impl Strategy<Value = Message> {
    let signal = 1..=64_u8;
    prop_oneof![
        (any::<u16>(), any::<u16>(), text(64)).prop_map(|(oldest, newest, host)| Message::Hello(
            Hello {
                oldest,
                newest,
                host
            }
        )),
        start().prop_map(|start| Message::Start(Box::new(start))),
        (any::<u64>(), any::<u32>()).prop_map(|(session, pid)| Message::Started { session, pid }),
        (1..=7_u8, vec(any::<u8>(), 0..500)).prop_map(|(reason, text)| Message::Failed(Refusal {
            reason: Reason::new(reason).unwrap(),
            text: text.into()
        })),
        (stream(), vec(any::<u8>(), 1..5000))
            .prop_map(|(stream, bytes)| Message::Data(stream, bytes.into())),
        stream().prop_map(Message::End),
        stream().prop_map(Message::Closed),
        (stream(), any::<u32>()).prop_map(|(stream, bytes)| Message::Credit(stream, bytes)),
        signal.clone().prop_map(Message::Signal),
        size().prop_map(Message::Resize),
        any::<u8>().prop_map(|status| Message::Exit(Outcome::Exited(status))),
        signal.prop_map(|signal| Message::Exit(Outcome::Killed(signal))),
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
    ]
}

fn encoded(messages: &[Message]) -> Bytes {
    let mut out = BytesMut::new();
    for message in messages {
        message.encode(&mut out);
    }
    out.freeze()
}

/// Reads all messages of a connection, which gives these pieces at a time.
fn received(pieces: &[&[u8]]) -> (Vec<Message>, channel::Error) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut mock = tokio_test::io::Builder::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        mock.read(piece);
    }
    runtime.block_on(async {
        let mut receiver = Receiver::new(mock.build());
        let mut messages = Vec::new();
        loop {
            match receiver.next().await {
                Ok(message) => messages.push(message),
                Err(error) => return (messages, error),
            }
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(message in message()) {
        prop_assert!(message.fits());
        let bytes = encoded(std::slice::from_ref(&message));
        let (head, payload) = bytes.split_first_chunk::<HEADER>().unwrap();
        let header = Header::decode(*head).unwrap();
        prop_assert_eq!(header.len, payload.len());
        prop_assert_eq!(header.message(bytes.slice(HEADER..)).unwrap(), message);
    }

    #[test]
    fn a_message_that_is_cut_is_none(message in message(), part in 0.0..1.0_f64) {
        let bytes = encoded(&[message]);
        // CAST: a part of a length is one.
        let cut = (bytes.len() as f64 * part) as usize;
        let (messages, error) = received(&[&bytes[..cut]]);
        prop_assert_eq!(messages, []);
        prop_assert!(matches!(error, channel::Error::Closed), "{error}");
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_come(messages in vec(message(), 1..6), piece in 1..300_usize) {
        let bytes = encoded(&messages);
        let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
        let (got, error) = received(&pieces);
        prop_assert_eq!(got, messages);
        prop_assert!(matches!(error, channel::Error::Closed), "{error}");
    }

    #[test]
    fn whatever_comes_has_one_form_or_none(head: [u8; HEADER], payload in vec(any::<u8>(), 0..300)) {
        if let Ok(header) = Header::decode(head) {
            // The same check that a receiver makes before it takes a payload.
            let payload = Bytes::from(payload);
            if let Ok(message) = header.message(payload.clone()) {
                let bytes = encoded(std::slice::from_ref(&message));
                // A later HELLO may say more.
                if !header.is_hello() {
                    prop_assert_eq!(&bytes[HEADER..], &payload[..]);
                }
            }
        }
    }

    #[test]
    fn a_changed_byte_does_no_harm(message in message(), place: prop::sample::Index, value: u8) {
        let mut bytes = encoded(&[message]).to_vec();
        let place = place.index(bytes.len());
        bytes[place] = value;
        let (messages, _) = received(&[&bytes]);
        prop_assert!(messages.len() <= bytes.len() / HEADER);
    }

    #[test]
    fn what_a_keeper_is_told_is_read_as_it_was(
        start in start(), session: u64, change_identity: bool, trusted: bool, groups in option::of("/[a-z/]{1,40}")
    ) {
        let launch = Launch {
            program: "/usr/bin/true".into(),
            groups: groups.map(Into::into),
            session, change_identity, trusted, start,
        };
        prop_assert_eq!(Launch::decode(launch.encode()).unwrap(), launch);
    }
}

#[test]
fn lengths_are_bounded_by_kind() {
    let header = |len: u32, kind: u8| {
        let [a, b, c, d] = len.to_le_bytes();
        Header::decode([a, b, c, d, kind, 0, 0, 0])
    };
    use qtfs_rexec::codec::kind::*;
    use qtfs_rexec::message::MAX_DATA;
    use qtfs_rexec::message::MAX_OTHER;
    use qtfs_rexec::message::MAX_START;
    for (kind, most) in [
        (HELLO, MAX_OTHER),
        (START, MAX_START),
        (FAILED, MAX_OTHER),
        (DATA, MAX_DATA),
        (CREDIT, 4),
        (EXIT, 2),
        (END, 0),
    ] {
        let most = u32::try_from(most).unwrap();
        assert!(header(most, kind).is_ok(), "{kind}");
        assert!(header(most + 1, kind).is_err(), "{kind}");
        assert!(header(u32::MAX, kind).is_err(), "{kind}");
    }
    assert!(header(0, 0).is_err());
    assert!(header(0, 14).is_err());
}
