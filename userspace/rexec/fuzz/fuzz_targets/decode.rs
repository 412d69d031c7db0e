// SPDX-License-Identifier: GPL-2.0

//! Whatever bytes come: decoding never panics, and what is accepted has one form only, so that
//! writing it again gives the same bytes.
//!
//! The first byte of an input chooses what the rest is: odd a connection, as a receiver takes
//! messages from it; even what a keeper is asked to run.

#![no_main]

use bytes::Bytes;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use libfuzzer_sys::Corpus;
use qtfs_rexec::codec::Header;
use qtfs_rexec::codec::HEADER;
use qtfs_rexec::process::launch::Launch;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((&what, bytes)) = input.split_first() else {
        return Corpus::Reject;
    };
    let bytes = Bytes::copy_from_slice(bytes);
    match what % 2 {
        0 => launch(bytes),
        _ => connection(bytes),
    }
    Corpus::Keep
});

fn connection(mut bytes: Bytes) {
    while let Some(head) = bytes.first_chunk::<HEADER>() {
        let Ok(header) = Header::decode(*head) else {
            return;
        };
        if bytes.len() - HEADER < header.len {
            return;
        }
        let whole = bytes.split_to(HEADER + header.len);
        let Ok(message) = header.message(whole.slice(HEADER..)) else {
            return;
        };
        assert!(message.fits());
        let mut again = BytesMut::new();
        message.encode(&mut again);
        // A HELLO of a later version may say more than is kept.
        if !header.is_hello() {
            assert_eq!(again, whole);
        }
    }
}

fn launch(bytes: Bytes) {
    if let Ok(launch) = Launch::decode(bytes) {
        let again = Launch::decode(launch.encode()).expect("it was read before");
        assert_eq!(again, launch);
    }
}
