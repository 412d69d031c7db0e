// SPDX-License-Identifier: GPL-2.0

//! Paths as a supervised thread sees them: from its own root and working directory.

use super::process::open_path;
use super::process::read_at;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::OpenHow;
use nix::fcntl::ResolveFlag;
use nix::libc;
use nix::sys::uio::RemoteIoVec;
use nix::unistd::Pid;
use qtfs_control::mountinfo;
use qtfs_control::mountinfo::Mount;
use rustix::fs::AtFlags;
use rustix::fs::StatxFlags;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

/// Longest path, with the NUL.
pub(super) const PATH_MAX: usize = 4096;
/// Memory is read up to a multiple of this, which no mapping is smaller than.
const PAGE: usize = 4096;

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this machine.
    Local,
    /// It is the top of a directory of HOST that is mounted here.
    Top(PathBuf),
    /// It is the top of a part of such one that a program has bound to a place of this machine.
    Bound(PathBuf),
    /// Below such a one; this is what HOST calls it.
    Host(PathBuf),
}

/// A file that was found.
#[derive(Debug)]
pub(super) struct Found {
    /// By O_PATH.
    pub(super) fd: OwnedFd,
    pub(super) place: Place,
}

/// What can be learnt of threads.
#[derive(Debug)]
pub(super) struct View {
    /// The supervisor's own procfs.
    procfs: OwnedFd,
}

/// The tree of mounts decides whether a file is the top of one, or in what HOST has mounted below.
fn place(mounts: &[Mount], id: u64, path: &Path) -> Option<Place> {
    let mount = mounts.iter().find(|mount| mount.id == id)?;
    let Some(host) = mount.to_host(path) else {
        return (!mount.is_qtfs()).then_some(Place::Local);
    };
    let parent = mounts.iter().find(|parent| parent.id == mount.parent);
    if path == mount.point && !parent.is_some_and(Mount::is_qtfs) {
        let is_whole = mount.root == Path::new("/");
        return Some(if is_whole {
            Place::Top(host)
        } else {
            Place::Bound(host)
        });
    }
    Some(Place::Host(host))
}

/// The effective capabilities that `/proc/PID/status` tells.
fn capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(line?.trim(), 16).ok()
}

/// Whose open file a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Oneself,
    Process(u32),
}

/// The process and the number, of `/proc/PID/fd/N`.
fn open_file(path: &Path) -> Option<(Whom, u32)> {
    let rest = path.to_str()?.strip_prefix("/proc/")?;
    let (whom, rest) = rest.split_once('/')?;
    let whom = match whom {
        "self" | "thread-self" => Whom::Oneself,
        number => Whom::Process(number.parse().ok()?),
    };
    Some((whom, rest.strip_prefix("fd/")?.parse().ok()?))
}

/// The process id in its own pid namespace that `/proc/PID/status` tells.
fn innermost(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NStgid:"));
    line?.split_whitespace().last()?.parse().ok()
}

impl View {
    pub(super) fn new(procfs: OwnedFd) -> Self {
        Self { procfs }
    }

    /// What a link of a thread's procfs directory says.
    fn link(&self, name: &str) -> nix::Result<PathBuf> {
        nix::fcntl::readlinkat(&self.procfs, name).map(PathBuf::from)
    }

    /// Which mount namespace a thread is in.
    pub(super) fn namespace(&self, tid: u32) -> nix::Result<PathBuf> {
        self.link(&format!("{tid}/ns/mnt"))
    }

    /// Whether a thread is in the same pid namespace as another one.
    pub(super) fn has_pids_of(&self, tid: u32, other: u32) -> nix::Result<bool> {
        Ok(self.link(&format!("{tid}/ns/pid"))? == self.link(&format!("{other}/ns/pid"))?)
    }

    /// Whether a thread has a capability, by its number, in the supervisor's own user namespace.
    pub(super) fn can(&self, tid: u32, capability: u32) -> nix::Result<bool> {
        if self.link(&format!("{tid}/ns/user"))? != self.link("self/ns/user")? {
            return Ok(false);
        }
        let status = read_at(&self.procfs, &format!("{tid}/status"));
        let status =
            status.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        let effective = capabilities(&status).ok_or(Errno::EIO)?;
        Ok(effective & (1 << capability) != 0)
    }

    /// The root directory of a thread.
    pub(super) fn root(&self, tid: u32) -> nix::Result<OwnedFd> {
        open_path(&self.procfs, &format!("{tid}/root"))
    }

    /// The supervisor's procfs.
    pub(super) fn procfs(&self) -> &OwnedFd {
        &self.procfs
    }

    /// Reads a text of at most `most` bytes, with its NUL, from a thread's memory.
    pub(super) fn text(&self, tid: u32, address: u64, most: usize) -> nix::Result<Vec<u8>> {
        let mut text = Vec::new();
        // CAST: addresses have the machine's size.
        let mut at = address as usize;
        while text.len() < most {
            let room = (PAGE - at % PAGE).min(most - text.len());
            let mut piece = vec![0; room];
            let remote = [RemoteIoVec {
                base: at,
                len: room,
            }];
            // CAST: thread ids are positive.
            let whom = Pid::from_raw(tid as i32);
            let mut local = [IoSliceMut::new(&mut piece)];
            let len = nix::sys::uio::process_vm_readv(whom, &mut local, &remote)?;
            piece.truncate(len);
            if let Some(end) = piece.iter().position(|byte| *byte == 0) {
                piece.truncate(end);
                text.append(&mut piece);
                return Ok(text);
            }
            text.append(&mut piece);
            at = at.checked_add(len).ok_or(Errno::EFAULT)?;
            if len == 0 {
                return Err(Errno::EFAULT);
            }
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Reads so many bytes of a thread's memory.
    pub(super) fn bytes(&self, tid: u32, address: u64, len: usize) -> nix::Result<Vec<u8>> {
        let bytes = self.some_bytes(tid, address, len)?;
        match bytes.len() == len {
            true => Ok(bytes),
            false => Err(Errno::EFAULT),
        }
    }

    /// Reads at most so many bytes of a thread's memory, up to where there is none.
    pub(super) fn some_bytes(&self, tid: u32, address: u64, len: usize) -> nix::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        // CAST: addresses have the machine's size, and thread ids are positive.
        let (base, whom) = (address as usize, Pid::from_raw(tid as i32));
        // Pages are read whole or not at all.
        let first = len.min(PAGE - base % PAGE);
        let remote = [
            RemoteIoVec { base, len: first },
            RemoteIoVec {
                base: base.saturating_add(first),
                len: len - first,
            },
        ];
        let mut local = [IoSliceMut::new(&mut bytes)];
        let read = nix::sys::uio::process_vm_readv(whom, &mut local, &remote)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Writes to a thread's memory.
    pub(super) fn write(&self, tid: u32, address: u64, bytes: &[u8]) -> nix::Result<()> {
        // CAST: As above.
        let (base, whom) = (address as usize, Pid::from_raw(tid as i32));
        let len = bytes.len();
        let remote = [RemoteIoVec { base, len }];
        let local = [IoSlice::new(bytes)];
        match nix::sys::uio::process_vm_writev(whom, &local, &remote)? {
            written if written == len => Ok(()),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Finds a file as a thread would. Of the links to open files (`/proc/PID/fd/N`) those to the thread's own are followed, at the
    /// end of a path; others are an error.
    pub(super) fn find(&self, tid: u32, path: &Path, flags: OFlag) -> nix::Result<Found> {
        self.find_from(tid, "cwd", path, flags)
    }

    /// The same, with relative paths from what a link of the thread's procfs directory leads to.
    fn find_from(&self, tid: u32, base: &str, path: &Path, flags: OFlag) -> nix::Result<Found> {
        let path = self.absolute(tid, base, path)?;
        let own = match flags.contains(OFlag::O_NOFOLLOW) {
            true => None,
            false => self.own_file(tid, &path)?,
        };
        let fd = match own {
            Some(fd) => fd,
            None => {
                let root = self.root(tid)?;
                let how = OpenHow::new()
                    .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | flags)
                    .resolve(ResolveFlag::RESOLVE_IN_ROOT);
                nix::fcntl::openat2(&root, &path, how)?
            }
        };
        let place = self.place(&fd)?;
        Ok(Found { fd, place })
    }

    /// The open file that a path names, if it is one of the thread's own. kubelet binds volumes by such a path.
    fn own_file(&self, tid: u32, path: &Path) -> nix::Result<Option<OwnedFd>> {
        let Some((whom, number)) = open_file(path) else {
            return Ok(None);
        };
        if let Whom::Process(number) = whom {
            let status =
                read_at(&self.procfs, &format!("{tid}/status")).map_err(|_| Errno::ESRCH)?;
            if innermost(&status) != Some(number) {
                return Ok(None);
            }
        }
        open_path(&self.procfs, &format!("{tid}/fd/{number}")).map(Some)
    }

    /// Where a file is that a system call names by a directory's descriptor and a path.
    pub(super) fn place_at(
        &self,
        tid: u32,
        directory: i32,
        path: &Path,
        flags: i32,
    ) -> nix::Result<Place> {
        let follow = match flags & libc::AT_SYMLINK_NOFOLLOW {
            0 => OFlag::empty(),
            _ => OFlag::O_NOFOLLOW,
        };
        let base = match directory {
            libc::AT_FDCWD => "cwd".to_owned(),
            number => format!("fd/{number}"),
        };
        if path.as_os_str().is_empty() {
            return self.place(&open_path(&self.procfs, &format!("{tid}/{base}"))?);
        }
        Ok(self.find_from(tid, &base, path, follow)?.place)
    }

    /// The absolute form of a path, for the thread's root.
    fn absolute(&self, tid: u32, base: &str, path: &Path) -> nix::Result<PathBuf> {
        if path.as_os_str().is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.is_absolute() {
            return Ok(path.to_owned());
        }
        let base = self.link(&format!("{tid}/{base}"))?;
        let root = self.link(&format!("{tid}/root"))?;
        let base = base.strip_prefix(&root).map_err(|_| Errno::ENOENT)?;
        Ok(Path::new("/").join(base).join(path))
    }

    fn place(&self, fd: &OwnedFd) -> nix::Result<Place> {
        let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
        let id = stat
            .map_err(|e| Errno::from_raw(e.raw_os_error()))?
            .stx_mnt_id;
        let path = self.link(&format!("self/fd/{}", fd.as_raw_fd()))?;
        let table = read_at(&self.procfs, "self/mountinfo").map_err(|_| Errno::EIO)?;
        // The supervisor has its own root, so a mount that it does not see is none of the program's.
        Ok(place(&mountinfo::parse(&table), id, &path).unwrap_or(Place::Local))
    }

    /// What HOST calls a file that need not exist and whose last name is not followed, if it lies on HOST.
    /// Its directory is found here, so that links of this machine count; the last name stays as it is, since
    /// links in HOST's directories mean the same there.
    pub(super) fn name_on_host(&self, tid: u32, path: &Path) -> nix::Result<Option<PathBuf>> {
        let Some(name) = path.file_name() else {
            return Ok(on_host(self.find(tid, path, OFlag::empty())?.place));
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = self.find(tid, parent, OFlag::O_DIRECTORY)?;
        if let Some(parent) = on_host(parent.place) {
            return Ok(Some(parent.join(name)));
        }
        // The file may be the top of a mount, or a link of this machine.
        Ok(on_host(self.find(tid, path, OFlag::empty())?.place))
    }
}

/// The name on HOST, of whatever is there.
pub(super) fn on_host(place: Place) -> Option<PathBuf> {
    match place {
        Place::Local => None,
        Place::Top(path) | Place::Bound(path) | Place::Host(path) => Some(path),
    }
}

/// A path from a thread's memory.
pub(super) fn path_of(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_known_by_their_paths() {
        let file = |path: &str| open_file(Path::new(path));
        assert_eq!(file("/proc/self/fd/7"), Some((Whom::Oneself, 7)));
        assert_eq!(file("/proc/77/fd/0"), Some((Whom::Process(77), 0)));
        for path in [
            "/proc/77/fd/0/x",
            "/proc/x/fd/1",
            "/proc/77/fdinfo/1",
            "/x/77/fd/1",
        ] {
            assert_eq!(file(path), None, "{path}");
        }
        let status = "Tgid:\t70\nNStgid:\t70\t3000077\nNSpid:\t71\t3000078\n";
        assert_eq!(innermost(status), Some(3_000_077));
    }

    #[test]
    fn a_top_is_told_from_what_host_has_mounted_below() {
        let mounts = mountinfo::parse(
            "\
36 35 98:0 / / rw shared:1 - ext4 /dev/root rw
40 36 0:44 / /d rw - qtfs /var/lib/docker/overlay2 rw
41 40 0:45 / /d/x/merged rw - qtfs /var/lib/docker/overlay2/x/merged rw
42 40 0:46 / /d/y rw - tmpfs none rw
43 36 0:44 /l/fs /tmp/m rw - qtfs /var/lib/docker/overlay2 rw
",
        );
        let place = |id, path: &str| place(&mounts, id, Path::new(path)).unwrap();
        let host = |path: &str| Place::Host(path.into());
        assert_eq!(place(36, "/etc"), Place::Local);
        assert_eq!(
            place(40, "/d"),
            Place::Top("/var/lib/docker/overlay2".into())
        );
        assert_eq!(place(40, "/d/x"), host("/var/lib/docker/overlay2/x"));
        assert_eq!(
            place(41, "/d/x/merged"),
            host("/var/lib/docker/overlay2/x/merged")
        );
        assert_eq!(place(42, "/d/y"), Place::Local);
        assert_eq!(
            place(43, "/tmp/m"),
            Place::Bound("/var/lib/docker/overlay2/l/fs".into())
        );
        assert_eq!(
            place(43, "/tmp/m/x"),
            host("/var/lib/docker/overlay2/l/fs/x")
        );
    }
}
