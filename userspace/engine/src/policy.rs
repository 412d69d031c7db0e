// SPDX-License-Identifier: GPL-2.0

//! The policy file: which directories are exported.
//!
//! ```toml
//! [[export]]
//! path = "/var/lib/docker"   # absolute directory on HOST
//! mode = "rw"                # "rw" or "ro" (default "ro")
//! optional = true            # it need not exist yet (default false)
//!
//! [offload]                  # for qtfs-offload; nothing is allowed without
//! mount = ["overlay", "tmpfs", "bind"]
//! flags = ["ro", "nosuid", "nodev", "noexec", "rec"]
//! kill = ["/docker/*"]
//! ```
//!
//! Here the text is parsed; [`crate::exports`] checks the paths against the file system.

use nix::mount::MsFlags;
use serde::Deserialize;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use toml::Spanned;

/// What may be done below an exported directory.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Reading only.
    #[default]
    Ro,
    /// Everything.
    Rw,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ro => "ro",
            Self::Rw => "rw",
        })
    }
}

/// One `[[export]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The directory.
    pub path: Spanned<String>,
    /// What may be done there.
    #[serde(default)]
    pub mode: Mode,
    /// It need not exist yet.
    #[serde(default)]
    pub optional: bool,
}

/// A flag of mount(2), by its name in mount(8).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "mount(2) explains them")]
pub enum Flag {
    Ro,
    NoSuid,
    NoDev,
    NoExec,
    NoAtime,
    NoDirAtime,
    RelAtime,
    StrictAtime,
    LazyTime,
    Sync,
    DirSync,
    Mand,
    NoSymFollow,
    Rec,
    Remount,
    Shared,
    Private,
    Slave,
    Unbindable,
}

impl Flag {
    /// Its bit.
    pub fn bits(self) -> MsFlags {
        match self {
            Self::Ro => MsFlags::MS_RDONLY,
            Self::NoSuid => MsFlags::MS_NOSUID,
            Self::NoDev => MsFlags::MS_NODEV,
            Self::NoExec => MsFlags::MS_NOEXEC,
            Self::NoAtime => MsFlags::MS_NOATIME,
            Self::NoDirAtime => MsFlags::MS_NODIRATIME,
            Self::RelAtime => MsFlags::MS_RELATIME,
            Self::StrictAtime => MsFlags::MS_STRICTATIME,
            Self::LazyTime => MsFlags::MS_LAZYTIME,
            Self::Sync => MsFlags::MS_SYNCHRONOUS,
            Self::DirSync => MsFlags::MS_DIRSYNC,
            Self::Mand => MsFlags::MS_MANDLOCK,
            // include/uapi/linux/mount.h
            Self::NoSymFollow => MsFlags::from_bits_retain(1 << 8),
            Self::Rec => MsFlags::MS_REC,
            Self::Remount => MsFlags::MS_REMOUNT,
            Self::Shared => MsFlags::MS_SHARED,
            Self::Private => MsFlags::MS_PRIVATE,
            Self::Slave => MsFlags::MS_SLAVE,
            Self::Unbindable => MsFlags::MS_UNBINDABLE,
        }
    }
}

/// What programs of the DPU that run under `qtfs-offload run` may have done on HOST.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Offload {
    /// File systems that may be mounted and unmounted below directories that are exported `rw`, by
    /// type; `bind` stands for bind mounts.
    #[serde(default)]
    pub mount: Vec<String>,
    /// Flags of mount(2) that they may have; any, if left out.
    pub flags: Option<Vec<Flag>>,
    /// Control groups whose processes may be signalled; `*` at the end stands for anything.
    #[serde(default)]
    pub kill: Vec<String>,
}

/// A policy file as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    export: Vec<Entry>,
    #[serde(default)]
    offload: Offload,
}

/// What is wrong with a policy file: one line, with the place where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file.
    pub file: PathBuf,
    /// Line and column from 1.
    pub place: Option<(usize, usize)>,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.text)
    }
}

impl std::error::Error for Error {}

/// A policy file that was read.
#[derive(Clone, Debug)]
pub struct Source {
    file: PathBuf,
    text: String,
}

impl Source {
    /// Reads the file.
    pub fn read(file: &Path) -> io::Result<Self> {
        Ok(Self {
            file: file.into(),
            text: std::fs::read_to_string(file)?,
        })
    }

    /// Takes `text` for the contents of `file`.
    pub fn new(file: &Path, text: &str) -> Self {
        Self {
            file: file.into(),
            text: text.into(),
        }
    }

    fn parse(&self) -> Result<File, Error> {
        toml::from_str(&self.text).map_err(|e| self.explain(&e))
    }

    /// The entries in the order of the file.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        Ok(self.parse()?.export)
    }

    /// What is said of offloaded programs; nothing is allowed unless the file says so.
    pub fn offload(&self) -> Result<Offload, Error> {
        Ok(self.parse()?.offload)
    }

    /// An error about the bytes `span` of the file.
    pub fn error(&self, span: Option<Range<usize>>, text: impl Into<String>) -> Error {
        let place = span.map(|span| place(&self.text, span.start));
        Error {
            file: self.file.clone(),
            place,
            text: text.into(),
        }
    }

    /// Says in one line what the parser says, and what was probably meant.
    fn explain(&self, error: &toml::de::Error) -> Error {
        let message = error.message().trim().replace('\n', ", ");
        let span = error.span();
        let written = span
            .clone()
            .and_then(|s| self.text.get(s))
            .unwrap_or_default();
        let text = if let Some(rest) = message.strip_prefix("unknown field ") {
            let mut names = quoted(rest);
            let unknown = names.next().unwrap_or(written);
            let known: Vec<&str> = names.collect();
            let scope = if known.contains(&"export") {
                "at the top of the file"
            } else if known.contains(&"kill") {
                "in [offload]"
            } else {
                "in [[export]]"
            };
            unknown_key(unknown, &known, scope)
        } else if let Some(rest) = message.strip_prefix("unknown variant ") {
            let mut names = quoted(rest);
            let unknown = names.next().unwrap_or(written);
            let known: Vec<String> = names.map(|name| format!("{name:?}")).collect();
            format!("unknown value {unknown:?}: use {}", known.join(" or "))
        } else if message.starts_with("missing field") {
            let name = quoted(&message).next().unwrap_or_default().to_owned();
            format!("this [[export]] has no {name:?}: add {name} = \"/some/directory\"")
        } else if message.contains("map, expected a sequence") {
            "one [export] table: write it with two brackets, [[export]]".to_owned()
        } else {
            format!("{message}: correct this line")
        };
        self.error(span, text)
    }
}

/// The texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn unknown_key(unknown: &str, known: &[&str], scope: &str) -> String {
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(unknown, name), *name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 2);
    let remedy = match nearest {
        Some((_, name)) => format!("did you mean {name:?}?"),
        None => format!("known are {}", known.join(", ")),
    };
    format!("unknown key {unknown:?} {scope}: {remedy}")
}

/// Line and column, from 1, of the byte `at`.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Entry>, String> {
        Source::new(Path::new("p.toml"), text)
            .entries()
            .map_err(|e| e.to_string())
    }

    fn refusal(text: &str) -> String {
        parse(text).expect_err("must be refused")
    }

    #[test]
    fn reads_what_the_manual_says() {
        let entries = parse(crate::failure::EXAMPLE).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].path.get_ref(), "/var/lib/docker");
        assert_eq!(entries[0].mode, Mode::Rw);
        assert!(!entries[0].optional);
    }

    #[test]
    fn is_read_only_unless_told_otherwise() {
        let entries = parse("[[export]]\npath = '/a'\n[[export]]\npath='/b'\nmode='ro'").unwrap();
        assert_eq!([entries[0].mode, entries[1].mode], [Mode::Ro; 2]);
    }

    #[test]
    fn an_empty_file_exports_nothing() {
        assert!(parse("").unwrap().is_empty());
        assert!(parse("# nothing yet\n").unwrap().is_empty());
    }

    #[test]
    fn names_an_unknown_key_and_the_nearest_known_one() {
        assert_eq!(
            refusal("[[export]]\npath = '/a'\n  moed = 'rw'\n"),
            "p.toml:3:3: unknown key \"moed\" in [[export]]: did you mean \"mode\"?"
        );
        assert_eq!(
            refusal("[[exports]]\npath = '/a'\n"),
            "p.toml:1:3: unknown key \"exports\" at the top of the file: did you mean \"export\"?"
        );
        assert_eq!(
            refusal("[[export]]\npath = '/a'\ncompression = 3\n"),
            "p.toml:3:1: unknown key \"compression\" in [[export]]: known are path, mode, optional"
        );
    }

    #[test]
    fn names_a_wrong_value() {
        assert_eq!(
            refusal("[[export]]\npath = '/a'\nmode = 'wr'\n"),
            "p.toml:3:8: unknown value \"wr\": use \"ro\" or \"rw\""
        );
        assert!(refusal("[[export]]\npath = 3\n").starts_with("p.toml:2:8: invalid type"));
        assert!(refusal("[[export]]\npath='/a'\noptional = 'yes'\n").starts_with("p.toml:3:12: "));
    }

    #[test]
    fn names_a_missing_path() {
        assert_eq!(
            refusal("\n[[export]]\nmode = 'rw'\n"),
            "p.toml:2:1: this [[export]] has no \"path\": add path = \"/some/directory\""
        );
    }

    #[test]
    fn tells_a_table_from_a_list_of_tables() {
        assert_eq!(
            refusal("[export]\npath = '/a'\n"),
            "p.toml:1:1: one [export] table: write it with two brackets, [[export]]"
        );
    }

    #[test]
    fn every_refusal_is_one_line_with_a_place() {
        for text in [
            "[[export]",
            "path",
            "[[export]]\npath = '/a",
            "[[export]]\npath='/a'\npath='/b'",
            "\u{0}",
        ] {
            let line = refusal(text);
            assert!(!line.contains('\n'), "{line:?}");
            assert!(line.starts_with("p.toml:"), "{line:?}");
            assert!(line.as_bytes()[7].is_ascii_digit(), "{line:?}");
        }
    }

    #[test]
    fn counts_columns_in_characters() {
        assert_eq!(place("äö = 1", 5), (1, 4));
        assert_eq!(place("a\nb", 2), (2, 1));
        assert_eq!(place("a", 100), (1, 2));
    }
}
