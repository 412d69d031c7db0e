// SPDX-License-Identifier: GPL-2.0

//! The wire format of qtfs.
//!
//! Two machines speak it: the client (`qtfs.ko` on the DPU) and the server (`qtfs_server.ko` on
//! HOST). Everything here is a pure function of bytes: no allocation, no `unsafe`, no kernel type,
//! so that the same source is compiled into both modules and into userspace, where it is
//! property-tested and fuzzed.
//!
//! - [`wire`]: reading and writing little-endian fields with checked access.
//! - [`frame`]: the header in front of every message.
//! - [`types`]: the ids, flags and small structures that messages are made of.
//! - [`attr`]: the attributes of a file system object.
//! - [`message`]: the table of messages, one row each.
//! - [`event`]: what the server tells without being asked.
//! - [`relay`]: what goes through a channel, one connection of unix sockets.
//! - [`dirent`]: the list of directory entries that a READDIR reply carries as data.
//!
//! `Documentation/protocol.md` describes what the messages mean and in which order they come.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod attr;
pub mod dirent;
pub mod event;
pub mod frame;
pub mod message;
pub mod relay;
pub mod types;
pub mod wire;

pub use attr::Attr;
pub use frame::{Header, Kind};
pub use message::{Call, Op, Request};
pub use types::*;
pub use wire::{Decode, Encode, Error, Reader, Writer};

/// The lowest protocol version that this code speaks.
pub const VERSION_MIN: u16 = 1;
/// The highest protocol version that this code speaks.
pub const VERSION_MAX: u16 = 1;
/// First field of [`message::Hello`]: the bytes `qtfs`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"qtfs");
/// The TCP port that a server listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 12345;

/// Longest body (fixed fields, names, paths, xattr values) in bytes.
pub const MAX_BODY: usize = 72 * 1024;
/// Longest bulk data section in bytes.
pub const MAX_DATA: usize = 1024 * 1024;
/// Longest frame in bytes: header, body and data.
pub const MAX_FRAME: usize = frame::HEADER_LEN + MAX_BODY + MAX_DATA;
/// Most slots that one session may have.
pub const MAX_SLOTS: u16 = 1024;
/// Capabilities that matter to files, in [`message::Credential`]: bits as in Linux's
/// `capability.h`. A client sends no others, a server ignores others.
///
/// Besides those that every file system asks for: `SYS_ADMIN` for `trusted.*` attributes,
/// `SYS_RESOURCE` for reserved blocks, `MAC_*` for labels of security modules; and those that files
/// of procfs and the like ask for: `SYS_PTRACE` and `CHECKPOINT_RESTORE` about other processes,
/// `SYS_RAWIO` for `kcore`, `SYSLOG` for `kmsg` and addresses, `NET_ADMIN` below `/proc/sys/net`,
/// `SETPCAP`, `SYS_MODULE`, `SYS_NICE`, `AUDIT_CONTROL`, `PERFMON` and `BPF` for single settings.
pub const CAPABILITIES: u64 = (1 << 0) // CHOWN
    | (1 << 1) // DAC_OVERRIDE
    | (1 << 2) // DAC_READ_SEARCH
    | (1 << 3) // FOWNER
    | (1 << 4) // FSETID
    | (1 << 8) // SETPCAP
    | (1 << 9) // LINUX_IMMUTABLE
    | (1 << 12) // NET_ADMIN
    | (1 << 16) // SYS_MODULE
    | (1 << 17) // SYS_RAWIO
    | (1 << 19) // SYS_PTRACE
    | (1 << 21) // SYS_ADMIN
    | (1 << 23) // SYS_NICE
    | (1 << 24) // SYS_RESOURCE
    | (1 << 27) // MKNOD
    | (1 << 28) // LEASE
    | (1 << 30) // AUDIT_CONTROL
    | (1 << 31) // SETFCAP
    | (1 << 32) // MAC_OVERRIDE
    | (1 << 33) // MAC_ADMIN
    | (1 << 34) // SYSLOG
    | (1 << 38) // PERFMON
    | (1 << 39) // BPF
    | (1 << 40); // CHECKPOINT_RESTORE
/// Most supplementary groups in one credential, as Linux's `NGROUPS_MAX`.
pub const MAX_GROUPS: usize = 65536 / 4;
/// Longest name of a directory entry in bytes, as Linux's `NAME_MAX`.
pub const NAME_MAX: usize = 255;
/// Longest path or symlink target in bytes without its NUL, as Linux's `PATH_MAX - 1`.
pub const PATH_MAX: usize = 4095;
/// Longest extended attribute value or list in bytes, as Linux's `XATTR_SIZE_MAX`.
pub const XATTR_MAX: usize = 65536;
