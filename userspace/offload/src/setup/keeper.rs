// SPDX-License-Identifier: GPL-2.0

//! Programs that run as long as the machine does: started, restarted when they die, stopped.
//!
//! With systemd and without: its one unit (`userspace/offload/systemd`) runs `up` and `down`, which start and stop these.

use crate::failure::Failure;
use crate::run::sys;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// Where keepers leave their process ids, and programs their logs.
const STATE: &str = "/run/qtfs/parts";
const LOGS: &str = "/var/log/qtfs";
/// How long a program may take until it is ready: machines may be slow.
const READY: Duration = Duration::from_secs(180);
/// How long a program may take to end.
const END: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(50);
/// How often a program may die before it is ready. Then it does so for a reason that stays.
const DEATHS: usize = 3;
/// What the log says of each death.
const DEATH: &str = " has ended (";
/// Between the death of a program and the next attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// How it is known that a program is ready.
#[derive(Debug)]
pub(super) enum Ready {
    /// It listens on a unix socket.
    Socket(PathBuf),
    /// It listens on a port.
    Port(SocketAddr),
    /// It has a device open that only one may have open.
    Device(PathBuf),
}

impl Ready {
    fn is(&self) -> bool {
        match self {
            Self::Socket(path) => UnixStream::connect(path).is_ok(),
            Self::Port(address) => {
                TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok()
            }
            Self::Device(path) => {
                let open = File::options().read(true).write(true).open(path);
                open.is_err_and(|error| error.raw_os_error() == Some(nix::libc::EBUSY))
            }
        }
    }
}

/// A program that is kept running.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) command: Vec<OsString>,
    /// Variables that it gets besides those of this process.
    pub(super) environment: Vec<(&'static str, OsString)>,
    pub(super) ready: Ready,
}

fn pid_file(name: &str) -> PathBuf {
    Path::new(STATE).join(format!("{name}.pid"))
}

/// The keeper of a part, if there is one, and the command that it keeps; a number that was used again is another program's.
fn kept(name: &str) -> Option<(Pid, Vec<OsString>)> {
    let pid: i32 = std::fs::read_to_string(pid_file(name))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = line.strip_suffix(&[0]).unwrap_or(&line);
    let mut words = line.split(|byte| *byte == 0).skip(1);
    let is = words.next() == Some(b"keep") && words.next() == Some(name.as_bytes());
    // The next one is `--`.
    let command = words.skip(1).map(|word| OsString::from_vec(word.to_vec()));
    is.then(|| (Pid::from_raw(pid), command.collect()))
}

/// The keeper of a part, if there is one.
pub(super) fn keeper(name: &str) -> Option<Pid> {
    kept(name).map(|(pid, _)| pid)
}

impl Part {
    fn log(&self) -> PathBuf {
        Path::new(LOGS).join(format!("{}.log", self.name))
    }

    /// Starts it, unless it runs, and waits until it is ready.
    pub(super) fn start(&self) -> Result<(), Failure> {
        if self.ready.is() {
            let other = match kept(self.name) {
                Some((_, command)) if command != self.command => {
                    ", with other arguments than it would get now: qtfs-offload down, then up"
                }
                Some(_) => "",
                None => ", and nothing here has started it",
            };
            println!("{:<16} runs already{other}", self.name);
            return Ok(());
        }
        let starting = Failure::system("starting a program");
        for directory in [STATE, LOGS] {
            std::fs::create_dir_all(directory).map_err(&starting)?;
        }
        let mut started = None;
        let logged = std::fs::metadata(self.log()).map_or(0, |log| log.len());
        if keeper(self.name).is_none() {
            let log = File::options().append(true).create(true).open(self.log());
            let log = log.map_err(&starting)?;
            let mut command = Command::new(std::env::current_exe().map_err(&starting)?);
            command
                .arg("keep")
                .arg(self.name)
                .arg("--")
                .args(&self.command);
            command.envs(self.environment.iter().map(|(name, value)| (name, value)));
            command.stdin(Stdio::null()).current_dir("/");
            command
                .stdout(log.try_clone().map_err(&starting)?)
                .stderr(log);
            // Not ended by a signal for the group of whoever calls this.
            command.process_group(0);
            let child = command.spawn().map_err(&starting)?;
            std::fs::write(pid_file(self.name), child.id().to_string()).map_err(&starting)?;
            started = Some(child);
        }
        let begun = Instant::now();
        while !self.ready.is() {
            let ended = match &mut started {
                Some(child) => child.try_wait().map_err(&starting)?.is_some(),
                None => keeper(self.name).is_none(),
            };
            let said = said(&self.log(), logged).unwrap_or_default();
            let dies = said.matches(DEATH).count() >= DEATHS;
            if ended || dies || begun.elapsed() > READY {
                if dies {
                    self.stop()?;
                }
                let own = said.lines().rev().find(|line| !line.contains(DEATH));
                return Err(Failure::Unfit(format!(
                    "{} does not get ready: {} (all that it says is in {})",
                    self.name,
                    own.unwrap_or("it said nothing"),
                    self.log().display()
                )));
            }
            std::thread::sleep(TICK);
        }
        println!("{:<16} is up", self.name);
        Ok(())
    }

    /// Stops it, if it was started here, and waits for its end.
    pub(super) fn stop(&self) -> Result<(), Failure> {
        let Some(pid) = keeper(self.name) else {
            if self.ready.is() {
                println!(
                    "{:<16} runs, but nothing here has started it: stop it as it was started",
                    self.name
                );
            }
            return Ok(());
        };
        // It may end by itself meanwhile.
        let _ = nix::sys::signal::kill(pid, Signal::SIGTERM);
        let begun = Instant::now();
        while keeper(self.name).is_some() {
            if begun.elapsed() > END {
                return Err(Failure::Unfit(format!(
                    "{} does not end: its keeper is process {pid}, its log {}. If it waits for HOST, umount -f of what \
                     findmnt -t qtfs shows ends that",
                    self.name,
                    self.log().display()
                )));
            }
            std::thread::sleep(TICK);
        }
        let _ = std::fs::remove_file(pid_file(self.name));
        println!("{:<16} is down", self.name);
        Ok(())
    }

    /// Whether it is ready, and who keeps it.
    pub(super) fn state(&self) -> Result<String, String> {
        match (self.ready.is(), keeper(self.name)) {
            (true, Some(pid)) => Ok(format!(
                "kept by process {pid}, log {}",
                self.log().display()
            )),
            (true, None) => Ok("started by somebody else".into()),
            (false, Some(pid)) => Err(format!(
                "not ready, though process {pid} keeps it: see {}",
                self.log().display()
            )),
            (false, None) => Err("not started: qtfs-offload up".into()),
        }
    }
}

/// What a log has got since it had `from` bytes.
fn said(log: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Starts a program, which is told to end when its keeper does so first.
fn spawn(command: &[OsString], score: &str) -> io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments);
    sys::end_with_parent(&mut command, score.to_owned());
    command.spawn()
}

/// `qtfs-offload keep`: runs a program until it is told to stop, again and again.
pub fn keep(name: &str, command: &[OsString]) -> Result<ExitCode, Failure> {
    let mut set = nix::sys::signal::SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        set.add(signal);
    }
    let failed = Failure::errno("waiting for signals");
    set.thread_block().map_err(&failed)?;
    // Its end would be that of the program, and nobody would start that again.
    let score = std::fs::read_to_string(sys::OOM_SCORE).unwrap_or_default();
    if let Err(error) = std::fs::write(sys::OOM_SCORE, "-1000") {
        tracing::warn!(
            "{name} ends for good if memory runs out: {}: {error}",
            sys::OOM_SCORE
        );
    }
    loop {
        let mut child = spawn(command, &score).map_err(|error| {
            Failure::Program(
                command
                    .first()
                    .map(|c| c.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                error,
            )
        })?;
        let mut stopping = false;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(Failure::system("waiting"))? {
                break status;
            }
            if set.wait().map_err(&failed)? != Signal::SIGCHLD {
                stopping = true;
                // CAST: process ids are positive ints.
                let _ = nix::sys::signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            }
        };
        if stopping {
            return Ok(ExitCode::SUCCESS);
        }
        tracing::warn!("{name}{DEATH}{status}), and is started again");
        std::thread::sleep(PAUSE);
    }
}
