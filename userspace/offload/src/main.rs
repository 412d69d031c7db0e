// SPDX-License-Identifier: GPL-2.0

//! qtfs-offload: programs of the DPU whose containers are on HOST.

use qtfs_offload::cli;
use qtfs_offload::cli::Action;
use qtfs_offload::failure::Failure;
use qtfs_offload::run;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::process::ExitCode;
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    match cli::parse().and_then(|(action, level)| execute(action, level)) {
        Ok(code) => code,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "qtfs-offload: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn execute(action: Action, level: LevelFilter) -> Result<ExitCode, Failure> {
    start_log(level);
    match action {
        Action::Run(options) => run::run(&options),
    }
}

/// Log lines go to stderr; the journal knows the time by itself.
fn start_log(level: LevelFilter) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().init();
    } else {
        builder.init();
    }
}
