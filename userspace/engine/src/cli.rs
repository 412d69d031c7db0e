// SPDX-License-Identifier: GPL-2.0

//! The command line, also those of the first qtfs.

use crate::failure::Failure;
use crate::failure::EXIT_STATUS;
use crate::sys;
use clap::Parser;
use clap::ValueEnum;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use tracing::level_filters::LevelFilter;

/// Where the policy is unless told otherwise.
pub const POLICY: &str = "/etc/qtfs/engine.toml";
/// Fewest worker threads unless told otherwise: a few requests may wait for a slow disk.
const MIN_THREADS: u32 = 4;
/// Most worker threads unless told otherwise.
const MAX_THREADS: u32 = 512;
/// Most worker threads that can be asked for.
const THREADS_LIMIT: i64 = 16384;

/// Serves HOST's directories to the DPU: lends its threads and its policy to qtfs_server.ko.
///
/// Stays in the foreground and logs to stderr.
#[derive(Debug, Parser)]
#[command(name = "engine", version, after_help = EXIT_STATUS, override_usage = "engine [OPTIONS]")]
struct Args {
    /// Worker threads that are always there [default: number of CPUs, at least 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=THREADS_LIMIT))]
    threads: Option<u32>,

    /// Worker threads at most, when requests wait for locks or slow disks [default: 512]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=THREADS_LIMIT))]
    max_threads: Option<u32>,

    /// The policy file: which directories are exported
    #[arg(long, value_name = "FILE", default_value = POLICY)]
    config: PathBuf,

    /// Check the policy file, print what would be exported, and end
    #[arg(long)]
    check: bool,

    /// How much to log
    #[arg(long, value_name = "LEVEL", default_value = "info", ignore_case = true)]
    log: Level,

    /// Stay in the foreground, as always
    #[arg(long, hide = true)]
    foreground: bool,

    /// Another device, for tests
    #[arg(long, hide = true, default_value = sys::DEVICE)]
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
    /// Worker threads that are always there.
    pub threads: u32,
    /// Worker threads at most.
    pub max_threads: u32,
    /// The policy file.
    pub config: PathBuf,
    /// Only check the policy file.
    pub check: bool,
    /// How much to log.
    pub log: LevelFilter,
    /// The module's device.
    pub device: PathBuf,
    /// What to tell a user of an old command line.
    pub hint: Option<String>,
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
    let old = Old::parse(&args.old)?;
    if old.is_some() && args.threads.is_some() {
        return Err(Failure::Usage(
            "the number of threads is given twice: drop the old arguments".into(),
        ));
    }
    let asked = args.threads.or(old.as_ref().map(|old| old.threads));
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let default = u32::try_from(cpus).unwrap_or(MAX_THREADS).max(MIN_THREADS);
    let (threads, max_threads) = match (asked, args.max_threads) {
        (Some(threads), Some(max)) if threads > max => {
            return Err(Failure::Usage(format!(
                "--threads {threads} is more than --max-threads {max}: raise --max-threads"
            )));
        }
        (Some(threads), max) => (threads, max.unwrap_or(MAX_THREADS.max(threads))),
        (None, max) => {
            let max = max.unwrap_or(MAX_THREADS.max(default));
            (default.min(max), max)
        }
    };
    Ok(Options {
        threads,
        max_threads,
        config: args.config,
        check: args.check,
        log: match args.log {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        },
        device: args.device,
        hint: old.map(|old| old.hint),
    })
}

/// A command line of the first qtfs.
struct Old {
    threads: u32,
    hint: String,
}

impl Old {
    fn parse(args: &[String]) -> Result<Option<Self>, Failure> {
        let (threads, obsolete) = match args {
            [] => return Ok(None),
            [size, threads] => {
                number(size, "buffer size")?;
                (threads, format!("the buffer size {size} is obsolete"))
            }
            [threads, uds, addresses @ ..] if addresses.len() == 4 => {
                number(uds, "number of unix socket threads")?;
                for pair in addresses.chunks(2) {
                    address(&pair[0])?;
                    if pair[1].parse::<u16>().is_err() {
                        return Err(Failure::Usage(format!("{:?} is not a port", pair[1])));
                    }
                }
                let what = "the unix socket threads and the addresses are obsolete: \
                            the address to listen on is qtfs_server.ko's parameter qtfs_server_ip";
                (threads, what.to_owned())
            }
            _ => {
                return Err(Failure::Usage(format!(
                    "{} arguments that are no options: engine takes none, or as the first qtfs \"engine 4096 16\" \
                     (buffer size, threads) or \"engine 16 1 IP PORT IP PORT\"; see engine --help",
                    args.len()
                )));
            }
        };
        let threads = number(threads, "number of threads")?;
        if threads == 0 || i64::from(threads) > THREADS_LIMIT {
            return Err(Failure::Usage(format!(
                "{threads} threads: use 1 to {THREADS_LIMIT}"
            )));
        }
        let hint = format!("an old command line: --threads {threads} is used; {obsolete}");
        Ok(Some(Self { threads, hint }))
    }
}

fn number(text: &str, what: &str) -> Result<u32, Failure> {
    text.parse()
        .map_err(|_| Failure::Usage(format!("{text:?} is not a {what}: a number is needed")))
}

/// An IP address or the number of a virtual machine (vsock CID).
fn address(text: &str) -> Result<(), Failure> {
    if text.parse::<IpAddr>().is_ok() || text.parse::<u32>().is_ok() {
        return Ok(());
    }
    Err(Failure::Usage(format!("{text:?} is not an address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        parse_from(line.split_whitespace()).map_err(|e| e.to_string())
    }

    #[test]
    fn has_sensible_defaults() {
        let options = parse("engine").unwrap();
        assert!(options.threads >= MIN_THREADS);
        assert!(options.max_threads >= MAX_THREADS);
        assert_eq!(options.config, PathBuf::from("/etc/qtfs/engine.toml"));
        assert_eq!(options.device, PathBuf::from("/dev/qtfs_server"));
        assert_eq!(options.log, LevelFilter::INFO);
        assert_eq!((options.check, options.hint), (false, None));
    }

    #[test]
    fn takes_options() {
        let options =
            parse("engine --threads 2 --max-threads 8 --log DEBUG --config x --check --foreground")
                .unwrap();
        assert_eq!((options.threads, options.max_threads), (2, 8));
        assert_eq!(options.log, LevelFilter::DEBUG);
        assert_eq!(options.config, PathBuf::from("x"));
        assert!(options.check);
    }

    #[test]
    fn fits_one_number_of_threads_to_the_other() {
        let options = parse("engine --max-threads 2").unwrap();
        assert_eq!((options.threads, options.max_threads), (2, 2));
        let options = parse("engine --threads 1000").unwrap();
        assert_eq!((options.threads, options.max_threads), (1000, 1000));
        assert_eq!(
            parse("engine --threads 9 --max-threads 8").unwrap_err(),
            "--threads 9 is more than --max-threads 8: raise --max-threads"
        );
        assert!(parse("engine --threads 0").is_err());
        assert!(parse("engine --threads x").is_err());
    }

    #[test]
    fn takes_the_first_command_line_of_the_first_qtfs() {
        let options = parse("engine 4096 16").unwrap();
        assert_eq!((options.threads, options.max_threads), (16, MAX_THREADS));
        assert_eq!(
            options.hint.unwrap(),
            "an old command line: --threads 16 is used; the buffer size 4096 is obsolete"
        );
    }

    #[test]
    fn takes_the_second_command_line_of_the_first_qtfs() {
        for line in [
            "engine 16 1 192.168.10.10 12121 192.168.10.11 12121",
            "engine 16 1 2 12121 10 12121",
        ] {
            let options = parse(line).unwrap();
            assert_eq!(options.threads, 16);
            let hint = options.hint.unwrap();
            assert!(
                hint.contains("--threads 16 is used") && hint.contains("qtfs_server_ip"),
                "{hint}"
            );
        }
    }

    #[test]
    fn mixes_old_arguments_with_options() {
        let options = parse("engine 4096 8 --max-threads 9 --config y").unwrap();
        assert_eq!((options.threads, options.max_threads), (8, 9));
        assert!(parse("engine 4096 16 --threads 3")
            .unwrap_err()
            .contains("given twice"));
        assert!(parse("engine 4096 16 --max-threads 8")
            .unwrap_err()
            .contains("raise --max-threads"));
    }

    #[test]
    fn refuses_what_was_never_right() {
        for (line, part) in [
            ("engine 16", "1 arguments that are no options"),
            ("engine 1 2 3", "3 arguments"),
            ("engine 4096 zero", "\"zero\" is not a number of threads"),
            ("engine 4096 0", "0 threads: use 1 to"),
            ("engine big 16", "\"big\" is not a buffer size"),
            ("engine 16 1 here 1 there 2", "\"here\" is not an address"),
            (
                "engine 16 1 10.0.0.1 99999 10.0.0.2 1",
                "\"99999\" is not a port",
            ),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
