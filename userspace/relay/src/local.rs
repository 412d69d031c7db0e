// SPDX-License-Identifier: GPL-2.0

//! The side of a connection that a program of this machine has the other end of.

use crate::identity::Identity;
use crate::scratch;
use crate::sys;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::recv;
use nix::sys::socket::recvmsg;
use nix::sys::socket::sendmsg;
use nix::sys::socket::shutdown;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::Shutdown;
use nix::sys::socket::UnixCredentials;
use nix::unistd;
use qtfs_proto::relay::SocketType;
use qtfs_proto::relay::MAX_RIGHTS;
use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// Longest record of a socket that keeps records apart.
pub const MAX_RECORD: usize = 4 * 1024 * 1024;

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connected socket of bytes.
    Stream,
    /// A connected socket of records.
    Seqpacket,
    /// The end of a pipe that is read here.
    PipeReader,
    /// The end of a pipe that is written here.
    PipeWriter,
}

impl From<SocketType> for Kind {
    /// What a connected socket of a type is; datagrams are records.
    fn from(kind: SocketType) -> Self {
        match kind {
            SocketType::Stream => Self::Stream,
            SocketType::Seqpacket | SocketType::Datagram => Self::Seqpacket,
        }
    }
}

/// What a program has done.
#[derive(Debug)]
pub enum Input {
    /// It has written.
    Data {
        /// Bytes; a whole record where there are records.
        bytes: Vec<u8>,
        /// Descriptors that came with them.
        fds: Vec<OwnedFd>,
    },
    /// It writes no more, and has closed its end if so.
    End {
        /// Nothing that is written here is read any more either.
        closed: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Local {
    fd: AsyncFd<OwnedFd>,
    kind: Kind,
    /// Who the program at the other machine is, for programs that ask with each message
    /// (`SO_PASSCRED`).
    who: Option<(u32, u32)>,
}

impl Local {
    /// Takes over a descriptor. Needs a runtime. `who` is at the other machine.
    pub fn new(fd: OwnedFd, kind: Kind, who: &Identity) -> io::Result<Self> {
        // Root is what the kernel says by itself.
        let who = (who.uid != 0 || who.gid != 0).then_some((who.uid, who.gid));
        Ok(Self {
            fd: sys::register(fd, Interest::READABLE | Interest::WRITABLE)?,
            kind,
            who,
        })
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the program does next. At most `max` bytes of a stream.
    pub async fn receive(&self, max: usize) -> io::Result<Input> {
        let receive = |fd: &OwnedFd| match self.kind {
            Kind::PipeReader => scratch::with(|scratch| {
                let buf = scratch.get_mut(..max).unwrap_or_default();
                let len = unistd::read(fd, buf)?;
                Ok((buf.get(..len).unwrap_or_default().to_vec(), Vec::new()))
            }),
            Kind::PipeWriter => Ok((Vec::new(), Vec::new())),
            Kind::Stream => scratch::with(|scratch| {
                let buf = scratch.get_mut(..max).unwrap_or_default();
                let (len, fds) = receive_message(fd, buf)?;
                Ok((buf.get(..len).unwrap_or_default().to_vec(), fds))
            }),
            Kind::Seqpacket => {
                let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
                let len = recv(fd.as_raw_fd(), &mut [0], flags)?;
                if len > MAX_RECORD {
                    return Err(Errno::EMSGSIZE.into());
                }
                let mut bytes = vec![0; len];
                let (len, fds) = receive_message(fd, &mut bytes)?;
                bytes.truncate(len);
                Ok((bytes, fds))
            }
        };
        let (bytes, fds) = self.fd.async_io(Interest::READABLE, receive).await?;
        if !bytes.is_empty() || !fds.is_empty() {
            return Ok(Input::Data { bytes, fds });
        }
        let end = sys::end_of(self.fd.get_ref());
        if self.kind == Kind::Seqpacket && !end.shut_down {
            // A record without bytes.
            return Ok(Input::Data { bytes, fds });
        }
        Ok(Input::End {
            closed: end.closed || self.kind == Kind::PipeReader,
        })
    }

    /// Writes all bytes, as one record where there are records.
    pub async fn send(&self, bytes: &[u8], fds: Vec<OwnedFd>) -> io::Result<()> {
        let mut done = 0;
        let mut fds = fds;
        loop {
            let rest = bytes.get(done..).unwrap_or_default();
            let send = |fd: &OwnedFd| {
                if self.kind == Kind::PipeWriter {
                    return Ok(unistd::write(fd, rest)?);
                }
                send_message(fd, rest, &fds, self.who)
            };
            done += self.fd.async_io(Interest::WRITABLE, send).await?;
            // They went with the first bytes.
            fds.clear();
            if done >= bytes.len() {
                return Ok(());
            }
        }
    }

    /// The program reads the end when it has read what was written.
    pub fn end_writing(&self) {
        // It may be closed by now.
        let _ = shutdown(self.fd.get_ref().as_raw_fd(), Shutdown::Write);
    }

    /// The program's writes fail from now on.
    pub fn end_reading(&self) {
        let _ = shutdown(self.fd.get_ref().as_raw_fd(), Shutdown::Read);
    }

    /// Returns when the program has closed its end, or reads no more.
    pub async fn closed(&self) -> io::Result<()> {
        // One of its own, so that looking at it takes nothing away from who writes.
        let watch = sys::register(self.fd.get_ref().try_clone()?, Interest::WRITABLE)?;
        loop {
            let mut guard = watch.writable().await?;
            if guard.ready().is_write_closed() {
                return Ok(());
            }
            guard.clear_ready();
        }
    }
}

fn receive_message(fd: &OwnedFd, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([std::os::fd::RawFd; MAX_RIGHTS], libc::ucred);
    let mut slices = [IoSliceMut::new(buf)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(fd.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            fds.extend(sys::received(received));
        }
    }
    Ok((message.bytes, fds))
}

fn send_message(
    fd: &OwnedFd,
    bytes: &[u8],
    fds: &[OwnedFd],
    who: Option<(u32, u32)>,
) -> io::Result<usize> {
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let credentials = who.map(|(uid, gid)| {
        UnixCredentials::from(libc::ucred {
            pid: std::process::id() as libc::pid_t,
            uid,
            gid,
        })
    });
    let mut control = Vec::new();
    if !raw.is_empty() {
        control.push(ControlMessage::ScmRights(&raw));
    }
    if let Some(credentials) = &credentials {
        control.push(ControlMessage::ScmCredentials(credentials));
    }
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let slices = [IoSlice::new(bytes)];
    Ok(sendmsg::<()>(
        fd.as_raw_fd(),
        &slices,
        &control,
        flags,
        None,
    )?)
}
