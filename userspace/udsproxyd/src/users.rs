// SPDX-License-Identifier: GPL-2.0

//! Whether somebody is connected to a socket of datagrams, which it is not told.

use nix::sys::stat::fstat;
use std::io;
use std::os::fd::OwnedFd;

/// The kernel's table of unix sockets (`proc_pid_net(5)`).
const TABLE: &str = "/proc/self/net/unix";

/// How many references the kernel has to a socket: each socket that is connected to it is one.
pub fn references(socket: &OwnedFd) -> io::Result<u32> {
    let inode = fstat(socket)?.st_ino;
    let table = std::fs::read(TABLE)?;
    find(&table, inode).ok_or_else(|| io::Error::other(format!("{TABLE} has no socket {inode}")))
}

/// The second field of the line whose seventh is `inode`.
fn find(table: &[u8], inode: u64) -> Option<u32> {
    // Names of sockets may be any bytes, but stand behind.
    let table = String::from_utf8_lossy(table);
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let count = fields.nth(1)?;
        let found: u64 = fields.nth(4)?.parse().ok()?;
        (found == inode).then(|| u32::from_str_radix(count, 16).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn lines_are_found_by_the_inode() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 1234 /run/a 99\n\
            0000000000000000: 0000001f 00000000 00010000 0001 01    99 @\xff\n";
        assert_eq!(find(table, 1234), Some(2));
        assert_eq!(find(table, 99), Some(31));
        assert_eq!(find(table, 3), None);
    }

    #[test]
    fn each_connected_socket_is_one_more() {
        let directory = std::env::temp_dir().join(format!("users-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("s");
        let socket = OwnedFd::from(UnixDatagram::bind(&path).unwrap());
        let alone = references(&socket).unwrap();
        let others = [
            UnixDatagram::unbound().unwrap(),
            UnixDatagram::unbound().unwrap(),
        ];
        for other in &others {
            other.connect(&path).unwrap();
        }
        others[0].send(b"x").unwrap();
        assert_eq!(references(&socket).unwrap(), alone + 2);
        drop(others);
        // What was sent is there still.
        assert_eq!(references(&socket).unwrap(), alone);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
