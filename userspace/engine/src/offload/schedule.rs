// SPDX-License-Identifier: GPL-2.0

//! How HOST's processes are scheduled.

use super::kill;
use super::rules::Refusal;
use super::rules::Rules;
use crate::sys;
use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use qtfs_control::message::Bytes;
use qtfs_control::message::Reply;
use qtfs_control::schedule::Need;
use qtfs_control::schedule::Schedule;
use rustix::process::PidfdFlags;
use std::os::fd::AsFd;

/// A scheduler call for one process or thread; what the kernel says.
///
/// There are no such calls that take a pidfd. It tells that the number was that of one process from the
/// look at its control group to the last moment before the call.
pub(super) fn schedule(rules: &Rules, pid: i32, call: &Schedule) -> Result<Reply, Refusal> {
    let room = call.room().ok_or(Errno::EINVAL)?;
    // Threads have numbers of their own here.
    let flags = PidfdFlags::from_bits_retain(nix::libc::PIDFD_THREAD);
    let process = match call.needs() {
        // Everybody may ask that, as on one machine, if anything is offloaded at all.
        Need::Nothing if !rules.is_empty() => kill::open(pid, flags)?,
        _ => kill::hold(rules, pid, flags)?,
    };
    let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    if nix::poll::poll(&mut ended, PollTimeout::ZERO)? > 0 {
        return Err(Errno::ESRCH.into());
    }
    let mut bytes = vec![0; room];
    let value = sys::schedule(pid, call, &mut bytes)?;
    Ok(Reply {
        value,
        bytes: Bytes(bytes),
        ..Reply::default()
    })
}
