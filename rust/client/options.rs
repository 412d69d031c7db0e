// SPDX-License-Identifier: GPL-2.0

//! Mount options.

use kernel::{
    prelude::*,
    str::CStr, //
};
use qtfs_net::Address;
use qtfs_proto::{
    FsClass,
    PATH_MAX, //
};
use qtfs_vfs::{
    context::Log,
    param, //
};

use crate::mount::Mount;

/// Connections of a mount unless told otherwise: one for metadata, one for bulk data.
const NCONNECT: u16 = 2;
/// Most connections of a mount.
const NCONNECT_MAX: u16 = 16;
/// With `soft`, how long a request may take unless told otherwise, in milliseconds.
const TIMEO_MS: u32 = 60_000;

/// Where this machine's own procfs is unless told otherwise.
pub(crate) const LOCAL_PROC: &[u8] = b"/local_proc";
/// Longest path of it; `/thread-self` follows.
const LOCAL_PROC_MAX: usize = PATH_MAX - 16;

/// What a mount shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Files.
    Plain,
    /// HOST's procfs.
    Proc,
    /// HOST's sysfs, cgroups or the like.
    Sys,
}

/// Options of one mount.
pub(crate) struct Options {
    /// `server=`
    server: Option<Address>,
    /// `port=`
    port: Option<u16>,
    /// `nconnect=`
    nconnect: Option<u16>,
    /// `soft` or `hard`
    soft: Option<bool>,
    /// `timeo=` in milliseconds
    timeo: Option<u32>,
    /// `proc` or `sys`
    mode: Option<Mode>,
    /// `local_proc=`
    local_proc: Option<KVVec<u8>>,
}

impl Options {
    /// What holds when nothing is given.
    pub(crate) const fn new() -> Self {
        Self {
            server: None,
            port: None,
            nconnect: None,
            soft: None,
            timeo: None,
            mode: None,
            local_proc: None,
        }
    }

    /// Takes one option.
    pub(crate) fn parse(&mut self, key: &CStr, value: Option<&CStr>, log: &Log) -> Result {
        let text = value.map_or(&b""[..], CStr::to_bytes);
        match (key.to_bytes(), value.is_some()) {
            (b"server", true) => {
                self.server = Some(Address::parse(text, 0).inspect_err(|_| {
                    let text = Text(text);
                    let what = "is no IPv4 or IPv6 address; give one, as in server=10.0.0.1";
                    log.error(fmt!("server={text} {what}"));
                })?);
            }
            (b"port", true) => self.port = Some(number(key, text, 1, u16::MAX.into(), log)? as u16),
            (b"nconnect", true) => {
                let lanes = number(key, text, 1, NCONNECT_MAX.into(), log)? as u16;
                self.nconnect = Some(lanes);
            }
            (b"timeo", true) => {
                // As for NFS, in tenths of a second.
                self.timeo = Some(number(key, text, 1, 6000, log)? * 100);
                self.soft = Some(true);
            }
            (b"local_proc", true) => {
                if text.first() != Some(&b'/') || text.len() > LOCAL_PROC_MAX {
                    let text = Text(text);
                    log.error(fmt!("local_proc={text}: give an absolute path"));
                    return Err(EINVAL);
                }
                let mut path = KVVec::with_capacity(text.len(), GFP_KERNEL)?;
                path.extend_from_slice(text, GFP_KERNEL)?;
                self.local_proc = Some(path);
            }
            (b"soft", false) => self.soft = Some(true),
            (b"hard", false) => self.soft = Some(false),
            (b"proc", false) => self.set_mode(Mode::Proc, log)?,
            (b"sys", false) => self.set_mode(Mode::Sys, log)?,
            (b"server" | b"port" | b"nconnect" | b"timeo" | b"local_proc", false) => {
                log.error(fmt!("option {} needs a value", Text(key.to_bytes())));
                return Err(EINVAL);
            }
            (b"soft" | b"hard" | b"proc" | b"sys", true) => {
                log.error(fmt!("option {} takes no value", Text(key.to_bytes())));
                return Err(EINVAL);
            }
            // The VFS takes `source` itself, and names what it does not know either.
            _ => return Err(ENOPARAM),
        }
        Ok(())
    }

    fn set_mode(&mut self, mode: Mode, log: &Log) -> Result {
        if self.mode.is_some_and(|other| other != mode) {
            log.error(fmt!("give one of the options proc and sys, not both"));
            return Err(EINVAL);
        }
        self.mode = Some(mode);
        Ok(())
    }

    /// What the mount shows, by option or by the kind of file system that HOST has there.
    ///
    /// Fails with [`EINVAL`] when the two do not agree.
    pub(crate) fn mode(&self, class: FsClass) -> Result<Mode> {
        let found = match class {
            FsClass::Regular => Mode::Plain,
            FsClass::Proc => Mode::Proc,
            FsClass::Sys | FsClass::Cgroup => Mode::Sys,
        };
        match self.mode {
            Some(asked) if asked != found => Err(EINVAL),
            _ => Ok(found),
        }
    }

    /// Why [`Options::mode`] failed, and what to do.
    pub(crate) fn why_other(&self) -> &'static str {
        match self.mode {
            Some(Mode::Proc) => "is no procfs; mount HOST's /proc, or leave the option proc out",
            _ => "is no sysfs and no cgroup; mount HOST's /sys, or leave the option sys out",
        }
    }

    /// Where this machine's own procfs is.
    pub(crate) fn local_proc(&self) -> Result<KVVec<u8>> {
        let path = self.local_proc.as_deref().unwrap_or(LOCAL_PROC);
        let mut copy = KVVec::with_capacity(path.len(), GFP_KERNEL)?;
        copy.extend_from_slice(path, GFP_KERNEL)?;
        Ok(copy)
    }

    /// The server, by option or by the module's parameters.
    pub(crate) fn server(&self, log: &Log) -> Result<Address> {
        let port = self.port.unwrap_or_else(param::server_port);
        match self.server {
            Some(Address::V4(addr, _)) => Ok(Address::V4(addr, port)),
            Some(Address::V6(addr, _)) => Ok(Address::V6(addr, port)),
            None => {
                let ip = param::server_ip().to_bytes();
                Address::parse(ip, port).inspect_err(|_| {
                    let what = "is no IPv4 or IPv6 address; load the module with another, or mount";
                    log.error(fmt!(
                        "parameter qtfs_server_ip={} {what} with -o server=",
                        Text(ip)
                    ));
                })
            }
        }
    }

    /// Number of connections.
    pub(crate) fn nconnect(&self) -> u16 {
        self.nconnect.unwrap_or(NCONNECT)
    }

    /// After how many milliseconds a request fails; `None` waits for ever.
    pub(crate) fn timeout(&self) -> Option<u32> {
        let soft = self.soft.unwrap_or(false);
        soft.then(|| self.timeo.unwrap_or(TIMEO_MS))
    }

    /// Whether `mount` can have these options as well: a remount changes none.
    pub(crate) fn check_remount(&self, mount: &Mount, log: &Log) -> Result {
        let config = &mount.session.config;
        let same_server = |given: &Address| match (given, &config.server) {
            (Address::V4(given, _), Address::V4(used, _)) => given == used,
            (Address::V6(given, _), Address::V6(used, _)) => given == used,
            _ => false,
        };
        let soft = config.timeout.is_some();
        let changed = if self
            .server
            .as_ref()
            .is_some_and(|given| !same_server(given))
        {
            "server="
        } else if self.port.is_some_and(|given| given != config.server.port()) {
            "port="
        } else if self.nconnect.is_some_and(|given| given != config.lanes) {
            "nconnect="
        } else if self.timeo.is_some() && self.timeo != config.timeout {
            "timeo="
        } else if self.soft.is_some_and(|given| given != soft) {
            "soft or hard"
        } else if self.mode.is_some_and(|given| given != mount.mode) {
            "proc or sys"
        } else if self
            .local_proc
            .as_ref()
            .is_some_and(|given| **given != *mount.local_proc)
        {
            "local_proc="
        } else {
            return Ok(());
        };
        log.error(fmt!(
            "a remount cannot change {changed}: umount, then mount with the new options"
        ));
        Err(EINVAL)
    }
}

/// Bytes that ought to be text, for messages.
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl kernel::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        for &byte in self.0 {
            for c in core::ascii::escape_default(byte) {
                kernel::fmt::Write::write_char(f, c.into())?;
            }
        }
        Ok(())
    }
}

/// The value of an option as `/proc/mounts` has it, which the kernel can take again.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl kernel::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        for &byte in self.0 {
            if byte.is_ascii_graphic() && !matches!(byte, b',' | b'#' | b'\\') {
                kernel::fmt::Write::write_char(f, byte.into())?;
            } else {
                write!(f, "\\{byte:03o}")?;
            }
        }
        Ok(())
    }
}

/// A number from `min` to `max`.
fn number(key: &CStr, text: &[u8], min: u32, max: u32, log: &Log) -> Result<u32> {
    let value = core::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<u32>().ok());
    value
        .filter(|value| (min..=max).contains(value))
        .ok_or_else(|| {
            let (key, text) = (Text(key.to_bytes()), Text(text));
            log.error(fmt!("{key}={text}: give a number from {min} to {max}"));
            EINVAL
        })
}
