// SPDX-License-Identifier: GPL-2.0

//! Mount tables as `/proc/PID/mountinfo` shows them (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number (`STATX_MNT_ID`).
    pub id: u64,
    /// The number of the mount that it is on.
    pub parent: u64,
    /// The file system's number, MAJOR:MINOR.
    pub device: String,
    /// Which part of the file system it shows.
    pub root: PathBuf,
    /// Where it is.
    pub point: PathBuf,
    /// Type of the file system.
    pub kind: String,
    /// What is mounted; of qtfs the directory of HOST.
    pub source: PathBuf,
    /// Whether mounts are propagated to others.
    pub shared: bool,
}

impl Mount {
    /// Whether the files are HOST's.
    pub fn is_qtfs(&self) -> bool {
        self.kind == "qtfs"
    }

    /// The directory of HOST that a mount of qtfs shows.
    pub fn of_host(&self) -> PathBuf {
        let root = self.root.strip_prefix("/").unwrap_or(&self.root);
        if root.as_os_str().is_empty() {
            return self.source.clone();
        }
        self.source.join(root)
    }

    /// What the file at `path` is called on HOST, if the mount is one of qtfs.
    pub fn to_host(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.point).ok()?;
        let top = self.is_qtfs().then(|| self.of_host())?;
        if below.as_os_str().is_empty() {
            return Some(top);
        }
        Some(top.join(below))
    }
}

/// Takes back the kernel's way to write characters that would end a name, such as `\040`.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

fn unescaped(field: &str) -> PathBuf {
    OsString::from_vec(unescape(field.as_bytes())).into()
}

fn line(line: &str) -> Option<Mount> {
    let (before, behind) = line.split_once(" - ")?;
    let mut behind = behind.split(' ');
    let kind = behind.next()?.to_owned();
    let source = unescaped(behind.next()?);
    let mut fields = before.split(' ');
    let id = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    let device = fields.next()?.to_owned();
    let root = unescaped(fields.next()?);
    let point = unescaped(fields.next()?);
    let shared = fields.any(|field| field.starts_with("shared:"));
    Some(Mount {
        id,
        parent,
        device,
        root,
        point,
        kind,
        source,
        shared,
    })
}

/// The mounts that this process sees now.
pub fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
}

/// The mounts, in the order of the table.
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

/// The mount that the file at `path` is seen through, if no link is in the path.
pub fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    // Of several at one place the last one covers the others.
    let at = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    at.max_by_key(|mount| mount.point.as_os_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
36 35 98:0 / / rw shared:1 - ext4 /dev/root rw
40 36 0:44 / /mnt/a\\040b rw shared:2 master:1 - qtfs /data rw,server=10.0.0.1
41 36 0:45 / /mnt/c rw - qtfs /data/deep rw
42 36 0:44 /sub /mnt/d rw - qtfs /other rw
43 36 0:46 / /mnt/c rw - tmpfs none rw
";

    #[test]
    fn names_are_as_they_were() {
        assert_eq!(unescape(br"/a\040b\011\012\134040"), b"/a b\t\n\\040");
        for name in [&br"/a\04"[..], br"\999\", br"\777"] {
            assert_eq!(unescape(name), name);
        }
    }

    #[test]
    fn fields_are_what_they_are() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 5);
        assert_eq!((mounts[1].id, mounts[1].parent), (40, 36));
        assert_eq!(mounts[1].point, Path::new("/mnt/a b"));
        assert!(mounts[1].shared && !mounts[2].shared);
        assert_eq!(mounts[3].of_host(), Path::new("/other/sub"));
    }

    #[test]
    fn paths_of_mounts_are_paths_of_host() {
        let mounts = parse(TABLE);
        let to_host = |path: &str| {
            let path = Path::new(path);
            containing(&mounts, path).and_then(|mount| mount.to_host(path))
        };
        assert_eq!(to_host("/mnt/a b/x/y"), Some("/data/x/y".into()));
        assert_eq!(to_host("/mnt/a b"), Some("/data".into()));
        assert_eq!(to_host("/mnt/d/x"), Some("/other/sub/x".into()));
        assert_eq!(to_host("/mnt/c/x"), None, "covered by tmpfs");
        assert_eq!(to_host("/mnt"), None);
    }
}
