// SPDX-License-Identifier: GPL-2.0

//! The keeper of a session: a small process that starts the program, sees how it ends, and ends
//! all its descendants.
//!
//! There is one for each session, forked by the nursery. It is the child subreaper of the
//! program's descendants, so none escapes it, and it watches the server by the control socket:
//! when that is closed, because the session is over or because the server was killed, everything
//! is killed. A keeper of a detached session stays as long as there are descendants, and from the
//! program's end on does not mind whether there is a server.

use super::cgroup::Group;
use super::children;
use super::children::Reaped;
use super::launch;
use super::launch::Launch;
use super::launch::Stage;
use super::sys;
use super::sys::SingleThreaded;
use bytes::Bytes;
use nix::poll::poll;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::sys::signalfd::SignalFd;
use rustix::process::WaitStatus;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

/// Bytes of a command and of an event.
pub const RECORD: usize = 12;
/// How long the program's outcome waits for the end of its descendants, which normally takes
/// less than a millisecond; one that the kernel does not let go must not hold up the caller.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a keeper tells the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The program runs: its pid, and the errno of its control group or 0.
    Started(i32, i32),
    /// It does not: stage and errno.
    Failed(Stage, i32),
    /// It ended with this status.
    Exited(i32),
    /// It was killed by this signal.
    Killed(i32),
}

impl Event {
    fn encode(self) -> [u8; RECORD] {
        let (kind, a, b) = match self {
            Self::Started(pid, errno) => (1, pid, errno),
            Self::Failed(stage, errno) => (2, stage as i32, errno),
            Self::Exited(status) => (3, status, 0),
            Self::Killed(signal) => (4, signal, 0),
        };
        record([kind, a, b])
    }

    /// Reads an event; `None` for what is none.
    pub fn decode(bytes: [u8; RECORD]) -> Option<Self> {
        let [kind, a, b] = fields(bytes);
        Some(match kind {
            1 => Self::Started(a, b),
            2 => Self::Failed(Stage::new(a), b),
            3 => Self::Exited(a),
            4 => Self::Killed(a),
            _ => return None,
        })
    }
}

/// The command to send a signal to the program's process group.
pub fn signal_command(signal: u8) -> [u8; RECORD] {
    record([1, signal.into(), 0])
}

fn record(fields: [i32; 3]) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_ne_bytes());
    }
    bytes
}

fn fields(bytes: [u8; RECORD]) -> [i32; 3] {
    let mut fields = [0; 3];
    for (field, place) in fields.iter_mut().zip(bytes.chunks_exact(4)) {
        *field = i32::from_ne_bytes([place[0], place[1], place[2], place[3]]);
    }
    fields
}

/// What the name of a keeper's control group begins with.
pub(super) fn group_prefix(keeper: i32) -> String {
    format!("rexec-{keeper}-")
}

/// Does a keeper's work in a process that was forked for it.
pub(super) fn run(
    alone: &SingleThreaded,
    mut control: UnixStream,
    stdio: Vec<OwnedFd>,
) -> io::Result<()> {
    let _ = nix::sys::prctl::set_name(c"rexec-keeper");
    nix::unistd::setsid()?;
    let ended = children::adopt()?;
    let launch = receive(&mut control)?;
    let stdio = three(stdio)?;
    let (group, errno) = match &launch.groups {
        Some(base) => {
            let name = format!("{}{}", group_prefix(sys::pid()), launch.session);
            match Group::create(base, &name) {
                Ok(group) => (Some(group), 0),
                Err(error) => (None, error.raw_os_error().unwrap_or(nix::libc::EIO)),
            }
        }
        None => (None, 0),
    };
    let (failure, tell) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let Some(pid) = alone.fork()? else {
        let launch::Failed(stage, errno) = launch::become_program(&launch, &stdio, group.as_ref());
        let _ = nix::unistd::write(&tell, &record([stage as i32, errno, 0]));
        sys::exit_now(127);
    };
    drop(tell);
    // The program alone decides when its streams end.
    drop(stdio);
    let mut keeper = Keeper {
        control,
        ended,
        group,
        group_errno: errno,
        program: Some(pid),
        failure: Some(failure.into()),
        outcome: None,
        detach: launch.start.detach,
    };
    drop(launch);
    keeper.keep()
}

/// Reads what is to be run.
fn receive(control: &mut UnixStream) -> io::Result<Launch> {
    let mut len = [0; 4];
    control.read_exact(&mut len)?;
    let mut bytes = vec![0; u32::from_ne_bytes(len) as usize];
    control.read_exact(&mut bytes)?;
    Launch::decode(Bytes::from(bytes)).map_err(io::Error::other)
}

/// One descriptor for each stream: those that were given, or the only one for all.
fn three(given: Vec<OwnedFd>) -> io::Result<[OwnedFd; 3]> {
    let given = match <[OwnedFd; 1]>::try_from(given) {
        Ok([terminal]) => vec![terminal.try_clone()?, terminal.try_clone()?, terminal],
        Err(given) => given,
    };
    given
        .try_into()
        .map_err(|_| io::ErrorKind::InvalidInput.into())
}

struct Keeper {
    control: UnixStream,
    /// Readable when a child has ended.
    ended: SignalFd,
    group: Option<Group>,
    group_errno: i32,
    /// The program, until it was waited for.
    program: Option<i32>,
    /// Says why the program could not be executed; closed when it could.
    failure: Option<std::fs::File>,
    outcome: Option<WaitStatus>,
    detach: bool,
}

impl Keeper {
    fn keep(&mut self) -> io::Result<()> {
        loop {
            let (control, ended, executed) = self.wait()?;
            if executed {
                self.executed()?;
            }
            if control && (self.failure.is_some() || !self.command()?) {
                return self.end();
            }
            if ended && !self.reap()? {
                return Ok(());
            }
        }
    }

    /// Waits until something can be done: with the control socket, a child, the execution.
    ///
    /// Commands wait until the program was executed: before that it has no process group.
    fn wait(&self) -> io::Result<(bool, bool, bool)> {
        let command = match self.failure {
            Some(_) => PollFlags::from_bits_retain(nix::libc::POLLRDHUP),
            None => PollFlags::POLLIN,
        };
        let mut fds = vec![
            PollFd::new(self.control.as_fd(), command),
            PollFd::new(self.ended.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(failure) = &self.failure {
            fds.push(PollFd::new(failure.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |index: usize| {
            fds.get(index)
                // None for what nix has no name for, such as POLLRDHUP.
                .is_some_and(|fd: &PollFd<'_>| fd.any().unwrap_or(true))
        };
        Ok((ready(0), ready(1), ready(2)))
    }

    /// The program was executed, or says why not.
    fn executed(&mut self) -> io::Result<()> {
        let (Some(mut failure), Some(pid)) = (self.failure.take(), self.program) else {
            return Ok(());
        };
        let mut bytes = [0; RECORD];
        let event = match failure.read(&mut bytes)? {
            RECORD => {
                let [stage, errno, _] = fields(bytes);
                Event::Failed(Stage::new(stage), errno)
            }
            _ => Event::Started(pid, self.group_errno),
        };
        self.tell(event)
    }

    /// Tells the server; one that is gone shows when the control socket is read.
    fn tell(&mut self, event: Event) -> io::Result<()> {
        match self.control.write_all(&event.encode()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }

    /// Obeys the server; false when it is gone, or the session over.
    fn command(&mut self) -> io::Result<bool> {
        let mut bytes = [0; RECORD];
        match self.control.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(_) => return Ok(false),
        }
        if let ([1, signal, _], Some(pid)) = (fields(bytes), self.program) {
            // Not waited for yet, so the number is its own. It may have ended.
            let _ = sys::kill(-pid, signal);
        }
        Ok(true)
    }

    /// Takes the children that have ended; false when there is nothing left to do.
    fn reap(&mut self) -> io::Result<bool> {
        while let Ok(Some(_)) = self.ended.read_signal() {}
        loop {
            match children::reap()? {
                Reaped::Child(pid, status) if Some(pid) == self.program => {
                    // It says first whether it was executed at all.
                    self.executed()?;
                    self.program = None;
                    self.outcome = Some(status);
                }
                Reaped::Child(..) => {}
                Reaped::Alive => break,
                Reaped::None => {
                    self.finish()?;
                    return Ok(false);
                }
            }
        }
        if self.outcome.is_none() {
            return Ok(true);
        }
        if !self.detach {
            self.end()?;
            return Ok(false);
        }
        self.report()?;
        self.stay()?;
        Ok(false)
    }

    /// Tells how the program ended, once.
    fn report(&mut self) -> io::Result<()> {
        let Some(status) = self.outcome.take() else {
            return Ok(());
        };
        let event = match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => Event::Exited(status),
            (None, Some(signal)) => Event::Killed(signal),
            (None, None) => Event::Killed(nix::libc::SIGKILL),
        };
        self.tell(event)
    }

    /// Waits for the end of the detached descendants, with or without a server.
    fn stay(&mut self) -> io::Result<()> {
        let mut fds = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        loop {
            if poll(&mut fds, PollTimeout::NONE).is_ok() {
                while let Ok(Some(_)) = self.ended.read_signal() {}
            }
            loop {
                match children::reap()? {
                    Reaped::Child(..) => {}
                    Reaped::Alive => break,
                    Reaped::None => {
                        self.finish()?;
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Kills all descendants, and tells how the program ended.
    fn end(&mut self) -> io::Result<()> {
        let begin = Instant::now();
        loop {
            if let Some(group) = &self.group {
                let _ = group.kill();
            }
            // Those below them become children when these are gone.
            children::kill(|_| true)?;
            let mut fds = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, 20_u16);
            while let Ok(Some(_)) = self.ended.read_signal() {}
            loop {
                match children::reap()? {
                    Reaped::Child(pid, status) if Some(pid) == self.program => {
                        self.program = None;
                        self.outcome = Some(status);
                    }
                    Reaped::Child(..) => {}
                    Reaped::Alive => break,
                    Reaped::None => return self.finish(),
                }
            }
            if begin.elapsed() > PATIENCE {
                self.report()?;
            }
        }
    }

    /// There are no descendants any more.
    fn finish(&mut self) -> io::Result<()> {
        // Before the caller hears of the end, so that it finds nothing left.
        if let Some(group) = self.group.take() {
            group.remove();
        }
        self.report()
    }
}
