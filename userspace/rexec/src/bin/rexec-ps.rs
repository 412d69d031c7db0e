// SPDX-License-Identifier: GPL-2.0

//! rexec-ps: shows the sessions of the rexec_server on this machine.

use clap::Parser;
use qtfs_rexec::cli::Ps;
use qtfs_rexec::server::status;
use std::io;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Ps::parse();
    match status::show(&args.status_socket, args.json) {
        Ok(text) => {
            // Nobody reads any more: no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(io::stderr(), "rexec-ps: {failure}");
            ExitCode::from(failure.status())
        }
    }
}
