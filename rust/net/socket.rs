// SPDX-License-Identifier: GPL-2.0

//! TCP connections and listeners inside the kernel.
//!
//! C headers: [`include/linux/net.h`](srctree/include/linux/net.h),
//! [`include/net/sock.h`](srctree/include/net/sock.h)

use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};

use crate::{
    bindings,
    Address,
    Segment, //
};

/// How long sent data may stay unacknowledged before the connection counts as lost.
const USER_TIMEOUT_MS: c_int = 15_000;

/// Connections that may wait to be accepted.
const BACKLOG: c_int = 64;

/// A `struct socket` that is released on drop.
///
/// # Invariants
///
/// The pointer is a socket that this object owns.
struct Raw(NonNull<bindings::socket>);

// SAFETY: Sockets may be used and released from any thread; the protocol locks itself.
unsafe impl Send for Raw {}
// SAFETY: As above.
unsafe impl Sync for Raw {}

impl Raw {
    fn create(addr: &Address) -> Result<Self> {
        let mut sock = ptr::null_mut();
        // SAFETY: `init_net` is always alive and `sock` is a place for the result.
        to_result(unsafe {
            bindings::sock_create_kern(
                &raw mut bindings::init_net,
                addr.family(),
                bindings::sock_type_SOCK_STREAM as c_int,
                bindings::IPPROTO_TCP as c_int,
                &mut sock,
            )
        })?;
        // INVARIANT: `sock_create_kern` succeeded, so the socket is ours.
        let this = Self(NonNull::new(sock).ok_or(ENOMEM)?);
        // SAFETY: The socket is alive; its timers may outlive it, so they need the namespace.
        unsafe { bindings::qtfs_sock_hold_net(sock) };
        Ok(this)
    }

    fn as_ptr(&self) -> *mut bindings::socket {
        self.0.as_ptr()
    }

    fn shutdown(&self) {
        // SAFETY: The socket is alive. A socket that is not connected has nothing to shut down.
        unsafe {
            bindings::kernel_sock_shutdown(self.as_ptr(), bindings::sock_shutdown_cmd_SHUT_RDWR)
        };
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the socket is ours.
        unsafe { bindings::sock_release(self.as_ptr()) };
    }
}

/// A TCP connection.
pub struct Socket(Raw);

impl Socket {
    /// Connects to a server; gives up after `timeout_ms`.
    ///
    /// Fails with [`ETIMEDOUT`] when there was no answer in time, [`ECONNREFUSED`] when nobody
    /// listens, or what routing says.
    pub fn connect(addr: &Address, timeout_ms: u32) -> Result<Self> {
        let sock = Raw::create(addr)?;
        let (mut storage, len) = addr.to_sockaddr();
        // SAFETY: The socket is alive and the address lives during the calls.
        let ret = unsafe {
            bindings::qtfs_sock_set_timeouts(
                sock.as_ptr(),
                bindings::MAX_SCHEDULE_TIMEOUT,
                bindings::__msecs_to_jiffies(timeout_ms) as c_long,
            );
            bindings::kernel_connect(sock.as_ptr(), (&raw mut storage).cast(), len, 0)
        };
        if ret == EINPROGRESS.to_errno() {
            return Err(ETIMEDOUT);
        }
        to_result(ret)?;
        let this = Self(sock);
        this.tune();
        Ok(this)
    }

    fn tune(&self) {
        let sock = self.0.as_ptr();
        // SAFETY: The socket is alive and connected, so `sk` is set.
        unsafe {
            let sk = (*sock).sk;
            bindings::tcp_sock_set_nodelay(sk);
            bindings::tcp_sock_set_user_timeout(sk, USER_TIMEOUT_MS);
            bindings::sock_set_keepalive(sk);
            bindings::tcp_sock_set_keepidle(sk, 10);
            bindings::tcp_sock_set_keepintvl(sk, 5);
            bindings::tcp_sock_set_keepcnt(sk, 3);
            bindings::qtfs_sock_set_timeouts(
                sock,
                bindings::MAX_SCHEDULE_TIMEOUT,
                bindings::MAX_SCHEDULE_TIMEOUT,
            );
            bindings::qtfs_sock_set_nofs(sock);
        }
    }

    /// Address of the other end.
    pub fn peer(&self) -> Result<Address> {
        let mut storage: bindings::__kernel_sockaddr_storage = pin_init::zeroed();
        // SAFETY: The socket is alive and the storage is large enough for every address.
        let len =
            unsafe { bindings::kernel_getpeername(self.0.as_ptr(), (&raw mut storage).cast()) };
        to_result(len.min(0))?;
        Address::from_sockaddr(&storage)
    }

    /// The hardware address of the Ethernet interface that the connection goes out by, if any.
    pub fn hardware_address(&self) -> Option<[u8; 6]> {
        let mut address = [0; 6];
        // SAFETY: The socket is alive and connected, so `sk` is set; `address` has room.
        let found =
            unsafe { bindings::qtfs_sock_hardware_address(self.0.as_ptr(), address.as_mut_ptr()) };
        found.then_some(address)
    }

    /// Sends a part of a frame from byte `offset` on, head first, then data; data is sent in
    /// place.
    ///
    /// Returns how many bytes were sent, which is fewer than there are only without `wait`, or
    /// when a signal came. One caller at a time.
    pub fn send_some(
        &self,
        head: &[u8],
        data: &crate::Pages,
        offset: usize,
        wait: bool,
    ) -> Result<usize> {
        let total = head.len() + data.len();
        let mut sent = offset;
        let flags = bindings::MSG_NOSIGNAL | if wait { 0 } else { bindings::MSG_DONTWAIT };
        while let Some(rest) = head.get(sent..).filter(|rest| !rest.is_empty()) {
            let more = if data.is_empty() {
                0
            } else {
                bindings::MSG_MORE
            };
            let vec = bindings::kvec {
                iov_base: rest.as_ptr().cast_mut().cast(),
                iov_len: rest.len(),
            };
            // SAFETY: The socket is alive, `vec` is one piece of `rest.len()` bytes.
            let ret = unsafe {
                bindings::qtfs_sock_send_kvec(self.0.as_ptr(), &vec, 1, rest.len(), flags | more)
            };
            match Self::progress(ret, wait)? {
                0 => return Ok(sent - offset),
                n => sent += n,
            }
        }
        if sent < total {
            let mut rest = data.range(sent - head.len(), data.len())?;
            while sent < total {
                // SAFETY: `Segment` is a transparent `bio_vec`; the pages are held by `data`.
                let ret = unsafe {
                    bindings::qtfs_sock_send_bvec(
                        self.0.as_ptr(),
                        rest.as_ptr().cast(),
                        rest.len(),
                        total - sent,
                        flags | bindings::MSG_SPLICE_PAGES,
                    )
                };
                match Self::progress(ret, wait)? {
                    0 => return Ok(sent - offset),
                    n => sent += n,
                }
                if sent < total {
                    rest = data.range(sent - head.len(), data.len())?;
                }
            }
        }
        Ok(sent - offset)
    }

    /// How many bytes a send took; 0 when it would have had to wait.
    fn progress(ret: c_int, wait: bool) -> Result<usize> {
        if ret == EAGAIN.to_errno() && !wait {
            return Ok(0);
        }
        to_result(ret.min(0))?;
        match usize::try_from(ret)? {
            0 => Err(ECONNRESET),
            n => Ok(n),
        }
    }

    /// Fills `buf`.
    ///
    /// Fails with [`ECONNRESET`] when the other end closed the connection, [`ETIMEDOUT`] when
    /// nothing came for the time that [`Socket::set_recv_timeout`] allows.
    pub fn recv_exact(&self, buf: &mut [u8]) -> Result {
        let mut at = 0;
        while let Some(rest) = buf.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let vec = bindings::kvec {
                iov_base: rest.as_mut_ptr().cast(),
                iov_len: rest.len(),
            };
            // SAFETY: The socket is alive, `vec` is one piece of `rest.len()` bytes.
            let ret = unsafe {
                bindings::qtfs_sock_recv_kvec(
                    self.0.as_ptr(),
                    &vec,
                    1,
                    rest.len(),
                    bindings::MSG_WAITALL,
                )
            };
            at += Self::received(ret)?;
        }
        Ok(())
    }

    /// Fills all bytes of `segments`, which the caller holds; errors as
    /// [`Socket::recv_exact`].
    pub fn recv_segments(&self, segments: &[Segment]) -> Result {
        let total: usize = segments.iter().map(Segment::len).sum();
        if total == 0 {
            return Ok(());
        }
        // SAFETY: `Segment` is a transparent `bio_vec`; the caller holds the pages.
        let ret = unsafe {
            bindings::qtfs_sock_recv_bvec(
                self.0.as_ptr(),
                segments.as_ptr().cast(),
                segments.len(),
                total,
                bindings::MSG_WAITALL,
            )
        };
        // A blocking receive with MSG_WAITALL is short only when the connection ends.
        if Self::received(ret)? == total {
            Ok(())
        } else {
            Err(ECONNRESET)
        }
    }

    fn received(ret: c_int) -> Result<usize> {
        if ret == EAGAIN.to_errno() {
            return Err(ETIMEDOUT);
        }
        to_result(ret.min(0))?;
        match usize::try_from(ret)? {
            0 => Err(ECONNRESET),
            n => Ok(n),
        }
    }

    /// Limits how long a receive waits for more bytes; 0 means for ever.
    pub fn set_recv_timeout(&self, ms: u32) {
        let jiffies = match ms {
            0 => bindings::MAX_SCHEDULE_TIMEOUT,
            // SAFETY: A pure conversion.
            ms => unsafe { bindings::__msecs_to_jiffies(ms) as c_long },
        };
        // SAFETY: The socket is alive.
        unsafe {
            bindings::qtfs_sock_set_timeouts(
                self.0.as_ptr(),
                jiffies,
                bindings::MAX_SCHEDULE_TIMEOUT,
            )
        };
    }

    /// Ends the connection: whoever sends or receives fails from now on.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }
}

/// A socket that accepts connections.
pub struct Listener(Raw);

impl Listener {
    /// Listens on an address of this machine.
    ///
    /// Fails with [`EADDRINUSE`], [`EADDRNOTAVAIL`] or what the network says.
    pub fn bind(addr: &Address) -> Result<Self> {
        let sock = Raw::create(addr)?;
        let (mut storage, len) = addr.to_sockaddr();
        // SAFETY: The socket is alive and the address lives during the call.
        unsafe {
            bindings::sock_set_reuseaddr((*sock.as_ptr()).sk);
            to_result(bindings::kernel_bind(
                sock.as_ptr(),
                (&raw mut storage).cast(),
                len,
            ))?;
            to_result(bindings::kernel_listen(sock.as_ptr(), BACKLOG))?;
        }
        Ok(Self(sock))
    }

    /// Waits for the next connection.
    ///
    /// Fails with [`EINVAL`] after [`Listener::shutdown`].
    pub fn accept(&self) -> Result<Socket> {
        let mut sock = ptr::null_mut();
        // SAFETY: The listener is alive and `sock` is a place for the result.
        to_result(unsafe { bindings::kernel_accept(self.0.as_ptr(), &mut sock, 0) })?;
        // INVARIANT: `kernel_accept` succeeded, so the socket is ours.
        let socket = Socket(Raw(NonNull::new(sock).ok_or(ENOMEM)?));
        socket.tune();
        Ok(socket)
    }

    /// Makes waiting and later calls of [`Listener::accept`] fail.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }
}
