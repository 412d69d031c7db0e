// SPDX-License-Identifier: GPL-2.0

//! The view that goes on: what happened since the last look.
//!
//! On a terminal each view takes the place of the one before, on a screen of its own. Elsewhere
//! one follows the other.

use crate::failure::Failure;
use crate::files::Files;
use crate::json;
use crate::mounts;
use crate::mounts::Mount;
use crate::text;
use nix::poll::poll;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::sys::signal::kill;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;
use nix::unistd::getpid;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// Goes to the other screen of a terminal and hides the cursor there.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// Undoes [`ENTER`].
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Begins to write over what is shown.
const HOME: &str = "\x1b[H";
/// Deletes the rest of a line.
const REST_OF_LINE: &str = "\x1b[K";
/// Deletes the lines below.
const REST_OF_SCREEN: &str = "\x1b[J";

/// What to watch, and how.
pub struct Watch<'a> {
    /// Where from.
    pub files: &'a Files,
    /// Only this mount.
    pub mount_point: Option<&'a Path>,
    /// Time between two looks.
    pub interval: Duration,
    /// One line of JSON for each look.
    pub json: bool,
}

/// The mounts at some time.
struct Look {
    at: Instant,
    mounts: Vec<Mount>,
}

impl Watch<'_> {
    /// Shows what happens until a signal comes, or nobody reads it any more.
    pub fn run(&self) -> Result<(), Failure> {
        let out = io::stdout();
        if out.is_terminal() && !self.json {
            self.on_terminal()
        } else {
            self.in_blocks(&mut out.lock())
        }
    }

    fn look(&self) -> Result<Look, Failure> {
        Ok(Look {
            mounts: mounts::look(self.files, self.mount_point)?,
            at: Instant::now(),
        })
    }

    /// A signal ends the process as it ends any other.
    fn in_blocks(&self, out: &mut impl Write) -> Result<(), Failure> {
        let mut before = self.look()?;
        loop {
            thread::sleep(self.interval);
            let now = self.look()?;
            let written = if self.json {
                json::write(out, &now.mounts, true)
            } else {
                let text = view(&before, &now);
                writeln!(out, "{text}")
            };
            written
                .and_then(|()| out.flush())
                .map_err(Failure::printing)?;
            before = now;
        }
    }

    fn on_terminal(&self) -> Result<(), Failure> {
        let system =
            |error: nix::Error| Failure::System("waiting for signals".into(), error.into());
        let mut before = self.look()?;
        let mut signals = Signals::new().map_err(system)?;
        let mut screen = Screen::enter().map_err(Failure::printing)?;
        let mut text = text::all(&before.mounts);
        loop {
            screen
                .show(&self.title(), &text)
                .map_err(Failure::printing)?;
            match signals.wait(self.interval).map_err(system)? {
                None => {}
                Some(Signal::SIGTSTP) => {
                    screen.leave();
                    let _ = kill(getpid(), Signal::SIGSTOP);
                    // Until somebody says fg.
                    screen = Screen::enter().map_err(Failure::printing)?;
                    continue;
                }
                Some(_) => return Ok(()),
            }
            let now = self.look()?;
            text = view(&before, &now);
            before = now;
        }
    }

    fn title(&self) -> String {
        format!(
            "qtinfo: every {} s; ends with Ctrl-C",
            self.interval.as_secs_f64()
        )
    }
}

/// What happened between two looks.
fn view(before: &Look, now: &Look) -> String {
    if now.mounts.is_empty() {
        return text::NOTHING.into();
    }
    let time = now.at.duration_since(before.at);
    let views = now.mounts.iter().map(|mount| {
        let earlier = before
            .mounts
            .iter()
            .find(|other| other.id == mount.id && other.mount_point == mount.mount_point);
        match earlier {
            Some(earlier) => text::rates(mount, &mount.counters.since(&earlier.counters), time),
            // It was mounted meanwhile.
            None => text::rates(mount, &mount.counters, time),
        }
    });
    views.collect::<Vec<String>>().join("\n")
}

/// The signals that end a live view, or stop it.
struct Signals(SignalFd);

impl Signals {
    fn new() -> nix::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGTSTP,
        ] {
            set.add(signal);
        }
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self(fd))
    }

    /// Waits for a signal or the end of `time`.
    fn wait(&mut self, time: Duration) -> nix::Result<Option<Signal>> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, left) {
                Ok(0) => return Ok(None),
                // After SIGCONT.
                Err(nix::Error::EINTR) => continue,
                other => other?,
            };
            if let Some(info) = self.0.read_signal()? {
                let number = i32::try_from(info.ssi_signo).unwrap_or(0);
                return Signal::try_from(number).map(Some);
            }
        }
    }
}

/// A screen that is not the one of the shell; dropping it brings that back.
struct Screen(io::Stdout);

impl Screen {
    fn enter() -> io::Result<Self> {
        let mut this = Self(io::stdout());
        this.0.write_all(ENTER.as_bytes())?;
        this.0.flush()?;
        Ok(this)
    }

    fn leave(self) {}

    /// Shows as much as there is room for.
    fn show(&mut self, title: &str, text: &str) -> io::Result<()> {
        let size = rustix::termios::tcgetwinsize(&self.0);
        let (rows, columns) = match size {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
                (usize::from(size.ws_row), usize::from(size.ws_col))
            }
            _ => (usize::MAX, usize::MAX),
        };
        let mut frame = String::from(HOME);
        // No newline after the last line, which would move all the others up.
        for (number, line) in [title, ""].into_iter().chain(text.lines()).enumerate() {
            if number == rows {
                break;
            }
            if number > 0 {
                frame.push('\n');
            }
            frame.extend(line.chars().take(columns));
            frame.push_str(REST_OF_LINE);
        }
        frame.push_str(REST_OF_SCREEN);
        self.0.write_all(frame.as_bytes())?;
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.0.write_all(LEAVE.as_bytes());
        let _ = self.0.flush();
    }
}
