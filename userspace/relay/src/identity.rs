// SPDX-License-Identifier: GPL-2.0

//! Acting as the program of the other machine while a socket is connected, so that permissions are
//! checked against it and its peer sees it (`SO_PEERCRED`). The process id is ours.

use crate::sys;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd;
use qtfs_proto::relay::Peer;
use qtfs_proto::List;
use std::io;
use std::os::fd::AsFd;

/// Who a program is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Process, of its own machine.
    pub pid: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Identity {
    /// Who connected a socket.
    pub fn of_peer(socket: &impl AsFd) -> io::Result<Self> {
        let peer = getsockopt(socket, PeerCredentials)?;
        Ok(Self {
            pid: u32::try_from(peer.pid()).unwrap_or(0),
            uid: peer.uid(),
            gid: peer.gid(),
            groups: sys::peer_groups(socket),
        })
    }

    /// From what a channel says.
    pub fn of_message(peer: &Peer<'_>) -> Self {
        Self {
            pid: peer.pid,
            uid: peer.uid,
            gid: peer.gid,
            groups: peer.groups.iter().collect(),
        }
    }

    /// For a channel; `buf` is room for the groups.
    pub fn message<'a>(&self, buf: &'a mut Vec<u8>) -> Peer<'a> {
        buf.resize(self.groups.len() * 4, 0);
        Peer {
            pid: self.pid,
            uid: self.uid,
            gid: self.gid,
            groups: List::pack(self.groups.iter().copied(), buf).unwrap_or(List::empty()),
        }
    }

    /// Runs `f` as this user, in the calling thread alone.
    ///
    /// The process ends if the thread cannot go back to what it was: it would act as somebody else
    /// from then on.
    pub fn act<T>(&self, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.uid == 0 && self.gid == 0 && self.groups.is_empty() {
            return f();
        }
        let own: Vec<u32> = unistd::getgroups()?.iter().map(|g| g.as_raw()).collect();
        let acting = Acting { own };
        sys::set_groups(&self.groups)?;
        sys::set_group(self.gid)?;
        sys::set_user(self.uid)?;
        let result = f();
        drop(acting);
        result
    }
}

/// Goes back to root.
struct Acting {
    own: Vec<u32>,
}

impl Drop for Acting {
    fn drop(&mut self) {
        let back = sys::set_user(0)
            .and_then(|()| sys::set_group(0))
            .and_then(|()| sys::set_groups(&self.own));
        if let Err(error) = back {
            tracing::error!("a thread cannot go back to being root: {error}");
            std::process::abort();
        }
    }
}
