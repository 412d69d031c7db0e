// SPDX-License-Identifier: GPL-2.0

//! What the module offers to engine.

use std::io;

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
