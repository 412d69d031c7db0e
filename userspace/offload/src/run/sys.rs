// SPDX-License-Identifier: GPL-2.0

//! System calls that need unsafe code: the filter, its notifications, fork(2) and what is done after it.

use super::process::FIRST_PID;
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

/// `open_tree_attr` of `<asm-generic/unistd.h>`, which is new.
pub(super) const SYS_OPEN_TREE_ATTR: libc::c_long = 467;

/// System calls that are held until the supervisor has decided.
const HELD: [libc::c_long; 9] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    SYS_OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_kill,
];

/// Those that are held when the process that they are about, their first argument, may be one of HOST's.
const HELD_BY_FIRST: [libc::c_long; 14] = [
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_getparam,
    libc::SYS_sched_setparam,
    libc::SYS_sched_getattr,
    libc::SYS_sched_setattr,
    libc::SYS_prlimit64,
];
/// The same, with the process as their second argument.
const HELD_BY_SECOND: [libc::c_long; 4] = [
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_ioprio_get,
    libc::SYS_ioprio_set,
];

/// What a call that names a process by its number is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// A signal: which arguments are the number, the signal, and the address of a `siginfo_t`.
    Signal {
        whom: usize,
        signal: usize,
        info: Option<usize>,
        thread: bool,
    },
    /// A descriptor for it.
    Descriptor,
    /// How it is scheduled.
    Schedule,
    /// It is no such call.
    Nothing,
}

/// What a call of these lists is about.
pub(super) fn about(number: libc::c_long) -> About {
    let signal = |whom, signal, info, thread| About::Signal {
        whom,
        signal,
        info,
        thread,
    };
    match number {
        libc::SYS_kill => signal(0, 1, None, false),
        libc::SYS_tkill => signal(0, 1, None, true),
        libc::SYS_tgkill => signal(1, 2, None, true),
        libc::SYS_rt_sigqueueinfo => signal(0, 1, Some(2), false),
        libc::SYS_rt_tgsigqueueinfo => signal(1, 2, Some(3), true),
        libc::SYS_pidfd_open => About::Descriptor,
        _ if HELD_BY_FIRST.contains(&number) || HELD_BY_SECOND.contains(&number) => About::Schedule,
        _ => About::Nothing,
    }
}

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
/// How many instructions come before those that compare the number of the call.
const BEGIN: usize = 4;

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// The part of an argument that a process id is in.
fn load_argument(number: usize) -> libc::sock_filter {
    let at = offset_of!(libc::seccomp_data, args) + number * size_of::<u64>();
    // CAST: it is small. The least part comes first on all machines that there are.
    statement(LOAD, at as u32)
}

/// The filter: calls of [`HELD`], and of the other lists if they are about what may be a process of HOST,
/// are held, all others go on. Those of another architecture's numbers (32-bit programs) are not looked
/// at.
fn filter() -> Vec<libc::sock_filter> {
    // CAST: offsets and numbers of system calls are small, and so is the filter.
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
    let total = HELD.len() + HELD_BY_FIRST.len() + HELD_BY_SECOND.len();
    // What comes behind the comparisons, by its place there.
    let (second, first, allow, hold) = (1, 3, 6, 7);
    let lists = [
        (&HELD[..], hold),
        (&HELD_BY_FIRST[..], first),
        (&HELD_BY_SECOND[..], second),
    ];
    for (list, goal) in lists {
        for number in list {
            let next = program.len() - BEGIN + 1;
            program.push(libc::sock_filter {
                code: EQUAL,
                jt: (total - next + goal) as u8,
                jf: 0,
                k: *number as u32,
            });
        }
    }
    let jump = |k: i32, from: usize, yes: usize, no: usize| libc::sock_filter {
        code: AT_LEAST,
        jt: (yes - from - 1) as u8,
        jf: (no - from - 1) as u8,
        k: k as u32,
    };
    program.extend([
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
        load_argument(1),
        // Over the next one, always.
        jump(0, 2, 4, 4),
        load_argument(0),
        // Negative ones are large here.
        jump(FIRST_PID, 4, allow, 5),
        jump(2, 5, hold, allow),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
        statement(RETURN, libc::SECCOMP_RET_USER_NOTIF),
    ]);
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
    /// It has returned this, or failed with an errno.
    Done(Result<i64, nix::errno::Errno>),
}

/// Lets the caller go on.
pub(super) fn answer(listener: &OwnedFd, id: u64, answer: Answer) {
    let (val, error, flags) = match answer {
        Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Done(Ok(value)) => (value, 0, 0),
        Answer::Done(Err(errno)) => (0, -(errno as i32), 0),
    };
    let mut response = libc::seccomp_notif_resp {
        id,
        val,
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

/// How likely the kernel is to end a process when memory runs out (proc_pid_oom_score_adj(5)).
pub(crate) const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// Has a command's process be told to end (SIGTERM) when the thread that starts it does, with no signals
/// blocked, and be as likely to be ended for want of memory as `score` says.
pub(crate) fn end_with_parent(command: &mut Command, score: String) {
    let set = move || {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        // Only a kernel without procfs has no such file.
        let _ = std::fs::write(OOM_SCORE, &score);
        Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?)
    };
    // SAFETY: These are system calls, which need nothing that a fork takes away.
    unsafe { command.pre_exec(set) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says of a call, by executing it.
    fn verdict(number: libc::c_long, arguments: [u64; 2]) -> u32 {
        let program = filter();
        let (mut at, mut loaded) = (0, 0u32);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                RETURN => return step.k,
                LOAD => {
                    let first = offset_of!(libc::seccomp_data, args) as u32;
                    loaded = match step.k {
                        k if k == offset_of!(libc::seccomp_data, arch) as u32 => ARCH,
                        k if k == offset_of!(libc::seccomp_data, nr) as u32 => number as u32,
                        k => arguments[((k - first) / 8) as usize] as u32,
                    };
                }
                code => {
                    let holds = match code {
                        EQUAL => loaded == step.k,
                        _ => loaded >= step.k,
                    };
                    at += usize::from(if holds { step.jt } else { step.jf });
                }
            }
        }
    }

    #[test]
    fn what_may_be_about_a_process_of_host_is_held() {
        let (held, free) = (libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW);
        for number in HELD {
            assert_eq!(verdict(number, [0, 0]), held);
        }
        let own = FIRST_PID as u64;
        let minus = -2i32 as u32 as u64;
        for (pid, expected) in [
            (0, free),
            (1, free),
            (2, held),
            (own - 1, held),
            (own, free),
            (minus, free),
            // The kernel looks at an int.
            ((1 << 32) | 77, held),
        ] {
            for number in HELD_BY_FIRST {
                assert_eq!(verdict(number, [pid, 77]), expected, "{number} {pid}");
            }
            for number in HELD_BY_SECOND {
                assert_eq!(verdict(number, [0, pid]), expected, "{number} {pid}");
            }
        }
        for number in [libc::SYS_read, libc::SYS_sched_yield] {
            assert_eq!(verdict(number, [77, 77]), free);
        }
    }
}
