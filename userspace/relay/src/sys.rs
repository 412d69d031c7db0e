// SPDX-License-Identifier: GPL-2.0

//! The system calls that need unsafe code.

use nix::libc;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// Takes over descriptors that `recvmsg(2)` has just made.
pub(crate) fn received(fds: impl IntoIterator<Item = RawFd>) -> Vec<OwnedFd> {
    let own = |fd| {
        // SAFETY: The kernel has given the descriptor to this process for the message that was
        // received; nobody else knows it.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    fds.into_iter().map(own).collect()
}

/// Takes over a descriptor that `accept4(2)`, or an ioctl that makes one, has just returned.
pub fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: The kernel has just made it for the caller; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Has the runtime wait for a descriptor.
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: An `OwnedFd` is always the same descriptor, which is open until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    Ok(registered?)
}

fn check(result: libc::c_long) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Binds a unix socket to a path, which may fill the address to its last byte.
pub(crate) fn bind(socket: &impl AsFd, path: &[u8]) -> io::Result<()> {
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; 108],
    };
    if path.len() > address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    let len = std::mem::offset_of!(libc::sockaddr_un, sun_path) + path.len();
    let (socket, len) = (socket.as_fd().as_raw_fd(), len as libc::socklen_t);
    // SAFETY: The address has so many bytes.
    let result = unsafe { libc::bind(socket, (&raw const address).cast(), len) };
    check(result.into())
}

/// What a socket or pipe says of its other end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct End {
    /// It writes no more.
    pub(crate) shut_down: bool,
    /// It is closed, or shut down in both directions.
    pub(crate) closed: bool,
}

/// Looks at the other end, without waiting.
pub(crate) fn end_of(fd: &impl AsFd) -> End {
    let mut poll = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events: libc::POLLIN | libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: It is one structure.
    if unsafe { libc::poll(&mut poll, 1, 0) } < 0 {
        return End::default();
    }
    End {
        shut_down: poll.revents & (libc::POLLRDHUP | libc::POLLHUP) != 0,
        closed: poll.revents & libc::POLLHUP != 0,
    }
}

/// Whether a socket has bytes that were not received yet.
pub(crate) fn has_unread(socket: &impl AsFd) -> bool {
    let mut count: libc::c_int = 0;
    // SAFETY: `count` is what FIONREAD writes.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::FIONREAD, &mut count) };
    result == 0 && count > 0
}

/// Sets the supplementary groups of the calling thread, and of no other as libc does.
pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: The list has its length.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
}

/// Sets the effective group of the calling thread.
pub(crate) fn set_group(gid: u32) -> io::Result<()> {
    const SAME: u32 = u32::MAX;
    // SAFETY: Numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, SAME, gid, SAME) })
}

/// Sets the effective user of the calling thread.
pub(crate) fn set_user(uid: u32) -> io::Result<()> {
    const SAME: u32 = u32::MAX;
    // SAFETY: Numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, SAME, uid, SAME) })
}

/// Supplementary groups of whoever connected a socket (`SO_PEERGROUPS`).
pub(crate) fn peer_groups(socket: &impl AsFd) -> Vec<u32> {
    let mut groups = vec![0u32; 64];
    loop {
        let mut len = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: `groups` has `len` bytes.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut len,
            )
        };
        let count = len as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return groups;
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::ERANGE) || count <= groups.len()
        {
            return Vec::new();
        }
        groups.resize(count, 0);
    }
}
