// SPDX-License-Identifier: GPL-2.0

//! The nursery: a process with a single thread, forked before the server has others, whose only
//! work is to fork keepers.
//!
//! A server with threads cannot fork safely, and executing a helper for each session would cost
//! more than the fork of a process that is nearly empty. The nursery is the child subreaper of its
//! keepers' descendants: should a keeper be killed, what it kept falls to the nursery, which kills
//! it. When the server goes, the nursery stays until the last keeper has ended.

use super::cgroup;
use super::children;
use super::children::Reaped;
use super::keeper;
use super::launch::Launch;
use super::sys;
use super::sys::SingleThreaded;
use nix::cmsg_space;
use nix::poll::poll;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::sys::socket::recvmsg;
use nix::sys::socket::sendmsg;
use nix::sys::socket::socketpair;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use std::collections::HashSet;
use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use tokio::io::AsyncWriteExt;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Most descriptors in a request: control socket, stdin, stdout, stderr.
const MOST: usize = 4;

/// The server's end, before its runtime is there.
#[derive(Debug)]
pub struct Nursery(OwnedFd);

impl Nursery {
    /// Forks the nursery. The process must not have threads yet.
    pub fn start() -> io::Result<Self> {
        let alone = SingleThreaded::prove()?;
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::Stream,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        if alone.fork()?.is_some() {
            return Ok(Self(ours));
        }
        drop(ours);
        let status = match serve(&alone, theirs) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("rexec_server: the nursery failed: {error}");
                1
            }
        };
        sys::exit_now(status)
    }

    /// The handle for the server's runtime.
    pub fn into_async(self) -> io::Result<Handle> {
        let socket = StdUnixStream::from(self.0);
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket).map(Handle)
    }
}

/// Asks the nursery for keepers.
#[derive(Debug)]
pub struct Handle(UnixStream);

impl Handle {
    /// Has a program started whose streams are `stdio`: three descriptors, or a terminal alone.
    /// Returns the socket on which the keeper tells what happens.
    pub async fn launch(&self, launch: &Launch, stdio: Vec<OwnedFd>) -> io::Result<UnixStream> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let fds: Vec<RawFd> = std::iter::once(theirs.as_raw_fd())
            .chain(stdio.iter().map(AsRawFd::as_raw_fd))
            .collect();
        self.0
            .async_io(Interest::WRITABLE, || {
                let request = [IoSlice::new(b"k")];
                let rights = [ControlMessage::ScmRights(&fds)];
                let flags = MsgFlags::MSG_NOSIGNAL;
                Ok(sendmsg::<()>(
                    self.0.as_raw_fd(),
                    &request,
                    &rights,
                    flags,
                    None,
                )?)
            })
            .await?;
        drop((theirs, stdio));
        ours.set_nonblocking(true)?;
        let mut control = UnixStream::from_std(ours)?;
        let bytes = launch.encode();
        let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        control.write_all(&len.to_ne_bytes()).await?;
        control.write_all(&bytes).await?;
        Ok(control)
    }

    /// Returns when the nursery is gone, which it is not while there is a server.
    pub async fn gone(&self) {
        // It never says anything.
        let _ = self.0.readable().await;
    }
}

/// The nursery's work, until the server is gone and all keepers too.
fn serve(alone: &SingleThreaded, server: OwnedFd) -> io::Result<()> {
    let mut server = Some(server);
    // A ^C for the server is not for the programs.
    nix::unistd::setsid()?;
    // What the server was given by its own parent is not for the programs either, nor to be kept
    // open for those that outlive the server. Their keepers' troubles are told on stderr.
    sys::close_on_exec_from(3)?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    drop(null);
    std::env::set_current_dir("/")?;
    let ended = children::adopt()?;
    // The name says that all is set up.
    let _ = nix::sys::prctl::set_name(c"rexec-nursery");
    let mut keepers = HashSet::new();
    while server.is_some() || !keepers.is_empty() {
        let mut fds = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            server
                .as_ref()
                .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let request = fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false));
        while let Ok(Some(_)) = ended.read_signal() {}
        reap(&mut keepers)?;
        let Some(socket) = server.as_ref().filter(|_| request) else {
            continue;
        };
        // A server that was killed may have left an error in the socket.
        let mut fds = receive(socket).unwrap_or_default();
        if fds.is_empty() {
            server = None;
            continue;
        }
        let stdio = fds.split_off(1);
        let control = fds.pop().map(StdUnixStream::from);
        match (alone.fork(), control) {
            (Ok(Some(pid)), _) => {
                keepers.insert(pid);
            }
            (Ok(None), Some(control)) => {
                drop((server, ended));
                let status = match keeper::run(alone, control, stdio) {
                    Ok(()) => 0,
                    Err(error) => {
                        eprintln!("rexec_server: a keeper failed: {error}");
                        1
                    }
                };
                sys::exit_now(status);
            }
            (Ok(None), None) => sys::exit_now(1),
            // The server sees that the control socket was closed.
            (Err(error), _) => eprintln!("rexec_server: the nursery cannot fork: {error}"),
        }
    }
    Ok(())
}

/// Takes the keepers that have ended, and kills what a killed keeper left behind.
fn reap(keepers: &mut HashSet<i32>) -> io::Result<()> {
    let mut killed = false;
    loop {
        match children::reap()? {
            Reaped::Child(pid, status) => {
                let is_keeper = keepers.remove(&pid);
                if is_keeper && status.terminating_signal().is_some() {
                    cgroup::sweep(&keeper::group_prefix(pid));
                }
                killed |= !is_keeper || status.terminating_signal().is_some();
            }
            Reaped::Alive => break,
            Reaped::None => return Ok(()),
        }
    }
    if killed {
        // What is left of these comes as further children, and so here again.
        children::kill(|pid| !keepers.contains(&pid))?;
    }
    Ok(())
}

/// Takes a request's descriptors; none when the server is gone.
fn receive(server: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
    let mut byte = [0];
    let mut buffer = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([RawFd; MOST]);
    let message = recvmsg::<()>(
        server.as_raw_fd(),
        &mut buffer,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            fds.extend(sys::own_received(received));
        }
    }
    Ok(fds)
}
