// SPDX-License-Identifier: GPL-2.0

//! What `qtfs.ko` tells and does; all unsafe code.

use nix::libc;
use qtfs_proto::relay::Purpose;
use qtfs_proto::relay::SocketType;
use qtfs_relay::identity::Identity;
use qtfs_relay::sys::owned;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The device that `qtfs.ko` makes.
pub const DEVICE: &str = "/dev/qtfs";

/// Argument of the ioctl NEXT.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Next {
    id: u64,
    key: u64,
    what: u32,
    kind: u32,
    channel: i32,
    object: i32,
    process: i32,
    uid: u32,
    gid: u32,
    listener_uid: u32,
    listener_gid: u32,
    reserved: u32,
}

/// Argument of the ioctl ANSWER.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Answer {
    id: u64,
    errno: u32,
    reserved: u32,
}

/// Argument of the ioctl OPEN.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Open {
    bound: u64,
    token: u64,
    beside: i32,
    purpose: u32,
    kind: u32,
    file: i32,
}

// The ABI between udsproxyd and the module, for the eyes of the compiler.
const _: () = assert!(nix::request_code_read!(b'q', 1, size_of::<Next>()) == 0x8038_7101);
const _: () = assert!(nix::request_code_write!(b'q', 2, size_of::<Answer>()) == 0x4010_7102);
const _: () = assert!(nix::request_code_readwrite!(b'q', 3, size_of::<Open>()) == 0xc020_7103);
const _: () = assert!(nix::request_code_read!(b'q', 4, size_of::<i32>()) == 0x8004_7104);

mod ioctl {
    nix::ioctl_read!(next, b'q', 1, super::Next);
    nix::ioctl_write_ptr!(answer, b'q', 2, super::Answer);
    nix::ioctl_readwrite!(open, b'q', 3, super::Open);
    nix::ioctl_read!(directory, b'q', 4, i32);
    nix::ioctl_none!(version, b'q', 5);
}

/// The version of the interface.
const VERSION: libc::c_int = 2;

/// What the module tells.
#[derive(Debug)]
pub enum Event {
    /// A program connects to a socket of HOST: engine is connected, and the program waits for the
    /// answer.
    Connected(Connected),
    /// A program has bound a socket. If `waiter` is not 0 it waits for the answer.
    Bound {
        /// Number of the socket.
        id: u64,
        /// Who waits.
        waiter: u64,
        /// Type of the socket.
        kind: SocketType,
        /// The socket file, opened with `O_PATH`.
        object: OwnedFd,
    },
    /// The program has closed it.
    Closed {
        /// Number of the socket.
        id: u64,
    },
}

/// See [`Event::Connected`].
#[derive(Debug)]
pub struct Connected {
    /// For the answer.
    pub waiter: u64,
    /// Which socket file it is.
    pub key: u64,
    /// Type of HOST's socket.
    pub kind: SocketType,
    /// The channel to engine.
    pub channel: OwnedFd,
    /// The socket file, opened with `O_PATH`.
    pub object: OwnedFd,
    /// Who connects.
    pub who: Identity,
    /// Who listens on HOST, as far as the numbers of user and group go.
    pub listener: Identity,
}

/// The module, by its device. One udsproxyd at a time has it open.
#[derive(Debug)]
pub struct Device(File);

impl Device {
    /// Opens the device; EBUSY means that another one has it open.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // SAFETY: It has no argument. A device that is no qtfs answers ENOTTY.
        let version = unsafe { ioctl::version(file.as_raw_fd()) }?;
        if version != VERSION {
            return Err(io::Error::from_raw_os_error(libc::ENOTTY));
        }
        Ok(Self(file))
    }

    /// Waits for the next event.
    pub fn next(&self) -> io::Result<Event> {
        let mut next = Next::default();
        // SAFETY: `next` is valid for writes of its size, which is part of the request code.
        unsafe { ioctl::next(self.0.as_raw_fd(), &mut next) }?;
        let kind = SocketType::ALL.iter().copied();
        let kind = kind.into_iter().find(|kind| *kind as u32 == next.kind);
        let kind = kind.ok_or(io::ErrorKind::InvalidData)?;
        match next.what {
            1 => Ok(Event::Connected(Connected {
                waiter: next.id,
                key: next.key,
                kind,
                channel: owned(next.channel),
                object: owned(next.object),
                who: Identity {
                    pid: u32::try_from(next.process).unwrap_or(0),
                    uid: next.uid,
                    gid: next.gid,
                    groups: Vec::new(),
                },
                listener: Identity {
                    uid: next.listener_uid,
                    gid: next.listener_gid,
                    ..Identity::default()
                },
            })),
            2 => Ok(Event::Bound {
                id: next.id,
                waiter: next.key,
                kind,
                object: owned(next.object),
            }),
            3 => Ok(Event::Closed { id: next.id }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Lets whoever waits go on; with an errno other than 0 it fails.
    pub fn answer(&self, waiter: u64, errno: u32) -> io::Result<()> {
        let answer = Answer {
            id: waiter,
            errno,
            reserved: 0,
        };
        // SAFETY: `answer` is valid for reads of its size, which is part of the request code.
        unsafe { ioctl::answer(self.0.as_raw_fd(), &answer) }?;
        Ok(())
    }

    fn channel(&self, mut open: Open) -> io::Result<OwnedFd> {
        // SAFETY: `open` is valid for reads of its size, which is part of the request code.
        let fd = unsafe { ioctl::open(self.0.as_raw_fd(), &mut open) }?;
        Ok(owned(fd))
    }

    /// Opens a channel by which HOST's programs connect to a socket of this machine. Blocks.
    pub fn listen(&self, bound: u64, kind: SocketType) -> io::Result<OwnedFd> {
        self.channel(Open {
            bound,
            beside: -1,
            purpose: Purpose::Listen as u32,
            kind: kind as u32,
            file: -1,
            ..Open::default()
        })
    }

    /// Opens a channel beside another one, to take or offer what goes by a token. Blocks.
    pub fn beside(
        &self,
        channel: BorrowedFd<'_>,
        purpose: Purpose,
        token: u64,
        file: Option<&OwnedFd>,
    ) -> io::Result<OwnedFd> {
        self.channel(Open {
            bound: 0,
            token,
            beside: channel.as_raw_fd(),
            purpose: purpose as u32,
            kind: SocketType::Stream as u32,
            file: file.map_or(-1, |file| file.as_fd().as_raw_fd()),
        })
    }

    /// The directory in which sockets are bound to inodes that exist.
    pub fn directory(&self) -> io::Result<OwnedFd> {
        let mut fd = -1;
        // SAFETY: `fd` is valid for writes of its size, which is part of the request code.
        unsafe { ioctl::directory(self.0.as_raw_fd(), &mut fd) }?;
        Ok(owned(fd))
    }
}
