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
    nconnect: u16,
    /// `soft` or `hard`
    soft: bool,
    /// `timeo=` in milliseconds
    timeo: u32,
}

impl Options {
    /// What holds when nothing is given.
    pub(crate) const fn new() -> Self {
        Self {
            server: None,
            port: None,
            nconnect: NCONNECT,
            soft: false,
            timeo: TIMEO_MS,
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
                self.nconnect = number(key, text, 1, NCONNECT_MAX.into(), log)? as u16;
            }
            (b"timeo", true) => {
                // As for NFS, in tenths of a second.
                self.timeo = number(key, text, 1, 6000, log)? * 100;
                self.soft = true;
            }
            (b"soft", false) => self.soft = true,
            (b"hard", false) => self.soft = false,
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
        self.nconnect
    }

    /// After how many milliseconds a request fails; `None` waits for ever.
    pub(crate) fn timeout(&self) -> Option<u32> {
        self.soft.then_some(self.timeo)
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
