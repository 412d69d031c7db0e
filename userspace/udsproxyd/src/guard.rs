// SPDX-License-Identifier: GPL-2.0

//! Programs whose supervisor guards their connections: see [`qtfs_control::guard`].

use crate::passing::ByDevice;
use nix::errno::Errno;
use nix::sys::socket;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sendmsg;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::UnixAddr;
use qtfs_control::guard;
use qtfs_proto::relay::SocketType;
use qtfs_relay::channel::Channel;
use qtfs_relay::listener;
use qtfs_relay::rights::Boxed;
use qtfs_relay::rights::OwnedRight;
use qtfs_relay::rights::Passing;
use std::io;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

/// How long the supervisor may take to take a connection, and to end the program.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the former is tried.
const RETRY: Duration = Duration::from_millis(20);

/// What passes descriptors of one connection, and has its program ended when it is lost.
pub struct Guarded {
    passing: Arc<ByDevice>,
    /// The supervisor, if there is one and it was not told yet.
    guard: Mutex<Option<UnixStream>>,
}

/// Connects to a supervisor, which may not take connections for a while.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = UnixAddr::new(path)?;
    let begun = Instant::now();
    loop {
        let socket = listener::new_socket(SocketType::Stream)?;
        match socket::connect(socket.as_raw_fd(), &address) {
            Ok(()) => {
                let stream = UnixStream::from(socket);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(Errno::EAGAIN) if begun.elapsed() < PATIENCE => tokio::time::sleep(RETRY).await,
            Err(Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Has the supervisor of a process guard a connection of it.
async fn guard_of(pid: u32, socket: &OwnedFd) -> io::Result<UnixStream> {
    let stream = connect(&guard::path(pid)?).await?;
    if getsockopt(&stream, PeerCredentials)?.uid() != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let fds = [socket.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let slices = [IoSlice::new(&[guard::HELD])];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<UnixAddr>(stream.as_fd().as_raw_fd(), &slices, &rights, flags, None)?;
    Ok(stream)
}

impl Guarded {
    /// For a connection of a process.
    pub async fn new(passing: Arc<ByDevice>, pid: u32, socket: &OwnedFd) -> Arc<Self> {
        let guard = guard_of(pid, socket).await;
        // Few programs have a supervisor that guards.
        if let Err(error) = &guard {
            if error.kind() == io::ErrorKind::TimedOut {
                tracing::warn!(
                    "the supervisor of process {pid} does not guard a connection: {error}"
                );
            }
        }
        Arc::new(Self {
            passing,
            guard: Mutex::new(guard.ok()),
        })
    }

    fn take(&self) -> Option<UnixStream> {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        guard.take()
    }

    /// The connection has ended; in order, unless it was lost.
    pub fn done(&self) {
        if let Some(mut guard) = self.take() {
            // A supervisor that is gone has nothing to guard any more.
            let _ = io::Write::write_all(&mut guard, &[guard::DONE]);
        }
    }
}

/// Tells a supervisor that a connection is lost, and waits until the program is ended.
fn tell_lost(mut guard: UnixStream) -> io::Result<()> {
    guard.set_read_timeout(Some(PATIENCE))?;
    io::Write::write_all(&mut guard, &[guard::LOST])?;
    io::Read::read(&mut guard, &mut [0]).map(drop)
}

impl Passing for Guarded {
    fn describe(
        self: Arc<Self>,
        channel: &Channel,
        fd: OwnedFd,
    ) -> Boxed<'_, io::Result<OwnedRight>> {
        Arc::clone(&self.passing).describe(channel, fd)
    }

    fn realize(
        self: Arc<Self>,
        channel: &Channel,
        right: OwnedRight,
    ) -> Boxed<'_, io::Result<OwnedFd>> {
        Arc::clone(&self.passing).realize(channel, right)
    }

    fn lost(&self) -> Boxed<'_, ()> {
        let guard = self.take();
        Box::pin(async move {
            let Some(guard) = guard else { return };
            let told = tokio::task::spawn_blocking(move || tell_lost(guard)).await;
            if let Ok(Err(error)) = told {
                tracing::warn!(
                    "a supervisor does not end its program, which loses a connection: {error}"
                );
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::accept;
    use nix::sys::socket::bind;
    use nix::sys::socket::listen;
    use nix::sys::socket::Backlog;

    #[tokio::test]
    async fn a_supervisor_without_room_holds_up_nobody_else() {
        let path = std::env::temp_dir().join(format!("guard-{}", std::process::id()));
        let listener = listener::new_socket(SocketType::Stream).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let _first = connect(&path).await.unwrap();
        let soon = Duration::from_millis(100);
        let waits = tokio::time::timeout(soon, connect(&path)).await;
        assert!(waits.is_err());
        nix::unistd::close(accept(listener.as_raw_fd()).unwrap()).unwrap();
        let connected = tokio::time::timeout(PATIENCE, connect(&path)).await;
        connected.unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
