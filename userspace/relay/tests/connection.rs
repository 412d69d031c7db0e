// SPDX-License-Identifier: GPL-2.0

//! Connections over a pair of sockets in the place of a channel between machines.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::recv;
use nix::sys::socket::send;
use nix::sys::socket::sendmsg;
use nix::sys::socket::setsockopt;
use nix::sys::socket::socketpair;
use nix::sys::socket::sockopt::SndBuf;
use nix::sys::socket::sockopt::SndBufForce;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use qtfs_proto::relay::Message;
use qtfs_proto::relay::Passed;
use qtfs_relay::channel::Channel;
use qtfs_relay::connection::relay;
use qtfs_relay::identity::Identity;
use qtfs_relay::local::Input;
use qtfs_relay::local::Kind;
use qtfs_relay::local::Local;
use qtfs_relay::rights::Boxed;
use qtfs_relay::rights::OwnedRight;
use qtfs_relay::rights::Passing;
use std::io;
use std::io::IoSlice;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// Passes nothing.
struct Nothing;

impl Passing for Nothing {
    fn describe(self: Arc<Self>, _: &Channel, _: OwnedFd) -> Boxed<'_, io::Result<OwnedRight>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn realize(self: Arc<Self>, _: &Channel, _: OwnedRight) -> Boxed<'_, io::Result<OwnedFd>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap()
}

/// A program's end of a connection, whose other end is relayed to `channel`.
fn program(channel: OwnedFd) -> UnixStream {
    relayed(channel, UnixStream::pair().unwrap())
}

fn relayed(channel: OwnedFd, (theirs, ours): (UnixStream, UnixStream)) -> UnixStream {
    ours.set_nonblocking(true).unwrap();
    let local = Local::new(ours.into(), Kind::Stream, &Identity::default()).unwrap();
    tokio::spawn(relay(
        local,
        Channel::new(channel).unwrap(),
        Arc::new(Nothing),
    ));
    theirs
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    theirs
}

fn both() -> (UnixStream, UnixStream) {
    let (a, b) = pair();
    (program(a), program(b))
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_both_ends_get_through() {
    let (mut a, mut b) = both();
    let data: Vec<u8> = (0..2_000_000u32).map(|n| (n * 7) as u8).collect();
    let (sent, expected) = (data.clone(), data);
    let a = tokio::task::spawn_blocking(move || {
        a.write_all(&sent).unwrap();
        a.shutdown(Shutdown::Write).unwrap();
        let mut back = String::new();
        a.read_to_string(&mut back).unwrap();
        back
    });
    let b = tokio::task::spawn_blocking(move || {
        let mut got = Vec::new();
        b.read_to_end(&mut got).unwrap();
        assert!(got == expected);
        b.write_all(b"all of it").unwrap();
    });
    b.await.unwrap();
    assert_eq!(a.await.unwrap(), "all of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_reads_is_bounded() {
    let (a, b) = both();
    a.set_nonblocking(true).unwrap();
    let written = tokio::task::spawn_blocking(move || {
        let (mut a, mut written, mut idle) = (a, 0, 0);
        while idle < 20 {
            match a.write(&[0; 10_000]) {
                Ok(n) => (written, idle) = (written + n, 0),
                Err(_) => {
                    idle += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        (a, written)
    });
    let (a, written) = written.await.unwrap();
    assert!((200_000..2_000_000).contains(&written), "{written}");
    drop(a);
    let got = tokio::task::spawn_blocking(move || {
        let (mut b, mut got) = (b, Vec::new());
        b.read_to_end(&mut got).unwrap();
        got.len()
    });
    assert_eq!(got.await.unwrap(), written);
}

/// Passes files by a path that two of do not fit into one message.
struct Long;

impl Passing for Long {
    fn describe(self: Arc<Self>, _: &Channel, _: OwnedFd) -> Boxed<'_, io::Result<OwnedRight>> {
        Box::pin(async {
            Ok(OwnedRight {
                path: vec![b'x'; 4096],
                ..OwnedRight::relayed(Passed::File, 1)
            })
        })
    }

    fn realize(self: Arc<Self>, _: &Channel, _: OwnedRight) -> Boxed<'_, io::Result<OwnedFd>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_whose_paths_are_too_long_are_missed_and_the_data_arrives() {
    let (a, b) = pair();
    let (theirs, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let local = Local::new(ours.into(), Kind::Stream, &Identity::default()).unwrap();
    tokio::spawn(relay(local, Channel::new(a).unwrap(), Arc::new(Long)));
    let fds = [0, 0];
    let rights = [ControlMessage::ScmRights(&fds)];
    let slices = [IoSlice::new(b"data")];
    sendmsg::<()>(
        theirs.as_raw_fd(),
        &slices,
        &rights,
        MsgFlags::empty(),
        None,
    )
    .unwrap();
    let channel = Channel::new(b).unwrap();
    let bytes = channel.receive().await.unwrap();
    let Ok(Message::Data { rights, bytes, .. }) = Message::decode(&bytes) else {
        panic!("{bytes:?}");
    };
    assert_eq!(bytes, b"data");
    let mut passed: Vec<_> = rights.iter().map(|right| right.passed).collect();
    passed.sort_by_key(|passed| *passed == Passed::Lost);
    assert_eq!(passed, [Passed::File, Passed::Lost]);
}

/// A program's end of a connection that keeps records apart, whose other end is relayed to `channel`.
fn program_of_records(channel: OwnedFd) -> OwnedFd {
    let (theirs, ours) = pair();
    relayed_records(channel, ours);
    theirs
}

fn relayed_records(channel: OwnedFd, ours: OwnedFd) {
    let local = Local::new(ours, Kind::Seqpacket, &Identity::default()).unwrap();
    tokio::spawn(relay(
        local,
        Channel::new(channel).unwrap(),
        Arc::new(Nothing),
    ));
}

/// The length of the next record, once there is one.
async fn next_record(program: &OwnedFd) -> usize {
    let mut buf = vec![0; 1 << 20];
    for _ in 0..1000 {
        match recv(program.as_raw_fd(), &mut buf, MsgFlags::empty()) {
            Err(Errno::EAGAIN) => tokio::time::sleep(Duration::from_millis(10)).await,
            received => return received.unwrap(),
        }
    }
    panic!("nothing comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_may_be_longer_than_a_socket_sends_by_default() {
    let (a, b) = pair();
    let (a, b) = (program_of_records(a), program_of_records(b));
    for (from, to) in [(&a, &b), (&b, &a)] {
        setsockopt(from, SndBufForce, &400_000).unwrap();
        for len in [300_000, 1, 350_000] {
            send(from.as_raw_fd(), &vec![7; len], MsgFlags::empty()).unwrap();
            assert_eq!(next_record(to).await, len);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_written_before_a_reset_arrive() {
    let (a, b) = pair();
    let (theirs, ours) = pair();
    send(ours.as_raw_fd(), b"unread", MsgFlags::empty()).unwrap();
    for len in [0, 10, 0, 0, 20] {
        send(theirs.as_raw_fd(), &vec![7; len], MsgFlags::empty()).unwrap();
    }
    drop(theirs);
    relayed_records(a, ours);
    let channel = Channel::new(b).unwrap();
    for len in [0, 10, 0, 0, 20] {
        is_data(&channel, len).await;
    }
    let bytes = channel.receive().await.unwrap();
    let reset = Message::Close(Errno::ECONNRESET as u32);
    assert_eq!(Message::decode(&bytes), Ok(reset));
}

/// The next message of a channel is data, of this length.
async fn is_data(channel: &Channel, len: usize) {
    let bytes = channel.receive().await.unwrap();
    let Ok(Message::Data { bytes, .. }) = Message::decode(&bytes) else {
        panic!("{bytes:?}");
    };
    assert_eq!(bytes.len(), len);
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_for_a_program_that_is_gone_takes_nothing_away() {
    let (a, b) = pair();
    let mut a = program(a);
    let channel = Channel::new(b).unwrap();
    for _ in 0..4 {
        a.write_all(&[7; 1000]).unwrap();
        is_data(&channel, 1000).await;
    }
    a.write_all(&[7; 1000]).unwrap();
    drop(a);
    // It has closed its socket, of which the channel tells behind the data.
    channel.send(&Message::Credit(4000)).await.unwrap();
    is_data(&channel, 1000).await;
    let bytes = channel.receive().await.unwrap();
    assert!(matches!(Message::decode(&bytes), Ok(Message::Close(0))));
    channel.send(&Message::Credit(1000)).await.unwrap();
    channel.send(&Message::Close(0)).await.unwrap();
    assert!(channel.receive().await.unwrap().is_empty());
}

/// What a program reads when the other end is closed that has read nothing of what it has written.
async fn end_after(written: usize) -> io::Result<usize> {
    let (a, b) = pair();
    let mut a = program(a);
    let channel = Channel::new(b).unwrap();
    a.set_nonblocking(true).unwrap();
    let (mut sent, mut came) = (0, 0);
    while sent < written {
        match a.write(&vec![7; (written - sent).min(10_000)]) {
            Ok(len) => sent += len,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        let soon = Duration::from_millis(1);
        while let Ok(bytes) = tokio::time::timeout(soon, channel.receive()).await {
            came += bytes.unwrap().len();
        }
    }
    while came < written.min(150_000) {
        came += channel.receive().await.unwrap().len();
    }
    // What was sent is thrown away by a relay whose program is gone, which says so later.
    channel.send(&Message::Stop).await.unwrap();
    channel
        .send(&Message::Credit(written.min(150_000) as u32))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let reset = Message::Close(Errno::ECONNRESET as u32);
    channel.send(&reset).await.unwrap();
    a.set_nonblocking(false).unwrap();
    let read = tokio::task::spawn_blocking(move || a.read(&mut [0; 10]));
    read.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_of_which_the_relay_has_not_taken_all_sees_a_reset() {
    // Fits into the window and the program's own socket only.
    let reset = end_after(300_000).await.unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(end_after(1000).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_come_before_a_channel_is_lost_is_read() {
    let (a, b) = pair();
    let (theirs, ours) = UnixStream::pair().unwrap();
    setsockopt(&ours, SndBuf, &4096).unwrap();
    let mut a = relayed(a, (theirs, ours));
    let channel = Channel::new(b).unwrap();
    // More than the program's socket has room for, so that some of it waits, and less than what
    // credit is given for: the channel is to be lost with nothing unread.
    let bytes = [9; 40_000];
    for _ in 0..3 {
        let data = Message::Data {
            more: false,
            rights: qtfs_proto::relay::Rights::NONE,
            bytes: &bytes,
        };
        channel.send(&data).await.unwrap();
    }
    drop(channel);
    // Whether this still works is chance.
    let _ = a.write_all(b"to nobody");
    let read = tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        // It ends with ECONNRESET if what was written to nobody was not even read.
        let _ = a.read_to_end(&mut all);
        all.len()
    });
    assert_eq!(read.await.unwrap(), 3 * bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_waits_is_abandoned_unless_something_was_written() {
    let soon = Duration::from_millis(50);
    for writes in [false, true] {
        let (a, b) = pair();
        let mut a = program(a);
        if writes {
            a.write_all(b"for later").unwrap();
        }
        a.shutdown(Shutdown::Write).unwrap();
        let channel = Channel::new(b).unwrap();
        let early = tokio::time::timeout(soon, channel.abandoned()).await;
        assert!(early.is_err(), "the program may read yet");
        drop(a);
        let abandoned = tokio::time::timeout(soon * 20, channel.abandoned()).await;
        assert_eq!(abandoned.is_ok(), !writes);
        if !writes {
            continue;
        }
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let local = Local::new(ours.into(), Kind::Stream, &Identity::default()).unwrap();
        tokio::spawn(relay(local, channel, Arc::new(Nothing)));
        let read = tokio::task::spawn_blocking(move || {
            let mut all = String::new();
            theirs.read_to_string(&mut all).unwrap();
            all
        });
        assert_eq!(read.await.unwrap(), "for later");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_channel_ends_the_connection() {
    let (a, b) = pair();
    let mut a = program(a);
    drop(b);
    let read = tokio::task::spawn_blocking(move || a.read(&mut [0; 10]).unwrap_or(0));
    assert_eq!(read.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_end_the_connection() {
    // Not a message; credit that was not taken; data beyond the window is in the next test.
    let credit = [3, 1, 0, 0, 0];
    for bad in [&[99][..], &credit[..], &[1, 0, 0, 0, 0, 1][..]] {
        let (a, b) = pair();
        let mut a = program(a);
        send(b.as_raw_fd(), bad, MsgFlags::empty()).unwrap();
        let read = tokio::task::spawn_blocking(move || a.read(&mut [0; 10]).unwrap_or(0));
        assert_eq!(read.await.unwrap(), 0, "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_window_ends_the_connection() {
    let (a, b) = pair();
    let mut a = program(a);
    let channel = Channel::new(b).unwrap();
    let bytes = [0; 50_000];
    let data = Message::Data {
        more: false,
        rights: qtfs_proto::relay::Rights::NONE,
        bytes: &bytes,
    };
    // The program reads nothing; what its socket has room for is not counted any more.
    let mut sent = 0;
    while sent < 100 && channel.send(&data).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 100);
    let read = tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        a.read_to_end(&mut all).map_or(0, |_| all.len())
    });
    assert!(read.await.unwrap() < 100 * bytes.len());
}

#[tokio::test]
async fn a_short_read_does_not_mean_that_there_is_no_more() {
    // Each read of a pipe of packets gives one.
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_DIRECT | OFlag::O_NONBLOCK).unwrap();
    let local = Local::new(reader, Kind::PipeReader, &Identity::default()).unwrap();
    for packet in [b"one", b"two"] {
        nix::unistd::write(&writer, packet).unwrap();
    }
    for packet in [b"one", b"two"] {
        let received = tokio::time::timeout(Duration::from_secs(10), local.receive(100));
        match received.await.expect("it is there").unwrap() {
            Input::Data { bytes, .. } => assert_eq!(bytes, packet),
            other => panic!("{other:?}"),
        }
    }
}
