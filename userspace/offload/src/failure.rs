// SPDX-License-Identifier: GPL-2.0

//! Why qtfs-offload gives up: one line that names the thing and the remedy, and an exit status.

use std::fmt;
use std::io;

/// Why qtfs-offload does not go on.
#[derive(Debug)]
pub enum Failure {
    /// Arguments or a configuration that make no sense.
    Usage(String),
    /// Not root.
    NotRoot,
    /// Something is not as it must be: what, why, and what to do.
    Unfit(String),
    /// The program cannot be executed.
    Program(String, io::Error),
    /// Something that should work did not.
    System(&'static str, io::Error),
}

/// The exit statuses, as `--help` shows them.
pub const EXIT_STATUS: &str = "\
Exit status of run: the program's, 128+N when it died by signal N, or
  121  a system call failed that should not
  122  wrong command line or configuration
  123  not root
  124  something is missing on this machine or on HOST; the message says what
  126  the program cannot be executed
  127  the program does not exist";

impl Failure {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::System(..) => 121,
            Self::Usage(_) => 122,
            Self::NotRoot => 123,
            Self::Unfit(_) => 124,
            Self::Program(_, error) if error.kind() == io::ErrorKind::NotFound => 127,
            Self::Program(..) => 126,
        }
    }

    /// For `map_err`.
    pub fn system(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::System(doing, error)
    }

    /// For `map_err` of system calls that return an [`Errno`](nix::errno::Errno).
    pub fn errno(doing: &'static str) -> impl Fn(nix::errno::Errno) -> Self {
        move |errno| Self::System(doing, errno.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Unfit(text) => f.write_str(text.trim_end()),
            Self::NotRoot => f.write_str("must be root: it makes namespaces and mounts"),
            Self::Program(name, error) => write!(f, "{name} cannot be executed: {error}"),
            Self::System(doing, error) => write!(f, "{doing} failed: {error}"),
        }
    }
}

impl std::error::Error for Failure {}
