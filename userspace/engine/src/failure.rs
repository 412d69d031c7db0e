// SPDX-License-Identifier: GPL-2.0

//! Why engine refuses to run: one line that names the thing and the remedy, and an exit status.

use crate::policy;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why engine does not run, or stopped running.
#[derive(Debug)]
pub enum Failure {
    /// Arguments that make no sense together.
    Usage(String),
    /// There is no policy file.
    NoPolicy(PathBuf),
    /// The policy file is wrong.
    Policy(policy::Error),
    /// Not root.
    NotRoot,
    /// The module is not loaded.
    NoModule(PathBuf),
    /// Another engine runs.
    Busy(PathBuf),
    /// The module does not know this engine's requests.
    Mismatch(PathBuf),
    /// Something that should work did not.
    System(&'static str, io::Error),
}

/// The exit statuses, as `--help` shows them.
pub const EXIT_STATUS: &str = "\
Exit status:
  0  ended by SIGTERM or SIGINT; with --check: the policy is good
  1  a system call failed that should not
  2  wrong command line
  3  there is no policy file
  4  the policy file is wrong
  5  not root
  6  qtfs_server.ko is not loaded
  7  another engine runs
  8  engine and qtfs_server.ko are of different versions

Signals:
  SIGHUP           read the policy again; a wrong one is reported and the old one kept
  SIGTERM, SIGINT  end; requests wait for the next engine";

/// A policy to start from.
pub const EXAMPLE: &str = "\
# /etc/qtfs/engine.toml
[[export]]
path = \"/var/lib/docker\"      # an absolute directory on HOST
mode = \"rw\"                   # \"rw\" or \"ro\" (default \"ro\")";

impl Failure {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::System(..) => 1,
            Self::Usage(_) => 2,
            Self::NoPolicy(_) => 3,
            Self::Policy(_) => 4,
            Self::NotRoot => 5,
            Self::NoModule(_) => 6,
            Self::Busy(_) => 7,
            Self::Mismatch(_) => 8,
        }
    }

    /// What a failed `open(2)` of the module's device means.
    pub fn from_open(device: &std::path::Path, error: io::Error) -> Self {
        use nix::libc::{EACCES, EBUSY, ENODEV, ENOENT, ENXIO, EPERM};
        match error.raw_os_error() {
            Some(ENOENT | ENODEV | ENXIO) => Self::NoModule(device.into()),
            Some(EACCES | EPERM) => Self::NotRoot,
            Some(EBUSY) => Self::Busy(device.into()),
            _ => Self::System("opening the device of qtfs_server.ko", error),
        }
    }

    /// What a failed ioctl means; `doing` names it.
    pub fn from_ioctl(device: &std::path::Path, doing: &'static str, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(nix::libc::ENOTTY | nix::libc::EPROTONOSUPPORT) => Self::Mismatch(device.into()),
            _ => Self::System(doing, error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::NoPolicy(file) => write!(
                f,
                "there is no policy file {file:?}: write one that names the directories to export, for example\n\n{EXAMPLE}"
            ),
            Self::Policy(error) => error.fmt(f),
            Self::NotRoot => f.write_str("engine needs root: it serves files with the rights of any user; run it with sudo"),
            Self::NoModule(device) => write!(
                f,
                "qtfs_server.ko is not loaded ({} does not exist): run \"insmod qtfs_server.ko qtfs_server_ip=ADDRESS\" first",
                device.display()
            ),
            Self::Busy(device) => write!(
                f,
                "another engine runs ({} is in use): one is enough; to change its policy edit the file and send it SIGHUP (pkill -HUP -x engine)",
                device.display()
            ),
            Self::Mismatch(device) => write!(
                f,
                "{} does not understand this engine: engine and qtfs_server.ko are of different versions; install both from one release",
                device.display()
            ),
            Self::System(doing, error) => write!(f, "{doing} failed: {error}"),
        }
    }
}

impl std::error::Error for Failure {}
