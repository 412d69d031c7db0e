// SPDX-License-Identifier: GPL-2.0

//! Where HOST's files are on this machine.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;

/// A mount of qtfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The directory on HOST.
    pub source: PathBuf,
    /// Where it is here.
    pub point: PathBuf,
}

/// Undoes the escapes of `/proc/PID/mountinfo`.
fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if byte == b'\\' => {
                bytes.push(code);
                rest = behind.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// The mounts of qtfs in a `mountinfo`.
pub fn parse(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (before, behind) = line.split_once(" - ")?;
        let mut behind = behind.split(' ');
        if behind.next()? != "qtfs" {
            return None;
        }
        let source = unescaped(behind.next()?);
        let mut fields = before.split(' ').skip(3);
        let root = unescaped(fields.next()?);
        let point = unescaped(fields.next()?);
        let root = root.strip_prefix("/").unwrap_or(&root);
        Some(Mount {
            source: source.join(root),
            point,
        })
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// Where a file of HOST is here; the innermost directory that is mounted wins.
pub fn find(mounts: &[Mount], path: &Path) -> Option<PathBuf> {
    let below = |mount: &Mount| {
        let rest = path.strip_prefix(&mount.source).ok()?;
        Some((mount.source.as_os_str().len(), mount.point.join(rest)))
    };
    let found = mounts.iter().filter_map(below);
    found.max_by_key(|(len, _)| *len).map(|(_, path)| path)
}

/// Where a file of HOST is here, by the mounts of now.
pub fn here(path: &Path) -> io::Result<PathBuf> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    find(&parse(&mountinfo), path).ok_or_else(|| {
        let what = "no mount of qtfs here has HOST's";
        io::Error::other(format!("{what} {}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_host_are_below_the_mounts() {
        let text = "\
36 35 98:0 / / rw - ext4 /dev/root rw
40 36 0:44 / /mnt/a\\040b rw shared:1 - qtfs /data rw,server=10.0.0.1
41 36 0:45 / /mnt/c rw - qtfs /data/deep rw
42 36 0:44 /sub /mnt/d rw - qtfs /other rw
";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 3);
        let find = |path: &str| find(&mounts, Path::new(path));
        assert_eq!(find("/data/x/y"), Some("/mnt/a b/x/y".into()));
        assert_eq!(find("/data/deep/x"), Some("/mnt/c/x".into()));
        assert_eq!(find("/data/deeper"), Some("/mnt/a b/deeper".into()));
        assert_eq!(find("/other/sub/x"), Some("/mnt/d/x".into()));
        assert_eq!(find("/etc"), None);
    }
}
