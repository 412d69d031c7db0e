// SPDX-License-Identifier: GPL-2.0

//! A caller: rexec as a child of the test, with its streams in the test's hands.

use super::LIMIT;
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::Instant;

/// What is left of a program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    /// The exit status; `None` after a death by signal.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that it died by.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// stdout as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }

    /// Expects success and returns stdout as text.
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(
            (self.code(), self.stderr.as_str()),
            (Some(0), ""),
            "{self:?}"
        );
        self.text()
    }

    /// Expects this status and one line on stderr that holds all of `parts`.
    pub(crate) fn fails(&self, status: i32, parts: &[&str]) {
        assert_eq!(self.code(), Some(status), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in {}", self.stderr);
        }
    }
}

/// A program that runs; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Run {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<JoinHandle<String>>,
}

impl Run {
    /// Starts a program with pipes for all streams that `command` does not say otherwise of.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stderr = child.stderr.take().expect("it is a pipe");
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().map(BufReader::new),
            stderr: Some(reader),
            child,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    /// Sends it a signal.
    pub(crate) fn kill(&self, signal: i32) {
        super::processes::kill(self.pid(), signal);
    }

    /// Writes to its stdin.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes.as_ref()).expect("it reads stdin");
    }

    /// Its stdin, to be written by somebody else.
    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("stdin is open")
    }

    /// Its stdout, to be read by somebody else.
    pub(crate) fn take_stdout(&mut self) -> BufReader<ChildStdout> {
        self.stdout.take().expect("stdout is open")
    }

    /// Closes its stdin.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Reads one line of its stdout, without the end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.stdout.as_mut().expect("stdout is open");
        stdout.read_line(&mut line).expect("a line of text");
        line.trim_end_matches('\n').into()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Closes stdin and waits for the end of all.
    pub(crate) fn end(mut self) -> Ended {
        self.stdin = None;
        let stdout = self.stdout.take().map(|mut stdout| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stdout.read_to_end(&mut bytes).expect("reading a pipe");
                bytes
            })
        });
        let begin = Instant::now();
        while !self.has_ended() {
            assert!(begin.elapsed() < LIMIT, "it never ends: {:?}", self.child);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Ended {
            status: self.child.wait().expect("it has ended"),
            stdout: stdout.map_or_else(Vec::new, |reader| reader.join().expect("a reader")),
            stderr: self
                .stderr
                .take()
                .map_or_else(String::new, |reader| reader.join().expect("a reader")),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a program to its end, with nothing on stdin.
pub(crate) fn run(command: &mut Command) -> Ended {
    Run::start(command).end()
}

/// Runs a program to its end, with this on stdin.
pub(crate) fn run_with(command: &mut Command, input: &[u8]) -> Ended {
    let mut run = Run::start(command);
    let mut stdin = run.take_stdin();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let ended = run.end();
    // A program may end without having read everything.
    let _ = writer.join().expect("a writer");
    ended
}

/// A command without the environment of the tests.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LANG", "C");
    command
}

/// Makes a program of these bytes, in a process of its own: a child that another test makes at
/// the same time would for a moment have it open for writing, and then it cannot be executed.
pub(crate) fn write_program(path: &Path, bytes: &[u8]) {
    let mut writer = command("sh");
    writer
        .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "-"])
        .arg(path);
    let ended = run_with(&mut writer, bytes);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
}

/// Writes a file that nobody else can read.
pub(crate) fn write_key(path: &Path, key: impl AsRef<[u8]>) {
    std::fs::write(path, key).expect("a directory of the test's own");
    set_mode(path, 0o600);
}

/// Says who may use a file.
pub(crate) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("the test's own file");
}
