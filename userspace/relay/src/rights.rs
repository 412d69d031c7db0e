// SPDX-License-Identifier: GPL-2.0

//! Descriptors that programs pass with their data (`SCM_RIGHTS`).
//!
//! A descriptor of one kernel means nothing to the other. What both have, regular files and
//! directories of HOST, is opened again over there; pipes and connected sockets go on through
//! a channel of their own. Anything else is lost, which is logged: the data arrives without it.

use crate::channel::Channel;
use crate::local::Kind;
use nix::fcntl::fcntl;
use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::sys::socket::getpeername;
use nix::sys::socket::getsockopt;
use nix::sys::socket::socketpair;
use nix::sys::socket::sockopt::SockType as SockTypeOption;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::SockaddrStorage;
use nix::sys::stat::fstat;
use nix::sys::stat::SFlag;
use nix::unistd;
use qtfs_proto::relay::Passed;
use qtfs_proto::relay::Right;
use qtfs_proto::Bytes;
use qtfs_proto::OpenFlags;
use std::fs::OpenOptions;
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::pin::Pin;
use std::sync::Arc;

/// A descriptor as a channel carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRight {
    /// What it is.
    pub passed: Passed,
    /// How a file was opened.
    pub flags: OpenFlags,
    /// See [`Right::token`].
    pub token: u64,
    /// Where a file is read or written next.
    pub offset: u64,
    /// Inode number of a file.
    pub ino: u64,
    /// Path of a file on HOST.
    pub path: Vec<u8>,
}

impl OwnedRight {
    /// One that goes on by a channel.
    pub fn relayed(passed: Passed, token: u64) -> Self {
        Self {
            passed,
            flags: OpenFlags::NONE,
            token,
            offset: 0,
            ino: 0,
            path: Vec::new(),
        }
    }

    /// A copy of what came through a channel.
    pub fn of(right: &Right<'_>) -> Self {
        Self {
            passed: right.passed,
            flags: right.flags,
            token: right.token,
            offset: right.offset,
            ino: right.ino,
            path: right.path.bytes().to_vec(),
        }
    }

    /// For a channel.
    pub fn message(&self) -> Right<'_> {
        // Any bytes will do.
        let path = Bytes::new(&self.path).or(Bytes::new(b""));
        Right {
            passed: self.passed,
            flags: self.flags,
            token: self.token,
            offset: self.offset,
            ino: self.ino,
            path: path.unwrap_or_else(|_| unreachable!("an empty string is a string")),
        }
    }
}

/// A future that can be given away.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a machine does with descriptors.
pub trait Passing: Send + Sync + 'static {
    /// Makes a descriptor known to the other machine, to which `channel` leads.
    fn describe(
        self: Arc<Self>,
        channel: &Channel,
        fd: OwnedFd,
    ) -> Boxed<'_, io::Result<OwnedRight>>;

    /// Makes a descriptor of what the other machine has passed.
    fn realize(
        self: Arc<Self>,
        channel: &Channel,
        right: OwnedRight,
    ) -> Boxed<'_, io::Result<OwnedFd>>;

    /// What the name of a socket of this machine is on the other one.
    fn name_there(&self, name: Vec<u8>) -> Vec<u8> {
        name
    }

    /// What the name of a socket of the other machine is on this one.
    fn name_here(&self, name: Vec<u8>) -> Vec<u8> {
        name
    }

    /// The connection is lost on its way; this is over before the program sees anything of that.
    fn lost(&self) -> Boxed<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// What a descriptor of a program is. Fails for those that cannot be passed.
pub fn classify(fd: &OwnedFd) -> io::Result<Passed> {
    let cannot = |what: &str| io::Error::other(format!("{what} cannot be passed"));
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    match SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG | SFlag::S_IFDIR => Ok(Passed::File),
        SFlag::S_IFIFO if flags.contains(OFlag::O_PATH) => Err(cannot("an O_PATH descriptor")),
        SFlag::S_IFIFO => match flags & OFlag::O_ACCMODE {
            OFlag::O_RDONLY => Ok(Passed::PipeReader),
            OFlag::O_WRONLY => Ok(Passed::PipeWriter),
            _ => Err(cannot("a FIFO that is both read and written")),
        },
        SFlag::S_IFSOCK => {
            if getpeername::<SockaddrStorage>(fd.as_raw_fd()).is_err() {
                return Err(cannot("a socket that is not connected"));
            }
            match getsockopt(fd, SockTypeOption)? {
                SockType::Stream => Ok(Passed::Stream),
                SockType::SeqPacket => Ok(Passed::Seqpacket),
                _ => Err(cannot("a datagram socket")),
            }
        }
        _ => Err(cannot("a device or other object of one kernel")),
    }
}

/// What of the kind that is passed is held on the side that passes it: that itself.
///
/// A pipe is opened anew, so that it can be set not to block without the program noticing.
pub fn passing_side(passed: Passed, fd: OwnedFd) -> io::Result<(Kind, OwnedFd)> {
    let kind = match passed {
        Passed::Stream => return Ok((Kind::Stream, fd)),
        Passed::Seqpacket => return Ok((Kind::Seqpacket, fd)),
        Passed::PipeReader => Kind::PipeReader,
        Passed::PipeWriter => Kind::PipeWriter,
        Passed::File | Passed::Lost => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let own = OpenOptions::new()
        .read(kind == Kind::PipeReader)
        .write(kind == Kind::PipeWriter)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok((kind, own.into()))
}

/// Makes what a program is given in its place on the side that it is passed to, and the end of it
/// that is held there.
pub fn receiving_side(passed: Passed) -> io::Result<(OwnedFd, Kind, OwnedFd)> {
    let pair = |kind| {
        let flags = SockFlag::SOCK_CLOEXEC;
        socketpair(AddressFamily::Unix, kind, None, flags)
    };
    let (theirs, kind, ours) = match passed {
        Passed::Stream => {
            let (theirs, ours) = pair(SockType::Stream)?;
            (theirs, Kind::Stream, ours)
        }
        Passed::Seqpacket => {
            let (theirs, ours) = pair(SockType::SeqPacket)?;
            (theirs, Kind::Seqpacket, ours)
        }
        Passed::PipeReader => {
            let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
            (reader, Kind::PipeWriter, writer)
        }
        Passed::PipeWriter => {
            let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
            (writer, Kind::PipeReader, reader)
        }
        Passed::File | Passed::Lost => return Err(io::ErrorKind::InvalidInput.into()),
    };
    if matches!(kind, Kind::PipeReader | Kind::PipeWriter) {
        // The two ends of a pipe do not share this.
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok((theirs, kind, ours))
}

/// How a file is open, as the protocol says it.
pub fn open_flags(fd: &OwnedFd) -> io::Result<OpenFlags> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    if flags.contains(OFlag::O_PATH) {
        return Err(io::Error::other("an O_PATH descriptor cannot be passed"));
    }
    let access = flags & OFlag::O_ACCMODE;
    Ok(OpenFlags::NONE
        .with_if(access != OFlag::O_WRONLY, OpenFlags::READ)
        .with_if(access != OFlag::O_RDONLY, OpenFlags::WRITE)
        .with_if(flags.contains(OFlag::O_APPEND), OpenFlags::APPEND)
        .with_if(flags.contains(OFlag::O_NONBLOCK), OpenFlags::NONBLOCK)
        .with_if(flags.contains(OFlag::O_SYNC), OpenFlags::SYNC)
        .with_if(flags.contains(OFlag::O_DSYNC), OpenFlags::DSYNC)
        .with_if(flags.contains(OFlag::O_DIRECTORY), OpenFlags::DIRECTORY))
}

/// Opens a file anew, as one was opened that was passed.
pub fn open_again(fd: &OwnedFd, right: &OwnedRight) -> io::Result<OwnedFd> {
    use std::io::Seek;
    use std::io::SeekFrom;
    use std::os::unix::fs::MetadataExt;
    let has = |flag| right.flags.has(flag);
    let mut custom = 0;
    for (flag, number) in [
        (OpenFlags::APPEND, nix::libc::O_APPEND),
        (OpenFlags::NONBLOCK, nix::libc::O_NONBLOCK),
        (OpenFlags::SYNC, nix::libc::O_SYNC),
        (OpenFlags::DSYNC, nix::libc::O_DSYNC),
    ] {
        if has(flag) {
            custom |= number;
        }
    }
    let mut file = OpenOptions::new()
        .read(has(OpenFlags::READ))
        .write(has(OpenFlags::WRITE))
        .custom_flags(custom)
        .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    let meta = file.metadata()?;
    if right.ino != 0 && meta.ino() != right.ino {
        return Err(io::Error::other("the path leads to another file by now"));
    }
    if meta.is_file() && right.offset != 0 {
        file.seek(SeekFrom::Start(right.offset))?;
    }
    Ok(file.into())
}
