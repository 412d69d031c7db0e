// SPDX-License-Identifier: GPL-2.0

//! Tracepoints of the client, which its C side declares (`rust/client/trace.h`).
//!
//! The functions are inlined because the server's module, which this crate is linked into as well,
//! has no such C side.

use kernel::prelude::*;

use crate::bindings;

/// A request, as tracepoints tell of it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The mount, as the log names it.
    pub mount: &'a [u8],
    /// Name of the operation.
    pub op: &'a str,
    /// What tells it from others.
    pub address: usize,
    /// Its size in bytes.
    pub len: usize,
}

impl Request<'_> {
    #[inline]
    fn raw(&self) -> bindings::qtfs_trace {
        bindings::qtfs_trace {
            mount: self.mount.as_ptr().cast(),
            mount_len: self.mount.len(),
            op: self.op.as_ptr().cast(),
            op_len: self.op.len(),
            request: self.address as *const c_void,
            len: self.len,
        }
    }

    /// It is on its way.
    #[inline]
    pub fn start(&self) {
        // SAFETY: The texts are valid during the call; the address is a number to the C side.
        unsafe { bindings::qtfs_trace_start(&self.raw()) };
    }

    /// The current program begins to wait for the reply.
    #[inline]
    pub fn wait(&self) {
        // SAFETY: As above.
        unsafe { bindings::qtfs_trace_wait(&self.raw()) };
    }

    /// It ended after `us` microseconds; `status` is 0 or an errno, of the server or of this machine.
    #[inline]
    pub fn finish(&self, status: i64, us: u64) {
        // SAFETY: As above.
        unsafe { bindings::qtfs_trace_finish(&self.raw(), status as c_long, us) };
    }
}

/// A connection of `mount` was lost and is made anew.
#[inline]
pub fn reconnect(mount: &[u8], lane: u16, error: Error) {
    let (text, len) = (mount.as_ptr().cast(), mount.len());
    // SAFETY: The text is valid during the call.
    unsafe { bindings::qtfs_trace_reconnect(text, len, lane.into(), error.to_errno()) };
}
