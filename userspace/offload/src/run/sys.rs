// SPDX-License-Identifier: GPL-2.0

//! System calls that need unsafe code: the filter, its notifications, fork(2) and what is done after it.

use nix::libc;
use nix::sys::signal::sigprocmask;
use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;
use nix::sys::signal::Signal;
use nix::unistd::ForkResult;
use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// System calls that are held until the supervisor has decided.
///
/// tkill and tgkill are not: they are for threads, which HOST's processes are not addressed by, and Go's
/// run time uses them all the time.
const HELD: [libc::c_long; 7] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_kill,
];

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// The filter: calls of [`HELD`] are held, all others go on. Those of another architecture's numbers
/// (32-bit programs) are not looked at.
fn filter() -> Vec<libc::sock_filter> {
    // CAST: offsets and numbers of system calls are small.
    let mut program = vec![
        statement(LOAD, offset_of!(libc::seccomp_data, arch) as u32),
        libc::sock_filter {
            code: EQUAL,
            jt: 1,
            jf: 0,
            k: ARCH,
        },
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
        statement(LOAD, offset_of!(libc::seccomp_data, nr) as u32),
    ];
    for (at, number) in HELD.iter().enumerate() {
        program.push(libc::sock_filter {
            code: EQUAL,
            jt: (HELD.len() - at) as u8,
            jf: 0,
            k: *number as u32,
        });
    }
    program.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    program.push(statement(RETURN, libc::SECCOMP_RET_USER_NOTIF));
    program
}

/// Puts the calling thread under the filter; the descriptor tells of calls that are held.
pub(super) fn install_filter() -> io::Result<OwnedFd> {
    let mut filter = filter();
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: `program` and what it names are valid for reads during the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &program,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The kernel has just made the descriptor for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

mod ioctl {
    use nix::libc;
    nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, libc::seccomp_notif_resp);
    nix::ioctl_write_ptr!(valid, b'!', 2, u64);
}

/// A call that is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Of the notification.
    pub(super) id: u64,
    /// The thread, as the supervisor's pid namespace has it.
    pub(super) tid: u32,
    /// The system call.
    pub(super) number: libc::c_long,
    /// Its arguments.
    pub(super) arguments: [u64; 6],
}

/// Waits for the next call. ENOENT means that its caller was killed meanwhile.
pub(super) fn receive(listener: &OwnedFd) -> nix::Result<Held> {
    // SAFETY: It is a structure of numbers, for which zeros are valid, and which the kernel wants.
    let mut notif: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: `notif` is valid for writes of its size, which is part of the request code.
    unsafe { ioctl::receive(listener.as_raw_fd(), &mut notif) }?;
    Ok(Held {
        id: notif.id,
        tid: notif.pid,
        number: libc::c_long::from(notif.data.nr),
        arguments: notif.data.args,
    })
}

/// Whether the caller still waits; what was read of its memory before is then its own.
pub(super) fn is_valid(listener: &OwnedFd, id: u64) -> bool {
    // SAFETY: `id` is valid for reads of its size, which is part of the request code.
    unsafe { ioctl::valid(listener.as_raw_fd(), &id) }.is_ok()
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The kernel of this machine executes it.
    Continue,
    /// It was done, or failed with an errno.
    Done(Result<(), nix::errno::Errno>),
}

/// Lets the caller go on.
pub(super) fn answer(listener: &OwnedFd, id: u64, answer: Answer) {
    let (error, flags) = match answer {
        Answer::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Done(Ok(())) => (0, 0),
        Answer::Done(Err(errno)) => (-(errno as i32), 0),
    };
    let mut response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error,
        flags,
    };
    // SAFETY: `response` is valid for reads of its size, which is part of the request code. It fails only
    // when the caller is gone.
    let _ = unsafe { ioctl::send(listener.as_raw_fd(), &mut response) };
}

/// fork(2), for a process that has no other threads.
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: The process has one thread so far, so no lock is held by another one in the child.
    unsafe { nix::unistd::fork() }
}

/// Takes over a descriptor that was received in a message.
pub(super) fn received(fd: i32) -> OwnedFd {
    // SAFETY: The kernel has made it for this process with the message; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Has a command's process be told to end (SIGTERM) when the thread that starts it does, with no signals
/// blocked.
pub(crate) fn end_with_parent(command: &mut Command) {
    let set = || {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?)
    };
    // SAFETY: These are system calls, which need nothing that a fork takes away.
    unsafe { command.pre_exec(set) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_held_call_jumps_to_the_last_instruction() {
        let program = filter();
        let last = program.len() - 1;
        assert_eq!(program[last].k, libc::SECCOMP_RET_USER_NOTIF);
        let jumps = program.iter().enumerate().skip(4).take(HELD.len());
        for (at, jump) in jumps {
            assert_eq!(at + 1 + usize::from(jump.jt), last);
        }
    }
}
