// SPDX-License-Identifier: GPL-2.0

//! The system calls that need unsafe code: the module's ioctls and the signal that interrupts them.

use crate::device::Demand;
use crate::device::Device;
use crate::device::Reason;
use nix::sys::signal::SaFlags;
use nix::sys::signal::SigAction;
use nix::sys::signal::SigHandler;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
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

// The ABI between engine and the module, for the eyes of the compiler.
const _: () = assert!(nix::request_code_write!(b'q', 1, size_of::<Configure>()) == 0x4010_7101);
const _: () = assert!(nix::request_code_read!(b'q', 2, size_of::<Serve>()) == 0x8008_7102);
const _: () = assert!(nix::request_code_read!(b'q', 3, size_of::<Wait>()) == 0x8010_7103);

mod ioctl {
    nix::ioctl_write_ptr!(configure, b'q', 1, super::Configure);
    nix::ioctl_read!(serve, b'q', 2, super::Serve);
    nix::ioctl_read!(wait, b'q', 3, super::Wait);
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

extern "C" fn nothing(_signal: nix::libc::c_int) {}

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
