// SPDX-License-Identifier: GPL-2.0

//! Properties of what messages are made of: header, directory entries, names, flags.

mod common;

use common::encode;
use common::wire;
use common::Field;
use common::Value;
use proptest::prelude::*;
use qtfs_proto::dirent::entries;
use qtfs_proto::dirent::Entry;
use qtfs_proto::frame::errno;
use qtfs_proto::frame::flag;
use qtfs_proto::frame::HEADER_LEN;
use qtfs_proto::*;

const KINDS: [Kind; 6] = [
    Kind::Request,
    Kind::Reply,
    Kind::Event,
    Kind::Ack,
    Kind::Cancel,
    Kind::Bye,
];

prop_compose! {
    fn header()(
        kind in prop::sample::select(&KINDS[..]),
        (op, flags, slot, credits) in (any::<u8>(), 0..=flag::ALL, any::<u16>(), any::<u16>()),
        (seq, cred, status, ack) in (any::<u32>(), any::<u32>(), 0..4096u32, any::<u32>()),
        (body_len, data_len) in (0..=MAX_BODY, 0..=MAX_DATA),
    ) -> Header {
        Header { kind, op, flags, slot, credits, seq, cred, status, ack, body_len, data_len }
    }
}

proptest! {
    #[test]
    fn a_header_is_read_as_it_was_written(header in header()) {
        let mut bytes = [0; HEADER_LEN];
        header.write(&mut bytes).unwrap();
        assert_eq!(Header::read(&bytes), Ok(header));
        let len = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(len as usize, HEADER_LEN + header.body_len + header.data_len);
    }

    #[test]
    fn a_header_of_noise_is_refused_or_has_one_form(
        mut bytes in any::<[u8; HEADER_LEN]>(),
        lengths in any::<Option<(u32, u32)>>(),
        plain: bool,
    ) {
        if let Some((len, data)) = lengths {
            bytes[..4].copy_from_slice(&(len % (MAX_FRAME as u32 + 10)).to_le_bytes());
            bytes[24..28].copy_from_slice(&(data % (MAX_DATA as u32 + 10)).to_le_bytes());
        }
        if plain {
            bytes[4] %= 6;
            (bytes[6], bytes[7]) = (bytes[6] & 1, 0);
            (bytes[21], bytes[22], bytes[23]) = (bytes[21] & 15, 0, 0);
        }
        if let Ok(header) = Header::read(&bytes) {
            assert!(header.body_len <= MAX_BODY && header.data_len <= MAX_DATA);
            let mut again = [0; HEADER_LEN];
            header.write(&mut again).unwrap();
            assert_eq!(again, bytes);
        }
    }
}

/// A header with the lengths that are on the wire, whatever they are.
fn with_lengths(len: u32, data_len: u32) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    Header::new(Kind::Request, 4).write(&mut bytes).unwrap();
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes[24..28].copy_from_slice(&data_len.to_le_bytes());
    bytes
}

#[test]
fn lengths_of_a_header_are_bounded() {
    let invalid = Err(Error::Invalid("length"));
    let (header, body, data) = (HEADER_LEN as u32, MAX_BODY as u32, MAX_DATA as u32);
    assert!(Header::read(&with_lengths(header, 0)).is_ok());
    assert!(Header::read(&with_lengths(header + body + data, data)).is_ok());
    for (len, data_len) in [
        (0, 0),
        (header - 1, 0),
        (header, 1),
        (header + body + 1, 0),
        (header + body + data, data - 1),
        (header + data + 1, data + 1),
        (u32::MAX, 0),
        (u32::MAX, u32::MAX),
        (0, u32::MAX),
        (header, u32::MAX),
    ] {
        assert_eq!(
            Header::read(&with_lengths(len, data_len)),
            invalid,
            "{len} {data_len}"
        );
    }
    let mut out = [0; HEADER_LEN];
    let header = Header::new(Kind::Request, 1);
    assert!(Header {
        body_len: MAX_BODY + 1,
        ..header
    }
    .write(&mut out)
    .is_err());
    assert!(Header {
        data_len: MAX_DATA + 1,
        ..header
    }
    .write(&mut out)
    .is_err());
    assert!(Header {
        data_len: usize::MAX,
        body_len: usize::MAX,
        ..header
    }
    .write(&mut out)
    .is_err());
}

#[test]
fn kinds_flags_and_status_of_a_header_are_checked() {
    let good = with_lengths(HEADER_LEN as u32, 0);
    for kind in 0..=u8::MAX {
        let mut bytes = good;
        bytes[4] = kind;
        assert_eq!(
            Header::read(&bytes).is_ok(),
            (1..=6).contains(&kind),
            "kind {kind}"
        );
    }
    for bit in 0..16 {
        let mut bytes = good;
        bytes[6..8].copy_from_slice(&(1u16 << bit).to_le_bytes());
        let expected = flag::ALL & (1 << bit) != 0;
        assert_eq!(Header::read(&bytes).is_ok(), expected, "flag bit {bit}");
    }
    for status in [0u32, 1, 4095, 4096, u32::MAX] {
        let mut bytes = good;
        bytes[20..24].copy_from_slice(&status.to_le_bytes());
        assert_eq!(
            Header::read(&bytes).is_ok(),
            status <= 4095,
            "status {status}"
        );
    }
}

#[test]
fn programs_get_no_errno_that_is_none_of_theirs() {
    for number in 0..=133 {
        assert_eq!(errno(number), number);
    }
    // ERESTARTSYS, EIOCBQUEUED and others that the kernel keeps to itself, and what Linux has not.
    for number in (134..=4095).chain([4096, i32::MAX as u32, u32::MAX]) {
        assert_eq!(errno(number), 5, "{number}");
    }
}

/// What an entry is made of: next, ino, kind, name, attributes.
type EntryValue = (u64, u64, u8, Value, Option<Value>);

fn entry_value() -> impl Strategy<Value = EntryValue> {
    (
        any::<u64>(),
        any::<u64>(),
        0..=15u8,
        Name::strategy(),
        prop::option::of(Attr::strategy()),
    )
}

fn entry((next, ino, kind, name, attr): &EntryValue) -> Entry<'_> {
    let attr = attr.as_ref().map(Attr::view);
    Entry {
        next: *next,
        ino: *ino,
        kind: *kind,
        name: Name::view(name),
        attr,
    }
}

fn entry_wire((next, ino, kind, name, attr): &EntryValue) -> Vec<u8> {
    let mut bytes = [next.to_le_bytes(), ino.to_le_bytes()].concat();
    bytes.extend([*kind, u8::from(attr.is_some())]);
    bytes.extend(wire::<Name>(name));
    bytes.extend(attr.as_ref().map(wire::<Attr>).unwrap_or_default());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn entries_are_read_as_they_were_written(list in prop::collection::vec(entry_value(), 0..6)) {
        let data: Vec<u8> = list.iter().flat_map(entry_wire).collect();
        let written: Vec<u8> = list.iter().flat_map(|value| encode(&entry(value))).collect();
        assert_eq!(written, data);
        let read: Result<Vec<_>, _> = entries(&data).collect();
        assert_eq!(read.unwrap(), list.iter().map(entry).collect::<Vec<_>>());

        // Cut anywhere: whole entries are read, then one error, then the end.
        for len in 0..data.len() {
            let read: Vec<_> = entries(&data[..len]).collect();
            let whole = read.iter().take_while(|entry| entry.is_ok()).count();
            assert!(whole <= read.len() && read.len() <= whole + 1);
            let at_border = read.len() == whole;
            let border: Vec<usize> = list
                .iter()
                .scan(0, |sum, value| { *sum += entry_wire(value).len(); Some(*sum) })
                .collect();
            assert_eq!(at_border, len == 0 || border.contains(&len));
        }
    }

    #[test]
    fn entries_of_noise_end(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        let read: Vec<_> = entries(&data).collect();
        assert!(read.iter().rev().skip(1).all(Result::is_ok));
    }
}

#[test]
fn entries_are_checked() {
    let good = entry_wire(&(1, 2, 4, Value::Bytes(b"x".to_vec()), None));
    assert!(entries(&good).all(|e| e.is_ok()));
    for (at, byte, what) in [
        (16, 16, "entry type"),
        (17, 2, "entry attributes"),
        (22, b'/', "name"),
    ] {
        let mut bad = good.clone();
        bad[at] = byte;
        bad.extend(&good);
        let read: Vec<_> = entries(&bad).collect();
        assert_eq!(read, [Err(Error::Invalid(what))], "and nothing after it");
    }
}

#[test]
fn names_are_checked() {
    let long = [b'x'; 4096];
    for bad in [
        &b""[..],
        b".",
        b"..",
        b"a/b",
        b"/",
        b"a\0",
        b"\0",
        &long[..256],
    ] {
        assert_eq!(Name::new(bad), Err(Error::Invalid("name")), "{bad:?}");
        assert_eq!(OptName::new(bad).is_ok(), bad.is_empty(), "{bad:?}");
    }
    for good in [&b"..."[..], b".x", b"..x", b" ", b"\xff\n", &long[..255]] {
        assert_eq!(Name::new(good).unwrap().bytes(), good);
        assert_eq!(
            OptName::new(good).unwrap().name(),
            Some(Name::new(good).unwrap())
        );
    }
    assert_eq!(OptName::new(b"").unwrap().name(), None);
    assert!(Path::new(&long[..4095]).is_ok() && Path::new(b"").is_ok());
    assert!(Path::new(&long).is_err() && Path::new(b"a\0").is_err());
    assert!(XattrName::new(&long[..255]).is_ok());
    assert!(XattrName::new(b"").is_err() && XattrName::new(&long[..256]).is_err());
}

#[test]
fn a_length_beyond_the_message_is_refused() {
    for len in [1u32, 255, 4096, i32::MAX as u32, u32::MAX] {
        let bytes = len.to_le_bytes();
        assert!(Reader::new(&bytes).get::<Name>().is_err());
        assert!(Reader::new(&bytes).get::<Bytes>().is_err());
        assert_eq!(
            Reader::new(&bytes).get::<List<'_, u32>>(),
            Err(Error::Truncated)
        );
        assert_eq!(
            Reader::new(&bytes).get::<List<'_, Forget>>(),
            Err(Error::Truncated)
        );
    }
}

#[test]
fn lists_have_what_was_packed() {
    let mut buf = [0; 12];
    let list = List::pack([1u32, 2, 3], &mut buf).unwrap();
    assert_eq!((list.len(), list.is_empty()), (3, false));
    assert_eq!(list.iter().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(List::<u32>::empty().is_empty());
    assert_eq!(List::pack([1u32, 2], &mut [0; 7]), Err(Error::NoSpace));
}

#[test]
fn enumerations_and_times_are_checked() {
    let read = |byte: u8| Reader::new(&[byte]).get::<FsClass>().is_ok();
    assert_eq!((0..=u8::MAX).filter(|b| read(*b)).count(), 4);
    let read = |byte: u8| Reader::new(&[byte]).get::<LockType>().is_ok();
    assert_eq!((0..=u8::MAX).filter(|b| read(*b)).count(), 3);
    for (nsec, good) in [
        (0, true),
        (999_999_999, true),
        (1_000_000_000, false),
        (u32::MAX, false),
    ] {
        let bytes = encode(&Time { sec: -1, nsec });
        assert_eq!(Reader::new(&bytes).get::<Time>().is_ok(), good, "{nsec}");
    }
}

/// Every bit that is not defined is refused, in every type of flags.
#[test]
fn unknown_flag_bits_are_refused() {
    macro_rules! check {
        ($($ty:ident)*) => { $(
            assert_eq!($ty::NONE.bits(), 0);
            for bit in 0..32 {
                let bits = 1u32 << bit;
                let known = $ty::ALL.bits() & bits != 0;
                for bits in [bits, bits | $ty::ALL.bits()] {
                    let read = Reader::new(&bits.to_le_bytes()).get::<$ty>();
                    assert_eq!(read.is_ok(), known, "{} bit {bit}", stringify!($ty));
                    assert_eq!($ty::from_bits(bits).is_some(), known);
                    if let Ok(flags) = read {
                        assert_eq!(flags.bits(), bits);
                        assert!($ty::ALL.has(flags));
                        assert_eq!(flags.without(flags), $ty::NONE);
                        assert_eq!($ty::NONE.with(flags), flags);
                        assert_eq!($ty::NONE.with_if(false, flags), $ty::NONE);
                        assert_eq!($ty::NONE.with_if(true, flags), flags);
                    }
                }
            }
        )* };
    }
    check! {
        OpenFlags Opened PollEvents LookupFlags SetattrValid AccessMask WriteFlags ReaddirFlags UnlinkFlags
        RenameFlags XattrFlags LockFlags NotifyMask ReceiveFlags CopyFlags ReadFlags AttrFlags
    }
}

#[test]
fn targets_are_made_by_name_or_by_identity() {
    let (node, dir, name) = (NodeId(1), NodeId(2), Name::new(b"x").unwrap());
    let by_node = Target::node(node);
    assert_eq!(
        (by_node.node, by_node.dir, by_node.name.name()),
        (node, NodeId::NONE, None)
    );
    let by_name = Target::entry(dir, name, NodeId::NONE);
    assert_eq!(
        (by_name.node, by_name.dir, by_name.name.name()),
        (NodeId::NONE, dir, Some(name))
    );
    assert!(NodeId::NONE.is_none() && !node.is_none());
}

#[test]
fn a_writer_goes_back() {
    let mut buf = [0; 8];
    let mut w = Writer::new(&mut buf);
    assert!(w.is_empty());
    w.put(&1u32).unwrap();
    assert_eq!((w.len(), w.space()), (4, 4));
    assert_eq!(w.put(&1u64), Err(Error::NoSpace));
    assert_eq!(w.len(), 4, "what does not fit leaves nothing behind");
    w.truncate(100);
    assert_eq!(w.len(), 4);
    w.truncate(0);
    w.put(&2u64).unwrap();
    assert_eq!(buf, 2u64.to_le_bytes());
}
