// SPDX-License-Identifier: GPL-2.0

//! A second, independent description of the wire format, to hold the first one against.
//!
//! A [`Value`] is what a field or message means. [`Field`] says for each type of the protocol which
//! values it can have, what it looks like on the wire, and how the type is made of it. [`table`]
//! derives that for structures: it names their fields once more, so that neither order nor type
//! of a field can change by accident. `for_each_message!` in the tests sees to it that there is a
//! row for every message: without one they do not compile.

// Each test file uses a part.
#![allow(dead_code)]

pub mod table;

use proptest::collection::vec;
use proptest::prelude::*;
use qtfs_proto::relay::{Purpose, SocketType};
use qtfs_proto::*;

/// The meaning of a field, independent of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Num(u64),
    Bytes(Vec<u8>),
    Group(Vec<Value>),
}

impl Value {
    pub fn num(&self) -> u64 {
        match self {
            Value::Num(n) => *n,
            other => panic!("{other:?} is no number"),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            other => panic!("{other:?} is no byte string"),
        }
    }

    pub fn group(&self) -> &[Value] {
        match self {
            Value::Group(fields) => fields,
            other => panic!("{other:?} is no group"),
        }
    }
}

/// A type of the protocol.
pub trait Field<'a>: Sized {
    /// All values that it can have.
    fn strategy() -> BoxedStrategy<Value>;

    /// One value that differs from those of other fields; `n` counts fields.
    fn sample(n: &mut u64) -> Value;

    /// Makes it of a value.
    fn view(value: &'a Value) -> Self;

    /// Appends what a value looks like on the wire.
    fn wire(value: &Value, out: &mut Vec<u8>);
}

/// What `value` of the type `T` looks like on the wire.
pub fn wire<'a, T: Field<'a>>(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    T::wire(value, &mut out);
    out
}

/// Writes with the code under test.
pub fn encode(field: &(impl Encode + ?Sized)) -> Vec<u8> {
    let mut buf = vec![0; MAX_BODY + MAX_DATA];
    let mut w = Writer::new(&mut buf);
    w.put(field).expect("every message fits into a frame");
    let len = w.len();
    buf.truncate(len);
    buf
}

/// A number all bytes of which differ.
fn count(n: &mut u64) -> u64 {
    *n += 1;
    n.wrapping_mul(0x0102_0408_1020_4081)
}

macro_rules! integers {
    ($($ty:ty)*) => { $(
        impl Field<'_> for $ty {
            fn strategy() -> BoxedStrategy<Value> {
                prop_oneof![4 => any::<$ty>(), 1 => Just(<$ty>::MIN), 1 => Just(<$ty>::MAX)]
                    .prop_map(|n| Value::Num(n as u64))
                    .boxed()
            }

            fn sample(n: &mut u64) -> Value {
                Value::Num(count(n) as $ty as u64)
            }

            fn view(value: &Value) -> Self {
                value.num() as $ty
            }

            fn wire(value: &Value, out: &mut Vec<u8>) {
                let bytes = value.num().to_le_bytes();
                out.extend(&bytes[..size_of::<$ty>()]);
            }
        }
    )* };
}

integers!(u8 u16 u32 u64 i64);

/// Types that are a number on the wire.
macro_rules! numbers {
    ($( $ty:ty as $raw:ty, $strategy:expr, $sample:expr, $view:expr; )*) => { $(
        impl Field<'_> for $ty {
            fn strategy() -> BoxedStrategy<Value> {
                ($strategy).prop_map(|n| Value::Num(n as u64)).boxed()
            }

            fn sample(n: &mut u64) -> Value {
                let sample: fn(u64) -> u64 = $sample;
                Value::Num(sample(count(n)))
            }

            fn view(value: &Value) -> Self {
                let view: fn($raw) -> Self = $view;
                view(value.num() as $raw)
            }

            fn wire(value: &Value, out: &mut Vec<u8>) {
                <$raw as Field>::wire(value, out);
            }
        }
    )* };
}

numbers! {
    NodeId as u64, any::<u64>(), |n| n, NodeId;
    FileId as u64, any::<u64>(), |n| n, FileId;
    FsClass as u8, 0..4u8, |n| n % 4, |n| match n {
        0 => FsClass::Regular,
        1 => FsClass::Proc,
        2 => FsClass::Sys,
        _ => FsClass::Cgroup,
    };
    Purpose as u8, 1..7u8, |n| n % 6 + 1, |n| match n {
        1 => Purpose::Connect,
        2 => Purpose::Listen,
        3 => Purpose::Take,
        4 => Purpose::Offer,
        5 => Purpose::File,
        _ => Purpose::ConnectNow,
    };
    SocketType as u8, prop_oneof![Just(1u8), Just(2), Just(5)], |n| n % 2 + 1, |n| match n {
        1 => SocketType::Stream,
        2 => SocketType::Datagram,
        _ => SocketType::Seqpacket,
    };
    LockType as u8, 0..3u8, |n| n % 3, |n| match n {
        0 => LockType::Read,
        1 => LockType::Write,
        _ => LockType::Unlock,
    };
}

macro_rules! flags {
    ($($ty:ident)*) => { $(
        impl Field<'_> for $ty {
            fn strategy() -> BoxedStrategy<Value> {
                any::<u32>().prop_map(|n| Value::Num(u64::from(n & $ty::ALL.bits()))).boxed()
            }

            fn sample(_: &mut u64) -> Value {
                Value::Num(u64::from($ty::ALL.bits()))
            }

            fn view(value: &Value) -> Self {
                $ty::from_bits(value.num() as u32).expect("a strategy gives defined bits only")
            }

            fn wire(value: &Value, out: &mut Vec<u8>) {
                u32::wire(value, out);
            }
        }
    )* };
}

flags! {
    OpenFlags Opened PollEvents LookupFlags SetattrValid AccessMask WriteFlags ReaddirFlags
    UnlinkFlags
    RenameFlags XattrFlags LockFlags NotifyMask ReceiveFlags CopyFlags ReadFlags AttrFlags
}

impl Field<'_> for Time {
    fn strategy() -> BoxedStrategy<Value> {
        (i64::strategy(), 0..1_000_000_000u64)
            .prop_map(|(sec, nsec)| Value::Group(vec![sec, Value::Num(nsec)]))
            .boxed()
    }

    fn sample(n: &mut u64) -> Value {
        Value::Group(vec![i64::sample(n), Value::Num(count(n) % 1_000_000_000)])
    }

    fn view(value: &Value) -> Self {
        let fields = value.group();
        Self {
            sec: fields[0].num() as i64,
            nsec: fields[1].num() as u32,
        }
    }

    fn wire(value: &Value, out: &mut Vec<u8>) {
        i64::wire(&value.group()[0], out);
        u32::wire(&value.group()[1], out);
    }
}

impl<const N: usize> Field<'_> for [u8; N] {
    fn strategy() -> BoxedStrategy<Value> {
        vec(any::<u8>(), N).prop_map(Value::Bytes).boxed()
    }

    fn sample(n: &mut u64) -> Value {
        let start = count(n);
        Value::Bytes((0..N as u64).map(|i| start.wrapping_add(i) as u8).collect())
    }

    fn view(value: &Value) -> Self {
        value
            .bytes()
            .try_into()
            .expect("a strategy gives the right length")
    }

    fn wire(value: &Value, out: &mut Vec<u8>) {
        out.extend(value.bytes());
    }
}

/// Bytes without those in `without`, mostly short, sometimes as long as may be.
fn text(min: usize, max: usize, without: &'static [u8]) -> BoxedStrategy<Vec<u8>> {
    let byte = any::<u8>().prop_map(|b| if without.contains(&b) { b'x' } else { b });
    prop_oneof![
        8 => vec(byte.clone(), min..=max.min(24)),
        1 => vec(byte.clone(), max.min(4096)),
        1 => vec(byte, min..=max.min(4096)),
    ]
    .boxed()
}

fn name(min: usize) -> BoxedStrategy<Vec<u8>> {
    text(min, NAME_MAX, b"/\0")
        .prop_filter("dots", |b| b != b"." && b != b"..")
        .boxed()
}

macro_rules! byte_strings {
    ($( $ty:ident, $strategy:expr, $sample:literal; )*) => { $(
        impl<'a> Field<'a> for $ty<'a> {
            fn strategy() -> BoxedStrategy<Value> {
                ($strategy).prop_map(Value::Bytes).boxed()
            }

            fn sample(n: &mut u64) -> Value {
                *n += 1;
                Value::Bytes(format!($sample, n).into_bytes())
            }

            fn view(value: &'a Value) -> Self {
                $ty::new(value.bytes()).expect("a strategy keeps the rules")
            }

            fn wire(value: &Value, out: &mut Vec<u8>) {
                out.extend((value.bytes().len() as u32).to_le_bytes());
                out.extend(value.bytes());
            }
        }
    )* };
}

byte_strings! {
    Name, name(1), "name{}";
    OptName, name(0), "maybe{}";
    Path, text(0, PATH_MAX, b"\0"), "/some/path{}";
    XattrName, text(1, NAME_MAX, b"\0"), "user.{}";
    Bytes, text(0, XATTR_MAX, b""), "\0bytes{}";
}

macro_rules! lists {
    ($($item:ty)*) => { $(
        impl<'a> Field<'a> for List<'a, $item> {
            fn strategy() -> BoxedStrategy<Value> {
                vec(<$item>::strategy(), 0..12).prop_map(Value::Group).boxed()
            }

            fn sample(n: &mut u64) -> Value {
                Value::Group((0..3).map(|_| <$item>::sample(n)).collect())
            }

            fn view(value: &'a Value) -> Self {
                let items = value.group();
                // Never freed; a list has no other constructor that is not under test itself.
                let buf = vec![0; items.len() * <$item as types::Fixed>::LEN].leak();
                List::pack(items.iter().map(<$item>::view), buf).expect("the buffer is large enough")
            }

            fn wire(value: &Value, out: &mut Vec<u8>) {
                out.extend((value.group().len() as u32).to_le_bytes());
                value.group().iter().for_each(|item| <$item>::wire(item, out));
            }
        }
    )* };
}

lists!(u32 FileId Forget);
