// SPDX-License-Identifier: GPL-2.0

//! Connections: TCP, unix and vsock, with or without TLS, made or taken.
//!
//! A dead link is found by the kernel's keepalive, which also answers for a peer that is merely
//! stopped (SIGSTOP), and by heartbeats in the protocol. See `Documentation/rexec.md`.

use crate::address::Address;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio_vsock::VsockAddr;
use tokio_vsock::VsockListener;
use tokio_vsock::VsockStream;

/// Seconds after which a silent link counts as lost, unless told otherwise.
pub const LINK_TIMEOUT: u16 = 15;
/// Seconds that setting up a connection may take, unless told otherwise.
pub const CONNECT_TIMEOUT: u16 = 10;
/// Bytes of the buffer for what the peer sends, if the kernel permits. What both output streams
/// may have on the way fits, so that a caller that is stopped never makes the link look dead.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A connection without TLS.
#[derive(Debug)]
pub enum Link {
    /// tcp(7)
    Tcp(TcpStream),
    /// unix(7)
    Unix(UnixStream),
    /// vsock(7)
    Vsock(VsockStream),
}

/// What messages are received from.
pub type Input = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// What messages are sent to.
pub type Output = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// Connects to `address`, which may take `limit`; link failures show after `link_timeout`.
///
/// Also returns the bytes of each output stream that may be under way.
pub async fn connect(
    address: &Address,
    limit: Duration,
    link_timeout: Duration,
) -> io::Result<(Link, u32)> {
    let connected = tokio::time::timeout(limit, async {
        match address {
            Address::Tcp(host, port) => {
                let (stream, window) = connect_tcp(host, *port).await?;
                tune(&stream, link_timeout)?;
                Ok((Link::Tcp(stream), window))
            }
            Address::Unix(path) => Ok((Link::Unix(UnixStream::connect(path).await?), WINDOW)),
            Address::Vsock(cid, port) => {
                let stream = VsockStream::connect(VsockAddr::new(*cid, *port)).await?;
                Ok((Link::Vsock(stream), WINDOW))
            }
        }
    });
    connected.await.unwrap_or_else(|_| {
        let text = format!("no answer within {} s", limit.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

/// Most bytes of an output stream that may be under way.
pub const WINDOW: u32 = 1 << 20;
/// Fewest of them, however small the kernel makes its buffers.
const LEAST_WINDOW: u32 = 64 << 10;

async fn connect_tcp(host: &str, port: u16) -> io::Result<(TcpStream, u32)> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let addresses: Vec<SocketAddr> = match host.parse() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => tokio::net::lookup_host((host, port)).await?.collect(),
    };
    for address in addresses {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Only root may have more than the system's limit.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        // The kernel counts its own overhead too, so half is for contents, and each of the two
        // output streams has half of that.
        let granted = nix::sys::socket::getsockopt(&socket, sockopt::RcvBuf)? / 4;
        let window = u32::try_from(granted)
            .unwrap_or(WINDOW)
            .clamp(LEAST_WINDOW, WINDOW);
        match socket.connect(address).await {
            Ok(stream) => return Ok((stream, window)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Makes a TCP connection notice a dead link, and send small messages at once.
fn tune(stream: &TcpStream, link_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let seconds = u32::try_from(link_timeout.as_secs())
        .unwrap_or(u32::MAX)
        .max(1);
    let fd = stream.as_fd();
    setsockopt(&fd, sockopt::KeepAlive, &true)?;
    setsockopt(&fd, sockopt::TcpKeepIdle, &(seconds / 3).max(1))?;
    setsockopt(&fd, sockopt::TcpKeepInterval, &(seconds / 6).max(1))?;
    setsockopt(&fd, sockopt::TcpKeepCount, &4)?;
    setsockopt(
        &fd,
        sockopt::TcpUserTimeout,
        &(seconds.saturating_mul(1000)),
    )?;
    Ok(())
}

/// A socket that takes connections.
#[derive(Debug)]
pub enum Listener {
    /// tcp(7)
    Tcp(TcpListener),
    /// unix(7)
    Unix(UnixListener),
    /// vsock(7)
    Vsock(VsockListener),
}

/// Where a connection comes from, for the log.
#[derive(Clone, Debug)]
pub enum Origin {
    /// An address.
    Tcp(SocketAddr),
    /// User, group and process id of who connected.
    Unix(u32, u32, i32),
    /// Context id.
    Vsock(u32),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(uid, _, pid) => write!(f, "process {pid} of user {uid}"),
            Self::Vsock(cid) => write!(f, "vsock:{cid}"),
        }
    }
}

impl Listener {
    /// Listens at `address`.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Tcp(host, port) => {
                let mut addresses = tokio::net::lookup_host((host.as_str(), *port)).await?;
                let address = addresses.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
                let socket = match address {
                    SocketAddr::V4(_) => TcpSocket::new_v4()?,
                    SocketAddr::V6(_) => TcpSocket::new_v6()?,
                };
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                Self::Tcp(socket.listen(BACKLOG)?)
            }
            Address::Unix(path) => {
                remove_dead_socket(path).await?;
                Self::Unix(UnixListener::bind(path)?)
            }
            Address::Vsock(cid, port) => {
                Self::Vsock(VsockListener::bind(VsockAddr::new(*cid, *port))?)
            }
        })
    }

    /// Takes the next connection.
    pub async fn accept(&self, link_timeout: Duration) -> io::Result<(Link, Origin)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                tune(&stream, link_timeout)?;
                (Link::Tcp(stream), Origin::Tcp(address))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred()?;
                let origin = Origin::Unix(peer.uid(), peer.gid(), peer.pid().unwrap_or(0));
                (Link::Unix(stream), origin)
            }
            Self::Vsock(listener) => {
                let (stream, address) = listener.accept().await?;
                (Link::Vsock(stream), Origin::Vsock(address.cid()))
            }
        })
    }
}

/// Removes a socket that nobody listens on any more, so that a server that was killed can be
/// started again.
async fn remove_dead_socket(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path)
            .await
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

impl Link {
    /// The two halves, without TLS.
    pub fn split(self) -> (Input, Output) {
        match self {
            Self::Tcp(stream) => {
                let (input, output) = stream.into_split();
                (Box::new(input), Box::new(output))
            }
            Self::Unix(stream) => {
                let (input, output) = stream.into_split();
                (Box::new(input), Box::new(output))
            }
            Self::Vsock(stream) => {
                let (input, output) = tokio::io::split(stream);
                (Box::new(input), Box::new(output))
            }
        }
    }

    /// The connection as one, for TLS.
    pub fn whole(self) -> Box<dyn Both> {
        match self {
            Self::Tcp(stream) => Box::new(stream),
            Self::Unix(stream) => Box::new(stream),
            Self::Vsock(stream) => Box::new(stream),
        }
    }

    /// Whether the kernel itself finds out that the peer's machine is gone.
    pub fn has_keepalive(&self) -> bool {
        !matches!(self, Self::Vsock(_))
    }
}

/// Both directions in one.
pub trait Both: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Both for T {}

/// The user who has the other end of a TCP connection within this machine, as the kernel's table
/// of sockets shows it (proc_net(5)); `None` when it is closed already.
///
/// A socket that its process has closed is shown as root's, and without an inode. So it is looked
/// for twice: one that was closed in the middle of the first look has none in the second.
pub fn local_user(server: SocketAddr, client: SocketAddr) -> io::Result<Option<u32>> {
    let file = match client {
        SocketAddr::V4(_) => "/proc/self/net/tcp",
        SocketAddr::V6(_) => "/proc/self/net/tcp6",
    };
    let (local, remote) = (table_form(client), table_form(server));
    let look = || Ok::<_, io::Error>(find_user(&std::fs::read_to_string(file)?, &local, &remote));
    let (first, second) = (look()?, look()?);
    Ok(first.filter(|_| first == second))
}

fn find_user(table: &str, local: &str, remote: &str) -> Option<u32> {
    // One search, not a look at each row: there may be thousands.
    let (_, row) = table.split_once(&format!(": {local} {remote} "))?;
    let fields: Vec<&str> = row.lines().next()?.split_ascii_whitespace().collect();
    let inode: u64 = fields.get(6)?.parse().ok()?;
    (inode != 0).then_some(())?;
    fields.get(4)?.parse().ok()
}

/// An address as that table has it: words of the address in hexadecimal, native byte order.
fn table_form(address: SocketAddr) -> String {
    let octets = match address {
        SocketAddr::V4(address) => address.ip().octets().to_vec(),
        SocketAddr::V6(address) => address.ip().octets().to_vec(),
    };
    let words = octets.chunks_exact(4).map(|word| {
        let word = [word[0], word[1], word[2], word[3]];
        format!("{:08X}", u32::from_ne_bytes(word))
    });
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_user_of_a_socket() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1E61 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0\n   \
            1: 0100007F:C350 0100007F:1E61 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0\n";
        let server = table_form("127.0.0.1:7777".parse().unwrap());
        let client = table_form("127.0.0.1:50000".parse().unwrap());
        assert_eq!(server, "0100007F:1E61");
        assert_eq!(find_user(table, &client, &server), Some(1000));
        // Closed by its process.
        assert_eq!(find_user(table, &server, &client), None);
        assert_eq!(find_user(table, &server, &server), None);
    }

    #[test]
    fn the_own_connection_belongs_to_the_own_user() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let user = local_user(stream.peer_addr().unwrap(), stream.local_addr().unwrap()).unwrap();
        assert_eq!(user, Some(nix::unistd::geteuid().as_raw()));
    }
}
