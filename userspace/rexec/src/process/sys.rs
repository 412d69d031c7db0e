// SPDX-License-Identifier: GPL-2.0

//! The system calls that no crate offers as safe functions; all unsafe code of rexec.

use nix::libc;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

/// The highest signal number.
const SIGNALS: i32 = 64;

fn result(value: libc::c_int) -> io::Result<libc::c_int> {
    if value == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

/// A process that has only one thread, and whose owner sees to it that it stays so.
///
/// Neither `Send` nor `Sync`: who has it is in that thread.
#[derive(Debug)]
pub struct SingleThreaded(std::marker::PhantomData<*const ()>);

impl SingleThreaded {
    /// Looks how many threads there are (proc_pid_task(5)).
    pub fn prove() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(std::marker::PhantomData)),
            threads => Err(io::Error::other(format!(
                "there are {threads} threads already"
            ))),
        }
    }

    /// fork(2): `None` in the child, whose pid it is in the parent.
    pub fn fork(&self) -> io::Result<Option<i32>> {
        // SAFETY: There is no other thread that could hold a lock which the child would wait for.
        match result(unsafe { libc::fork() })? {
            0 => Ok(None),
            pid => Ok(Some(pid)),
        }
    }
}

/// The own process id, as kill(2) takes it.
pub fn pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// Ends the process without running anything that the parent has set up, _exit(2).
pub fn exit_now(status: i32) -> ! {
    // SAFETY: It has no preconditions.
    unsafe { libc::_exit(status) }
}

/// kill(2), also for signals that have no name.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: It takes numbers and checks them.
    result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Marks all descriptors from `first` on as to be closed by execve(2).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
    // SAFETY: With this flag nothing is closed, so no owner of a descriptor is affected.
    result(unsafe { libc::close_range(first, libc::c_uint::MAX, flags) }).map(drop)
}

/// The signals that this process ignores: bit N - 1 for signal N.
///
/// SIGPIPE is left out: the Rust runtime ignores it in every program, so it says nothing about
/// what the caller wanted.
pub fn ignored_signals() -> u64 {
    let mut ignored = 0;
    for signal in (1..=SIGNALS).filter(|signal| *signal != libc::SIGPIPE) {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: `action` is valid for writes, and all zero is a valid value should the kernel
        // refuse the number (glibc keeps some for itself).
        let action = unsafe {
            libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
            action.assume_init()
        };
        if action.sa_sigaction == libc::SIG_IGN {
            ignored |= 1 << (signal - 1);
        }
    }
    ignored
}

/// Gives every signal its default action, or ignores it when its bit is set, and blocks none.
///
/// For a child that is about to execute a program.
pub fn reset_signals(ignored: u64) {
    for signal in 1..=SIGNALS {
        let ignore = ignored & (1 << (signal - 1)) != 0;
        let action = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: Neither action runs code. SIGKILL, SIGSTOP and glibc's own are refused, which
        // changes nothing.
        unsafe { libc::signal(signal, action) };
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Ends this process by a signal, without a core of its own: it is the program's death, which
/// has left its core where it died.
pub fn die_by(signal: i32) -> ! {
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    reset_signals(0);
    let _ = kill(pid(), signal);
    // For a signal that does not end a process here, as a shell would say it.
    exit_now(128 + signal)
}

/// The current limits of a resource (soft, hard) and setting them: prlimit(2) on this process.
pub fn limit(resource: u8, new: Option<(u64, u64)>) -> io::Result<(u64, u64)> {
    let new = new.map(|(soft, hard)| libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    });
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let pointer = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: Both point to a valid structure, or to none; an unknown resource is refused.
    result(unsafe { libc::prlimit64(0, resource.into(), pointer, &mut old) })?;
    Ok((old.rlim_cur, old.rlim_max))
}

/// Takes descriptors that recvmsg(2) has just made.
///
/// The vector is what [`nix::sys::socket::ControlMessageOwned::ScmRights`] holds, whose numbers nobody else has.
pub(super) fn own_received(fds: Vec<RawFd>) -> Vec<OwnedFd> {
    let own = |fd| {
        // SAFETY: The kernel has just made this descriptor for this process, and nix closes none.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    fds.into_iter().map(own).collect()
}
