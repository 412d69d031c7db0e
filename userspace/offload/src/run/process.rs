// SPDX-License-Identifier: GPL-2.0

//! The namespaces and processes of a supervised program.
//!
//! Its mount namespace gets mounts from outside and has shared ones inside: dockerd would otherwise bind its
//! directory over itself, and hide what is mounted below. Its pid namespace begins with numbers that HOST's
//! processes do not have, so that a signal for one of HOST's never hits one of the DPU's.

use super::from_host;
use super::sys;
use super::Options;
use crate::failure::Failure;
use nix::errno::Errno;
use nix::libc;
use nix::mount::MsFlags;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::UnixAddr;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::WaitStatus;
use nix::unistd::ForkResult;
use nix::unistd::Pid;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

/// The least pid of a program; those of HOST are less.
pub(crate) const FIRST_PID: i32 = 3_000_000;
/// Where the numbers begin, from [`FIRST_PID`] on: a pid file of the last run names nobody of this one.
const SPREAD: u32 = 500_000;
/// The kernel's own limit of pids, `PID_MAX_LIMIT`.
const PID_MAX: &str = "4194304";
/// Beyond this the numbers begin anew, before the kernel would go on with small ones.
const LAST_PID: i32 = 4_000_000;
/// How often that is looked at, in milliseconds; the kernel makes some hundred processes in a second.
const RENEWED: u16 = 10_000;
const LAST_PID_FILE: &str = "sys/kernel/ns_last_pid";
/// Signals that are passed on to the program.
const PASSED: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// A program that was started.
#[derive(Debug)]
pub(super) struct Started {
    /// Process 1 of its namespace.
    pub(super) init: Pid,
    /// The program itself.
    pub(super) program: Pid,
    /// Tells of calls that are held.
    pub(super) listener: OwnedFd,
    /// The procfs of the supervisor's own pid namespace, which `/proc` shows no more.
    pub(super) procfs: OwnedFd,
    /// The program's process waits for a word by it.
    waits: OwnedFd,
}

impl Started {
    /// Lets the process become the program, now that everything is there to answer its calls.
    pub(super) fn release(&self) -> Result<(), Failure> {
        let sent = nix::unistd::write(&self.waits, b"go");
        sent.map(drop)
            .map_err(Failure::errno("starting the program"))
    }
}

/// Opens something in a directory, with no rights but that of naming it.
pub(super) fn open_path(directory: &OwnedFd, name: &str) -> nix::Result<OwnedFd> {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    nix::fcntl::openat(directory, name, flags, nix::sys::stat::Mode::empty())
}

/// Starts the program. Must be called before there are threads.
pub(super) fn start(options: &Options) -> Result<Started, Failure> {
    let procfs = File::open("/proc").map_err(Failure::system("opening /proc"))?;
    let own = File::open("/proc/self/ns/pid").map_err(Failure::system("opening /proc/self/ns"))?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
        .map_err(Failure::errno("making namespaces"))?;
    let none: Option<&Path> = None;
    for kind in [MsFlags::MS_SLAVE, MsFlags::MS_SHARED] {
        nix::mount::mount(none, "/", none, kind | MsFlags::MS_REC, none)
            .map_err(Failure::errno("setting the propagation of mounts"))?;
    }
    let (ours, theirs) = nix::sys::socket::socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(Failure::errno("making a pair of sockets"))?;
    // The children take it over, and undo it for the program.
    SigSet::all()
        .thread_block()
        .map_err(Failure::errno("blocking signals"))?;
    let fork = sys::fork().map_err(Failure::errno("fork"))?;
    let init = match fork {
        ForkResult::Child => {
            drop(ours);
            let status = init(options, &theirs);
            std::process::exit(status);
        }
        ForkResult::Parent { child } => child,
    };
    drop(theirs);
    // A process whose children go elsewhere can have no threads.
    nix::sched::setns(own, CloneFlags::CLONE_NEWPID)
        .map_err(Failure::errno("returning to the own pid namespace"))?;
    let first = receive(&ours, &procfs, init)?;
    Ok(Started {
        init,
        program: first.1,
        listener: first.0,
        procfs: procfs.into(),
        waits: ours,
    })
}

/// Receives a message, and the descriptor that comes with it, if one does.
pub(super) fn receive_with_fd(
    from: &impl AsFd,
    text: &mut [u8],
) -> nix::Result<(usize, Option<OwnedFd>)> {
    let from = from.as_fd().as_raw_fd();
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut slices = [IoSliceMut::new(text)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received =
        nix::sys::socket::recvmsg::<UnixAddr>(from, &mut slices, Some(&mut space), flags)?;
    let fd = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    Ok((received.bytes, fd.map(sys::received)))
}

/// Receives the listener, and finds out who the program is.
fn receive(from: &OwnedFd, procfs: &File, init: Pid) -> Result<(OwnedFd, Pid), Failure> {
    let mut text = [0u8; 256];
    let (len, listener) =
        receive_with_fd(from, &mut text).map_err(Failure::errno("starting the program"))?;
    let Some(listener) = listener else {
        let text = String::from_utf8_lossy(text.get(..len).unwrap_or_default()).into_owned();
        let gone = "its process has ended".to_owned();
        return Err(Failure::Unfit(format!(
            "the program is not started: {}",
            if text.is_empty() { gone } else { text }
        )));
    };
    let children = format!("{init}/task/{init}/children");
    let children =
        read_at(procfs, &children).map_err(Failure::system("looking for the program"))?;
    let program = children.split(' ').next().and_then(|pid| pid.parse().ok());
    let program = program.ok_or_else(|| Failure::Unfit("the program has ended at once".into()))?;
    Ok((listener, Pid::from_raw(program)))
}

/// Reads a small file below a directory.
pub(super) fn read_at(directory: &impl std::os::fd::AsFd, name: &str) -> io::Result<String> {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::openat(directory, name, flags, nix::sys::stat::Mode::empty())?;
    let mut text = String::new();
    io::Read::read_to_string(&mut File::from(fd), &mut text)?;
    Ok(text)
}

/// Sends the supervisor the listener, or a text without one that says what failed.
fn say(to: &OwnedFd, text: &str, listener: Option<&OwnedFd>) {
    let slices = [IoSlice::new(text.as_bytes())];
    let fds = listener.map(|fd| [fd.as_raw_fd()]);
    let rights: Vec<ControlMessage<'_>> =
        fds.iter().map(|f| ControlMessage::ScmRights(f)).collect();
    // When the supervisor is gone so is everything else, by the signal of its death.
    let _ = nix::sys::socket::sendmsg::<UnixAddr>(
        to.as_raw_fd(),
        &slices,
        &rights,
        MsgFlags::empty(),
        None,
    );
}

/// Process 1: starts the program, buries the dead, and ends with the program, whereupon the kernel ends all
/// that is left in the namespace. Returns its exit status.
fn init(options: &Options, supervisor: &OwnedFd) -> i32 {
    match prepare(options).and_then(|numbers| Ok((sys::fork()?, numbers))) {
        Ok((ForkResult::Child, _)) => become_program(options, supervisor),
        Ok((ForkResult::Parent { child }, numbers)) => bury(child, &numbers),
        Err(error) => {
            let text = format!("preparing the namespaces: {error}");
            say(supervisor, &text, None);
            121
        }
    }
}

/// An error, with the file that it is about.
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The procfs of the new pid namespace wherever the old one was, and the numbers of its processes. Returns
/// the file that sets these.
fn prepare(options: &Options) -> io::Result<File> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mounts = qtfs_control::mountinfo::read()?;
    let mut places: Vec<_> = ["/proc", "/local_proc"]
        .iter()
        .flat_map(|place| {
            let below = options.root.join(place.trim_start_matches('/'));
            [Path::new(place).to_owned(), below]
        })
        .collect();
    places.dedup();
    let none: Option<&Path> = None;
    let mut numbers = None;
    for place in places {
        let there = mounts.iter().rev().find(|mount| mount.point == place);
        if there.is_none_or(|mount| mount.kind != "proc") {
            continue;
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        nix::mount::mount(Some("proc"), &place, Some("proc"), flags, none)
            .map_err(|errno| at(&place, errno.into()))?;
        if numbers.is_none() {
            let path = place.join("sys/kernel/pid_max");
            std::fs::write(&path, PID_MAX).map_err(|error| at(&path, error))?;
            let mut random = [0u8; 4];
            io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)?;
            // CAST: less than SPREAD.
            let first = FIRST_PID + (u32::from_ne_bytes(random) % SPREAD) as i32;
            let path = place.join(LAST_PID_FILE);
            let opened = File::options().read(true).write(true).open(&path);
            let mut file = opened.map_err(|error| at(&path, error))?;
            io::Write::write_all(&mut file, first.to_string().as_bytes())
                .map_err(|error| at(&path, error))?;
            numbers = Some(file);
        }
    }
    let numbers = numbers.ok_or_else(|| {
        let place = options.root.join("local_proc");
        io::Error::other(format!(
            "no proc of this machine is mounted at /proc or {0}: mount -t proc proc {0}",
            place.display()
        ))
    })?;
    from_host::mount(&options.root, &options.from_host)?;
    Ok(numbers)
}

/// Begins the numbers anew before they run out, or if they have. The file is always about the pid namespace
/// of whoever uses it (`pid_ns_ctl_handler` in `kernel/pid_namespace.c`), which is why process 1 does this.
fn renew_numbers(file: &File) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut text = [0u8; 32];
    let len = file.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(text.get(..len).unwrap_or_default());
    if text.trim().parse().is_ok_and(are_to_be_renewed) {
        file.write_all_at(FIRST_PID.to_string().as_bytes(), 0)?;
    }
    Ok(())
}

fn are_to_be_renewed(last: i32) -> bool {
    !(FIRST_PID..=LAST_PID).contains(&last)
}

/// Puts itself under the filter and executes the program.
fn become_program(options: &Options, supervisor: &OwnedFd) -> i32 {
    let listener = match sys::install_filter() {
        Ok(listener) => listener,
        Err(error) => {
            let nested = match error.raw_os_error() {
                Some(libc::EBUSY) => ": qtfs-offload run cannot be run by a program that it runs",
                _ => "",
            };
            let text = format!("installing the seccomp filter: {error}{nested}");
            say(supervisor, &text, None);
            return 126;
        }
    };
    say(supervisor, "listening", Some(&listener));
    drop(listener);
    // Nobody there means that the supervisor has given up, and this process with it.
    if !nix::unistd::read(supervisor, &mut [0; 8]).is_ok_and(|len| len > 0) {
        return 121;
    }
    if options.root != Path::new("/") {
        let there = nix::unistd::chroot(&options.root).and_then(|()| nix::unistd::chdir("/"));
        if let Err(errno) = there {
            return report(&options.root.display().to_string(), errno);
        }
    }
    let words: Result<Vec<CString>, _> = options
        .command
        .iter()
        .map(|word| CString::new(word.as_bytes()))
        .collect();
    let Ok(words) = words else {
        return 126;
    };
    let Some(program) = words.first() else {
        return 126;
    };
    let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    let Err(errno) = nix::unistd::execvp(program, &words);
    report(&program.to_string_lossy(), errno)
}

fn report(what: &str, errno: Errno) -> i32 {
    let failure = Failure::Program(what.into(), errno.into());
    eprintln!("qtfs-offload: {failure}");
    i32::from(failure.status())
}

/// Waits for all children until the program has ended, and looks after the numbers of processes.
fn bury(program: Pid, numbers: &File) -> i32 {
    let mut child = SigSet::empty();
    child.add(Signal::SIGCHLD);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let Ok(signals) = SignalFd::with_flags(&child, flags) else {
        return 121;
    };
    loop {
        // One signal may stand for several children.
        while let Ok(Some(_)) = signals.read_signal() {}
        loop {
            match nix::sys::wait::waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) if pid == program => return status,
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                    return 128 + signal as i32
                }
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return 121,
            }
        }
        // Its failure is a kernel without the file, which `prepare` has found out.
        let _ = renew_numbers(numbers);
        let mut polled = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let _ = nix::poll::poll(&mut polled, RENEWED);
    }
}

/// Passes signals on to the program, in a thread.
pub(super) fn forward_signals(started: &Started) -> Result<(), Failure> {
    let mut set = SigSet::empty();
    PASSED.iter().for_each(|signal| set.add(*signal));
    let program = started.program;
    std::thread::Builder::new()
        .name("offload/signals".into())
        .spawn(move || loop {
            if let Ok(signal) = set.wait() {
                // It may have ended already.
                let _ = nix::sys::signal::kill(program, signal);
            }
        })
        .map_err(Failure::system("starting a thread"))?;
    Ok(())
}

/// Waits for the end of the program, and of everything that it has started.
pub(super) fn wait(started: &Started) -> Result<ExitCode, Failure> {
    loop {
        match nix::sys::wait::waitpid(started.init, Some(WaitPidFlag::empty())) {
            // CAST: an exit status has eight bits.
            Ok(WaitStatus::Exited(_, status)) => return Ok(ExitCode::from(status as u8)),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Ok(ExitCode::from(128 + signal as u8));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Failure::System("waiting for the program", errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_renewed_before_they_run_out_and_after() {
        for (last, renewed) in [
            (FIRST_PID, false),
            (LAST_PID, false),
            (LAST_PID + 1, true),
            (300, true),
        ] {
            assert_eq!(are_to_be_renewed(last), renewed, "{last}");
        }
    }
}
