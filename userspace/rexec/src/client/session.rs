// SPDX-License-Identifier: GPL-2.0

//! One program, from START to EXIT.

use super::connect::Connection;
use super::connect::Route;
use super::signals;
use super::stdio;
use super::stdio::Event;
use super::stdio::Outlet;
use super::terminal;
use super::terminal::Terminal;
use crate::channel;
use crate::failure::Failure;
use crate::flow::Budget;
use crate::flow::Gate;
use crate::flow::STDIN_WINDOW;
use crate::message::Message;
use crate::message::Outcome;
use crate::message::Stream;
use crate::start::Start;
use crate::wire;
use nix::errno::Errno;
use nix::libc;
use std::fs::File;
use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;

/// Events of the threads that may wait; they wait with them.
const EVENTS: usize = 16;

/// How long the reader of the output may take none of it before a rexec that was told to end does
/// so without it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How rexec ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As the program did.
    Program(Outcome),
    /// By a signal that rexec got while there was no program.
    Signal(u8),
}

/// What to do.
pub struct Job {
    /// Where.
    pub route: Route,
    /// The agent that may have a connection already.
    pub agent: Option<PathBuf>,
    /// The program.
    pub start: Start,
    /// Give the program a terminal.
    pub terminal: bool,
    /// The file for the program's pid, open for writing.
    pub pid_file: Option<File>,
}

/// Runs the program and waits for its end.
pub async fn run(mut job: Job) -> Result<End, Failure> {
    let system = |doing| move |error| Failure::System(doing, error);
    let mut signals = signals::catch(job.start.ignored).map_err(system("catching signals"))?;
    job.start.tty = job.terminal.then(terminal::size);
    let (null_stdin, start) = (job.start.null_stdin, job.start);
    let prepared = async {
        if let Some(agent) = &job.agent {
            if let Some(connection) = Connection::by_agent(agent, &job.route, &start).await? {
                return Ok(connection);
            }
        }
        let mut connection = Connection::make(job.route).await?;
        connection.start(start).await?;
        Ok(connection)
    };
    tokio::pin!(prepared);
    let mut early = Vec::new();
    let connection = loop {
        tokio::select! {
            prepared = &mut prepared => break prepared?,
            signal = signals.recv() => match signal {
                // There is no program yet that could have another opinion.
                Some(signal) if signals::is_deadly(signal) => return Ok(End::Signal(signal)),
                Some(signal) => early.push(signal),
                None => {}
            },
        }
    };
    let terminal = match job.terminal {
        true => Terminal::make_raw().map_err(system("making the terminal raw"))?,
        false => None,
    };
    let (events, reported) = mpsc::channel(EVENTS);
    let gate = Arc::new(Gate::new(STDIN_WINDOW));
    if !null_stdin {
        stdio::read_stdin(gate.clone(), events.clone()).map_err(system("starting a thread"))?;
    }
    let outputs = [Stream::Stdout, Stream::Stderr].map(|stream| Output {
        outlet: Outlet::new(stream, events.clone()),
        budget: Budget::new(connection.window),
        unwritten: 0,
        ended: false,
    });
    let mut session = Session {
        connection,
        gate,
        outputs,
        terminal,
        pid_file: job.pid_file,
        started: false,
        stdin_closed: false,
        deadly: None,
        outcome: None,
        deadline: None,
    };
    for signal in early {
        session.signal(signal).await?;
    }
    session.follow(reported, signals).await
}

struct Output {
    outlet: Outlet,
    budget: Budget,
    /// Bytes that the thread has and did not write yet.
    unwritten: usize,
    /// The server sends no more of it.
    ended: bool,
}

struct Session {
    connection: Connection,
    gate: Arc<Gate>,
    outputs: [Output; 2],
    /// Put back when this is dropped.
    terminal: Option<Terminal>,
    pid_file: Option<File>,
    /// The program runs.
    started: bool,
    /// The program reads no more.
    stdin_closed: bool,
    /// The last signal that was passed on and ends programs.
    deadly: Option<u8>,
    /// How the program ended, once it has.
    outcome: Option<Outcome>,
    /// Until when what the program has written is to be taken, if rexec itself was to end.
    deadline: Option<Instant>,
}

/// The place of an output stream.
fn place(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

/// Returns at `deadline`, if there is one.
async fn late(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl Session {
    async fn follow(
        &mut self,
        mut events: mpsc::Receiver<Event>,
        mut signals: mpsc::UnboundedReceiver<u8>,
    ) -> Result<End, Failure> {
        let result = self.talk(&mut events, &mut signals).await;
        // Also when the connection was lost: what came before that is the caller's.
        self.flush(events, signals).await?;
        result.map(End::Program)
    }

    /// Talks to the server until it has said how the program ended and all that it wrote.
    async fn talk(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        signals: &mut mpsc::UnboundedReceiver<u8>,
    ) -> Result<Outcome, Failure> {
        let link_timeout = self.connection.route.link_timeout;
        let mut heartbeat =
            tokio::time::interval_at(Instant::now() + link_timeout / 3, link_timeout / 3);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Heartbeats since the server last said something. Time itself would count the time that
        // rexec was stopped.
        let mut silent = 0;
        loop {
            match self.outcome {
                Some(outcome) if self.outputs.iter().all(|output| output.ended) => {
                    return Ok(outcome);
                }
                _ => {}
            }
            tokio::select! {
                message = self.connection.receiver.next() => {
                    silent = 0;
                    let message = message.map_err(|error| self.connection.explain(error))?;
                    self.obey(message).await?;
                }
                Some(event) = events.recv() => self.event(event).await?,
                Some(signal) = signals.recv() => self.signal(signal).await?,
                _ = heartbeat.tick() => {
                    silent += 1;
                    if silent > 3 {
                        return Err(Failure::Lost(format!(
                            "{}: connection lost: silent for {} s",
                            self.connection.route.address,
                            link_timeout.as_secs()
                        )));
                    }
                    self.send(Message::Ping(0)).await?;
                }
                () = late(self.deadline) => self.outputs.iter_mut().for_each(|output| output.ended = true),
            }
        }
    }

    /// Waits until what the program has written is where it belongs.
    async fn flush(
        &mut self,
        mut events: mpsc::Receiver<Event>,
        mut signals: mpsc::UnboundedReceiver<u8>,
    ) -> Result<(), Failure> {
        let ends = self.outputs.iter_mut().map(|output| output.outlet.end());
        let mut waiting = ends.filter(|waits| *waits).count();
        while waiting > 0 {
            tokio::select! {
                Some(event) = events.recv() => match event {
                    Event::Read(_) => {}
                    Event::Written(stream, bytes) => self.written(stream, bytes),
                    Event::Broken(stream, error) => {
                        self.broken(stream, error);
                        waiting -= 1;
                    }
                    Event::Flushed => waiting -= 1,
                },
                Some(signal) = signals.recv() => match i32::from(signal) {
                    libc::SIGTSTP => self.stop()?,
                    _ if signals::is_deadly(signal) => self.hurry(),
                    _ => {}
                },
                () = late(self.deadline) => {
                    let lost: usize = self.outputs.iter().map(|output| output.unwritten).sum();
                    let _ = writeln!(io::stderr(), "rexec: {lost} bytes of output were not taken by their reader");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// rexec was told to end and only has to deliver output: whoever reads it may take so long.
    fn hurry(&mut self) {
        self.deadline = Some(Instant::now() + PATIENCE);
    }

    fn written(&mut self, stream: Stream, bytes: usize) {
        let output = &mut self.outputs[place(stream)];
        output.unwritten = output.unwritten.saturating_sub(bytes);
        if self.deadline.is_some() {
            self.hurry();
        }
    }

    fn broken(&mut self, stream: Stream, error: Errno) {
        self.outputs[place(stream)].outlet.end();
        self.outputs[place(stream)].unwritten = 0;
        if error != Errno::EPIPE {
            let _ = writeln!(io::stderr(), "rexec: writing failed: {}", error.desc());
        }
    }

    async fn send(&self, message: Message) -> Result<(), Failure> {
        match self.connection.sender.send(&message).await {
            Ok(()) => Ok(()),
            // Reading tells why, and whether the program ended before.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(self.connection.explain(channel::Error::Io(error))),
        }
    }

    /// Does what the server says.
    async fn obey(&mut self, message: Message) -> Result<(), Failure> {
        let wrong = |what| channel::Error::Wire(wire::Error::Value(what));
        match message {
            // The last session's on this connection.
            Message::Closed(Stream::Stdin) | Message::Credit(Stream::Stdin, _) if !self.started => {
            }
            Message::Started { pid, .. } => {
                self.started = true;
                if let Some(mut file) = self.pid_file.take() {
                    writeln!(file, "{pid}")
                        .map_err(|error| Failure::System("writing the pid file", error))?;
                }
            }
            Message::Failed(refusal) => return Err(Failure::Refused(refusal)),
            Message::Data(stream, bytes) if stream != Stream::Stdin => {
                let output = &mut self.outputs[place(stream)];
                output
                    .budget
                    .received(bytes.len())
                    .map_err(|_| self.connection.explain(wrong("amount of data")))?;
                output.unwritten += bytes.len();
                output
                    .outlet
                    .write(bytes)
                    .map_err(|error| Failure::System("starting a thread", error))?;
            }
            Message::End(stream) if stream != Stream::Stdin => {
                self.outputs[place(stream)].ended = true;
            }
            Message::Closed(Stream::Stdin) => {
                self.stdin_closed = true;
                self.gate.close();
                if self.terminal.is_none() {
                    stdio::close_stdin()
                        .map_err(|error| Failure::System("closing stdin", error))?;
                }
            }
            Message::Credit(Stream::Stdin, bytes) => {
                self.gate
                    .grant(bytes)
                    .map_err(|_| self.connection.explain(wrong("amount of credit")))?;
            }
            Message::Ping(number) => self.send(Message::Pong(number)).await?,
            Message::Pong(_) => {}
            Message::Exit(outcome) => {
                self.outcome = Some(outcome);
                if self
                    .deadly
                    .is_some_and(|signal| outcome == Outcome::Killed(signal))
                {
                    self.hurry();
                }
            }
            _ => return Err(self.connection.explain(wrong("message at this time"))),
        }
        Ok(())
    }

    /// Passes on what the threads report.
    async fn event(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Read(_) if self.stdin_closed => Ok(()),
            Event::Read(bytes) if bytes.is_empty() => self.send(Message::End(Stream::Stdin)).await,
            Event::Read(bytes) => {
                let sent = self
                    .connection
                    .sender
                    .send_data(Stream::Stdin, &bytes)
                    .await;
                // As in `send`.
                sent.or_else(|error| match error.kind() {
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Ok(()),
                    _ => Err(self.connection.explain(channel::Error::Io(error))),
                })
            }
            Event::Written(stream, bytes) => {
                self.written(stream, bytes);
                match self.outputs[place(stream)].budget.passed_on(bytes) {
                    0 => Ok(()),
                    credit => self.send(Message::Credit(stream, credit)).await,
                }
            }
            Event::Broken(stream, error) => {
                self.broken(stream, error);
                self.send(Message::Closed(stream)).await
            }
            Event::Flushed => Ok(()),
        }
    }

    /// Passes a signal on, and does what else it means.
    async fn signal(&mut self, signal: u8) -> Result<(), Failure> {
        match i32::from(signal) {
            libc::SIGWINCH if self.terminal.is_some() => {
                self.send(Message::Resize(terminal::size())).await
            }
            libc::SIGTSTP => {
                self.send(Message::Signal(signal)).await?;
                self.stop()
            }
            _ => {
                if signals::is_deadly(signal) {
                    self.deadly = Some(signal);
                    if self.outcome.is_some() {
                        self.hurry();
                    }
                }
                self.send(Message::Signal(signal)).await
            }
        }
    }

    /// Stands still until SIGCONT, which then is passed on as well.
    fn stop(&self) -> Result<(), Failure> {
        if let Some(terminal) = &self.terminal {
            terminal.restore();
        }
        nix::sys::signal::raise(nix::sys::signal::SIGSTOP)
            .map_err(|error| Failure::System("stopping", error.into()))?;
        match &self.terminal {
            Some(terminal) => terminal
                .resume()
                .map_err(|error| Failure::System("making the terminal raw", error)),
            None => Ok(()),
        }
    }
}
