// SPDX-License-Identifier: GPL-2.0

//! A server of the test's own.

use super::eventually;
use super::processes::descriptors;
use super::run;
use super::run::Ended;
use super::within;
use super::Process;
use super::Run;
use super::LIMIT;
use qtfs_rexec::server::registry::Session;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use tempfile::TempDir;

/// Everything may be run.
pub(crate) const ALL: &str = "[[allow]]\nprogram = '*'\n";

/// A running rexec_server, which is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    dir: TempDir,
    pub(crate) address: String,
    /// Descriptors of the server and of its nursery when there was no session.
    idle: (usize, usize),
    /// Threads of the server at that time.
    threads: u32,
}

/// A TCP address that nobody listens at.
pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    format!("tcp://{address}")
}

/// rexec with its configuration in `dir`, which is empty unless the test writes one.
pub(crate) fn client(dir: &Path, address: &str) -> Command {
    let config = dir.join("client.toml");
    if !config.exists() {
        fs::write(&config, "").expect("a directory of the test's own");
    }
    let mut command = run::command(env!("CARGO_BIN_EXE_rexec"));
    command
        .env("REXEC_CONFIG", config)
        .env("CMD_NET_ADDR", address);
    command
}

/// rexec_server that listens at `address`, with this configuration.
pub(crate) fn server(dir: &Path, address: &str, config: &str) -> Command {
    let file = dir.join("server.toml");
    fs::write(&file, config).expect("a directory of the test's own");
    let mut command = run::command(env!("CARGO_BIN_EXE_rexec_server"));
    command
        .arg("--status-socket")
        .arg(dir.join("status.sock"))
        .env("REXEC_CONFIG", file)
        .env("CMD_NET_ADDR", address);
    command
}

impl Server {
    /// Runs a server that allows everything.
    pub(crate) fn new() -> Self {
        Self::with(ALL)
    }

    /// Runs a server with this configuration.
    pub(crate) fn with(config: &str) -> Self {
        Self::at(&free_address(), config)
    }

    /// Runs a server at an address, where `DIR` stands for the test's directory.
    pub(crate) fn at(address: &str, config: &str) -> Self {
        Self::made_in(tempfile::tempdir().expect("/tmp"), address, config)
    }

    /// Runs a server with its files in `dir`.
    pub(crate) fn made_in(dir: TempDir, address: &str, config: &str) -> Self {
        let place = dir.path().to_str().expect("a plain name").to_owned();
        let address = address.replace("DIR", &place);
        let notify = dir.path().join("notify.sock");
        let _ = fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify).expect("a directory of the test's own");
        ready.set_read_timeout(Some(LIMIT)).expect("a time");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(dir.path().join("log"))
            .expect("a directory of the test's own");
        let child = server(dir.path(), &address, &config.replace("DIR", &place))
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("rexec_server starts");
        let mut server = Self {
            child,
            dir,
            address,
            idle: (0, 0),
            threads: 0,
        };
        let mut message = [0; 64];
        // With a time limit recv(2) is interrupted by a stop and a continuation too (signal(7)).
        let got = loop {
            match ready.recv(&mut message) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                got => break got,
            }
        };
        let got = got.unwrap_or_else(|error| panic!("{error}: {}", server.log()));
        assert_eq!(&message[..got], b"READY=1\n", "{}", server.log());
        eventually("the nursery is set up", || server.nursery().is_some());
        // Which takes as long as the way to its main loop.
        assert_eq!(server.sessions(), []);
        server.idle = server.descriptors();
        server.threads = Process::look(server.pid()).map_or(0, |server| server.threads);
        server
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    /// The test's directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A name in the test's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file("log")).expect("the log is there")
    }

    /// Waits until it has logged something; a client may know of its refusal before.
    pub(crate) fn logs(&self, text: &str) {
        eventually(text, || self.log().contains(text));
    }

    /// rexec for this server, without a program.
    pub(crate) fn rexec(&self) -> Command {
        client(self.dir(), &self.address)
    }

    /// rexec for this server that runs a shell script there.
    pub(crate) fn sh(&self, script: &str) -> Command {
        let mut command = self.rexec();
        command.args(["sh", "-c", script]);
        command
    }

    /// Runs a shell script there to its end.
    pub(crate) fn run(&self, script: &str) -> Ended {
        run::run(&mut self.sh(script))
    }

    /// Starts a shell script there.
    pub(crate) fn start(&self, script: &str) -> Run {
        Run::start(&mut self.sh(script))
    }

    /// Starts a shell script there whose processes are found by [`super::marked`].
    pub(crate) fn start_marked(&self, mark: &str, options: &[&str], script: &str) -> Run {
        let mut command = self.rexec();
        command.args(options).arg("-e").arg(format!("MARK={mark}"));
        Run::start(command.args(["sh", "-c", script]))
    }

    /// The sessions that it tells of.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        let shown = run::run(
            run::command(env!("CARGO_BIN_EXE_rexec-ps"))
                .arg("--json")
                .arg("--status-socket")
                .arg(self.file("status.sock")),
        );
        serde_json::from_str(shown.ok()).expect("JSON")
    }

    /// The process that forks the keepers.
    pub(crate) fn nursery(&self) -> Option<Process> {
        let mut children = Process::all().into_iter();
        children.find(|process| process.parent == self.pid() && process.name == "rexec-nursery")
    }

    /// The keepers that there are.
    pub(crate) fn keepers(&self) -> Vec<Process> {
        let mut below = Process::below(self.pid());
        below.retain(|process| process.name == "rexec-keeper");
        below
    }

    fn descriptors(&self) -> (usize, usize) {
        let nursery = self.nursery().map_or(0, |nursery| nursery.pid);
        (descriptors(self.pid()), descriptors(nursery))
    }

    /// Expects that nothing is left of any session: no process, zombie, thread, descriptor or entry.
    pub(crate) fn is_idle(&self) {
        eventually("as many threads as before", || {
            Process::look(self.pid()).is_some_and(|server| server.threads <= self.threads)
        });
        eventually("only server and nursery are there", || {
            let below = Process::below(self.pid());
            below.len() == 1 && below[0].name == "rexec-nursery" && below[0].threads == 1
        });
        let mut now = self.idle;
        let same = || {
            now = self.descriptors();
            now == self.idle
        };
        if !within(LIMIT, same) {
            let open = std::process::Command::new("ls")
                .args(["-l", &format!("/proc/{}/fd", self.pid())])
                .output();
            panic!("{now:?} descriptors, {:?} before: {open:?}", self.idle);
        }
        assert_eq!(self.sessions(), []);
    }

    /// Kills it as the kernel would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("it was killed");
    }

    /// Waits for its end, and returns its exit status.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        eventually("the server ends", || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
        self.child.wait().expect("it has ended").code()
    }

    /// The directory, to make another server in it when this one has ended.
    pub(crate) fn into_dir(mut self) -> TempDir {
        self.kill();
        let empty = tempfile::tempdir().expect("/tmp");
        std::mem::replace(&mut self.dir, empty)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}
