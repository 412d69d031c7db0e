// SPDX-License-Identifier: GPL-2.0

//! Mount options.

use kernel::{
    prelude::*,
    str::CStr, //
};
use qtfs_net::Address;
use qtfs_vfs::{
    context::Log,
    param, //
};

use crate::session::Config;

/// Connections of a mount unless told otherwise: one for metadata, one for bulk data.
const NCONNECT: u16 = 2;
/// Most connections of a mount.
const NCONNECT_MAX: u16 = 16;
/// With `soft`, how long a request may take unless told otherwise, in milliseconds.
const TIMEO_MS: u32 = 60_000;

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
            (b"soft", false) => self.soft = Some(true),
            (b"hard", false) => self.soft = Some(false),
            (b"server" | b"port" | b"nconnect" | b"timeo", false) => {
                log.error(fmt!("option {} needs a value", Text(key.to_bytes())));
                return Err(EINVAL);
            }
            (b"soft" | b"hard", true) => {
                log.error(fmt!("option {} takes no value", Text(key.to_bytes())));
                return Err(EINVAL);
            }
            // The VFS takes `source` itself, and names what it does not know either.
            _ => return Err(ENOPARAM),
        }
        Ok(())
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

    /// Whether a mount that has `config` can have these options as well: a remount changes none.
    pub(crate) fn check_remount(&self, config: &Config, log: &Log) -> Result {
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
