// SPDX-License-Identifier: GPL-2.0

//! What to run and in which surroundings: the message START.

use crate::wire::put_bytes;
use crate::wire::put_count;
use crate::wire::Error;
use crate::wire::Reader;
use bytes::BufMut;
use bytes::Bytes;

/// Most supplementary groups of a process (NGROUPS_MAX).
const MAX_GROUPS: usize = 65536;
/// Most kinds of resource limits; Linux has 16.
const MAX_LIMITS: usize = 64;

/// The program gets a terminal.
const TTY: u32 = 1 << 0;
/// Descendants of the program live on when it has ended.
const DETACH: u32 = 1 << 1;
/// The program's stdin is `/dev/null`.
const NULL_STDIN: u32 = 1 << 2;
const KNOWN_FLAGS: u32 = TTY | DETACH | NULL_STDIN;

/// Size of a terminal, as in `struct winsize` of ioctl_tty(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Rows, in characters.
    pub rows: u16,
    /// Columns, in characters.
    pub columns: u16,
    /// Width in pixels, 0 when unknown.
    pub width: u16,
    /// Height in pixels, 0 when unknown.
    pub height: u16,
}

impl Size {
    pub(crate) fn put(self, out: &mut impl BufMut) {
        for side in [self.rows, self.columns, self.width, self.height] {
            out.put_u16_le(side);
        }
    }

    pub(crate) fn take(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self {
            rows: reader.u16()?,
            columns: reader.u16()?,
            width: reader.u16()?,
            height: reader.u16()?,
        })
    }
}

/// Who a process is, as in credentials(7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// A resource limit, as in setrlimit(2); `u64::MAX` is RLIM_INFINITY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Which one: RLIMIT_CPU is 0.
    pub resource: u8,
    /// The soft limit.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}

/// A program to be started as the caller would have started it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The program gets a terminal of this size.
    pub tty: Option<Size>,
    /// Descendants of the program live on when it has ended.
    pub detach: bool,
    /// The program's stdin is `/dev/null`, as the caller's is.
    pub null_stdin: bool,
    /// Bytes of stdout, and of stderr, that may be sent before the first CREDIT.
    pub window: u32,
    /// File mode creation mask, umask(2).
    pub umask: u32,
    /// Nice value, -20 to 19.
    pub nice: i32,
    /// Signals that the caller ignores: bit N - 1 for signal N.
    pub ignored: u64,
    /// Who the caller is. Whether that is believed is the server's policy.
    pub caller: Identity,
    /// `USER[:GROUP]`, names or numbers, that the caller asks for; empty for itself.
    pub user: Bytes,
    /// The caller's resource limits.
    pub limits: Vec<Limit>,
    /// Working directory, an absolute path.
    pub directory: Bytes,
    /// The program and its arguments; never empty.
    pub arguments: Vec<Bytes>,
    /// Environment, `NAME=VALUE` each.
    pub environment: Vec<Bytes>,
}

impl Start {
    /// Appends the payload.
    pub fn put(&self, out: &mut impl BufMut) {
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        out.put_u32_le(
            flag(self.tty.is_some(), TTY)
                | flag(self.detach, DETACH)
                | flag(self.null_stdin, NULL_STDIN),
        );
        self.tty.unwrap_or_default().put(out);
        out.put_u32_le(self.window);
        out.put_u32_le(self.umask);
        out.put_i32_le(self.nice);
        out.put_u64_le(self.ignored);
        out.put_u32_le(self.caller.uid);
        out.put_u32_le(self.caller.gid);
        put_count(out, self.caller.groups.len());
        for group in &self.caller.groups {
            out.put_u32_le(*group);
        }
        put_bytes(out, &self.user);
        put_count(out, self.limits.len());
        for limit in &self.limits {
            out.put_u8(limit.resource);
            out.put_u64_le(limit.soft);
            out.put_u64_le(limit.hard);
        }
        put_bytes(out, &self.directory);
        for list in [&self.arguments, &self.environment] {
            put_count(out, list.len());
            for text in list {
                put_bytes(out, text);
            }
        }
    }

    /// Reads and checks the payload.
    pub fn take(reader: &mut Reader) -> Result<Self, Error> {
        let flags = reader.u32()?;
        if flags & !KNOWN_FLAGS != 0 {
            return Err(Error::Value("flag"));
        }
        let size = Size::take(reader)?;
        let start = Self {
            tty: (flags & TTY != 0).then_some(size),
            detach: flags & DETACH != 0,
            null_stdin: flags & NULL_STDIN != 0,
            window: reader.u32()?,
            umask: reader.u32()?,
            nice: reader.i32()?,
            ignored: reader.u64()?,
            caller: Identity {
                uid: reader.u32()?,
                gid: reader.u32()?,
                groups: reader.list(4, Reader::u32)?,
            },
            user: reader.text("user")?,
            limits: reader.list(17, |reader| {
                Ok(Limit {
                    resource: reader.u8()?,
                    soft: reader.u64()?,
                    hard: reader.u64()?,
                })
            })?,
            directory: reader.text("directory")?,
            arguments: reader.list(4, |reader| reader.text("argument"))?,
            environment: reader.list(4, |reader| reader.text("environment variable"))?,
        };
        start.check(size)?;
        Ok(start)
    }

    fn check(&self, size: Size) -> Result<(), Error> {
        let checks = [
            (
                self.tty.is_some() || size == Size::default(),
                "terminal size",
            ),
            (self.umask <= 0o777, "umask"),
            ((-20..=19).contains(&self.nice), "nice value"),
            (self.caller.groups.len() <= MAX_GROUPS, "number of groups"),
            (self.limits.len() <= MAX_LIMITS, "number of resource limits"),
            (
                self.limits.iter().all(|limit| limit.soft <= limit.hard),
                "resource limit",
            ),
            (self.directory.first() == Some(&b'/'), "directory"),
            (
                self.arguments.first().is_some_and(|name| !name.is_empty()),
                "program",
            ),
        ];
        match checks.iter().find(|(good, _)| !good) {
            Some((_, what)) => Err(Error::Value(what)),
            None => Ok(()),
        }
    }
}
