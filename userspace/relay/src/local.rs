// SPDX-License-Identifier: GPL-2.0

//! The side of a connection that a program of this machine has the other end of.

use crate::datagram::Outlets;
use crate::datagram::Sender;
use crate::identity::Identity;
use crate::scratch;
use crate::sys;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::recv;
use nix::sys::socket::recvmsg;
use nix::sys::socket::sendmsg;
use nix::sys::socket::setsockopt;
use nix::sys::socket::shutdown;
use nix::sys::socket::sockopt::SndBufForce;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::Shutdown;
use nix::sys::socket::SockaddrLike;
use nix::sys::socket::UnixAddr;
use nix::sys::socket::UnixCredentials;
use nix::unistd;
use qtfs_proto::relay::SocketType;
use qtfs_proto::relay::MAX_RIGHTS;
use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
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
    /// A bound socket that datagrams are received from.
    DatagramReader,
    /// A connected socket that they are sent to.
    DatagramWriter,
}

impl From<SocketType> for Kind {
    /// What a socket of a type is that programs connect to: one that `accept(2)` has returned, or
    /// the one that is bound if there is no such thing.
    fn from(kind: SocketType) -> Self {
        match kind {
            SocketType::Stream => Self::Stream,
            SocketType::Seqpacket => Self::Seqpacket,
            SocketType::Datagram => Self::DatagramReader,
        }
    }
}

impl Kind {
    /// Whether what is written at once is read at once.
    pub(crate) fn has_records(self) -> bool {
        matches!(
            self,
            Self::Seqpacket | Self::DatagramReader | Self::DatagramWriter
        )
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
        /// Who has sent a datagram.
        sender: Option<Sender>,
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
    /// Where datagrams of senders with names are sent.
    outlets: Option<Outlets>,
}

/// How often is looked whether somebody still receives datagrams.
const LOOK: Duration = Duration::from_secs(10);

/// Root is what the kernel says by itself.
fn credentials(uid: u32, gid: u32) -> Option<(u32, u32)> {
    (uid != 0 || gid != 0).then_some((uid, gid))
}

impl Local {
    /// Takes over a descriptor. Needs a runtime. `who` is at the other machine.
    pub fn new(fd: OwnedFd, kind: Kind, who: &Identity) -> io::Result<Self> {
        Ok(Self {
            fd: sys::register(fd, Interest::READABLE | Interest::WRITABLE)?,
            kind,
            who: credentials(who.uid, who.gid),
            outlets: None,
        })
    }

    /// Takes over a socket that [`listener::connect_to`](crate::listener::connect_to) has connected;
    /// or, if it is one of datagrams, what those are sent with.
    pub fn connected(
        fd: OwnedFd,
        kind: SocketType,
        to: Arc<OwnedFd>,
        who: &Identity,
    ) -> io::Result<Self> {
        match kind {
            SocketType::Stream => Self::new(fd, Kind::Stream, who),
            SocketType::Seqpacket => Self::new(fd, Kind::Seqpacket, who),
            SocketType::Datagram => Ok(Self {
                outlets: Some(Outlets::new(to)),
                ..Self::new(fd, Kind::DatagramWriter, who)?
            }),
        }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the program does next. At most `max` bytes of a stream.
    pub async fn receive(&self, max: usize) -> io::Result<Input> {
        if self.kind == Kind::DatagramReader {
            return self.receive_datagram().await;
        }
        let receive = |fd: &OwnedFd| match self.kind {
            Kind::PipeReader => scratch::with(|scratch| {
                let buf = scratch.get_mut(..max).unwrap_or_default();
                let len = unistd::read(fd, buf)?;
                Ok((buf.get(..len).unwrap_or_default().to_vec(), Vec::new()))
            }),
            Kind::PipeWriter | Kind::DatagramReader | Kind::DatagramWriter => {
                Ok((Vec::new(), Vec::new()))
            }
            Kind::Stream => scratch::with(|scratch| {
                let buf = scratch.get_mut(..max).unwrap_or_default();
                let received = receive_from::<()>(fd, buf)?;
                let bytes = buf.get(..received.len).unwrap_or_default().to_vec();
                Ok((bytes, received.fds))
            }),
            Kind::Seqpacket => {
                let (bytes, received) = receive_record::<()>(fd)?;
                Ok((bytes, received.fds))
            }
        };
        let (bytes, fds) = self.fd.async_io(Interest::READABLE, receive).await?;
        let sender = None;
        if !bytes.is_empty() || !fds.is_empty() {
            return Ok(Input::Data { bytes, fds, sender });
        }
        let end = sys::end_of(self.fd.get_ref());
        if self.kind == Kind::Seqpacket && (!end.shut_down || sys::has_unread(self.fd.get_ref())) {
            // A record without bytes. Before the end it is only seen when others are behind it.
            return Ok(Input::Data { bytes, fds, sender });
        }
        Ok(Input::End {
            closed: end.closed || self.kind == Kind::PipeReader,
        })
    }

    async fn receive_datagram(&self) -> io::Result<Input> {
        let receive = |fd: &OwnedFd| match receive_record::<UnixAddr>(fd) {
            Ok(received) => Ok(Some(received)),
            // One of them is lost, and others are not.
            Err(error) if is_of_one(&error) => {
                tracing::warn!("a datagram does not arrive: {error}");
                // It may be there still.
                if is_too_long(&error) {
                    recv(fd.as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT)?;
                }
                Err(io::ErrorKind::Interrupted.into())
            }
            // There is nothing left, and nothing will come.
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && sys::end_of(fd).shut_down =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        };
        let received = loop {
            match self.fd.async_io(Interest::READABLE, receive).await {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received?,
            }
        };
        Ok(match received {
            None => Input::End { closed: true },
            Some((bytes, received)) => {
                let (uid, gid) = received.who;
                Input::Data {
                    bytes,
                    fds: received.fds,
                    sender: Some(Sender {
                        uid,
                        gid,
                        name: received.from.as_ref().map(name_of).unwrap_or_default(),
                    }),
                }
            }
        })
    }

    /// Sends a datagram as `sender`, whose name is `here` on this machine. Fails when it has not been
    /// sent.
    pub(crate) async fn send_as(
        &self,
        sender: &Sender,
        here: impl FnOnce(Vec<u8>) -> Vec<u8>,
        bytes: &[u8],
        fds: &[OwnedFd],
    ) -> io::Result<()> {
        let who = credentials(sender.uid, sender.gid);
        let send = |fd: &OwnedFd| send_message(fd, bytes, fds, who);
        match &self.outlets {
            Some(outlets) if !sender.name.is_empty() => {
                let outlet = outlets.of(&sender.name, here).await?;
                outlet.async_io(Interest::WRITABLE, send).await?;
            }
            _ => {
                self.fd.async_io(Interest::WRITABLE, send).await?;
            }
        }
        Ok(())
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
                match send_message(fd, rest, &fds, self.who) {
                    // How long a record may be was a matter of who has written it.
                    Err(error) if is_too_long(&error) => {
                        setsockopt(fd, SndBufForce, &rest.len())?;
                        send_message(fd, rest, &fds, self.who)
                    }
                    sent => sent,
                }
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
        if let Some(outlets) = &self.outlets {
            // Sockets of datagrams are not told.
            while outlets.is_received().await {
                tokio::time::sleep(LOOK).await;
            }
            return Ok(());
        }
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

/// What `recvmsg(2)` has put into a buffer.
struct Received<A> {
    len: usize,
    fds: Vec<OwnedFd>,
    from: Option<A>,
    who: (u32, u32),
}

/// The name in the file system that an address has; empty if it has none. One that fills the address
/// is longer, by the byte that the kernel counts at its end, than `UnixAddr` itself knows.
fn name_of(address: &UnixAddr) -> Vec<u8> {
    let address: &libc::sockaddr_un = address.as_ref();
    let name = address.sun_path.iter().map(|byte| *byte as u8);
    name.take_while(|byte| *byte != 0).collect()
}

fn receive_from<A: SockaddrLike>(fd: &OwnedFd, buf: &mut [u8]) -> io::Result<Received<A>> {
    let mut space = cmsg_space!([std::os::fd::RawFd; MAX_RIGHTS], libc::ucred);
    let mut slices = [IoSliceMut::new(buf)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<A>(fd.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut received = Received {
        len: message.bytes,
        fds: Vec::new(),
        from: None,
        who: (0, 0),
    };
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::ScmRights(fds) => received.fds.extend(sys::received(fds)),
            ControlMessageOwned::ScmCredentials(who) => received.who = (who.uid(), who.gid()),
            _ => {}
        }
    }
    // The kernel gives none for a socket without a name, which is no address to nix either.
    let has_family = |from: &A| from.len() as usize >= size_of::<libc::sa_family_t>();
    received.from = message.address.filter(has_family);
    Ok(received)
}

fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EMSGSIZE as i32)
}

/// Whether an error is one of a single message: it is too long, or came with more descriptors than
/// this process can have.
fn is_of_one(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMSGSIZE | Errno::ENOBUFS))
}

/// Takes one record, or one datagram.
fn receive_record<A: SockaddrLike>(fd: &OwnedFd) -> io::Result<(Vec<u8>, Received<A>)> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let len = recv(fd.as_raw_fd(), &mut [0], flags)?;
    if len > MAX_RECORD {
        return Err(Errno::EMSGSIZE.into());
    }
    let mut bytes = vec![0; len];
    let received = receive_from(fd, &mut bytes)?;
    bytes.truncate(received.len);
    Ok((bytes, received))
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
