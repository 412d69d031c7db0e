// SPDX-License-Identifier: GPL-2.0

//! The system calls that need unsafe code: the module's ioctls, the signal that interrupts
//! them, signals by pidfd, and calls of the scheduler.

use crate::device::Demand;
use crate::device::Device;
use crate::device::NewChannel;
use crate::device::Reason;
use crate::device::Sockets;
use nix::libc;
use nix::sys::signal::SaFlags;
use nix::sys::signal::SigAction;
use nix::sys::signal::SigHandler;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use qtfs_control::message::SIGINFO;
use qtfs_control::schedule::Schedule;
use qtfs_proto::relay::Purpose;
use qtfs_proto::relay::SocketType;
use qtfs_proto::MAX_GROUPS;
use qtfs_relay::identity::Identity;
use qtfs_relay::sys::owned;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::thread::JoinHandleExt;
use std::path::Path;
use std::thread::JoinHandle;

/// The device that `qtfs_server.ko` makes.
pub const DEVICE: &str = "/dev/qtfs_server";
/// Version of the policy's form, see [`Configure`].
const CONFIGURE_VERSION: u32 = 1;
/// `reason` of [`Serve`]: there was nothing to do for a while.
const REASON_IDLE: u32 = 1;
/// The signal that brings a thread out of an ioctl.
const INTERRUPT: Signal = Signal::SIGUSR1;

/// Argument of the ioctl CONFIGURE.
#[derive(Debug)]
#[repr(C)]
pub struct Configure {
    /// Address of `len` bytes of exports.
    exports: u64,
    len: u32,
    version: u32,
}

/// Argument of the ioctl SERVE.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Serve {
    reason: u32,
    reserved: u32,
}

/// Argument of the ioctl WAIT.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Wait {
    workers: u32,
    idle: u32,
    queued: u32,
    want: u32,
}

/// Argument of the ioctl CHANNEL. `groups` and `groups_len` go in and come back, all else comes back.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Channel {
    /// Address of `groups_len` numbers.
    groups: u64,
    groups_len: u32,
    session: u32,
    token: [u32; 2],
    purpose: u32,
    kind: u32,
    end: i32,
    object: i32,
    passed: i32,
    uid: u32,
    gid: u32,
    reserved: [u32; 3],
}

/// Argument of the ioctl DIRECTORY.
pub type Directory = i32;

// The ABI between engine and the module, for the eyes of the compiler.
const _: () = assert!(nix::request_code_write!(b'q', 1, size_of::<Configure>()) == 0x4010_7101);
const _: () = assert!(nix::request_code_read!(b'q', 2, size_of::<Serve>()) == 0x8008_7102);
const _: () = assert!(nix::request_code_read!(b'q', 3, size_of::<Wait>()) == 0x8010_7103);

const _: () = assert!(nix::request_code_readwrite!(b'q', 4, size_of::<Channel>()) == 0xc040_7104);
const _: () = assert!(nix::request_code_read!(b'q', 5, size_of::<Directory>()) == 0x8004_7105);

mod ioctl {
    nix::ioctl_write_ptr!(configure, b'q', 1, super::Configure);
    nix::ioctl_read!(serve, b'q', 2, super::Serve);
    nix::ioctl_read!(wait, b'q', 3, super::Wait);
    nix::ioctl_readwrite!(channel, b'q', 4, super::Channel);
    nix::ioctl_read!(directory, b'q', 5, super::Directory);
}

/// The module, by its device. One engine at a time has it open.
#[derive(Debug)]
pub struct Module(File);

impl Module {
    /// Opens the device; EBUSY means that another engine runs.
    pub fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map(Self)
    }
}

impl Device for Module {
    fn configure(&self, blob: &[u8]) -> io::Result<()> {
        let argument = Configure {
            exports: blob.as_ptr() as u64,
            len: u32::try_from(blob.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            version: CONFIGURE_VERSION,
        };
        // SAFETY: `argument` and the bytes that it names are valid for reads during the call, and
        // the module keeps neither address. A device that is no qtfs_server answers ENOTTY.
        unsafe { ioctl::configure(self.0.as_raw_fd(), &argument) }?;
        Ok(())
    }

    fn serve(&self) -> io::Result<Reason> {
        let mut argument = Serve::default();
        // SAFETY: `argument` is valid for writes of its size, which is part of the request code.
        unsafe { ioctl::serve(self.0.as_raw_fd(), &mut argument) }?;
        Ok(match argument.reason {
            REASON_IDLE => Reason::Idle,
            _ => Reason::Again,
        })
    }

    fn wait(&self) -> io::Result<Demand> {
        let mut argument = Wait::default();
        // SAFETY: `argument` is valid for writes of its size, which is part of the request code.
        unsafe { ioctl::wait(self.0.as_raw_fd(), &mut argument) }?;
        let Wait {
            workers,
            idle,
            queued,
            want,
        } = argument;
        Ok(Demand {
            workers,
            idle,
            queued,
            want,
        })
    }
}

impl Sockets for Module {
    fn channel(&self) -> io::Result<NewChannel> {
        let mut groups = vec![0u32; MAX_GROUPS];
        let mut argument = Channel {
            groups: groups.as_mut_ptr() as u64,
            groups_len: groups.len() as u32,
            ..Channel::default()
        };
        // SAFETY: `argument` is valid for reads and writes of its size, which is part of the request
        // code, and so is the memory that it names.
        unsafe { ioctl::channel(self.0.as_raw_fd(), &mut argument) }?;
        groups.truncate(argument.groups_len as usize);
        // What the kernel has just made.
        let passed = (argument.passed >= 0).then(|| owned(argument.passed));
        let (end, object) = (owned(argument.end), owned(argument.object));
        let purpose = Purpose::ALL.iter().copied();
        let purpose = purpose.into_iter().find(|p| *p as u32 == argument.purpose);
        let kind = SocketType::ALL.iter().copied();
        let kind = kind.into_iter().find(|k| *k as u32 == argument.kind);
        let [first, second] = argument.token.map(u32::to_ne_bytes);
        let mut token = [0; 8];
        token[..4].copy_from_slice(&first);
        token[4..].copy_from_slice(&second);
        Ok(NewChannel {
            end,
            object,
            passed,
            purpose: purpose.ok_or(io::ErrorKind::InvalidData)?,
            kind: kind.ok_or(io::ErrorKind::InvalidData)?,
            token: u64::from_ne_bytes(token),
            session: argument.session,
            who: Identity {
                pid: 0,
                uid: argument.uid,
                gid: argument.gid,
                groups,
            },
        })
    }

    fn directory(&self) -> io::Result<OwnedFd> {
        let mut fd = -1;
        // SAFETY: `fd` is valid for writes of its size, which is part of the request code.
        unsafe { ioctl::directory(self.0.as_raw_fd(), &mut fd) }?;
        Ok(owned(fd))
    }
}

extern "C" fn nothing(_signal: libc::c_int) {}

/// Makes [`interrupt`] work: the signal does nothing but end a system call.
///
/// Without SA_RESTART, so that the ioctl returns EINTR instead of being entered again.
pub fn prepare_interrupt() -> io::Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: The handler does nothing, so it is safe in any context.
    unsafe { nix::sys::signal::sigaction(INTERRUPT, &action) }?;
    let mut set = SigSet::empty();
    set.add(INTERRUPT);
    set.thread_unblock()?;
    Ok(())
}

/// Brings `thread` out of the system call that it is in, if it is in one.
///
/// A thread that is about to enter one misses it: repeat until the thread is gone.
pub fn interrupt<T>(thread: &JoinHandle<T>) {
    // It can fail only with ESRCH, for a thread that has ended and was not joined yet.
    let _ = nix::sys::pthread::pthread_kill(thread.as_pthread_t(), INTERRUPT);
}

/// Sends a signal to what a pidfd stands for (pidfd_send_signal(2)), with a `siginfo_t` if there is one; 0 sends none.
pub fn signal(to: &OwnedFd, signal: i32, info: Option<&[u8; SIGINFO]>) -> io::Result<()> {
    let info = info.map_or(std::ptr::null(), |info| info.as_ptr());
    // SAFETY: The kernel reads a `siginfo_t`, whose size `info` has, unless it is NULL.
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, to.as_raw_fd(), signal, info, 0) };
    match sent {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a scheduler call for a process or thread of this machine. `bytes` has [`Schedule::room`] bytes.
pub fn schedule(pid: i32, call: &Schedule, bytes: &mut [u8]) -> io::Result<i64> {
    // `PRIO_PROCESS`, `IOPRIO_WHO_PROCESS` of the kernel's headers.
    const PROCESS: i32 = 0;
    const IO_PROCESS: i32 = 1;
    if call.room() != Some(bytes.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (out, room) = (bytes.as_mut_ptr(), bytes.len());
    // SAFETY: The kernel writes at most `room` bytes, which `out` has: it is told so, or it is the size of
    // the structure. It reads as many bytes as it is told, or as the structure has, which is the length of
    // what is given to it. `room` has compared these lengths.
    let result = unsafe {
        match call {
            Schedule::GetAffinity(_) => libc::syscall(libc::SYS_sched_getaffinity, pid, room, out),
            Schedule::SetAffinity(mask) => {
                let mask = &mask.0;
                libc::syscall(libc::SYS_sched_setaffinity, pid, mask.len(), mask.as_ptr())
            }
            Schedule::GetScheduler => libc::syscall(libc::SYS_sched_getscheduler, pid),
            Schedule::SetScheduler { policy, param } => {
                let param = param.0.as_ptr();
                libc::syscall(libc::SYS_sched_setscheduler, pid, *policy, param)
            }
            Schedule::GetParam => libc::syscall(libc::SYS_sched_getparam, pid, out),
            Schedule::SetParam(param) => {
                libc::syscall(libc::SYS_sched_setparam, pid, param.0.as_ptr())
            }
            Schedule::GetAttr { flags, .. } => {
                libc::syscall(libc::SYS_sched_getattr, pid, out, room, *flags)
            }
            Schedule::SetAttr { attr, flags } => {
                // Into one that is too long the kernel writes the length that it knows.
                let mut attr = attr.0.clone();
                libc::syscall(libc::SYS_sched_setattr, pid, attr.as_mut_ptr(), *flags)
            }
            Schedule::GetPriority => libc::syscall(libc::SYS_getpriority, PROCESS, pid),
            Schedule::SetPriority(value) => {
                libc::syscall(libc::SYS_setpriority, PROCESS, pid, *value)
            }
            Schedule::GetIoPriority => libc::syscall(libc::SYS_ioprio_get, IO_PROCESS, pid),
            Schedule::SetIoPriority(value) => {
                libc::syscall(libc::SYS_ioprio_set, IO_PROCESS, pid, *value)
            }
            Schedule::Limit { resource, new } => {
                let new = new.as_ref().map_or(std::ptr::null(), |new| new.0.as_ptr());
                libc::syscall(libc::SYS_prlimit64, pid, *resource, new, out)
            }
        }
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}
