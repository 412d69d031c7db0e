// SPDX-License-Identifier: GPL-2.0

//! One session: from START to EXIT, or to the loss of the connection.
//!
//! All of it is one task. What comes from the peer is handled without ever waiting for the peer
//! to take something, so the two sides cannot wait for each other.

use super::registry::Entry;
use super::registry::Session;
use super::streams;
use super::streams::Ends;
use super::streams::Inbox;
use super::streams::Outlet;
use super::Shared;
use crate::channel;
use crate::channel::Receiver;
use crate::channel::Sender;
use crate::failure::errno_text;
use crate::failure::io_text;
use crate::flow::Window;
use crate::link::Input;
use crate::link::Output;
use crate::message::Message;
use crate::message::Outcome;
use crate::message::Reason;
use crate::message::Refusal;
use crate::message::Stream;
use crate::policy::Decision;
use crate::policy::Peer;
use crate::process::keeper;
use crate::process::keeper::Event;
use crate::process::launch::Launch;
use crate::process::launch::Stage;
use crate::start::Start;
use crate::wire;
use bytes::Bytes;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;

/// How long the end of a session's processes is waited for before its place is given away.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers that may wait for a peer that takes none.
const ANSWERS: usize = 64;

/// What has to be known of a START once it is under way.
struct Started {
    window: u32,
    tty: bool,
    detach: bool,
    program: String,
    directory: String,
}

impl Started {
    fn new(start: &Start) -> Self {
        Self {
            window: start.window,
            tty: start.tty.is_some(),
            detach: start.detach,
            program: String::from_utf8_lossy(&start.arguments[0]).into_owned(),
            directory: String::from_utf8_lossy(&start.directory).into_owned(),
        }
    }

    /// Why it did not start, as a shell would say it.
    fn refusal(&self, stage: Stage, errno: i32, host: &str) -> Refusal {
        let reason = match (stage, errno) {
            (Stage::Execute, nix::libc::ENOENT) => Reason::NotFound,
            _ => Reason::CannotRun,
        };
        let directory = match stage {
            Stage::Directory => format!(" {}", self.directory),
            _ => String::new(),
        };
        let text = format!(
            "{}: {stage}{directory}: {} on {host}",
            self.program,
            errno_text(errno)
        );
        Refusal::new(reason, text)
    }
}

/// The connection that sessions are on, one after another.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) receiver: Receiver<Input>,
    pub(super) sender: Sender<Output>,
    pub(super) peer: Peer,
    pub(super) origin: String,
    /// The kernel does not find out by itself that the peer's machine is gone.
    pub(super) needs_heartbeat: bool,
}

/// The output streams as the peer controls them: stdout and stderr.
struct Outputs {
    windows: [Window; 2],
    closed: [watch::Sender<bool>; 2],
    /// True from STARTED on.
    running: watch::Sender<bool>,
}

impl Connection {
    /// Runs what `start` asks for. An error ends the connection.
    pub(super) async fn session(&mut self, start: Start) -> Result<(), channel::Error> {
        let decided = self.shared.policy.decide(&self.peer, &start);
        let decision = match decided {
            Ok(decision) => decision,
            Err(refusal) => return self.refuse(refusal).await,
        };
        let Ok(permit) = self.shared.sessions.clone().try_acquire_owned() else {
            let text = format!(
                "{} runs as many programs as it may: raise max_sessions in its {}",
                self.shared.policy.host(),
                crate::config::FILE
            );
            return self.refuse(Refusal::new(Reason::Busy, text)).await;
        };
        let entry = self.register(&start, &decision);
        let started = Started::new(&start);
        let made = self.launch(&entry, start, decision).await;
        let (ends, keeper) = match made {
            Ok(made) => made,
            Err(error) => {
                let (host, why) = (self.shared.policy.host(), io_text(&error));
                let text = format!("{}: {}: {why} on {host}", started.program, Stage::Process);
                return self.refuse(Refusal::new(Reason::CannotRun, text)).await;
            }
        };
        let (mut events, commands) = keeper.into_split();
        let result = self
            .run(&entry, ends, &mut events, commands, &started)
            .await;
        // Here the control socket is closed for writing, so the keeper ends what is left.
        tokio::spawn(settle(entry, events, permit, started.detach));
        result
    }

    async fn refuse(&self, refusal: Refusal) -> Result<(), channel::Error> {
        tracing::warn!(
            "{} from {}: {}",
            self.peer,
            self.origin,
            String::from_utf8_lossy(&refusal.text)
        );
        Ok(self.sender.send(&Message::Failed(refusal)).await?)
    }

    fn register(&self, start: &Start, decision: &Decision) -> Entry {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let own = nix::unistd::geteuid().as_raw();
        let uid = decision
            .identity
            .as_ref()
            .map_or(own, |identity| identity.uid);
        let session = Session {
            detach: start.detach,
            program: decision.program.display().to_string(),
            arguments: start.arguments.iter().map(text).collect(),
            ..Session::new(&self.peer, self.origin.clone(), uid)
        };
        self.shared.registry.add(session)
    }

    async fn launch(
        &self,
        entry: &Entry,
        start: Start,
        decision: Decision,
    ) -> io::Result<(Ends, tokio::net::UnixStream)> {
        let (ends, theirs) = Ends::make(&start)?;
        let launch = Launch {
            program: decision.program,
            groups: self.shared.groups.clone(),
            session: entry.number,
            change_identity: decision.identity.is_some(),
            trusted: decision.trusted,
            start: Start {
                caller: decision.identity.unwrap_or_default(),
                environment: decision.environment.into_iter().map(Bytes::from).collect(),
                ..start
            },
        };
        let keeper = self.shared.nursery.launch(&launch, theirs).await?;
        Ok((ends, keeper))
    }

    async fn run(
        &mut self,
        entry: &Entry,
        ends: Ends,
        events: &mut OwnedReadHalf,
        commands: OwnedWriteHalf,
        start: &Started,
    ) -> Result<(), channel::Error> {
        let outputs = Outputs {
            windows: [start.window, start.window].map(Window::new),
            closed: [false, false].map(|no| watch::channel(no).0),
            running: watch::channel(false).0,
        };
        let inbox = Inbox::new();
        let (answers, mut to_answer) = mpsc::channel(ANSWERS);
        let (receiver, sender) = (&mut self.receiver, &self.sender);
        let host = self.shared.policy.host();

        let mut running = outputs.running.subscribe();
        let to_peer = answers.clone();
        let mut feed = Box::pin(async {
            // What is said of stdin before STARTED is taken for the last session's.
            if running.wait_for(|running| *running).await.is_ok() {
                streams::feed(ends.stdin, start.tty, &inbox, to_peer).await;
            }
        });
        let mut fed = false;
        let mut program = Box::pin(program(
            entry,
            host,
            events,
            sender,
            start,
            &outputs,
            [Some(ends.stdout), ends.stderr],
        ));
        let mut answer = Box::pin(async {
            while let Some(message) = to_answer.recv().await {
                sender.send(&message).await?;
            }
            Ok::<_, channel::Error>(())
        });
        let mut controls = Controls {
            inbox: &inbox,
            outputs: &outputs,
            keeper: commands,
            terminal: ends.terminal,
            answers,
        };
        let link_timeout = self.shared.link_timeout;
        let mut heard = Instant::now();
        let mut heartbeat = tokio::time::interval_at(heard + link_timeout / 3, link_timeout / 3);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let result = loop {
            tokio::select! {
                result = &mut program => break result,
                () = &mut feed, if !fed => fed = true,
                result = &mut answer => break result,
                message = receiver.next() => {
                    heard = Instant::now();
                    controls.obey(message?).await?;
                }
                _ = heartbeat.tick() => {
                    if self.needs_heartbeat && heard.elapsed() > link_timeout {
                        return Err(channel::Error::Io(io::ErrorKind::TimedOut.into()));
                    }
                    // A peer that is stopped takes nothing; enough is waiting for it.
                    let _ = controls.answers.try_send(Message::Ping(0));
                }
            }
        };
        // The last answer is sent whole, since the connection may be used again.
        drop((controls, feed));
        result?;
        answer.await
    }
}

/// What a running session is controlled by.
struct Controls<'a> {
    inbox: &'a Inbox,
    outputs: &'a Outputs,
    keeper: OwnedWriteHalf,
    terminal: Option<OwnedFd>,
    answers: mpsc::Sender<Message>,
}

impl Controls<'_> {
    /// Does what the peer says, without ever waiting for the peer.
    async fn obey(&mut self, message: Message) -> Result<(), channel::Error> {
        let too_much = |_| channel::Error::Wire(wire::Error::Value("amount of data or credit"));
        match message {
            Message::Data(Stream::Stdin, bytes) => self.inbox.put(&bytes).map_err(too_much)?,
            Message::End(Stream::Stdin) => self.inbox.end(),
            Message::Credit(stream, bytes) => self.outputs.windows[index(stream)?]
                .grant(bytes)
                .map_err(too_much)?,
            Message::Closed(stream) => {
                self.outputs.closed[index(stream)?].send_replace(true);
            }
            // It takes the socket's buffer to be full of signals for this to wait.
            Message::Signal(signal) => {
                // A keeper that is gone has said so by the other direction.
                let _ = self.keeper.write_all(&keeper::signal_command(signal)).await;
            }
            Message::Resize(size) => {
                if let Some(terminal) = &self.terminal {
                    let _ = streams::resize(terminal, size);
                }
            }
            Message::Ping(number) => {
                let flood =
                    |_| channel::Error::Wire(wire::Error::Value("number of unanswered pings"));
                self.answers
                    .try_send(Message::Pong(number))
                    .map_err(flood)?;
            }
            Message::Pong(_) => {}
            _ => {
                return Err(channel::Error::Wire(wire::Error::Value(
                    "message at this time",
                )))
            }
        }
        Ok(())
    }
}

/// The place of an output stream.
fn index(stream: Stream) -> Result<usize, channel::Error> {
    match stream {
        Stream::Stdout => Ok(0),
        Stream::Stderr => Ok(1),
        Stream::Stdin => Err(channel::Error::Wire(wire::Error::Value("stream"))),
    }
}

/// Tells the peer all that the program does.
async fn program(
    entry: &Entry,
    host: &str,
    events: &mut OwnedReadHalf,
    sender: &Sender<Output>,
    start: &Started,
    outputs: &Outputs,
    pipes: [Option<pipe::Receiver>; 2],
) -> Result<(), channel::Error> {
    match next_event(events).await {
        Some(Event::Started(pid, group)) => {
            if group != 0 {
                tracing::warn!(
                    "session {}: no control group: {}",
                    entry.number,
                    errno_text(group)
                );
            }
            let pid = pid.unsigned_abs();
            entry.update(|session| {
                session.pid = pid;
                session.state = "running".into();
                tracing::info!(
                    "session {}: {} runs {} as user {}, pid {pid}",
                    session.session,
                    session.peer,
                    session.program,
                    session.uid
                );
            });
            let session = entry.number;
            sender.send(&Message::Started { session, pid }).await?;
            outputs.running.send_replace(true);
        }
        Some(Event::Failed(stage, errno)) => {
            let refusal = start.refusal(stage, errno, host);
            tracing::warn!(
                "session {}: {}",
                entry.number,
                String::from_utf8_lossy(&refusal.text)
            );
            return Ok(sender.send(&Message::Failed(refusal)).await?);
        }
        _ => {
            let text = format!("{}: {host}: its keeper ended", Stage::Process);
            tracing::error!("session {}: {text}", entry.number);
            return Ok(sender
                .send(&Message::Failed(Refusal::new(Reason::CannotRun, text)))
                .await?);
        }
    }
    let (tell_end, ended) = watch::channel(false);
    let outcome = async {
        let outcome = match next_event(events).await {
            Some(Event::Exited(status)) => Outcome::Exited((status & 0xff) as u8),
            Some(Event::Killed(signal)) => Outcome::Killed((signal & 0x7f) as u8),
            // Somebody killed the keeper, and the kernel the program.
            _ => Outcome::Killed(nix::libc::SIGKILL as u8),
        };
        tracing::debug!("session {}: {outcome:?}", entry.number);
        tell_end.send_replace(true);
        // Before the streams' ends, which may have to wait for who reads them.
        sender.send(&Message::Exit(outcome)).await
    };
    let [stdout, stderr] = pipes;
    let outlet = |stream: Stream, place: usize, pipe| Outlet {
        stream,
        pipe,
        window: &outputs.windows[place],
        closed: outputs.closed[place].subscribe(),
        ended: ended.clone(),
    };
    tokio::try_join!(
        outcome,
        outlet(Stream::Stdout, 0, stdout).drain(sender),
        outlet(Stream::Stderr, 1, stderr).drain(sender),
    )?;
    Ok(())
}

async fn next_event(events: &mut OwnedReadHalf) -> Option<Event> {
    let mut record = [0; keeper::RECORD];
    events.read_exact(&mut record).await.ok()?;
    Event::decode(record)
}

/// Keeps a session's place until its processes have ended.
async fn settle(
    entry: Entry,
    mut events: OwnedReadHalf,
    permit: OwnedSemaphorePermit,
    detach: bool,
) {
    let ended = async { while next_event(&mut events).await.is_some() {} };
    if detach {
        // These may stay for long, and are listed as long.
        entry.update(|session| session.state = "detached".into());
        drop(permit);
        return ended.await;
    }
    if tokio::time::timeout(PATIENCE, ended).await.is_err() {
        tracing::error!("session {}: its processes do not end", entry.number);
    }
}
