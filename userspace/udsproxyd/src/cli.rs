// SPDX-License-Identifier: GPL-2.0

//! The command line, also that of the first qtfs.

use crate::device;
use crate::failure::Failure;
use crate::failure::EXIT_STATUS;
use clap::Parser;
use clap::ValueEnum;
use std::ffi::OsString;
use std::path::PathBuf;
use tracing::level_filters::LevelFilter;

/// Relays unix sockets in HOST's directories: programs of both machines connect to each other's.
///
/// Stays in the foreground and logs to stderr. Has nothing to configure: which directories there are,
/// and what may be done there, is said by the mounts and by HOST's policy.
#[derive(Debug, Parser)]
#[command(name = "udsproxyd", version, after_help = EXIT_STATUS, override_usage = "udsproxyd [OPTIONS]")]
struct Args {
    /// Threads that relay; more take turns at connections, which costs each message time
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,

    /// How much to log
    #[arg(long, value_name = "LEVEL", default_value = "info", ignore_case = true)]
    log: Level,

    /// Stay in the foreground, as always
    #[arg(long, hide = true)]
    foreground: bool,

    /// Another device, for tests
    #[arg(long, hide = true, default_value = device::DEVICE)]
    device: PathBuf,

    /// Command line of the first qtfs
    #[arg(hide = true, value_name = "OLD")]
    old: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    #[value(alias = "none", alias = "off")]
    Error,
    #[value(alias = "warning")]
    Warn,
    Info,
    Debug,
    Trace,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads that relay.
    pub threads: usize,
    /// How much to log.
    pub log: LevelFilter,
    /// The module's device.
    pub device: PathBuf,
    /// What to tell a user of an old command line.
    pub hint: Option<&'static str>,
}

/// Reads the command line; `--help`, `--version` and mistakes end the process as clap does.
pub fn parse() -> Result<Options, Failure> {
    options(Args::parse())
}

/// Reads the arguments `args`, the first of which is the program's name.
pub fn parse_from<I, T>(args: I) -> Result<Options, Failure>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    options(Args::try_parse_from(args).map_err(|e| Failure::Usage(e.to_string()))?)
}

fn options(args: Args) -> Result<Options, Failure> {
    // udsproxyd THREADS ADDRESS PORT ADDRESS PORT
    let hint = match args.old.len() {
        0 => None,
        5 if args.old[0].parse::<u32>().is_ok() => Some(
            "addresses and ports are not needed any more: sockets go through the connections of the mounts",
        ),
        _ => {
            return Err(Failure::Usage(format!(
                "unknown arguments: {}; see udsproxyd --help",
                args.old.join(" ")
            )))
        }
    };
    Ok(Options {
        threads: args.threads as usize,
        log: match args.log {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        },
        device: args.device,
        hint,
    })
}
