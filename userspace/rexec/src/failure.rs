// SPDX-License-Identifier: GPL-2.0

//! Why rexec or rexec_server gives up: one line that names the thing and the remedy, and an exit
//! status.

use crate::cli::WRONG;
use crate::message::Reason;
use crate::message::Refusal;
use std::fmt;
use std::io;

/// Why rexec does not run the program, or does not know how it ended; why the server does not run.
#[derive(Debug)]
pub enum Failure {
    /// Arguments or a configuration that make no sense.
    Usage(String),
    /// No server answers there.
    Connect(String),
    /// One side wants TLS and the other does not.
    Tls(String),
    /// The keys do not fit.
    Key(String),
    /// The server refuses.
    Refused(Refusal),
    /// The server sent what rexec does not understand.
    Protocol(String),
    /// The connection ended before the program did.
    Lost(String),
    /// Something that should work did not.
    System(&'static str, io::Error),
}

/// The exit statuses of rexec, as `--help` shows them.
pub const EXIT_STATUS: &str = "\
Exit status:
  that of CMD; when a signal killed CMD, rexec dies by the same signal
  125  wrong command line or configuration
  126  CMD cannot be run, or may not
  127  CMD does not exist
  248  a system call failed here that should not
  249  one side wants TLS and the other does not
  250  the two sides speak different versions
  251  the server runs as many programs as it may
  252  the server, or rexec, sent what the other does not understand
  253  the keys do not fit
  254  no server answers there
  255  the connection was lost; CMD is ended";

impl Failure {
    /// The exit status of rexec.
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => WRONG,
            Self::Connect(_) => 254,
            Self::Tls(_) => 249,
            Self::Key(_) => 253,
            Self::Refused(refusal) => match refusal.reason {
                Reason::NotFound => 127,
                Reason::CannotRun | Reason::NotAllowed => 126,
                Reason::Busy => 251,
                Reason::Protocol => 252,
                Reason::Version => 250,
                Reason::Authentication => 249,
            },
            Self::Protocol(_) => 252,
            Self::Lost(_) => 255,
            Self::System(..) => 248,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text)
            | Self::Connect(text)
            | Self::Tls(text)
            | Self::Key(text)
            | Self::Protocol(text)
            | Self::Lost(text) => f.write_str(text),
            // It is the peer's text, and may go to a terminal.
            Self::Refused(refusal) => {
                f.write_str(&String::from_utf8_lossy(&refusal.text).replace(char::is_control, " "))
            }
            Self::System(doing, error) => write!(f, "{doing} failed: {error}"),
        }
    }
}

impl std::error::Error for Failure {}

/// The text of an error number, such as "No such file or directory".
pub fn errno_text(number: i32) -> String {
    nix::errno::Errno::from_raw(number).desc().to_owned()
}

/// The text of an error without the number that [`io::Error`] appends.
pub fn io_text(error: &io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), errno_text)
}
