// SPDX-License-Identifier: GPL-2.0

//! The server: takes connections, finds out who is there, and runs what they ask for.
//!
//! - [`session`](self): one session.
//! - [`registry`]: the sessions that there are.
//! - [`status`]: tells them to those who ask.
//! - `streams`: a program's streams.
//!
//! One task for each connection. A peer that has not proven who it is holds one of a bounded
//! number of places, for a bounded time, and no more memory than its first message.

pub mod registry;
mod session;
pub mod status;
mod streams;

use crate::channel;
use crate::channel::Receiver;
use crate::channel::Sender;
use crate::config::Config;
use crate::config::Tls;
use crate::failure::Failure;
use crate::link;
use crate::link::Input;
use crate::link::Link;
use crate::link::Listener;
use crate::link::Origin;
use crate::link::Output;
use crate::message::Hello;
use crate::message::Message;
use crate::message::Reason;
use crate::message::Refusal;
use crate::message::VERSION;
use crate::policy::Peer;
use crate::policy::Policy;
use crate::process::nursery;
use crate::trust;
use registry::Registry;
use session::Connection;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

/// Most programs that run at a time, unless told otherwise.
pub const MAX_SESSIONS: u32 = 4096;
/// Most connections of peers that have not proven who they are, or not said what to run.
const MAX_STRANGERS: usize = 256;
/// How long a peer may take for that.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be kept for a further program, and how many without a program.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const MAX_IDLE: usize = 256;
/// How long a peer that did something wrong may take to read what.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a TLS handshake begins with.
const TLS_HANDSHAKE: u8 = 22;

/// What all connections share.
pub struct Shared {
    policy: Policy,
    registry: Arc<Registry>,
    nursery: nursery::Handle,
    /// The directory below which sessions get their control groups.
    groups: Option<PathBuf>,
    sessions: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    /// Places for connections that have had a program and may get another.
    idle: Arc<Semaphore>,
    link_timeout: Duration,
    tls: Option<(Tls, Arc<ServerConfig>)>,
}

impl Shared {
    /// What a server with this configuration needs.
    pub fn new(
        policy: Policy,
        nursery: nursery::Handle,
        groups: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let config: &Config = policy.config();
        let sessions = config.max_sessions.unwrap_or(MAX_SESSIONS);
        let seconds = config.link_timeout.unwrap_or(link::LINK_TIMEOUT);
        let tls = match &config.tls {
            Some(tls) => Some((tls.clone(), trust::server(tls)?)),
            None => None,
        };
        Ok(Self {
            registry: Arc::default(),
            nursery,
            groups,
            sessions: Arc::new(Semaphore::new(
                usize::try_from(sessions).unwrap_or(Semaphore::MAX_PERMITS),
            )),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
            idle: Arc::new(Semaphore::new(MAX_IDLE)),
            link_timeout: Duration::from_secs(seconds.into()),
            tls,
            policy,
        })
    }

    /// The sessions.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Returns when the nursery is gone, without which nothing can be started.
    pub async fn nursery_gone(&self) {
        self.nursery.gone().await;
    }
}

/// Takes connections for ever.
pub async fn serve(shared: Arc<Shared>, listener: Listener) {
    loop {
        // Before a descriptor is there for it: whoever comes too many waits in the kernel.
        let Ok(place) = shared.strangers.clone().acquire_owned().await else {
            return;
        };
        match listener.accept(shared.link_timeout).await {
            Ok((link, origin)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let greeted =
                        tokio::time::timeout(STRANGER_TIMEOUT, greet(shared, link, &origin)).await;
                    match greeted {
                        Ok(Ok(connection)) => talk(connection, place).await,
                        Ok(Err(error)) => tracing::warn!("{origin}: {error}"),
                        Err(_) => tracing::warn!(
                            "{origin}: did not say who it is within {} s",
                            STRANGER_TIMEOUT.as_secs()
                        ),
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: they come back when sessions end.
                tracing::error!("cannot take a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Finds out who is there and which version it speaks.
async fn greet(
    shared: Arc<Shared>,
    link: Link,
    origin: &Origin,
) -> Result<Connection, channel::Error> {
    let needs_heartbeat = !link.has_keepalive();
    let known = local_peer(&link, origin)?;
    let tls = shared
        .tls
        .as_ref()
        .filter(|_| !matches!(origin, Origin::Unix(..)));
    let (input, output, peer): (Input, Output, Peer) = match (tls, known) {
        (Some((tls, config)), _) => {
            let link = match link {
                Link::Tcp(stream) => Link::Tcp(refuse_clear_text(stream).await?),
                link => link,
            };
            let stream = TlsAcceptor::from(config.clone())
                .accept(link.whole())
                .await?;
            let peer = trust::peer(tls, stream.get_ref().1.peer_certificates())?;
            let (input, output) = tokio::io::split(stream);
            (Box::new(input), Box::new(output), peer)
        }
        (None, known) => {
            let (input, output) = link.split();
            (input, output, known)
        }
    };
    let (mut receiver, sender) = (Receiver::new(input), Sender::new(output));
    let hello = Message::Hello(Hello {
        oldest: VERSION,
        newest: VERSION,
        host: shared.policy.host().to_owned().into(),
    });
    let refusal = match receiver.hello().await {
        Ok(Message::Hello(theirs)) if (theirs.oldest..=theirs.newest).contains(&VERSION) => {
            shared.policy.admits(&peer).err()
        }
        Ok(Message::Hello(theirs)) => Some(Refusal::new(
            Reason::Version,
            format!(
                "{} speaks version {VERSION} of the protocol and rexec {} to {}: install the same release on both machines",
                shared.policy.host(), theirs.oldest, theirs.newest
            ),
        )),
        Ok(_) => Some(not_understood(&shared, "no greeting")),
        Err(channel::Error::Wire(error)) => Some(not_understood(&shared, &error.to_string())),
        Err(error) => return Err(error),
    };
    match refusal {
        None => sender.send(&hello).await?,
        Some(refusal) => {
            let text = String::from_utf8_lossy(&refusal.text).into_owned();
            farewell(&mut receiver, &sender, &[hello, Message::Failed(refusal)]).await;
            return Err(channel::Error::Io(io::Error::other(text)));
        }
    }
    Ok(Connection {
        shared,
        receiver,
        sender,
        peer,
        origin: origin.to_string(),
        needs_heartbeat,
    })
}

fn not_understood(shared: &Shared, what: &str) -> Refusal {
    Refusal::new(
        Reason::Protocol,
        format!(
            "{} did not understand the caller: {what}",
            shared.policy.host()
        ),
    )
}

/// Who is there without TLS.
fn local_peer(link: &Link, origin: &Origin) -> io::Result<Peer> {
    match (link, origin) {
        (_, Origin::Unix(uid, gid, _)) => Ok(Peer::Local(*uid, *gid)),
        (_, Origin::Vsock(cid)) => Ok(Peer::Vsock(*cid)),
        (Link::Tcp(stream), Origin::Tcp(client)) if client.ip().is_loopback() => {
            let user = link::local_user(stream.local_addr()?, *client)?;
            let uid = user.ok_or_else(|| {
                io::Error::other("the caller was gone before it could be looked at")
            })?;
            let entry = nix::unistd::User::from_uid(uid.into()).ok().flatten();
            Ok(Peer::Local(
                uid,
                entry.map_or(uid, |entry| entry.gid.as_raw()),
            ))
        }
        _ => Ok(Peer::Insecure),
    }
}

/// Tells a caller that speaks no TLS that it has to; returns the connection of one that does.
async fn refuse_clear_text(stream: tokio::net::TcpStream) -> io::Result<tokio::net::TcpStream> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 || first[0] == TLS_HANDSHAKE {
        return Ok(stream);
    }
    let text = "this server takes no connections without TLS: give rexec its keys ([tls])";
    let refusal = Message::Failed(Refusal::new(Reason::Authentication, text));
    let (input, output) = Link::Tcp(stream).split();
    farewell(&mut Receiver::new(input), &Sender::new(output), &[refusal]).await;
    Err(io::Error::other("the caller speaks no TLS"))
}

/// Tells the peer something and waits until it has left, for a bounded time: closing at once
/// would take the words away if the peer has sent more than was read.
async fn farewell(receiver: &mut Receiver<Input>, sender: &Sender<Output>, words: &[Message]) {
    let said = async {
        if sender.send_all(words).await.is_ok() && sender.shutdown().await.is_ok() {
            receiver.discard().await;
        }
    };
    // A peer that takes no notice is not waited for any longer.
    let _ = tokio::time::timeout(LAST_WORDS, said).await;
}

/// Runs session after session until the peer leaves.
///
/// The place among the strangers is kept until it is known what the first is to be.
async fn talk(mut connection: Connection, place: OwnedSemaphorePermit) {
    let idle = connection.shared.idle.clone();
    let mut place = Some((place, STRANGER_TIMEOUT));
    loop {
        let Some((held, limit)) = place.take() else {
            return;
        };
        let Ok(message) = tokio::time::timeout(limit, connection.receiver.next()).await else {
            return;
        };
        let result = match message {
            Ok(Message::Start(start)) => {
                drop(held);
                let result = connection.session(*start).await;
                place = idle
                    .clone()
                    .try_acquire_owned()
                    .ok()
                    .map(|place| (place, IDLE_TIMEOUT));
                result
            }
            // What was on its way when the last session ended.
            Ok(
                Message::Data(..)
                | Message::End(_)
                | Message::Closed(_)
                | Message::Credit(..)
                | Message::Signal(_)
                | Message::Resize(_)
                | Message::Ping(_)
                | Message::Pong(_),
            ) => {
                place = Some((held, limit));
                Ok(())
            }
            Ok(_) => Err(channel::Error::Wire(crate::wire::Error::Value(
                "message at this time",
            ))),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {}
            Err(channel::Error::Closed) => return,
            Err(channel::Error::Wire(error)) => {
                tracing::warn!("{} from {}: {error}", connection.peer, connection.origin);
                let refusal = not_understood(&connection.shared, &error.to_string());
                let words = [Message::Failed(refusal)];
                return farewell(&mut connection.receiver, &connection.sender, &words).await;
            }
            Err(channel::Error::Io(error)) => {
                tracing::warn!(
                    "{} from {}: the link failed: {error}",
                    connection.peer,
                    connection.origin
                );
                return;
            }
        }
    }
}
