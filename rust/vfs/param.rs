// SPDX-License-Identifier: GPL-2.0

//! Parameters of both modules, which the C side declares (`rust/shim/params.c`).

use kernel::str::{
    CStr,
    CStrExt, //
};

use crate::bindings;

/// How much is said in the kernel log; each level includes those before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What does not work.
    Error,
    /// What works in spite of something.
    Warn,
    /// What begins and ends.
    Info,
    /// Every operation.
    Debug,
}

/// `qtfs_server_ip`: address of the server as text.
pub fn server_ip() -> &'static CStr {
    // SAFETY: The C side keeps a string that ends with NUL, and it cannot be written after the
    // module was loaded.
    unsafe { CStr::from_char_ptr((&raw const bindings::qtfs_server_ip).cast()) }
}

/// `qtfs_server_port`.
pub fn server_port() -> u16 {
    // SAFETY: As above.
    unsafe { bindings::qtfs_server_port }
}

/// Whether messages of `level` are wanted, by `qtfs_log_level`.
pub fn logs(level: Level) -> bool {
    // SAFETY: A single number; readers see the old or the new value.
    let wanted = unsafe { (&raw const bindings::qtfs_log_level).read_volatile() };
    level as u32 <= wanted
}

/// Name of the other machine's network node, for logs: this machine's host name.
pub fn node_name(buf: &mut [u8; 65]) -> &[u8] {
    // SAFETY: The buffer is as long as the name may be, with its NUL.
    let len = unsafe { bindings::qtfs_node_name(buf.as_mut_ptr().cast(), buf.len()) };
    buf.get(..len).unwrap_or(b"")
}
