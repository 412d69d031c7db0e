// SPDX-License-Identifier: GPL-2.0

//! Where HOST's files are on this machine.

use nix::fcntl::OFlag;
use nix::fcntl::OpenHow;
use nix::fcntl::ResolveFlag;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::fstat;
use nix::sys::stat::SFlag;
use qtfs_control::mountinfo;
use qtfs_control::mountinfo::Mount;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;

/// Where a file of HOST is here; the innermost directory that is mounted wins.
pub fn find(mounts: &[Mount], path: &Path) -> Option<PathBuf> {
    let below = |mount: &Mount| {
        let top = mount.is_qtfs().then(|| mount.of_host())?;
        let rest = path.strip_prefix(&top).ok()?;
        Some((top.as_os_str().len(), mount.point.join(rest)))
    };
    let found = mounts.iter().filter_map(below);
    found.max_by_key(|(len, _)| *len).map(|(_, path)| path)
}

/// Where a file of this machine is on HOST, if it is HOST's; the innermost directory that anything is
/// mounted on decides, and of several mounts there the last.
pub fn find_there(mounts: &[Mount], path: &Path) -> Option<PathBuf> {
    let covers = |mount: &&Mount| path.starts_with(&mount.point);
    let covering = mounts.iter().filter(covers);
    let mount = covering.max_by_key(|mount| mount.point.as_os_str().len())?;
    let rest = path.strip_prefix(&mount.point).ok()?;
    mount.is_qtfs().then(|| mount.of_host().join(rest))
}

/// The name of a socket of this machine as HOST's programs find it; one that is not in a mount of
/// qtfs, or depends on a current directory, is what it is.
pub fn name_there(name: Vec<u8>) -> Vec<u8> {
    translated(name, find_there)
}

/// The reverse.
pub fn name_here(name: Vec<u8>) -> Vec<u8> {
    translated(name, find)
}

fn translated(name: Vec<u8>, find: impl Fn(&[Mount], &Path) -> Option<PathBuf>) -> Vec<u8> {
    let path = Path::new(OsStr::from_bytes(&name));
    if !path.is_absolute() {
        return name;
    }
    let found = match mountinfo::read() {
        Ok(mounts) => find(&mounts, path),
        Err(error) => {
            tracing::warn!(
                "the name of a socket is passed as it is: /proc/self/mountinfo: {error}"
            );
            None
        }
    };
    found.map_or(name, |path| path.into_os_string().into_vec())
}

/// Opens a regular file or directory of HOST with no rights but that of naming it. Programs of HOST can
/// change what is at its path, to lead to files of this machine or to a device, or to keep who opens it
/// waiting.
pub fn pin(path: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let fd = nix::fcntl::openat2(AT_FDCWD, path, how)?;
    let kind = SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFREG && kind != SFlag::S_IFDIR || !is_of_host(&fd)? {
        let what = "is neither a file nor a directory of HOST any more";
        return Err(io::Error::other(format!("{} {what}", path.display())));
    }
    Ok(fd)
}

/// Whether a file was opened by a mount of qtfs (`proc_pid_fdinfo(5)`; statfs(2) tells HOST's types).
fn is_of_host(fd: &OwnedFd) -> io::Result<bool> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let id: Option<u64> = id.and_then(|id| id.trim().parse().ok());
    let mounts = mountinfo::read()?;
    Ok(mounts
        .iter()
        .any(|mount| Some(mount.id) == id && mount.is_qtfs()))
}

/// Where a file of HOST is here, by the mounts of now.
pub fn here(path: &Path) -> io::Result<PathBuf> {
    find(&mountinfo::read()?, path).ok_or_else(|| {
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
        let mounts = mountinfo::parse(text);
        let find = |path: &str| find(&mounts, Path::new(path));
        assert_eq!(find("/data/x/y"), Some("/mnt/a b/x/y".into()));
        assert_eq!(find("/data/deep/x"), Some("/mnt/c/x".into()));
        assert_eq!(find("/data/deeper"), Some("/mnt/a b/deeper".into()));
        assert_eq!(find("/other/sub/x"), Some("/mnt/d/x".into()));
        assert_eq!(find("/etc"), None);
    }

    #[test]
    fn names_here_are_those_of_the_innermost_mount() {
        let text = "\
36 35 98:0 / / rw - ext4 /dev/root rw
40 36 0:44 / /mnt/a rw shared:1 - qtfs /data rw,server=10.0.0.1
41 40 98:1 / /mnt/a/local rw - ext4 /dev/vdb rw
42 36 0:44 /sub /mnt/d rw - qtfs /other rw
43 36 0:45 / /mnt/twice rw - qtfs /one rw
44 43 0:46 / /mnt/twice rw - qtfs /two rw
";
        let mounts = mountinfo::parse(text);
        let find = |path: &str| find_there(&mounts, Path::new(path));
        assert_eq!(find("/mnt/a/x/y"), Some("/data/x/y".into()));
        assert_eq!(find("/mnt/ab/x"), None);
        assert_eq!(find("/mnt/a/local/x"), None);
        assert_eq!(find("/mnt/d/x"), Some("/other/sub/x".into()));
        assert_eq!(find("/mnt/twice/x"), Some("/two/x".into()));
        assert_eq!(find("/etc"), None);
    }
}
