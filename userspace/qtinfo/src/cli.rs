// SPDX-License-Identifier: GPL-2.0

//! The command line.

use crate::failure::Failure;
use crate::failure::EXIT_STATUS;
use crate::level::Level;
use clap::Parser;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Seconds between two looks unless told otherwise.
const INTERVAL: f64 = 1.0;
/// Seconds between two looks, at least and at most.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.1..=86400.0;

/// Shows for each mount of qtfs what programs asked HOST for, and how long it took.
///
/// Everything is counted since the mount was made. p50 and p99 are times that half of the requests,
/// and all but one in a hundred, stayed below.
#[derive(Debug, Parser)]
#[command(name = "qtinfo", version, after_help = EXIT_STATUS)]
struct Args {
    /// Only the mount that is there
    #[arg(value_name = "MOUNTPOINT")]
    mount_point: Option<PathBuf>,

    /// Print JSON, whose form Documentation/qtinfo.md describes
    #[arg(long)]
    json: bool,

    /// Look again and again, and show what happened in between, per second [default: 1 second]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1)]
    watch: Option<Option<OsString>>,

    /// Set the log level of the loaded modules (ERROR, WARN, INFO or DEBUG) and tell what it was
    #[arg(short = 'l', long = "log-level", value_name = "LEVEL", conflicts_with_all = ["json", "watch", "mount_point"])]
    level: Option<String>,

    /// Where proc and sys are, for tests
    #[arg(long, hide = true, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub struct Options {
    /// Only the mount that is there.
    pub mount_point: Option<PathBuf>,
    /// For programs.
    pub json: bool,
    /// How long to wait before each further look.
    pub watch: Option<Duration>,
    /// The log level to set.
    pub level: Option<Level>,
    /// Where proc and sys are.
    pub root: PathBuf,
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
    let mut mount_point = args.mount_point;
    let watch = match args.watch {
        None => None,
        Some(None) => Some(INTERVAL),
        Some(Some(text)) => match number(&text) {
            Some(seconds) => Some(seconds),
            // In "qtinfo --watch /mnt" the seconds were left out.
            None if mount_point.is_none() && looks_like_a_path(&text) => {
                mount_point = Some(text.into());
                Some(INTERVAL)
            }
            None => {
                return Err(Failure::Usage(format!(
                    "--watch {}: give a number of seconds from {} to {}",
                    text.to_string_lossy(),
                    INTERVALS.start(),
                    INTERVALS.end()
                )));
            }
        },
    };
    Ok(Options {
        mount_point,
        json: args.json,
        watch: watch.map(Duration::from_secs_f64),
        level: args.level.map(|text| text.parse()).transpose()?,
        root: args.root,
    })
}

fn number(text: &OsStr) -> Option<f64> {
    let seconds = text.to_str()?.parse().ok()?;
    INTERVALS.contains(&seconds).then_some(seconds)
}

fn looks_like_a_path(text: &OsStr) -> bool {
    text.as_encoded_bytes().contains(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn parse(line: &str) -> Result<Options, String> {
        parse_from(line.split_whitespace()).map_err(|e| e.to_string())
    }

    #[test]
    fn shows_everything_once_unless_told_otherwise() {
        assert_eq!(
            parse("qtinfo").unwrap(),
            Options {
                mount_point: None,
                json: false,
                watch: None,
                level: None,
                root: "/".into(),
            }
        );
    }

    #[test]
    fn seconds_may_be_left_out_before_a_mount_point() {
        for (line, seconds, mount_point) in [
            ("qtinfo --watch", 1.0, None),
            ("qtinfo --watch 2.5", 2.5, None),
            ("qtinfo --watch=0.5 /mnt", 0.5, Some("/mnt")),
            ("qtinfo --watch 3 /mnt", 3.0, Some("/mnt")),
            ("qtinfo --watch /mnt", 1.0, Some("/mnt")),
            ("qtinfo --watch ./mnt", 1.0, Some("./mnt")),
            ("qtinfo /mnt --watch", 1.0, Some("/mnt")),
        ] {
            let options = parse(line).unwrap();
            assert_eq!(
                options.watch,
                Some(Duration::from_secs_f64(seconds)),
                "{line}"
            );
            assert_eq!(
                options.mount_point.as_deref(),
                mount_point.map(Path::new),
                "{line}"
            );
        }
    }

    #[test]
    fn refuses_intervals_that_are_none() {
        for line in [
            "qtinfo --watch soon",
            "qtinfo --watch 0",
            "qtinfo --watch=-1",
            "qtinfo --watch 1e9",
            "qtinfo --watch NaN",
            "qtinfo --watch /mnt /mnt",
        ] {
            let error = parse(line).unwrap_err();
            assert!(
                error.contains("give a number of seconds from 0.1 to 86400"),
                "{line}: {error}"
            );
        }
    }

    #[test]
    fn takes_levels_in_any_case() {
        assert_eq!(parse("qtinfo -l debug").unwrap().level, Some(Level::Debug));
        assert_eq!(
            parse("qtinfo --log-level=WARN").unwrap().level,
            Some(Level::Warn)
        );
        assert_eq!(
            parse("qtinfo -l loud").unwrap_err(),
            "\"loud\" is no log level: give ERROR, WARN, INFO or DEBUG"
        );
        for line in [
            "qtinfo -l",
            "qtinfo -l INFO --json",
            "qtinfo -l INFO /mnt",
            "qtinfo -l INFO --watch",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
