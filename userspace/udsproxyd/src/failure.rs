// SPDX-License-Identifier: GPL-2.0

//! Why udsproxyd refuses to run: one line that names the thing and the remedy, and an exit status.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// Why udsproxyd does not run, or stopped running.
#[derive(Debug)]
pub enum Failure {
    /// Arguments that make no sense.
    Usage(String),
    /// Not root.
    NotRoot,
    /// The module is not loaded.
    NoModule(PathBuf),
    /// Another one runs.
    Busy(PathBuf),
    /// The module does not know its requests.
    Mismatch(PathBuf),
    /// Something that should work did not.
    System(&'static str, io::Error),
}

/// The exit statuses, as `--help` shows them.
pub const EXIT_STATUS: &str = "\
Exit status:
  0  ended by SIGTERM or SIGINT
  1  a system call failed that should not
  2  wrong command line
  5  not root
  6  qtfs.ko is not loaded
  7  another udsproxyd runs
  8  udsproxyd and qtfs.ko are of different versions";

impl Failure {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::System(..) => 1,
            Self::Usage(_) => 2,
            Self::NotRoot => 5,
            Self::NoModule(_) => 6,
            Self::Busy(_) => 7,
            Self::Mismatch(_) => 8,
        }
    }

    /// What a failed `open(2)` of the module's device means.
    pub fn from_open(device: &Path, error: io::Error) -> Self {
        use nix::libc::{EACCES, EBUSY, ENODEV, ENOENT, ENXIO, EPERM};
        match error.raw_os_error() {
            Some(ENOENT | ENODEV | ENXIO) => Self::NoModule(device.into()),
            Some(EACCES | EPERM) => Self::NotRoot,
            Some(EBUSY) => Self::Busy(device.into()),
            _ => Self::System("opening the device of qtfs.ko", error),
        }
    }

    /// What a failed ioctl means; `doing` names it.
    pub fn from_ioctl(device: &Path, doing: &'static str, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(nix::libc::ENOTTY) => Self::Mismatch(device.into()),
            _ => Self::System(doing, error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::NotRoot => f.write_str("udsproxyd needs root: it acts for programs of any user; run it with sudo"),
            Self::NoModule(device) => write!(
                f,
                "qtfs.ko is not loaded ({} does not exist): run \"insmod qtfs.ko qtfs_server_ip=ADDRESS\" first",
                device.display()
            ),
            Self::Busy(device) => write!(
                f,
                "another udsproxyd runs ({} is in use): one is enough",
                device.display()
            ),
            Self::Mismatch(device) => write!(
                f,
                "{} does not understand this udsproxyd: udsproxyd and qtfs.ko are of different versions; install both from one release",
                device.display()
            ),
            Self::System(doing, error) => write!(f, "{doing} failed: {error}"),
        }
    }
}

impl std::error::Error for Failure {}
