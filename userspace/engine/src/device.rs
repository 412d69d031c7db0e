// SPDX-License-Identifier: GPL-2.0

//! What the module offers to engine.

use qtfs_proto::relay::Purpose;
use qtfs_proto::relay::SocketType;
use qtfs_relay::identity::Identity;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Why a thread came back from serving requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There was nothing to do for a while.
    Idle,
    /// The kernel has something to do on the way out of the call; the thread comes again. Also
    /// whatever this engine does not know.
    Again,
}

/// What the module needs when requests wait and no thread is idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Threads that are inside the module to serve.
    pub workers: u32,
    /// Those of them that wait for a request.
    pub idle: u32,
    /// Requests that wait for a thread.
    pub queued: u32,
    /// How many more threads would help; those that were wanted a moment ago and have not come
    /// yet are taken off.
    pub want: u32,
}

/// The module, or a stand-in for tests.
///
/// Every call may be interrupted by [`crate::sys::interrupt`]; then its error is
/// [`io::ErrorKind::Interrupted`].
pub trait Device: Send + Sync + 'static {
    /// Replaces the policy; `blob` is made by [`crate::exports::Exports::blob`].
    fn configure(&self, blob: &[u8]) -> io::Result<()>;

    /// Serves requests in the calling thread.
    fn serve(&self) -> io::Result<Reason>;

    /// Waits until requests are queued and no thread is idle.
    fn wait(&self) -> io::Result<Demand>;
}

impl<D: Device> Device for Arc<D> {
    fn configure(&self, blob: &[u8]) -> io::Result<()> {
        (**self).configure(blob)
    }

    fn serve(&self) -> io::Result<Reason> {
        (**self).serve()
    }

    fn wait(&self) -> io::Result<Demand> {
        (**self).wait()
    }
}

/// A channel to a client, for a connection of unix sockets.
#[derive(Debug)]
pub struct NewChannel {
    /// This end.
    pub end: OwnedFd,
    /// The socket file that it is about, opened with `O_PATH`.
    pub object: OwnedFd,
    /// An open file that is passed.
    pub passed: Option<OwnedFd>,
    /// What it is for.
    pub purpose: Purpose,
    /// Type of the sockets.
    pub kind: SocketType,
    /// Of what was offered, or is.
    pub token: u64,
    /// Number of the client's session.
    pub session: u32,
    /// Who asks.
    pub who: Identity,
}

/// What the module offers for unix sockets.
pub trait Sockets: Send + Sync + 'static {
    /// Waits for the next channel. May be interrupted as [`Device::serve`].
    fn channel(&self) -> io::Result<NewChannel>;

    /// The directory in which sockets are bound to inodes that exist.
    fn directory(&self) -> io::Result<OwnedFd>;
}
