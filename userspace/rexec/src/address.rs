// SPDX-License-Identifier: GPL-2.0

//! Where a server is: `tcp://HOST:PORT`, `tcp://[IPV6]:PORT`, `unix:///PATH`, `vsock://CID:PORT`.

use serde::Deserialize;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Takes connections for every CID of this machine (VMADDR_CID_ANY of vsock(7)).
pub const CID_ANY: u32 = u32::MAX;

/// Where a server is, or listens.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub enum Address {
    /// A name or an IP address, without brackets, and a port.
    Tcp(String, u16),
    /// The absolute path of a socket.
    Unix(PathBuf),
    /// A virtual machine's context id and a port.
    Vsock(u32, u32),
}

impl Address {
    /// Whether only this machine can reach it, as far as the address tells.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(host, _) => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            Self::Unix(_) => true,
            Self::Vsock(..) => false,
        }
    }

    /// The socket's path, of an address that has one.
    pub fn into_path(self) -> Option<PathBuf> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(..) | Self::Vsock(..) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "tcp://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Vsock(CID_ANY, port) => write!(f, "vsock://any:{port}"),
            Self::Vsock(cid, port) => write!(f, "vsock://{cid}:{port}"),
        }
    }
}

/// What is wrong with an address, and what would be right.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl TryFrom<String> for Address {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |what: String| Error(format!("address {text:?}: {what}"));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| {
            wrong(
                "it has no scheme: write tcp://HOST:PORT, unix:///PATH or vsock://CID:PORT".into(),
            )
        })?;
        let host_and_port = || {
            rest.rsplit_once(':')
                .filter(|(host, port)| !host.is_empty() && !port.is_empty())
                .ok_or_else(|| wrong(format!("no port: write {scheme}://{rest}:PORT")))
        };
        match scheme {
            "tcp" => {
                let (host, port) = host_and_port()?;
                let port = match port.parse() {
                    Ok(0) | Err(_) => {
                        return Err(wrong(format!("{port:?} is not a port from 1 to 65535")))
                    }
                    Ok(port) => port,
                };
                let bare = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
                    Some(Some(inner)) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
                    Some(_) => {
                        return Err(wrong(format!("{host} is not an IPv6 address in brackets")))
                    }
                    None if host.contains(':') => {
                        return Err(wrong(format!(
                            "an IPv6 address is written in brackets: tcp://[{host}]:{port}"
                        )));
                    }
                    None => host,
                };
                Ok(Self::Tcp(bare.into(), port))
            }
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "unix" => Err(wrong("the path is not absolute: write unix:///PATH".into())),
            "vsock" => {
                let (cid, port) = host_and_port()?;
                let number = |text: &str, what: &str| {
                    text.parse::<u32>()
                        .map_err(|_| wrong(format!("{text:?} is not a {what}: a number is needed")))
                };
                let cid = match cid {
                    "any" | "-1" => CID_ANY,
                    "local" => 1,
                    "host" => 2,
                    cid => number(cid, "context id")?,
                };
                Ok(Self::Vsock(cid, number(port, "port")?))
            }
            _ => Err(wrong(format!(
                "unknown scheme {scheme:?}: use tcp, unix or vsock"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for text in [
            "tcp://10.0.0.1:7777",
            "tcp://0.0.0.0:7777",
            "tcp://dpu1.example:7777",
            "tcp://[::1]:7777",
            "tcp://[fe80::1]:1",
            "unix:///run/qtfs/rexec.sock",
            "vsock://2:7777",
            "vsock://any:7777",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!(
            "vsock://host:1".parse::<Address>().unwrap(),
            Address::Vsock(2, 1)
        );
    }

    #[test]
    fn says_what_is_wrong_and_what_would_be_right() {
        for (text, part) in [
            ("10.0.0.1:7777", "it has no scheme: write tcp://HOST:PORT"),
            (
                "http://10.0.0.1:7777",
                "unknown scheme \"http\": use tcp, unix or vsock",
            ),
            ("tcp://10.0.0.1", "no port: write tcp://10.0.0.1:PORT"),
            ("tcp://:7777", "no port"),
            (
                "tcp://10.0.0.1:77777",
                "\"77777\" is not a port from 1 to 65535",
            ),
            ("tcp://10.0.0.1:0", "\"0\" is not a port"),
            ("tcp://::1:7777", "in brackets: tcp://[::1]:7777"),
            ("tcp://[::1:7777", "not an IPv6 address in brackets"),
            ("unix://run/x", "the path is not absolute"),
            ("vsock://me:1", "\"me\" is not a context id"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains(text),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn knows_what_only_this_machine_reaches() {
        for (text, local) in [
            ("tcp://127.0.0.2:1", true),
            ("tcp://[::1]:1", true),
            ("tcp://localhost:1", true),
            ("unix:///x", true),
            ("tcp://0.0.0.0:1", false),
            ("tcp://10.0.0.1:1", false),
            ("vsock://1:1", false),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().is_local(), local, "{text}");
        }
    }
}
