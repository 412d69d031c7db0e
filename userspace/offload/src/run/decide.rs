// SPDX-License-Identifier: GPL-2.0

//! Where a system call is to take effect.
//!
//! What is decided is not a matter of security, so that the caller's memory may change afterwards: HOST
//! checks every request by its own policy, and what goes on here is checked by this kernel.

use super::overlay;
use super::overlay::Layers;
use super::process::FIRST_PID;
use super::view::on_host;
use super::view::path_of;
use super::view::Found;
use super::view::Place;
use super::view::View;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::mount::MsFlags;
use qtfs_control::message::Bytes;
use qtfs_control::schedule::Schedule;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

/// What is to be done with a call.
#[derive(Debug)]
pub(super) enum Decision {
    /// It is this machine's.
    Local,
    /// It fails.
    Fails(Errno),
    /// It fails, and the log says why.
    Refused(Errno, String),
    /// mount(2) of a new file system on HOST.
    Mount {
        kind: String,
        source: Bytes,
        target: PathBuf,
        flags: u64,
        parameters: Vec<qtfs_control::message::Parameter>,
    },
    /// A bind mount on HOST.
    Bind {
        source: PathBuf,
        target: PathBuf,
        flags: u64,
    },
    /// A change of a mount on HOST.
    Change {
        target: PathBuf,
        flags: u64,
        data: Bytes,
    },
    /// umount2(2) on HOST.
    Unmount { target: PathBuf, flags: u64 },
    /// A network namespace of a HOST process: an empty one of this machine stands for it.
    Network(OwnedFd),
    /// A signal for a process or thread of HOST.
    Kill {
        pid: i32,
        signal: i32,
        thread: bool,
        info: Option<Bytes>,
    },
    /// How a process of HOST is scheduled.
    Schedule { pid: i32, call: Schedule },
}

/// mount(2), with the arguments that were read.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) source: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) kind: Vec<u8>,
    pub(super) flags: u64,
    pub(super) data: Vec<u8>,
}

/// Whether a path is that of another process's network namespace.
fn is_network_of_process(path: &Path) -> bool {
    let text = path.to_str().unwrap_or_default();
    let Some(rest) = text.strip_prefix("/proc/") else {
        return false;
    };
    let mut parts = rest.split('/');
    let number = |part: Option<&str>| part.is_some_and(|p| p.parse::<u32>().is_ok());
    if !number(parts.next()) {
        return false;
    }
    let rest: Vec<&str> = parts.collect();
    match rest.as_slice() {
        ["ns", "net"] => true,
        ["task", task, "ns", "net"] => number(Some(task)),
        _ => false,
    }
}

const PROPAGATION: MsFlags = MsFlags::MS_SHARED
    .union(MsFlags::MS_PRIVATE)
    .union(MsFlags::MS_SLAVE)
    .union(MsFlags::MS_UNBINDABLE);

/// The flags of mount(2) without what old programs add to them (`MS_MGC_VAL`), as the kernel drops it.
pub(super) fn without_magic(flags: u64) -> u64 {
    const MASK: u64 = 0xffff_0000;
    match flags & MASK {
        0xc0ed_0000 => flags & !MASK,
        _ => flags,
    }
}

/// mount(2).
pub(super) fn mount(view: &View, tid: u32, call: &Mount) -> Result<Decision, Errno> {
    let target = path_of(&call.target);
    // What cannot be found is an error that this kernel tells best.
    let Ok(Found { fd, place }) = view.find(tid, target, OFlag::empty()) else {
        return Ok(Decision::Local);
    };
    let flags = MsFlags::from_bits_retain(call.flags as libc::c_ulong);
    let source = path_of(&call.source);
    let anew = !flags.intersects(PROPAGATION | MsFlags::MS_REMOUNT | MsFlags::MS_MOVE);
    if anew && flags.contains(MsFlags::MS_BIND) && is_network_of_process(source) {
        // A process of this machine has a namespace of this machine, which is no file of HOST.
        let local = match view.find(tid, source, OFlag::empty()) {
            Ok(found) => found.place == Place::Local,
            Err(errno) => matches!(errno, Errno::ELOOP | Errno::EXDEV),
        };
        return Ok(if local {
            Decision::Local
        } else {
            Decision::Network(fd)
        });
    }
    let target = match place {
        Place::Local | Place::Top(_) | Place::Bound(_) => return Ok(Decision::Local),
        Place::Host(target) => target,
    };
    if flags.contains(MsFlags::MS_MOVE) {
        let why = format!("moving a mount to HOST's {}", target.display());
        return Ok(Decision::Refused(Errno::EXDEV, why));
    }
    if !anew {
        return Ok(Decision::Change {
            target,
            flags: call.flags,
            data: Bytes(call.data.clone()),
        });
    }
    if flags.contains(MsFlags::MS_BIND) {
        let source = view.find(tid, source, OFlag::empty())?;
        return Ok(match on_host(source.place) {
            // A file of this machine is seen at HOST's place by this machine's programs alone.
            None => Decision::Local,
            Some(source) => Decision::Bind {
                source,
                target,
                flags: call.flags,
            },
        });
    }
    let kind = String::from_utf8(call.kind.clone()).map_err(|_| Errno::ENODEV)?;
    let parameters = match kind.as_str() {
        "qtfs" => return Ok(Decision::Local),
        "overlay" => {
            let name = |path: &Path| view.name_on_host(tid, path);
            match overlay::layers(&call.data, name)? {
                Layers::Host(parameters) => parameters,
                Layers::Local => return Ok(Decision::Local),
                Layers::Mixed(path) => {
                    let why = format!(
                        "an overlay on HOST's {}: its layer {} is on this machine; layers must lie in \
                         directories of HOST that are mounted here",
                        target.display(),
                        path.display()
                    );
                    return Ok(Decision::Refused(Errno::EXDEV, why));
                }
            }
        }
        _ => overlay::options(&call.data)?,
    };
    Ok(Decision::Mount {
        kind,
        source: Bytes(call.source.clone()),
        target,
        flags: call.flags,
        parameters,
    })
}

/// umount2(2).
pub(super) fn unmount(view: &View, tid: u32, target: &[u8], flags: u64) -> Decision {
    // CAST: the kernel takes an int.
    let follow = if flags as i32 & libc::UMOUNT_NOFOLLOW == 0 {
        OFlag::empty()
    } else {
        OFlag::O_NOFOLLOW
    };
    match view
        .find(tid, path_of(target), follow)
        .map(|found| found.place)
    {
        Ok(Place::Host(target)) => Decision::Unmount { target, flags },
        // Daemons unmount what they take for their own directory; HOST's would be gone from here.
        Ok(Place::Top(_)) => Decision::Fails(Errno::EINVAL),
        Ok(Place::Local | Place::Bound(_)) | Err(_) => Decision::Local,
    }
}

/// Whether a process may be one of HOST's: the numbers of the program's own are others.
pub(super) fn is_of_host(pid: i32) -> bool {
    (2..FIRST_PID).contains(&pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_namespaces_of_processes_are_known_by_their_paths() {
        for path in ["/proc/1/ns/net", "/proc/77/task/78/ns/net"] {
            assert!(is_network_of_process(Path::new(path)), "{path}");
        }
        for path in [
            "/proc/self/ns/net",
            "/proc/1/ns/mnt",
            "/proc/1/ns/net/x",
            "/x/1/ns/net",
        ] {
            assert!(!is_network_of_process(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn old_programs_flags_are_those_that_they_mean() {
        assert_eq!(without_magic(0xc0ed_0001), 1);
        let private = MsFlags::MS_PRIVATE.bits() | MsFlags::MS_REC.bits();
        assert_eq!(without_magic(private), private);
    }

    #[test]
    fn signals_for_own_processes_stay_here() {
        for pid in [-1, 0, 1, -77, FIRST_PID, i32::MAX, i32::MIN] {
            assert!(!is_of_host(pid), "{pid}");
        }
        assert!(is_of_host(77) && is_of_host(FIRST_PID - 1));
    }
}
