// SPDX-License-Identifier: GPL-2.0

//! Calls about how a process of HOST is scheduled: what the kernel would read of the caller's memory, and
//! write to it.

use super::decide::is_of_host;
use super::sys::Held;
use super::view::View;
use nix::errno::Errno;
use nix::libc;
use qtfs_control::message::Bytes;
use qtfs_control::message::Reply;
use qtfs_control::schedule::Schedule;
use qtfs_control::schedule::ATTR;
use qtfs_control::schedule::LIMIT;
use qtfs_control::schedule::MASK;
use qtfs_control::schedule::PARAM;

/// `PRIO_PROCESS` of `<linux/resource.h>`, `IOPRIO_WHO_PROCESS` of `<linux/ioprio.h>`.
const PRIO_PROCESS: u64 = 0;
const IOPRIO_WHO_PROCESS: u64 = 1;

/// Which process a call is about, and what is asked. None when it is none of these calls, or is about
/// nobody of HOST's.
pub(super) fn read(view: &View, held: &Held) -> Result<Option<(i32, Schedule)>, Errno> {
    let [first, second, third, fourth, ..] = held.arguments;
    let bytes = |address, len| view.bytes(held.tid, address, len).map(Bytes);
    let (whom, call) = match held.number {
        libc::SYS_sched_getaffinity => {
            (first, Schedule::GetAffinity(second.min(MASK as u64) as u32))
        }
        libc::SYS_sched_setaffinity => {
            let len = second.min(MASK as u64) as usize;
            // The kernel reads no more than it has processors.
            let mask = view.some_bytes(held.tid, third, len)?;
            (first, Schedule::SetAffinity(Bytes(mask)))
        }
        libc::SYS_sched_getscheduler => (first, Schedule::GetScheduler),
        libc::SYS_sched_setscheduler => {
            // CAST: the kernel takes an int.
            let policy = second as i32;
            let param = bytes(third, PARAM)?;
            (first, Schedule::SetScheduler { policy, param })
        }
        libc::SYS_sched_getparam => (first, Schedule::GetParam),
        libc::SYS_sched_setparam => (first, Schedule::SetParam(bytes(second, PARAM)?)),
        libc::SYS_sched_getattr => {
            // CAST: the kernel takes unsigned ints.
            let (size, flags) = (third as u32, fourth as u32);
            (first, Schedule::GetAttr { size, flags })
        }
        libc::SYS_sched_setattr => {
            let said = view.bytes(held.tid, second, size_of::<u32>())?;
            let said = said
                .first_chunk()
                .map_or(0, |said| u32::from_ne_bytes(*said));
            let len = (said as usize).max(*ATTR.start());
            if !ATTR.contains(&len) {
                return Err(Errno::E2BIG);
            }
            let attr = bytes(second, len)?;
            // CAST: the kernel takes an unsigned int.
            let flags = third as u32;
            (first, Schedule::SetAttr { attr, flags })
        }
        // CAST: the kernel takes ints.
        libc::SYS_getpriority if first == PRIO_PROCESS => (second, Schedule::GetPriority),
        libc::SYS_setpriority if first == PRIO_PROCESS => {
            (second, Schedule::SetPriority(third as i32))
        }
        libc::SYS_ioprio_get if first == IOPRIO_WHO_PROCESS => (second, Schedule::GetIoPriority),
        libc::SYS_ioprio_set if first == IOPRIO_WHO_PROCESS => {
            (second, Schedule::SetIoPriority(third as i32))
        }
        libc::SYS_prlimit64 => {
            let new = match third {
                0 => None,
                address => Some(bytes(address, LIMIT)?),
            };
            // CAST: the kernel takes an unsigned int.
            let resource = second as u32;
            (first, Schedule::Limit { resource, new })
        }
        _ => return Ok(None),
    };
    // CAST: the kernel takes an int.
    let whom = whom as i32;
    Ok(is_of_host(whom).then_some((whom, call)))
}

/// Writes what HOST's kernel has written to where the caller wants it.
pub(super) fn write(view: &View, held: &Held, call: &Schedule, reply: &Reply) -> Result<(), Errno> {
    let [_, second, third, fourth, ..] = held.arguments;
    let (address, room) = match call {
        // It returns how many.
        Schedule::GetAffinity(room) => {
            let written = usize::try_from(reply.value).unwrap_or(0);
            (third, written.min(*room as usize))
        }
        Schedule::GetParam => (second, PARAM),
        Schedule::GetAttr { size, .. } => (second, *size as usize),
        Schedule::Limit { .. } if fourth == 0 => return Ok(()),
        Schedule::Limit { .. } => (fourth, LIMIT),
        _ => return Ok(()),
    };
    let bytes = &reply.bytes.0;
    let bytes = bytes.get(..bytes.len().min(room)).unwrap_or_default();
    view.write(held.tid, address, bytes)
}
