// SPDX-License-Identifier: GPL-2.0

//! The log level of the modules.

use crate::failure::Failure;
use crate::files::system;
use crate::files::Files;
use crate::files::Module;
use std::fmt;
use std::fs;
use std::io;
use std::io::ErrorKind;
use std::path::Path;
use std::str::FromStr;

/// How much is said in the kernel log; each level includes those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What does not work.
    Error,
    /// What works in spite of something.
    Warn,
    /// What begins and ends.
    Info,
    /// Every operation.
    Debug,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
        })
    }
}

impl FromStr for Level {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let levels = [Self::Error, Self::Warn, Self::Info, Self::Debug];
        let same = |level: &Self| level.to_string().eq_ignore_ascii_case(text);
        levels.into_iter().find(same).ok_or_else(|| {
            Failure::Usage(format!(
                "{text:?} is no log level: give ERROR, WARN, INFO or DEBUG"
            ))
        })
    }
}

/// Sets the level of the modules that are loaded. Returns a line for each, which tells what it was.
pub fn set(files: &Files, level: Level) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for module in Module::ALL {
        if !files.loaded(module) {
            continue;
        }
        let path = files.log_level(module);
        let before = fs::read_to_string(&path).map_err(|e| failure("reading", &path, e))?;
        fs::write(&path, format!("{level}\n")).map_err(|e| failure("writing", &path, e))?;
        let name = module.name();
        let before = before.trim_end();
        lines.push(format!(
            "{name}: the log level was {before} and is {level} now"
        ));
    }
    if lines.is_empty() {
        return Err(Failure::NoModule);
    }
    Ok(lines)
}

fn failure(doing: &str, path: &Path, error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::PermissionDenied => Failure::NotRoot,
        _ => system(doing, path, error),
    }
}
