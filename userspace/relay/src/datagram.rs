// SPDX-License-Identifier: GPL-2.0

//! Who sends datagrams, and the sockets that send them in the place of others.
//!
//! A receiver sees the name that the sender's socket is bound to, and answers that. So each sender
//! with a name has a socket here that is bound to the same name, in a directory that nobody else
//! sees: an answer finds what the receiver's own directories have under that name.

use crate::listener;
use crate::sys;
use nix::errno::Errno;
use nix::sched::unshare;
use nix::sched::CloneFlags;
use nix::unistd;
use qtfs_proto::relay;
use qtfs_proto::relay::SocketType;
use qtfs_proto::Bytes;
use rustix::mount::fsconfig_create;
use rustix::mount::fsmount;
use rustix::mount::fsopen;
use rustix::mount::FsMountFlags;
use rustix::mount::FsOpenFlags;
use rustix::mount::MountAttrFlags;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// How many senders of one receiver keep a socket; those that sent least lately get one anew.
const KEPT: usize = 64;

/// Who has sent a datagram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What its socket is bound to; empty for nothing, and for names that are not in a file system.
    pub name: Vec<u8>,
}

impl Sender {
    /// A copy of what came through a channel.
    pub fn of(sender: &relay::Sender<'_>) -> Self {
        Self {
            uid: sender.uid,
            gid: sender.gid,
            name: sender.name.bytes().to_vec(),
        }
    }

    /// For a channel. A name that is too long is none.
    pub fn message(&self) -> relay::Sender<'_> {
        let name = Some(&*self.name).filter(|name| name.len() <= relay::MAX_NAME);
        let name = Bytes::new(name.unwrap_or_default()).or(Bytes::new(b""));
        relay::Sender {
            uid: self.uid,
            gid: self.gid,
            name: name.unwrap_or_else(|_| unreachable!("an empty string is a string")),
        }
    }
}

/// A sender's name, and the socket that is bound to it.
type Named = (Vec<u8>, Arc<AsyncFd<OwnedFd>>);

/// The sockets that send to one receiver for those who have a name.
#[derive(Debug)]
pub(crate) struct Outlets {
    /// The receiver's socket file.
    receiver: Arc<OwnedFd>,
    /// Who has sent last comes last.
    named: Mutex<Vec<Named>>,
}

impl Outlets {
    /// To whatever is bound to the inode of `receiver`.
    pub(crate) fn new(receiver: Arc<OwnedFd>) -> Self {
        Self {
            receiver,
            named: Mutex::default(),
        }
    }

    /// Whether there is still somebody who receives.
    pub(crate) async fn is_received(&self) -> bool {
        let receiver = Arc::clone(&self.receiver);
        let probe = move || {
            let socket = listener::new_socket(SocketType::Datagram)?;
            listener::connect(&socket, &*receiver)
        };
        match tokio::task::spawn_blocking(probe).await {
            // Others than these have found it.
            Ok(Err(error)) => !is_gone(&error),
            Ok(Ok(())) | Err(_) => true,
        }
    }

    /// The socket of a name of the other machine; `here` tells what that is on this one.
    pub(crate) async fn of(
        &self,
        name: &[u8],
        here: impl FnOnce(Vec<u8>) -> Vec<u8>,
    ) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
        let kept = |named: &mut Vec<Named>| {
            let at = named.iter().position(|(other, _)| other == name)?;
            let found = named.remove(at);
            let socket = Arc::clone(&found.1);
            named.push(found);
            Some(socket)
        };
        let lock = || self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = kept(&mut lock()) {
            return Ok(socket);
        }
        let (receiver, owned) = (Arc::clone(&self.receiver), here(name.to_vec()));
        let make = move || {
            let socket = listener::new_outlet()?;
            if let Err(error) = bind_unseen(&socket, &owned) {
                tracing::warn!(
                    "a receiver of datagrams does not see the name of their sender, {}: {error}",
                    String::from_utf8_lossy(&owned)
                );
            }
            listener::connect(&socket, &*receiver)?;
            Ok::<_, io::Error>(socket)
        };
        let made = tokio::task::spawn_blocking(make).await;
        let made = made.map_err(io::Error::other)??;
        let socket = Arc::new(sys::register(
            made,
            Interest::READABLE | Interest::WRITABLE,
        )?);
        let mut named = lock();
        if named.len() >= KEPT {
            named.remove(0);
        }
        named.push((name.to_vec(), Arc::clone(&socket)));
        Ok(socket)
    }
}

/// Whether an error says that nobody receives any more.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    let gone = [
        Errno::ECONNREFUSED,
        Errno::ECONNRESET,
        Errno::ENOTCONN,
        Errno::EPIPE,
    ];
    let errno = error.raw_os_error().map(Errno::from_raw);
    errno.is_some_and(|errno| gone.contains(&errno))
}

/// Binds a socket to a name that nobody finds, in a file system of its own. A thread of its own does
/// so, since the root directory that it takes would be that of others else.
fn bind_unseen(socket: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let bind = || {
        unshare(CloneFlags::CLONE_FS)?;
        let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&tmpfs)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let root = fsmount(&tmpfs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        unistd::fchdir(&root)?;
        unistd::chroot(".")?;
        let path = Path::new(OsStr::from_bytes(name));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        sys::bind(socket, name)
    };
    std::thread::scope(|scope| {
        let bound = scope.spawn(bind).join();
        bound.unwrap_or_else(|_| Err(io::Error::other("the thread that binds it has ended")))
    })
}
