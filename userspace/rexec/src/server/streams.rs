// SPDX-License-Identifier: GPL-2.0

//! The program's streams, between its pipes (or its terminal) and the connection.

use crate::channel::Sender;
use crate::flow::Budget;
use crate::flow::TooMuch;
use crate::flow::Window;
use crate::flow::STDIN_WINDOW;
use crate::link::Output;
use crate::message::Message;
use crate::message::Stream;
use crate::start::Size;
use crate::start::Start;
use bytes::BufMut;
use bytes::BytesMut;
use nix::fcntl::OFlag;
use std::io;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::sync::Notify;

/// What a terminal takes for the end of the input at the beginning of a line (VEOF, termios(3)).
const END_OF_FILE: &[u8] = b"\x04";

/// The server's ends of the streams.
#[derive(Debug)]
pub(super) struct Ends {
    /// To the program; none when it has `/dev/null`.
    pub(super) stdin: Option<pipe::Sender>,
    /// From the program.
    pub(super) stdout: pipe::Receiver,
    /// From the program; none on a terminal.
    pub(super) stderr: Option<pipe::Receiver>,
    /// The terminal, to change its size.
    pub(super) terminal: Option<OwnedFd>,
}

impl Ends {
    /// Makes the streams; the second value is the program's ends.
    pub(super) fn make(start: &Start) -> io::Result<(Self, Vec<OwnedFd>)> {
        if let Some(size) = start.tty {
            return Self::make_terminal(size);
        }
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
        let (theirs, stdin) = if start.null_stdin {
            (std::fs::File::open("/dev/null")?.into(), None)
        } else {
            let (theirs, ours) = pipe()?;
            (theirs, Some(ours))
        };
        let (stdout, their_stdout) = pipe()?;
        let (stderr, their_stderr) = pipe()?;
        let ends = Self {
            stdin: stdin.map(pipe::Sender::from_owned_fd).transpose()?,
            stdout: pipe::Receiver::from_owned_fd(stdout)?,
            stderr: Some(pipe::Receiver::from_owned_fd(stderr)?),
            terminal: None,
        };
        Ok((ends, vec![theirs, their_stdout, their_stderr]))
    }

    fn make_terminal(size: Size) -> io::Result<(Self, Vec<OwnedFd>)> {
        use rustix::pty::OpenptFlags;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&terminal)?;
        rustix::pty::unlockpt(&terminal)?;
        let theirs = rustix::pty::ioctl_tiocgptpeer(&terminal, flags)?;
        resize(&terminal, size)?;
        rustix::io::ioctl_fionbio(&terminal, true)?;
        // A terminal is polled, read and written as a pipe is.
        let ends = Self {
            stdin: Some(pipe::Sender::from_owned_fd_unchecked(
                terminal.try_clone()?,
            )?),
            stdout: pipe::Receiver::from_owned_fd_unchecked(terminal.try_clone()?)?,
            stderr: None,
            terminal: Some(terminal),
        };
        Ok((ends, vec![theirs]))
    }
}

/// Sets the size of a terminal; the kernel tells the program with SIGWINCH.
pub(super) fn resize(terminal: impl AsFd, size: Size) -> io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: size.width,
        ws_ypixel: size.height,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// What came for the program's stdin and was not written yet.
#[derive(Debug)]
pub(super) struct Inbox {
    inner: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug)]
struct Waiting {
    bytes: BytesMut,
    /// Nothing more comes.
    ended: bool,
    /// Nobody reads any more.
    closed: bool,
    budget: Budget,
}

impl Inbox {
    /// Nothing came yet.
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Waiting {
                bytes: BytesMut::new(),
                ended: false,
                closed: false,
                budget: Budget::new(STDIN_WINDOW),
            }),
            changed: Notify::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what came.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<(), TooMuch> {
        let mut inner = self.inner();
        inner.budget.received(bytes.len())?;
        if !inner.ended && !inner.closed {
            inner.bytes.extend_from_slice(bytes);
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        self.inner().ended = true;
        self.changed.notify_one();
    }

    /// Nobody reads any more.
    fn close(&self) {
        let mut inner = self.inner();
        inner.closed = true;
        inner.bytes = BytesMut::new();
    }

    /// What is to be written next; `None` at the end.
    async fn next(&self) -> Option<BytesMut> {
        loop {
            {
                let mut inner = self.inner();
                if !inner.bytes.is_empty() {
                    return Some(std::mem::take(&mut inner.bytes));
                }
                if inner.ended {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

/// Writes what comes to the program's stdin, until its end or until nobody reads.
pub(super) async fn feed(
    stdin: Option<pipe::Sender>,
    is_terminal: bool,
    inbox: &Inbox,
    answers: mpsc::Sender<Message>,
) {
    let Some(stdin) = stdin else { return };
    while let Some(bytes) = inbox.next().await {
        if write_all(&stdin, &bytes).await.is_err() {
            inbox.close();
            let _ = answers.send(Message::Closed(Stream::Stdin)).await;
            return;
        }
        let credit = inbox.inner().budget.passed_on(bytes.len());
        if credit > 0 {
            let _ = answers.send(Message::Credit(Stream::Stdin, credit)).await;
        }
    }
    if is_terminal {
        let _ = write_all(&stdin, END_OF_FILE).await;
    }
}

async fn write_all(pipe: &pipe::Sender, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        pipe.writable().await?;
        match pipe.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One of the program's output streams, on its way to the caller.
pub(super) struct Outlet<'a> {
    pub(super) stream: Stream,
    pub(super) pipe: Option<pipe::Receiver>,
    /// What the caller has room for.
    pub(super) window: &'a Window,
    /// True when the caller has nobody any more who reads this.
    pub(super) closed: watch::Receiver<bool>,
    /// True when the program has ended: what is in the pipe now is all there will be, even if
    /// a detached descendant still holds it open.
    pub(super) ended: watch::Receiver<bool>,
}

impl Outlet<'_> {
    /// Sends all that the program writes, until its end or until nobody reads, and then END.
    pub(super) async fn drain(mut self, sender: &Sender<Output>) -> io::Result<()> {
        if let Some(pipe) = self.pipe.take() {
            self.send_all(pipe, sender).await?;
        }
        sender.send(&Message::End(self.stream)).await
    }

    /// Takes the pipe, so that a program that writes on when nobody reads hears of that.
    async fn send_all(&mut self, pipe: pipe::Receiver, sender: &Sender<Output>) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        loop {
            let taken = tokio::select! {
                taken = self.window.take() => taken,
                _ = self.closed.wait_for(|closed| *closed) => return Ok(()),
            };
            let read = tokio::select! {
                read = read(&pipe, &mut buffer, taken, &mut self.ended) => read,
                _ = self.closed.wait_for(|closed| *closed) => return Ok(()),
            };
            if read == 0 {
                return Ok(());
            }
            self.window.put_back(taken - read);
            sender.send_data(self.stream, &buffer).await?;
            buffer.clear();
        }
    }
}

/// Reads up to `most` bytes into `buffer`; 0 at the end.
async fn read(
    pipe: &pipe::Receiver,
    buffer: &mut BytesMut,
    most: usize,
    ended: &mut watch::Receiver<bool>,
) -> usize {
    loop {
        let is_last = tokio::select! {
            biased;
            _ = pipe.ready(Interest::READABLE) => false,
            _ = ended.wait_for(|ended| *ended) => true,
        };
        // An idle stream has no buffer.
        buffer.reserve(most);
        let read = match is_last {
            false => pipe.try_read_buf(&mut buffer.limit(most)),
            // The kernel is asked, not what is remembered of its last answer.
            true => read_now(pipe, buffer, most),
        };
        match read {
            Ok(read) => return read,
            Err(error) if error.kind() == ErrorKind::WouldBlock && !is_last => {
                *buffer = BytesMut::new()
            }
            // A terminal that nobody has open any more says EIO; after the program's end there
            // is nothing to wait for.
            Err(_) => return 0,
        }
    }
}

fn read_now(pipe: &pipe::Receiver, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
    buffer.resize(most, 0);
    let read = nix::unistd::read(pipe, buffer);
    buffer.truncate(*read.as_ref().unwrap_or(&0));
    Ok(read?)
}
