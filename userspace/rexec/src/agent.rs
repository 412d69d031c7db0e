// SPDX-License-Identifier: GPL-2.0

//! The agent: keeps connections to a server, so that a rexec that comes need not make its own.
//!
//! A connection proves who calls, so it is shared only by those who are the same: the agent
//! serves its own user and nobody else, and the keys are its own. It passes messages on as they
//! are, from one rexec at a time for each connection, and gives a connection to the next only
//! when the session on it has ended as it should. When rexec goes away in between, so does the
//! connection, and with it the program.

use crate::channel::Receiver;
use crate::channel::Sender;
use crate::client::connect::Connection;
use crate::client::connect::Route;
use crate::failure::Failure;
use crate::message::Hello;
use crate::message::Message;
use crate::message::Reason;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Connections that are kept while nobody needs them, and how long: shorter than the server
/// keeps them.
const MOST: usize = 32;
const IDLE: Duration = Duration::from_secs(60);
/// How long a rexec may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that had its greeting and has no program.
struct Kept {
    connection: Connection,
    hello: Hello,
    since: Instant,
}

/// What all callers share.
pub struct Agent {
    route: Route,
    kept: Mutex<Vec<Kept>>,
}

impl Agent {
    /// An agent for the server at the end of `route`.
    pub fn new(route: Route) -> Self {
        Self {
            route,
            kept: Mutex::default(),
        }
    }

    /// Serves callers for ever.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        let mut cleaning = tokio::time::interval(IDLE / 4);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = cleaning.tick() => {
                    self.kept().retain(|kept| kept.since.elapsed() < IDLE);
                    continue;
                }
            };
            match accepted {
                Ok((caller, _)) => {
                    let agent = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = agent.pass(caller).await {
                            // rexec finds its own way, and says what is wrong with it.
                            tracing::info!("{error}");
                        }
                    });
                }
                Err(error) => {
                    tracing::error!("cannot take a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is kept and alive, or a new one.
    async fn take(&self) -> Result<Kept, Failure> {
        loop {
            let Some(mut kept) = self.kept().pop() else {
                break;
            };
            // The server says nothing between sessions; what comes is its end.
            let silent = tokio::time::timeout(Duration::ZERO, kept.connection.receiver.next());
            if silent.await.is_err() {
                return Ok(kept);
            }
        }
        let mut connection = Connection::make(self.route.clone()).await?;
        let hello = connection.greet().await?;
        Ok(Kept {
            connection,
            hello,
            since: Instant::now(),
        })
    }

    /// Serves one caller.
    async fn pass(&self, caller: UnixStream) -> Result<(), Failure> {
        let uid = caller.peer_cred().map_err(system)?.uid();
        let own = nix::unistd::geteuid().as_raw();
        if uid != own {
            return Err(Failure::Usage(format!(
                "user {uid} is not served: the keys are those of user {own}"
            )));
        }
        let (input, output) = caller.into_split();
        let (mut from, to) = (Receiver::new(input), Sender::new(output));
        let wanted = async {
            from.hello().await?;
            from.next().await
        };
        let wanted = tokio::time::timeout(PATIENCE, wanted).await;
        let Ok(Ok(start @ Message::Start(_))) = wanted else {
            return Err(Failure::Protocol(
                "a caller did not say what it wants".into(),
            ));
        };
        let mut kept = self.take().await?;
        if matches!(&start, Message::Start(start) if start.window > kept.connection.window) {
            return Err(Failure::Usage(
                "the kernel gives no room for what a caller may have on the way: raise net.core.rmem_max".into(),
            ));
        }
        // From here on the caller cannot find another way: the program may have been started.
        to.send(&Message::Hello(kept.hello.clone()))
            .await
            .map_err(system)?;
        let connection = &mut kept.connection;
        connection.sender.send(&start).await.map_err(system)?;
        drop(start);
        let sending = AtomicBool::new(false);
        let ended = tokio::select! {
            biased;
            ended = answers(&mut connection.receiver, &to) => ended,
            () = requests(&mut from, &connection.sender, &sending) => false,
        };
        // One that stands in the middle of a message is of no use any more.
        if ended && !sending.into_inner() {
            kept.since = Instant::now();
            let mut all = self.kept();
            if all.len() < MOST {
                all.push(kept);
            }
        }
        Ok(())
    }
}

fn system(error: io::Error) -> Failure {
    Failure::System("talking to a caller", error)
}

/// Passes on what the server says, until the end of the session; false when it ends otherwise.
async fn answers<R, W>(from: &mut Receiver<R>, to: &Sender<W>) -> bool
where
    R: tokio::io::AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut exited, mut streams) = (false, 0);
    while let Ok(message) = from.next().await {
        let refused = match &message {
            Message::Exit(_) => {
                exited = true;
                false
            }
            Message::End(_) => {
                streams += 1;
                false
            }
            Message::Failed(refusal) => matches!(
                refusal.reason,
                Reason::NotFound | Reason::CannotRun | Reason::NotAllowed | Reason::Busy
            ),
            _ => false,
        };
        if pass_on(to, &message).await.is_err() {
            return false;
        }
        if refused || exited && streams == 2 {
            return true;
        }
    }
    false
}

/// Passes on what the caller says, until it is gone; `sending` is true while a message is.
async fn requests<R, W>(from: &mut Receiver<R>, to: &Sender<W>, sending: &AtomicBool)
where
    R: tokio::io::AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    while let Ok(message) = from.next().await {
        sending.store(true, Ordering::Relaxed);
        if pass_on(to, &message).await.is_err() {
            return;
        }
        sending.store(false, Ordering::Relaxed);
    }
}

async fn pass_on<W: AsyncWrite + Unpin>(to: &Sender<W>, message: &Message) -> io::Result<()> {
    match message {
        Message::Data(stream, bytes) => to.send_data(*stream, bytes).await,
        message => to.send(message).await,
    }
}
