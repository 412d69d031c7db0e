// SPDX-License-Identifier: GPL-2.0

//! What udsproxyd and `qtfs-offload run` say to each other about connections of programs.
//!
//! A daemon such as containerd takes the end of a connection to a shim for the end of the shim, and
//! kills its container. So a program that can be started again at any time is ended before it sees
//! the end of a connection that was only lost on its way, by udsproxyd's death, engine's, or that of
//! the session. To this end its supervisor holds a second descriptor of each connection.
//!
//! There is one unix stream for each: udsproxyd sends [`HELD`] with the descriptor, and [`DONE`] when
//! the connection has ended as the programs wanted it. [`LOST`], or the end of the stream without
//! [`DONE`], tells that it is lost; the supervisor closes the stream when the program is ended.

use std::io;
use std::path::Path;
use std::path::PathBuf;

/// Where supervisors listen. Root's alone.
pub const DIRECTORY: &str = "/run/qtfs/guards";
/// The connection whose descriptor comes with this is to be guarded.
pub const HELD: u8 = b'h';
/// It has ended in order.
pub const DONE: u8 = b'.';
/// It is lost, and is closed when the stream is.
pub const LOST: u8 = b'!';

/// Where the supervisor of a process listens, if it has one: it is known by its pid namespace.
pub fn path(pid: u32) -> io::Result<PathBuf> {
    Ok(path_of(&std::fs::read_link(format!("/proc/{pid}/ns/pid"))?))
}

/// The same for processes of a pid namespace, by what `/proc/PID/ns/pid` says.
pub fn path_of(namespace: &Path) -> PathBuf {
    let name = namespace.to_string_lossy();
    let number: String = name.chars().filter(char::is_ascii_digit).collect();
    Path::new(DIRECTORY).join(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_one_pid_namespace_have_one_supervisor() {
        let own = path(std::process::id()).unwrap();
        assert_eq!(own, path(std::os::unix::process::parent_id()).unwrap());
        let name = own.file_name().unwrap().to_str().unwrap();
        assert!(name.parse::<u64>().unwrap() > 0, "{name}");
    }
}
