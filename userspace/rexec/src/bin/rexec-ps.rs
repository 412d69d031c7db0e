// SPDX-License-Identifier: GPL-2.0

//! rexec-ps: shows the sessions of the rexec_server on this machine.

use qtfs_rexec::cli;
use qtfs_rexec::server::status;
use std::process::ExitCode;

const NAME: &str = "rexec-ps";

fn main() -> ExitCode {
    let args: cli::Ps = cli::parse(NAME);
    let shown = status::show(&args.status_socket, args.json);
    cli::end(NAME, shown.map(|text| cli::print(&text)))
}
