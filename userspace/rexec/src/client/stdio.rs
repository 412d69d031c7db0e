// SPDX-License-Identifier: GPL-2.0

//! rexec's own streams.
//!
//! They are read and written by threads, which wait as any program does. Making them non-blocking
//! would change them for all who share them, such as the shell on the same terminal.

use crate::flow::Gate;
use crate::message::Stream;
use crate::message::MAX_DATA;
use bytes::Bytes;
use nix::errno::Errno;
use nix::poll::poll;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::mpsc as std_mpsc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What the threads report.
#[derive(Debug)]
pub(super) enum Event {
    /// Read from stdin; empty at the end.
    Read(Bytes),
    /// So many bytes were written.
    Written(Stream, usize),
    /// Writing failed; nothing more will be written.
    Broken(Stream, Errno),
    /// All of a stream was written.
    Flushed,
}

/// Reads stdin as far as there is credit, in a thread of its own.
pub(super) fn read_stdin(gate: Arc<Gate>, events: mpsc::Sender<Event>) -> io::Result<()> {
    let reader = move || {
        let stdin = io::stdin();
        let mut buffer = vec![0; MAX_DATA];
        while let Some(most) = gate.wait() {
            let most = most.min(MAX_DATA);
            let read = match read(stdin.as_fd(), &mut buffer[..most]) {
                Ok(read) => read,
                // As if it had ended: the program cannot be told more.
                Err(error) => {
                    eprintln!("rexec: reading stdin failed: {}", error.desc());
                    0
                }
            };
            gate.take(read);
            let bytes = Bytes::copy_from_slice(&buffer[..read]);
            if events.blocking_send(Event::Read(bytes)).is_err() || read == 0 {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("rexec/stdin".into())
        .spawn(reader)?;
    Ok(())
}

/// Waits and repeats where a descriptor that somebody else made non-blocking says so.
fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<usize> {
    loop {
        match nix::unistd::read(fd, buffer) {
            Err(Errno::EAGAIN) => wait(fd, PollFlags::POLLIN)?,
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::EAGAIN) => wait(fd, PollFlags::POLLOUT)?,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait(fd: BorrowedFd<'_>, what: PollFlags) -> nix::Result<()> {
    poll(&mut [PollFd::new(fd, what)], PollTimeout::NONE).map(drop)
}

/// Stands for the closed stdin, so that whoever writes to it hears of that.
pub(super) fn close_stdin() -> io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    Ok(nix::unistd::dup2_stdin(null)?)
}

/// An output stream, written in a thread of its own that starts with the first bytes.
pub(super) struct Outlet {
    stream: Stream,
    events: mpsc::Sender<Event>,
    /// The thread's queue, whose length the credit bounds.
    queue: Option<std_mpsc::Sender<Bytes>>,
    ended: bool,
}

impl Outlet {
    /// Nothing is written yet.
    pub(super) fn new(stream: Stream, events: mpsc::Sender<Event>) -> Self {
        Self {
            stream,
            events,
            queue: None,
            ended: false,
        }
    }

    /// Has the bytes written.
    pub(super) fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        if self.queue.is_none() && !self.ended {
            self.queue = Some(self.spawn()?);
        }
        if let Some(queue) = &self.queue {
            // A thread that is gone has said that nobody reads.
            let _ = queue.send(bytes);
        }
        Ok(())
    }

    /// Nothing more comes. Returns whether [`Event::Flushed`] or [`Event::Broken`] is still to be
    /// waited for.
    pub(super) fn end(&mut self) -> bool {
        self.ended = true;
        self.queue.take().is_some()
    }

    fn spawn(&self) -> io::Result<std_mpsc::Sender<Bytes>> {
        let (sender, queue) = std_mpsc::channel::<Bytes>();
        let (stream, events) = (self.stream, self.events.clone());
        let writer = move || {
            let (stdout, stderr) = (io::stdout(), io::stderr());
            let fd = match stream {
                Stream::Stderr => stderr.as_fd(),
                _ => stdout.as_fd(),
            };
            for bytes in queue {
                let event = match write_all(fd, &bytes) {
                    Ok(()) => Event::Written(stream, bytes.len()),
                    Err(error) => Event::Broken(stream, error),
                };
                let is_broken = matches!(event, Event::Broken(..));
                if events.blocking_send(event).is_err() || is_broken {
                    return;
                }
            }
            let _ = events.blocking_send(Event::Flushed);
        };
        let name = format!(
            "rexec/{}",
            if stream == Stream::Stderr {
                "stderr"
            } else {
                "stdout"
            }
        );
        std::thread::Builder::new().name(name).spawn(writer)?;
        Ok(sender)
    }
}
