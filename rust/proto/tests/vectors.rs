// SPDX-License-Identifier: GPL-2.0

//! The format in fixed bytes, so that it cannot change by accident.
//!
//! `vectors.txt` has a line for every message, every number and every flag. When the format is
//! meant to change (a new version, a new message, a new flag), write the file anew and look at
//! the difference:
//!
//! ```sh
//! cargo test --test vectors -- --ignored rewrite
//! git diff tests/vectors.txt
//! ```
//!
//! The same bytes are where the fuzzer starts from: `rewrite` also makes `fuzz/corpus/decode/seed-*`.

mod common;

use common::encode;
use common::Field;
use common::Value;
use qtfs_proto::dirent::Entry;
use qtfs_proto::event::Event;
use qtfs_proto::event::{Notified, Wake};
use qtfs_proto::for_each_message;
use qtfs_proto::frame::flag;
use qtfs_proto::frame::HEADER_LEN;
use qtfs_proto::message::*;
use qtfs_proto::*;
use std::fmt::Write as _;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors.txt");
const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/decode/seed-");

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".into();
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

/// The lines of the file as the code has them now.
fn lines() -> Vec<String> {
    let mut lines = vec![
        "# The wire format in bytes. Written by tests/vectors.rs, which says how.".to_owned(),
        format!("VERSION {VERSION_MIN} {VERSION_MAX}"),
        format!("MAGIC {}", hex(&encode(&MAGIC))),
        format!("MAX body {MAX_BODY} data {MAX_DATA} frame {MAX_FRAME} slots {MAX_SLOTS}"),
        format!("CAPABILITIES {}", hex(&encode(&CAPABILITIES))),
    ];
    headers(&mut lines);
    messages(&mut lines);
    events(&mut lines);
    dirents(&mut lines);
    flags(&mut lines);
    lines
}

fn headers(lines: &mut Vec<String>) {
    for kind in [
        Kind::Request,
        Kind::Reply,
        Kind::Event,
        Kind::Ack,
        Kind::Cancel,
        Kind::Bye,
    ] {
        let header = Header {
            kind,
            op: 0x11,
            flags: flag::RETRANSMIT,
            slot: 0x2322,
            credits: 0x3534,
            seq: 0x4746_4544,
            cred: 0x5857_5655,
            status: 0x0967,
            ack: 0x7a79_7877,
            body_len: 0x0101,
            data_len: 0x0002_0304,
        };
        let mut bytes = [0; HEADER_LEN];
        header.write(&mut bytes).expect("the lengths are small");
        lines.push(format!("HEADER {kind:?} {}", hex(&bytes)));
    }
}

fn messages(lines: &mut Vec<String>) {
    macro_rules! message {
        ($req:ident $rep:ident) => {
            let op = <$req as Call>::OP;
            let again = if op.repeatable() { "again" } else { "once" };
            let n = &mut (op as u64 * 1000);
            let (request, reply) = (<$req as Field>::sample(n), <$rep as Field>::sample(n));
            let (request, reply) = (
                <$req as Field>::view(&request),
                <$rep as Field>::view(&reply),
            );
            let (request, reply) = (hex(&encode(&request)), hex(&encode(&reply)));
            lines.push(format!(
                "{} {} {again} request {request}",
                op as u8,
                op.name()
            ));
            lines.push(format!("{} {} {again} reply {reply}", op as u8, op.name()));
        };
    }
    for_each_message!(message);
}

fn events(lines: &mut Vec<String>) {
    let wake = Wake::sample(&mut 0);
    let wake = hex(&encode(&Wake::view(&wake)));
    lines.push(format!("EVENT {} WAKE {wake}", Event::WAKE));
    let notified = Notified::sample(&mut 0);
    let notified = hex(&encode(&Notified::view(&notified)));
    lines.push(format!("EVENT {} NOTIFIED {notified}", Event::NOTIFIED));
}

fn dirents(lines: &mut Vec<String>) {
    let name = Value::Bytes(b"entry".to_vec());
    let attr = Attr::sample(&mut 0);
    for (what, attr) in [("plain", None), ("plus", Some(Attr::view(&attr)))] {
        let name = Name::view(&name);
        let entry = Entry {
            next: 0x0102_0304_0506_0708,
            ino: 0x1112_1314_1516_1718,
            kind: 4,
            name,
            attr,
        };
        lines.push(format!("ENTRY {what} {}", hex(&encode(&entry))));
    }
}

fn flags(lines: &mut Vec<String>) {
    macro_rules! flags {
        ($( $ty:ident { $($flag:ident)* } )*) => { $(
            let mut listed = $ty::NONE;
            $(
                listed = listed.with($ty::$flag);
                lines.push(format!("FLAG {} {} {}", stringify!($ty), stringify!($flag), $ty::$flag.bits()));
            )*
            assert_eq!(listed, $ty::ALL, "a flag is missing in this test");
        )* };
    }
    flags! {
        OpenFlags {
            READ WRITE APPEND CREATE EXCL TRUNC DIRECTORY NONBLOCK SYNC DSYNC NOATIME TMPFILE EXEC LIST
        }
        Opened { OPENED CREATED EOF STREAM POLL ALONE }
        PollEvents { IN PRI OUT ERR HUP NVAL RDNORM RDBAND WRNORM WRBAND MSG RDHUP }
        LookupFlags { REBIND }
        SetattrValid {
            MODE UID GID SIZE ATIME MTIME ATIME_NOW MTIME_NOW KILL_SUID KILL_SGID KILL_PRIV OPEN
        }
        AccessMask { EXEC WRITE READ CHDIR }
        WriteFlags { APPEND DSYNC SYNC WRITEBACK KILL_PRIV CLOSE }
        ReaddirFlags { PLUS }
        UnlinkFlags { DIRECTORY }
        RenameFlags { NOREPLACE EXCHANGE WHITEOUT }
        XattrFlags { CREATE REPLACE }
        LockFlags { WAIT FLOCK OFD RECLAIM }
        NotifyMask {
            ACCESS MODIFY ATTRIB CLOSE_WRITE CLOSE_NOWRITE OPEN MOVED_FROM MOVED_TO CREATE DELETE DELETE_SELF MOVE_SELF
            UNMOUNT OVERFLOW MASK_ADD ISDIR
        }
        ReceiveFlags { WAIT }
        CopyFlags { CLONE DEDUPE CAN_SHORTEN }
        ReadFlags { NONBLOCK DIRECT }
        AttrFlags { NO_XATTR MOUNT_ROOT STREAM MAGIC_LINK }
    }
}

#[test]
fn the_format_is_what_it_was() {
    let file = std::fs::read_to_string(FILE).expect("tests/vectors.txt is there");
    let lines = lines();
    for (expected, line) in file.lines().zip(&lines) {
        assert_eq!(line, expected, "the wire format has changed");
    }
    assert_eq!(
        lines.len(),
        file.lines().count(),
        "the wire format has changed"
    );
}

#[test]
#[ignore = "writes tests/vectors.txt anew"]
fn rewrite() {
    let lines = lines();
    std::fs::write(FILE, lines.join("\n") + "\n").expect("tests/vectors.txt can be written");
    for line in &lines {
        let words: Vec<&str> = line.split(' ').collect();
        // The first byte chooses a decoder, see fuzz/fuzz_targets/decode.rs.
        let (name, first, bytes) = match words[..] {
            ["HEADER", kind, bytes] => (format!("HEADER-{kind}"), 0, bytes),
            ["ENTRY", kind, bytes] => (format!("ENTRY-{kind}"), 2, bytes),
            ["EVENT", _, name, bytes] => (format!("EVENT-{name}"), 127, bytes),
            [op, name, _, "request", bytes] => (format!("{name}-request"), number(op) + 2, bytes),
            [op, name, _, "reply", bytes] => (format!("{name}-reply"), number(op) + 127, bytes),
            _ => continue,
        };
        // Only events have their number in the input as well.
        let op = (words[0] == "EVENT").then(|| number(words[1]));
        let seed = [vec![first], Vec::from_iter(op), unhex(bytes)].concat();
        std::fs::write(format!("{SEEDS}{name}"), seed).expect("seeds can be written");
    }
    let mut frames = vec![1];
    for op in [Op::Ping, Op::Ping] {
        let mut bytes = [0; HEADER_LEN];
        Header::new(Kind::Request, op as u8)
            .write(&mut bytes)
            .expect("the lengths are 0");
        frames.extend(bytes);
    }
    std::fs::write(format!("{SEEDS}frames"), frames).expect("seeds can be written");
}

fn number(op: &str) -> u8 {
    op.parse().expect("opcodes are numbers")
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}
