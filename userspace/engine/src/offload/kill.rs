// SPDX-License-Identifier: GPL-2.0

//! Signals to HOST's processes.

use super::rules::forbidden;
use super::rules::Refusal;
use super::rules::Rules;
use crate::sys;
use nix::errno::Errno;
use qtfs_control::message::Bytes;
use qtfs_control::message::SIGINFO;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use std::os::fd::OwnedFd;

/// Opens a process.
pub(super) fn open(pid: i32, flags: PidfdFlags) -> Result<OwnedFd, Refusal> {
    let whom = Pid::from_raw(pid).filter(|_| pid > 1);
    let whom = whom.ok_or_else(|| forbidden(format!("{pid} is not the id of one process")))?;
    Ok(rustix::process::pidfd_open(whom, flags)?)
}

/// Opens a process whose control group the policy lets be touched.
pub(super) fn hold(rules: &Rules, pid: i32, flags: PidfdFlags) -> Result<OwnedFd, Refusal> {
    let process = open(pid, flags)?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
    let groups = groups.map_err(|_| Refusal::from(Errno::ESRCH))?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
    rules.may_signal(group.unwrap_or("/"))?;
    Ok(process)
}

/// kill(2) of one process, or tkill(2) of a thread; with `info` rt_sigqueueinfo(2). The pidfd holds it from the look at its
/// control group to the signal.
pub(super) fn kill(
    rules: &Rules,
    pid: i32,
    signal: i32,
    thread: bool,
    info: Option<&Bytes>,
) -> Result<(), Refusal> {
    let flags = match thread {
        true => PidfdFlags::from_bits_retain(nix::libc::PIDFD_THREAD),
        false => PidfdFlags::empty(),
    };
    let process = hold(rules, pid, flags)?;
    let info = match info {
        None => None,
        Some(info) => {
            let mut info =
                <[u8; SIGINFO]>::try_from(info.0.as_slice()).map_err(|_| Errno::EINVAL)?;
            // rt_sigqueueinfo(2) writes `si_signo`, its first field, itself.
            for (byte, number) in info.iter_mut().zip(signal.to_ne_bytes()) {
                *byte = number;
            }
            Some(info)
        }
    };
    Ok(sys::signal(&process, signal, info.as_ref())?)
}
