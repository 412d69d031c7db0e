// SPDX-License-Identifier: GPL-2.0

//! `-t`: the program has a terminal, and rexec's own is afterwards as it was.

use crate::common::eventually;
use crate::common::run::Ended;
use crate::common::Run;
use crate::common::Server;
use nix::libc;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use rustix::pty::OpenptFlags;
use rustix::termios::tcgetattr;
use rustix::termios::LocalModes;
use rustix::termios::Winsize;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

/// A terminal with rexec on it.
struct Terminal {
    keyboard: File,
    theirs: OwnedFd,
    child: Child,
    seen: String,
}

const SIZE: Winsize = Winsize {
    ws_row: 33,
    ws_col: 101,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

impl Terminal {
    fn start(command: &mut Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = rustix::pty::openpt(flags).unwrap();
        rustix::pty::grantpt(&ours).unwrap();
        rustix::pty::unlockpt(&ours).unwrap();
        let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags).unwrap();
        rustix::termios::tcsetwinsize(&ours, SIZE).unwrap();
        let end = || Stdio::from(theirs.try_clone().unwrap());
        let child = command
            .env("TERM", "dumb")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            keyboard: File::from(ours),
            theirs,
            child,
            seen: String::new(),
        }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn type_(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until the screen has shown this, and forgets what came before.
    fn shows(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let mut ready = [PollFd::new(self.keyboard.as_fd(), PollFlags::POLLIN)];
            let soon = PollTimeout::try_from(crate::common::LIMIT).unwrap();
            let came = nix::poll::poll(&mut ready, soon).unwrap();
            assert_eq!(came, 1, "{text:?} is not in {:?}", self.seen);
            let mut buffer = [0; 4096];
            let read = self.keyboard.read(&mut buffer).expect(text);
            assert_ne!(read, 0, "{text:?} is not in {:?}", self.seen);
            self.seen
                .push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        let (_, rest) = self.seen.split_once(text).unwrap();
        self.seen = rest.into();
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for the end; the terminal must be as it was before.
    fn ends(&mut self) -> std::process::ExitStatus {
        eventually("rexec ends", || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
        assert!(!self.is_raw(), "the terminal was left raw");
        self.child.wait().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tty(server: &Server, script: &str) -> Terminal {
    let mut command = server.rexec();
    Terminal::start(command.args(["-t", "sh", "-c", script]))
}

#[test]
fn the_program_has_a_terminal_of_the_same_size() {
    let server = Server::new();
    let mut terminal = tty(
        &server,
        "test -t 0 && test -t 1 && test -t 2 && stty size && tty; exit 3",
    );
    terminal.shows("33 101\r\n");
    terminal.shows("/dev/pts/");
    assert_eq!(terminal.ends().code(), Some(3));
    server.is_idle();
}

#[test]
fn without_t_there_is_none() {
    let server = Server::new();
    for options in [&[][..], &["-t", "-T"]] {
        let mut command = server.rexec();
        let mut terminal =
            Terminal::start(
                command
                    .args(options)
                    .args(["sh", "-c", "test -t 1 || echo none"]),
            );
        terminal.shows("none\r\n");
        assert_eq!(terminal.ends().code(), Some(0));
    }
}

#[test]
fn keys_are_the_programs() {
    use std::os::unix::process::ExitStatusExt;
    let server = Server::new();
    let mut terminal = tty(
        &server,
        "echo ready; read x; echo \"<$x>\"; exec sleep 1000",
    );
    terminal.shows("ready\r\n");
    assert!(terminal.is_raw());
    terminal.type_("hello\r");
    // The echo is the terminal's there, and the line ends as that terminal says.
    terminal.shows("hello\r\n");
    terminal.shows("<hello>\r\n");
    terminal.type_("\x03");
    assert_eq!(terminal.ends().signal(), Some(libc::SIGINT));
}

#[test]
fn an_end_of_file_key_ends_input() {
    let server = Server::new();
    let mut terminal = tty(&server, "echo ready; cat; echo ended; exit 2");
    terminal.shows("ready\r\n");
    terminal.type_("a\r\x04");
    terminal.shows("ended\r\n");
    assert_eq!(terminal.ends().code(), Some(2));
}

#[test]
fn a_suspend_key_does_not_leave_a_program_that_nobody_continues() {
    let server = Server::new();
    let mut terminal = tty(&server, "echo ready; read x; echo \"<$x>\"");
    terminal.shows("ready\r\n");
    terminal.type_("\x1aafter\r");
    terminal.shows("<");
    assert_eq!(terminal.ends().code(), Some(0));
}

#[test]
fn a_new_size_is_passed_on() {
    let server = Server::new();
    let mut terminal = tty(
        &server,
        "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done",
    );
    terminal.shows("ready\r\n");
    let size = Winsize {
        ws_row: 20,
        ws_col: 60,
        ..SIZE
    };
    rustix::termios::tcsetwinsize(&terminal.keyboard, size).unwrap();
    // rexec is in the background of this terminal, so the kernel does not tell it.
    crate::common::processes::kill(terminal.pid(), libc::SIGWINCH);
    terminal.shows("20 60\r\n");
    assert_eq!(terminal.ends().code(), Some(0));
}

#[test]
fn output_is_whole_at_the_end() {
    let server = Server::new();
    let mut terminal = tty(&server, "seq 1 20000; echo the-end");
    terminal.shows("\r\n20000\r\nthe-end\r\n");
    assert_eq!(terminal.ends().code(), Some(0));
}

#[test]
fn the_terminal_is_put_back_on_every_way_out() {
    use std::os::unix::process::ExitStatusExt;
    let started = |server: &Server| {
        let mut terminal = tty(server, "echo ready; exec sleep 1000");
        terminal.shows("ready\r\n");
        assert!(terminal.is_raw());
        terminal
    };
    let server = Server::new();
    // By a signal for rexec.
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        let mut terminal = started(&server);
        crate::common::processes::kill(terminal.pid(), signal);
        assert_eq!(terminal.ends().signal(), Some(signal));
    }
    // By the program's end, however it comes.
    let mut terminal = started(&server);
    let pid = i32::try_from(server.sessions().last().unwrap().pid).unwrap();
    crate::common::processes::kill(pid, libc::SIGKILL);
    assert_eq!(terminal.ends().signal(), Some(libc::SIGKILL));
    // By a refusal.
    let mut command = server.rexec();
    let mut terminal = Terminal::start(command.args(["-t", "no-such-program"]));
    terminal.shows("not found");
    assert_eq!(terminal.ends().code(), Some(127));
    // By the loss of the server.
    let mut server = server;
    let mut terminal = started(&server);
    server.kill();
    terminal.shows("connection lost");
    assert_eq!(terminal.ends().code(), Some(255));
}

#[test]
fn a_stopped_rexec_gives_the_terminal_back_meanwhile() {
    let server = Server::new();
    let mut terminal = tty(&server, "echo ready; read x; echo \"<$x>\"");
    terminal.shows("ready\r\n");
    crate::common::processes::kill(terminal.pid(), libc::SIGTSTP);
    eventually("the terminal is as before", || !terminal.is_raw());
    crate::common::processes::kill(terminal.pid(), libc::SIGCONT);
    eventually("it is raw again", || terminal.is_raw());
    terminal.type_("again\r");
    terminal.shows("<again>\r\n");
    assert_eq!(terminal.ends().code(), Some(0));
}

#[test]
fn a_terminal_for_the_program_needs_none_here() {
    let server = Server::new();
    let mut command = server.rexec();
    let mut run = Run::start(command.args(["-t", "sh", "-c", "stty size; cat; echo ended"]));
    assert_eq!(run.line(), "24 80\r");
    run.write("a\n");
    let ended: Ended = run.end();
    assert!(ended.text().ends_with("ended\r\n"), "{:?}", ended.text());
}
