// SPDX-License-Identifier: GPL-2.0

//! The command line.

use crate::failure::Failure;
use crate::failure::EXIT_STATUS;
use crate::run;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use std::ffi::OsString;
use std::path::PathBuf;
use tracing::level_filters::LevelFilter;

/// Runs programs of the DPU whose containers are on HOST.
#[derive(Debug, Parser)]
#[command(name = "qtfs-offload", version, after_help = EXIT_STATUS)]
struct Args {
    /// How much to log, to stderr
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        default_value = "info",
        ignore_case = true
    )]
    log: Level,

    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Error,
    #[value(alias = "warning")]
    Warn,
    Info,
    Debug,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one program: its mounts below HOST's directories and its signals to HOST's processes take effect there
    Run {
        /// Root directory of the program (chroot)
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,

        /// Where engine's directory is mounted, or is to be
        #[arg(long, value_name = "DIR", default_value = qtfs_control::DIRECTORY)]
        control: PathBuf,

        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, value_name = "PROG")]
        command: Vec<OsString>,
    },
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// `qtfs-offload run`
    Run(run::Options),
}

/// The command line of this process.
pub fn parse() -> Result<(Action, LevelFilter), Failure> {
    action(Args::parse())
}

/// A command line, for tests.
pub fn parse_from<I, T>(args: I) -> Result<(Action, LevelFilter), Failure>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    action(Args::try_parse_from(args).map_err(|e| Failure::Usage(e.to_string()))?)
}

fn action(args: Args) -> Result<(Action, LevelFilter), Failure> {
    let level = match args.log {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let action = match args.command {
        Command::Run {
            root,
            control,
            command,
        } => {
            for path in [&root, &control] {
                if !path.is_absolute() {
                    let text = format!("{} is no absolute directory", path.display());
                    return Err(Failure::Usage(text));
                }
            }
            Action::Run(run::Options {
                command,
                root,
                control,
            })
        }
    };
    Ok((action, level))
}
