// SPDX-License-Identifier: GPL-2.0

//! `qtfs-offload run`: one supervised program.
//!
//! ```text
//! qtfs-offload run ─── init (pid 1 of a pid namespace) ─── program ─── descendants
//!       ▲                                                     │
//!       └───── mount, umount2, kill … by seccomp(2) ──────────┘
//! ```
//!
//! [`start`](process) makes the namespaces and starts the program under a filter for a few system calls.
//! Each call that the filter holds is looked at as its caller sees it ([`view`]), [`decide`]d, and then
//! either goes on in the kernel of this machine or is done by engine on HOST ([`host`]).

mod calls;
mod decide;
mod from_host;
mod guard;
mod host;
mod overlay;
mod process;
mod schedule;
#[allow(unsafe_code)]
pub(crate) mod sys;
mod view;

pub(crate) use process::FIRST_PID;

use crate::failure::Failure;
use calls::Supervisor;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// What to run, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Root directory of the program.
    pub root: PathBuf,
    /// Where engine's directory is mounted, or is to be.
    pub control: PathBuf,
    /// The program is ended, by SIGKILL, when a connection of it to HOST is lost, or HOST's power was.
    pub end_when_lost: bool,
    /// What of HOST takes the place of this machine's, for the program.
    pub from_host: Vec<PathBuf>,
}

/// Runs the program until it ends.
pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::NotRoot);
    }
    if !options.root.is_dir() {
        let root = options.root.display();
        return Err(Failure::Unfit(format!(
            "--root {root}: there is no such directory"
        )));
    }
    host::mount(&options.control)?;
    let started = process::start(options)?;
    let socket = options.control.join(qtfs_control::SOCKET);
    let host = Arc::new(host::Host::new(socket));
    let supervisor = Supervisor::new(&started, Arc::clone(&host))?;
    process::forward_signals(&started)?;
    let supervisor = Arc::new(supervisor);
    std::thread::Builder::new()
        .name("offload/calls".into())
        .spawn(move || supervisor.serve())
        .map_err(Failure::system("starting a thread"))?;
    let guard = match options.end_when_lost {
        true => Some(guard::begin(&started, &host)?),
        false => None,
    };
    started.release()?;
    let ended = process::wait(&started);
    if let Some(path) = guard {
        let _ = std::fs::remove_file(path);
    }
    ended
}
