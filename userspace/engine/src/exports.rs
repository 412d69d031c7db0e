// SPDX-License-Identifier: GPL-2.0

//! A policy that was checked against the file system, and its form for the module.

use crate::policy::Entry;
use crate::policy::Error;
use crate::policy::Mode;
use crate::policy::Source;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

/// Most exports that the module takes.
pub const MAX: usize = 256;
/// Flag of an export in the blob: reading only.
const READ_ONLY: u32 = 1;
/// Longest path in bytes, as Linux's `PATH_MAX - 1`.
const PATH_MAX: usize = 4095;

/// One exported directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Absolute path without symlinks.
    pub path: PathBuf,
    /// What may be done there.
    pub mode: Mode,
    /// Whether it exists now; if not, it was said to be optional.
    pub present: bool,
    /// The path in the file, when it is another.
    pub written: Option<String>,
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.mode, self.path.display())?;
        if let Some(written) = &self.written {
            write!(f, " (written as {written})")?;
        }
        if !self.present {
            write!(f, " (once it exists)")?;
        }
        Ok(())
    }
}

/// A checked policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exports(Vec<Export>);

impl Exports {
    /// Checks every entry of a policy file.
    pub fn check(source: &Source) -> Result<Self, Error> {
        let mut exports: Vec<(Export, Entry)> = Vec::new();
        for entry in source.entries()? {
            let refuse = |text: String| source.error(Some(entry.path.span()), text);
            let export = check_entry(&entry).map_err(refuse)?;
            if let Some((_, first)) = exports.iter().find(|(e, _)| e.path == export.path) {
                return Err(refuse(format!(
                    "{} is exported twice, first as {:?}: remove one of the two",
                    export.path.display(),
                    first.path.get_ref()
                )));
            }
            if exports.len() == MAX {
                return Err(refuse(format!(
                    "more than {MAX} exports: export a common parent instead"
                )));
            }
            exports.push((export, entry));
        }
        Ok(Self(
            exports.into_iter().map(|(export, _)| export).collect(),
        ))
    }

    /// The exports in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Export> {
        self.0.iter()
    }

    /// Whether nothing is exported.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The form that the module takes: of each export the flags and the length of the path as
    /// `u32` in the machine's byte order, then the path.
    pub fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        for export in &self.0 {
            let path = export.path.as_os_str().as_bytes();
            let flags = match export.mode {
                Mode::Ro => READ_ONLY,
                Mode::Rw => 0,
            };
            blob.extend(flags.to_ne_bytes());
            // Cannot be cut: `check_entry` refuses what is longer than PATH_MAX.
            blob.extend((path.len() as u32).to_ne_bytes());
            blob.extend(path);
        }
        blob
    }
}

fn check_entry(entry: &Entry) -> Result<Export, String> {
    let written = entry.path.get_ref();
    if written.contains('\0') {
        return Err(format!("{written:?} has a NUL byte: no path can"));
    }
    if !written.starts_with('/') {
        return Err(format!(
            "{written:?} is not absolute: it must begin with \"/\""
        ));
    }
    let path = Path::new(written);
    let (path, present) = match resolve(path) {
        Ok((path, true)) if !path.is_dir() => {
            return Err(format!(
                "{written:?} is not a directory: export the directory that it is in"
            ));
        }
        Ok((_, false)) if !entry.optional => {
            return Err(format!(
                "{written:?} does not exist: create it, correct the path, or add \"optional = true\""
            ));
        }
        Ok(found) => found,
        Err(error) => {
            return Err(format!(
                "{written:?} cannot be resolved ({error}): correct the path"
            ))
        }
    };
    if path.as_os_str().len() > PATH_MAX {
        return Err(format!(
            "{written:?} is longer than {PATH_MAX} bytes: no path can be"
        ));
    }
    let same = path.as_os_str().as_bytes() == written.as_bytes();
    Ok(Export {
        path,
        mode: entry.mode,
        present,
        written: (!same).then(|| written.clone()),
    })
}

/// The path without symlinks, `.` and `..`, and whether it exists. What does not exist yet is put
/// behind the resolved path of what does.
fn resolve(path: &Path) -> io::Result<(PathBuf, bool)> {
    match path.canonicalize() {
        Ok(path) => Ok((path, true)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // No name at the end: `..` of something that does not exist.
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(error);
            };
            let (parent, present) = resolve(parent)?;
            if present && !parent.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            Ok((parent.join(name), false))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn new() -> Self {
            let dir = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(dir.path().join("docker/containers")).unwrap();
            fs::write(dir.path().join("file"), "").unwrap();
            std::os::unix::fs::symlink("docker", dir.path().join("link")).unwrap();
            std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
            dir
        }

        fn path(&self) -> PathBuf {
            self.0.path().canonicalize().unwrap()
        }

        /// `@` in the text stands for the directory.
        fn check(&self, text: &str) -> Result<Exports, String> {
            let top = self.path();
            let top = top.to_str().unwrap();
            let source = Source::new(Path::new("p"), &text.replace('@', top));
            Exports::check(&source).map_err(|e| e.to_string().replace(top, "@"))
        }

        fn refusal(&self, path: &str) -> String {
            self.check(&format!("[[export]]\npath = {path:?}\n"))
                .expect_err("must be refused")
        }
    }

    #[test]
    fn exports_directories_also_nested_ones() {
        let dir = Dir::new();
        let text =
            "[[export]]\npath='@/docker'\nmode='rw'\n[[export]]\npath='@/docker/containers'\n";
        let exports = dir.check(text).unwrap();
        let lines: Vec<String> = exports.iter().map(Export::to_string).collect();
        let top = dir.path();
        assert_eq!(lines[0], format!("rw {}/docker", top.display()));
        assert_eq!(lines[1], format!("ro {}/docker/containers", top.display()));
    }

    #[test]
    fn the_blob_is_what_the_module_reads() {
        let exports = Exports(vec![
            Export {
                path: "/a".into(),
                mode: Mode::Ro,
                present: true,
                written: None,
            },
            Export {
                path: "/var/b".into(),
                mode: Mode::Rw,
                present: true,
                written: None,
            },
        ]);
        let mut expected = Vec::new();
        expected.extend([1u32.to_ne_bytes(), 2u32.to_ne_bytes()].concat());
        expected.extend(b"/a");
        expected.extend([0u32.to_ne_bytes(), 6u32.to_ne_bytes()].concat());
        expected.extend(b"/var/b");
        assert_eq!(exports.blob(), expected);
        assert!(Exports::default().blob().is_empty());
    }

    #[test]
    fn resolves_symlinks_and_says_so() {
        let dir = Dir::new();
        let exports = dir
            .check("[[export]]\npath='@/link/../docker/./containers/'\n")
            .unwrap();
        let export = exports.iter().next().unwrap();
        assert_eq!(export.path, dir.path().join("docker/containers"));
        assert!(export.to_string().contains("(written as "), "{export}");
    }

    #[test]
    fn names_what_is_wrong_with_a_path() {
        let dir = Dir::new();
        assert_eq!(
            dir.refusal("var/lib"),
            "p:2:8: \"var/lib\" is not absolute: it must begin with \"/\""
        );
        assert_eq!(
            dir.refusal(""),
            "p:2:8: \"\" is not absolute: it must begin with \"/\""
        );
        assert_eq!(
            dir.refusal("@/nope"),
            "p:2:8: \"@/nope\" does not exist: create it, correct the path, or add \"optional = true\""
        );
        assert_eq!(
            dir.refusal("@/file"),
            "p:2:8: \"@/file\" is not a directory: export the directory that it is in"
        );
        assert!(dir
            .refusal("@/file/x")
            .starts_with("p:2:8: \"@/file/x\" cannot be resolved ("));
        assert!(dir
            .check("[[export]]\npath = \"/a\\u0000b\"")
            .unwrap_err()
            .contains("has a NUL byte"));
        let long = format!("/{}", "x/".repeat(3000));
        let error = dir
            .check(&format!("[[export]]\npath = {long:?}\noptional = true\n"))
            .unwrap_err();
        assert!(
            error.ends_with("is longer than 4095 bytes: no path can be"),
            "{error}"
        );
    }

    #[test]
    fn refuses_duplicates_also_by_another_name() {
        let dir = Dir::new();
        assert_eq!(
            dir.check("[[export]]\npath='@/docker'\n[[export]]\npath='@/link'\n")
                .unwrap_err(),
            "p:4:6: @/docker is exported twice, first as \"@/docker\": remove one of the two"
        );
    }

    #[test]
    fn an_optional_directory_may_come_later() {
        let dir = Dir::new();
        let text = |path: &str| format!("[[export]]\npath='{path}'\noptional=true\n");
        let exports = dir.check(&text("@/link/later/still")).unwrap();
        let export = exports.iter().next().unwrap();
        assert_eq!(export.path, dir.path().join("docker/later/still"));
        assert!(!export.present);
        assert!(export.to_string().ends_with("(once it exists)"));
        assert!(dir.check(&text("@/dangling")).is_ok());
        assert!(
            dir.check(&text("@/file")).is_err(),
            "a file is wrong, also when optional"
        );
        assert!(dir.check(&text("@/file/x")).is_err());
        assert!(dir.check(&text("@/nope/../x")).is_err());
    }

    #[test]
    fn takes_256_exports_and_no_more() {
        let dir = Dir::new();
        let text = |n: usize| {
            let entry = |i| format!("[[export]]\npath='@/{i}'\noptional=true\n");
            (0..n).map(entry).collect::<Vec<_>>().concat()
        };
        assert_eq!(dir.check(&text(MAX)).unwrap().iter().count(), MAX);
        assert!(dir
            .check(&text(MAX + 1))
            .unwrap_err()
            .contains("more than 256 exports"));
    }
}
