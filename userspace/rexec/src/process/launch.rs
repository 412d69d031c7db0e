// SPDX-License-Identifier: GPL-2.0

//! What a keeper is asked to run, and the way from its fork to the program.

use super::cgroup::Group;
use super::sys;
use crate::start::Identity;
use crate::start::Limit;
use crate::start::Start;
use crate::wire;
use crate::wire::put_bytes;
use crate::wire::Reader;
use bytes::Bytes;
use bytes::BytesMut;
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::Gid;
use nix::unistd::Uid;
use std::ffi::CString;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What a keeper is asked to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program's file.
    pub program: PathBuf,
    /// The directory below which the session gets its control group.
    pub groups: Option<PathBuf>,
    /// Number of the session, for the control group's name.
    pub session: u64,
    /// Whether `start.caller` is to be taken; otherwise the program runs as the server does.
    pub change_identity: bool,
    /// Whether limits and nice value may go beyond what the program's user may have.
    pub trusted: bool,
    /// Everything else, with the environment and the identity that were decided.
    pub start: Start,
}

impl Launch {
    /// The form in which it goes to the keeper.
    pub fn encode(&self) -> Bytes {
        use bytes::BufMut;
        let mut out = BytesMut::new();
        put_bytes(&mut out, self.program.as_os_str().as_bytes());
        let groups = self
            .groups
            .as_ref()
            .map_or(&b""[..], |path| path.as_os_str().as_bytes());
        put_bytes(&mut out, groups);
        out.put_u64_le(self.session);
        out.put_u8(self.change_identity.into());
        out.put_u8(self.trusted.into());
        self.start.put(&mut out);
        out.freeze()
    }

    /// Reads that form.
    pub fn decode(bytes: Bytes) -> Result<Self, wire::Error> {
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let mut reader = Reader::new(bytes);
        let launch = Self {
            program: path(&reader.text("program")?),
            groups: Some(reader.text("group")?)
                .filter(|text| !text.is_empty())
                .map(|text| path(&text)),
            session: reader.u64()?,
            change_identity: reader.u8()? != 0,
            trusted: reader.u8()? != 0,
            start: Start::take(&mut reader)?,
        };
        reader.end()?;
        Ok(launch)
    }
}

/// The step at which a program could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Something that always works.
    Process = 0,
    /// Taking the caller's identity.
    Identity = 1,
    /// Changing to the working directory.
    Directory = 2,
    /// Executing the program.
    Execute = 3,
    /// Giving it a terminal.
    Terminal = 4,
}

impl Stage {
    /// The stage of this number.
    pub fn new(number: i32) -> Self {
        let all = [
            Self::Identity,
            Self::Directory,
            Self::Execute,
            Self::Terminal,
        ];
        let found = all.into_iter().find(|stage| *stage as i32 == number);
        found.unwrap_or(Self::Process)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "cannot make a process",
            Self::Identity => "cannot become the user",
            Self::Directory => "cannot change to the directory",
            Self::Execute => "cannot execute",
            Self::Terminal => "cannot get a terminal",
        })
    }
}

/// Where and why it did not work.
pub(super) struct Failed(pub(super) Stage, pub(super) i32);

/// Attaches an errno to a stage.
fn at<E: Into<io::Error>>(stage: Stage) -> impl Fn(E) -> Failed {
    move |error| Failed(stage, error.into().raw_os_error().unwrap_or(libc::EIO))
}

/// Becomes the program. Returns only when that did not work; the process then has to end.
pub(super) fn become_program(
    launch: &Launch,
    stdio: &[OwnedFd; 3],
    group: Option<&Group>,
) -> Failed {
    match prepare(launch, stdio, group) {
        Ok(never) => match never {},
        Err(failed) => failed,
    }
}

fn prepare(
    launch: &Launch,
    stdio: &[OwnedFd; 3],
    group: Option<&Group>,
) -> Result<std::convert::Infallible, Failed> {
    let start = &launch.start;
    if start.tty.is_some() {
        // Nobody here would continue what ^Z stops, so it is an orphan, which ^Z does not stop.
        nix::unistd::setsid().map_err(at(Stage::Terminal))?;
        rustix::process::ioctl_tiocsctty(&stdio[0]).map_err(at(Stage::Terminal))?;
    } else {
        // As a job of its own in the keeper's session, so that a SIGTSTP that is passed on stops
        // it, and the SIGCONT that follows continues it.
        nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0))
            .map_err(at(Stage::Process))?;
    }
    if let Some(group) = group {
        group.enter().map_err(at(Stage::Process))?;
    }
    nix::sys::stat::umask(Mode::from_bits_truncate(start.umask as libc::mode_t));
    if launch.trusted {
        set_priorities(start);
    }
    if launch.change_identity {
        take_identity(&start.caller).map_err(at(Stage::Identity))?;
    }
    if !launch.trusted {
        // As the user, for whom the kernel goes no further than the user may go.
        set_priorities(start);
    }
    // After the identity, whose change takes it back.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL).map_err(at(Stage::Process))?;
    // As the user, who may not see every directory.
    nix::unistd::chdir(OsStr::from_bytes(&start.directory)).map_err(at(Stage::Directory))?;
    nix::unistd::dup2_stdin(stdio[0].as_fd()).map_err(at(Stage::Process))?;
    nix::unistd::dup2_stdout(stdio[1].as_fd()).map_err(at(Stage::Process))?;
    nix::unistd::dup2_stderr(stdio[2].as_fd()).map_err(at(Stage::Process))?;
    execute(launch).map_err(|error| Failed(Stage::Execute, error as i32))
}

fn execute(launch: &Launch) -> nix::Result<std::convert::Infallible> {
    // START has no zero bytes in texts.
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| nix::Error::EINVAL);
    let texts = |list: &[Bytes]| {
        list.iter()
            .map(|bytes| text(bytes))
            .collect::<nix::Result<Vec<_>>>()
    };
    let program = text(launch.program.as_os_str().as_bytes())?;
    let mut arguments = texts(&launch.start.arguments)?;
    let environment = texts(&launch.start.environment)?;
    sys::reset_signals(launch.start.ignored);
    match nix::unistd::execve(&program, &arguments, &environment) {
        // A script without "#!" is the shell's, as for execvp(3).
        Err(nix::Error::ENOEXEC) => {
            arguments.splice(..1, [c"/bin/sh".to_owned(), program]);
            nix::unistd::execve(c"/bin/sh", &arguments, &environment)
        }
        result => result,
    }
}

fn set_priorities(start: &Start) {
    for limit in &start.limits {
        set_limit(limit);
    }
    // Only root may go below what it has now; others keep that.
    let _ = rustix::process::setpriority_process(None, start.nice);
}

/// Sets a limit as near to the caller's as this process may.
fn set_limit(wanted: &Limit) {
    let Ok((_, most)) = sys::limit(wanted.resource, None) else {
        // A kind that this kernel does not have.
        return;
    };
    if sys::limit(wanted.resource, Some((wanted.soft, wanted.hard))).is_err() {
        let hard = wanted.hard.min(most);
        let _ = sys::limit(wanted.resource, Some((wanted.soft.min(hard), hard)));
    }
}

fn take_identity(identity: &Identity) -> nix::Result<()> {
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    nix::unistd::setgroups(&groups)?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)
}
