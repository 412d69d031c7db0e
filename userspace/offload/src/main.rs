// SPDX-License-Identifier: GPL-2.0

//! qtfs-offload: programs of the DPU whose containers are on HOST.

use qtfs_offload::cli;
use qtfs_offload::cli::Action;
use qtfs_offload::cli::Whole;
use qtfs_offload::config::Config;
use qtfs_offload::failure::Failure;
use qtfs_offload::run;
use qtfs_offload::setup;
use qtfs_offload::setup::Side;
use std::io;
use std::io::Write;
use std::process::ExitCode;
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    match cli::parse_from(std::env::args_os()).and_then(|(action, level)| execute(action, level)) {
        Ok(code) => code,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "qtfs-offload: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn execute(action: Action, level: LevelFilter) -> Result<ExitCode, Failure> {
    qtfs_log::start(level);
    match action {
        Action::Run(options) => run::run(&options),
        Action::Keep(name, command) => setup::keep(&name, &command),
        Action::Whole(what, file, side) => {
            let config = Config::read(&file)?;
            let side = side.map_or_else(|| Side::here(&config), Ok)?;
            let fine = match what {
                Whole::Up => setup::up(&config, side).map(|()| true),
                Whole::Down => setup::down(&config, side).map(|()| true),
                Whole::Facts => setup::facts(&config).map(|()| true),
                Whole::Status => setup::status(&config, side),
                Whole::Check => setup::check(&config, side),
            };
            fine.map(|fine| {
                if fine {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                }
            })
        }
    }
}
