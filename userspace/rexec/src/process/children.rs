// SPDX-License-Identifier: GPL-2.0

//! The children of a process that is a child subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)): its
//! own and, as soon as their parents have ended, all further descendants.

use super::sys;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;
use rustix::io::Errno;
use rustix::process::WaitOptions;
use rustix::process::WaitStatus;
use std::io;

/// Makes this process the subreaper of its descendants, and SIGCHLD a descriptor to poll.
pub(super) fn adopt() -> io::Result<SignalFd> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_set_mask()?;
    Ok(SignalFd::with_flags(
        &signals,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// What waiting for a child gave.
pub(super) enum Reaped {
    /// This one ended.
    Child(i32, WaitStatus),
    /// None has ended, but there are some.
    Alive,
    /// There is none.
    None,
}

/// Takes the next child that has ended.
pub(super) fn reap() -> io::Result<Reaped> {
    loop {
        return match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => Ok(Reaped::Child(pid.as_raw_nonzero().get(), status)),
            Ok(None) => Ok(Reaped::Alive),
            Err(Errno::CHILD) => Ok(Reaped::None),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// The pids of all children, zombies included.
pub(super) fn list() -> io::Result<Vec<i32>> {
    let own = std::process::id();
    // Not in every kernel (CONFIG_PROC_CHILDREN).
    if let Ok(text) = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")) {
        return Ok(text
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect());
    }
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if parent(&stat) == Some(own) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// The parent in a line of `/proc/PID/stat`, after the name, which may contain anything.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Kills all children for which `which` says so.
pub(super) fn kill(which: impl Fn(i32) -> bool) -> io::Result<()> {
    for pid in list()?.into_iter().filter(|pid| which(*pid)) {
        // It may have ended, but it was not waited for, so the number is still its own.
        let _ = sys::kill(pid, nix::libc::SIGKILL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_confuse_it() {
        assert_eq!(parent("12 (a) S 1 (b) R) S 34 12 12 0"), Some(34));
        assert_eq!(parent(""), None);
    }
}
