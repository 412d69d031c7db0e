// SPDX-License-Identifier: GPL-2.0

//! The command line.

use crate::config;
use crate::config::Config;
use crate::failure::Failure;
use crate::failure::EXIT_STATUS;
use crate::run;
use crate::setup::Side;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use std::ffi::OsString;
use std::path::Path;
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

    /// The description of both machines; run takes --root and --control from it if it is named [default: /etc/qtfs/offload.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Which machine this is; told by HOST's address if left out
    #[arg(
        long = "for",
        global = true,
        value_name = "MACHINE",
        ignore_case = true
    )]
    side: Option<Machine>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Machine {
    Host,
    Dpu,
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
        /// Root directory of the program (chroot) [default: /]
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,

        /// Where engine's directory is mounted, or is to be [default: /run/qtfs/offload]
        #[arg(long, value_name = "DIR")]
        control: Option<PathBuf>,

        /// End the program, by SIGKILL, when a connection of it to HOST is lost or HOST was booted anew,
        /// before it takes that for the end of what it talks to; for programs that somebody starts
        /// again whenever they end, such as containerd
        #[arg(long)]
        end_when_lost: bool,

        /// Show the program HOST's directory or file of this path in the place of this machine's, such as
        /// /sys or /proc/meminfo; may be repeated
        #[arg(long, value_name = "PATH")]
        from_host: Vec<PathBuf>,

        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, value_name = "PROG")]
        command: Vec<OsString>,
    },

    /// Prepare this machine and start everything that is not running
    Up,

    /// Stop everything, unmount, unload
    Down,

    /// Say what runs; exit status 1 if something does not
    Status,

    /// Look for the mistakes that are easily made, on HOST too, and say how to mend them; exit status 1 if there are any
    Check,

    #[command(hide = true)]
    Facts,

    #[command(hide = true)]
    Keep {
        name: String,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<OsString>,
    },
}

/// What is done to the whole of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// `qtfs-offload up`
    Up,
    /// `qtfs-offload down`
    Down,
    /// `qtfs-offload status`
    Status,
    /// `qtfs-offload check`
    Check,
    /// What `check` of the other machine asks.
    Facts,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// `qtfs-offload run`
    Run(run::Options),
    /// `qtfs-offload up` and the like, by the description, on one machine or the one that this is.
    Whole(Whole, PathBuf, Option<Side>),
    /// Keep a program of this name running.
    Keep(String, Vec<OsString>),
}

/// A command line. Ends the process after `--help` and the like.
pub fn parse_from<I, T>(args: I) -> Result<(Action, LevelFilter), Failure>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    match Args::try_parse_from(args) {
        Ok(args) => action(args),
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            Err(Failure::Usage(text.into()))
        }
        Err(text) => text.exit(),
    }
}

fn action(args: Args) -> Result<(Action, LevelFilter), Failure> {
    let level = match args.log {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let side = args.side.map(|side| match side {
        Machine::Host => Side::Host,
        Machine::Dpu => Side::Dpu,
    });
    let file = args.config;
    let whole = |what, file: Option<PathBuf>| {
        Action::Whole(what, file.unwrap_or_else(|| config::FILE.into()), side)
    };
    let action = match args.command {
        Command::Up => whole(Whole::Up, file),
        Command::Down => whole(Whole::Down, file),
        Command::Status => whole(Whole::Status, file),
        Command::Check => whole(Whole::Check, file),
        Command::Facts => whole(Whole::Facts, file),
        Command::Keep { name, command } => Action::Keep(name, command),
        Command::Run {
            root,
            control,
            end_when_lost,
            from_host,
            command,
        } => {
            let config = file.map(|file| Config::read(&file)).transpose()?;
            let of_config = |config: &Config| {
                let control = config.below_root(Path::new(qtfs_control::DIRECTORY));
                (config.root.clone(), control)
            };
            let defaults = || ("/".into(), qtfs_control::DIRECTORY.into());
            let (default_root, default_control) = config.as_ref().map_or_else(defaults, of_config);
            let root = root.unwrap_or(default_root);
            let control = control.unwrap_or(default_control);
            for path in from_host.iter().chain([&root, &control]) {
                if !path.is_absolute() {
                    let text = format!("{} is no absolute path", path.display());
                    return Err(Failure::Usage(text));
                }
            }
            Action::Run(run::Options {
                command,
                root,
                control,
                end_when_lost,
                from_host,
            })
        }
    };
    Ok((action, level))
}
