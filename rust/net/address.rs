// SPDX-License-Identifier: GPL-2.0

//! IPv4 and IPv6 addresses.
//!
//! C headers: [`include/linux/inet.h`](srctree/include/linux/inet.h)

use core::{
    mem::size_of,
    ptr, //
};
use kernel::{
    fmt,
    prelude::*, //
};

use crate::bindings;

/// Address and TCP port of a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Address and port, both as numbers.
    V4([u8; 4], u16),
    /// Address and port, both as numbers.
    V6([u8; 16], u16),
}

impl Address {
    /// Reads an IPv4 or IPv6 address, without brackets or a port.
    ///
    /// Fails with [`EINVAL`] when the text is neither.
    pub fn parse(text: &[u8], port: u16) -> Result<Self> {
        let len = c_int::try_from(text.len())?;
        let mut v4 = [0u8; 4];
        // SAFETY: `text` has `len` bytes and `v4` has the four that an IPv4 address needs.
        let ok =
            unsafe { bindings::in4_pton(text.as_ptr(), len, v4.as_mut_ptr(), -1, ptr::null_mut()) };
        if ok == 1 {
            return Ok(Self::V4(v4, port));
        }
        let mut v6 = [0u8; 16];
        // SAFETY: `text` has `len` bytes and `v6` has the sixteen that an IPv6 address needs.
        let ok =
            unsafe { bindings::in6_pton(text.as_ptr(), len, v6.as_mut_ptr(), -1, ptr::null_mut()) };
        if ok == 1 {
            return Ok(Self::V6(v6, port));
        }
        Err(EINVAL)
    }

    /// Whether both are of the same machine, as far as addresses tell.
    pub fn is_same_host(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::V4(a, _), Self::V4(b, _)) => a == b,
            (Self::V6(a, _), Self::V6(b, _)) => a == b,
            _ => false,
        }
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        match self {
            Self::V4(_, port) | Self::V6(_, port) => *port,
        }
    }

    pub(crate) fn family(&self) -> c_int {
        match self {
            Self::V4(..) => bindings::AF_INET as c_int,
            Self::V6(..) => bindings::AF_INET6 as c_int,
        }
    }

    /// The address as the kernel's socket calls take it, and its length in bytes.
    pub(crate) fn to_sockaddr(self) -> (bindings::__kernel_sockaddr_storage, c_int) {
        let mut storage: bindings::__kernel_sockaddr_storage = pin_init::zeroed();
        match self {
            Self::V4(addr, port) => {
                let mut sin: bindings::sockaddr_in = pin_init::zeroed();
                sin.sin_family = bindings::AF_INET as u16;
                sin.sin_port = port.to_be();
                sin.sin_addr.s_addr = u32::from_ne_bytes(addr);
                // SAFETY: The storage is large enough and aligned for every socket address.
                unsafe {
                    (&raw mut storage)
                        .cast::<bindings::sockaddr_in>()
                        .write(sin)
                };
                (storage, size_of::<bindings::sockaddr_in>() as c_int)
            }
            Self::V6(addr, port) => {
                let mut sin6: bindings::sockaddr_in6 = pin_init::zeroed();
                sin6.sin6_family = bindings::AF_INET6 as u16;
                sin6.sin6_port = port.to_be();
                sin6.sin6_addr.in6_u.u6_addr8 = addr;
                // SAFETY: As above.
                unsafe {
                    (&raw mut storage)
                        .cast::<bindings::sockaddr_in6>()
                        .write(sin6)
                };
                (storage, size_of::<bindings::sockaddr_in6>() as c_int)
            }
        }
    }

    /// The address that the kernel left in `storage`.
    pub(crate) fn from_sockaddr(storage: &bindings::__kernel_sockaddr_storage) -> Result<Self> {
        let raw: *const bindings::__kernel_sockaddr_storage = storage;
        // SAFETY: The family is the first field of every socket address.
        let family = unsafe { raw.cast::<u16>().read() };
        if u32::from(family) == bindings::AF_INET {
            // SAFETY: The family says that it is an IPv4 address.
            let sin = unsafe { raw.cast::<bindings::sockaddr_in>().read() };
            let addr = sin.sin_addr.s_addr.to_ne_bytes();
            Ok(Self::V4(addr, u16::from_be(sin.sin_port)))
        } else if u32::from(family) == bindings::AF_INET6 {
            // SAFETY: The family says that it is an IPv6 address.
            let sin6 = unsafe { raw.cast::<bindings::sockaddr_in6>().read() };
            // SAFETY: Every view of the union is plain bytes.
            let addr = unsafe { sin6.sin6_addr.in6_u.u6_addr8 };
            Ok(Self::V6(addr, u16::from_be(sin6.sin6_port)))
        } else {
            Err(EAFNOSUPPORT)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4([a, b, c, d], port) => write!(f, "{a}.{b}.{c}.{d}:{port}"),
            Self::V6(addr, port) => {
                f.write_str("[")?;
                for (i, pair) in addr.chunks_exact(2).enumerate() {
                    if i > 0 {
                        f.write_str(":")?;
                    }
                    if let [high, low] = pair {
                        write!(f, "{:x}", u16::from_be_bytes([*high, *low]))?;
                    }
                }
                write!(f, "]:{port}")
            }
        }
    }
}
