// SPDX-License-Identifier: GPL-2.0

//! Why qtinfo gives up: one line that names the thing and the remedy, and an exit status.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why qtinfo shows nothing.
#[derive(Debug)]
pub enum Failure {
    /// Arguments that make no sense.
    Usage(String),
    /// The client's module is not loaded; the value tells whether the server's is.
    NoClient(bool),
    /// Neither module is loaded.
    NoModule,
    /// Nothing of qtfs is mounted there.
    NotMounted(PathBuf),
    /// Only root may do that.
    NotRoot,
    /// Something that should work did not.
    System(String, io::Error),
}

/// The exit statuses, as `--help` shows them.
pub const EXIT_STATUS: &str = "\
Exit status:
  0  all is well, also when nothing is mounted
  1  no module is loaded, MOUNTPOINT is no mount of qtfs, not root, or a system call failed
  2  wrong command line";

impl Failure {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// Whether nobody reads what is printed any more, which is no failure.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::System(_, error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What a failed write to stdout means.
    pub fn printing(error: io::Error) -> Self {
        Self::System("printing".into(), error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::NoClient(false) => f.write_str(
                "qtfs.ko is not loaded: run \"insmod qtfs.ko qtfs_server_ip=ADDRESS\" first",
            ),
            Self::NoClient(true) => f.write_str(
                "qtfs.ko is not loaded, but qtfs_server.ko is: this is HOST; what is mounted is shown on the DPU",
            ),
            Self::NoModule => f.write_str(
                "neither qtfs.ko nor qtfs_server.ko is loaded: load one with insmod first",
            ),
            Self::NotMounted(path) => write!(
                f,
                "nothing of qtfs is mounted on {}: qtinfo without arguments shows what is mounted where",
                path.display()
            ),
            Self::NotRoot => {
                f.write_str("changing the log level needs root: run it with sudo")
            }
            Self::System(doing, error) => write!(f, "{doing} failed: {error}"),
        }
    }
}

impl std::error::Error for Failure {}
