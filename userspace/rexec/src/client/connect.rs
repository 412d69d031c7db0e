// SPDX-License-Identifier: GPL-2.0

//! The way to the server: connection, TLS, and the first messages.

use crate::address::Address;
use crate::channel;
use crate::channel::Receiver;
use crate::channel::Sender;
use crate::config::Tls;
use crate::failure::Failure;
use crate::link;
use crate::link::Input;
use crate::link::Link;
use crate::link::Output;
use crate::message::Hello;
use crate::message::Message;
use crate::message::VERSION;
use crate::start::Start;
use crate::trust;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

fn own_hello() -> Message {
    let own = nix::unistd::gethostname().unwrap_or_default();
    Message::Hello(Hello {
        oldest: VERSION,
        newest: VERSION,
        host: own.to_string_lossy().into_owned().into(),
    })
}

/// The name that the certificate of a server must have.
fn server_name(address: &Address, tls: &Tls) -> Result<ServerName<'static>, Failure> {
    let host = match address {
        Address::Tcp(host, _) => host.clone(),
        Address::Vsock(cid, _) => cid.to_string(),
        Address::Unix(_) => String::new(),
    };
    trust::server_name(tls, &host)
}

/// How to get to a server.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where it is.
    pub address: Address,
    /// The keys, when there are any; not used for unix sockets.
    pub tls: Option<Tls>,
    /// Whether TCP and vsock may do without keys.
    pub insecure: bool,
    /// How long the connection may take.
    pub connect_timeout: Duration,
    /// How long the link may be silent.
    pub link_timeout: Duration,
}

/// A connection to a server.
pub struct Connection {
    /// What the server says.
    pub receiver: Receiver<Input>,
    /// What it is told.
    pub sender: Sender<Output>,
    /// Bytes of each output stream that may be under way.
    pub window: u32,
    /// The route, for messages to people and for its times.
    pub route: Route,
}

impl Connection {
    /// Connects, and does the handshake when there is TLS.
    pub async fn make(route: Route) -> Result<Self, Failure> {
        let address = route.address.to_string();
        let is_unix = matches!(route.address, Address::Unix(_));
        if route.tls.is_none() && !route.insecure && !route.address.is_local() {
            return Err(Failure::Tls(format!(
                "{address}: a connection in clear is only made to this machine itself: give both sides keys ([tls]), \
                 or say insecure = true, in {}",
                crate::config::FILE
            )));
        }
        // Before the connection, which would be in vain without keys.
        let tls = match route.tls.as_ref().filter(|_| !is_unix) {
            Some(tls) => Some((server_name(&route.address, tls)?, trust::client(tls)?)),
            None => None,
        };
        let connected =
            link::connect(&route.address, route.connect_timeout, route.link_timeout).await;
        let (link, window) = connected.map_err(|error| {
            Failure::Connect(format!(
                "{address}: cannot connect: {}: is rexec_server running there?",
                crate::failure::io_text(&error)
            ))
        })?;
        let (input, output) = match tls {
            None => link.split(),
            Some((name, config)) => {
                let handshake = TlsConnector::from(config).connect(name, link.whole());
                let stream = tokio::time::timeout(route.connect_timeout, handshake)
                    .await
                    .map_err(|_| {
                        Failure::Tls(format!(
                            "{address}: no TLS handshake within {} s",
                            route.connect_timeout.as_secs()
                        ))
                    })?
                    .map_err(|error| {
                        trust::explain(&address, &error).unwrap_or_else(|| {
                            Failure::Tls(format!("{address}: the TLS handshake failed: {error}"))
                        })
                    })?;
                let (input, output) = tokio::io::split(stream);
                (Box::new(input) as Input, Box::new(output) as Output)
            }
        };
        Ok(Self {
            receiver: Receiver::new(input),
            sender: Sender::new(output),
            window,
            route,
        })
    }

    /// Connects to the agent at `path`, which has connections to the same server. Runs `start`
    /// there, unless the agent does not take it: then there is none, and nothing was started.
    pub async fn by_agent(
        path: &Path,
        route: &Route,
        start: &Start,
    ) -> Result<Option<Self>, Failure> {
        let Ok(stream) = UnixStream::connect(path).await else {
            return Ok(None);
        };
        let (input, output) = Link::Unix(stream).split();
        let mut connection = Self {
            receiver: Receiver::new(input),
            sender: Sender::new(output),
            window: link::WINDOW,
            route: route.clone(),
        };
        match connection.start(start.clone()).await {
            Ok(()) => Ok(Some(connection)),
            // The agent greets when it has a connection, and only then starts anything.
            Err(Failure::Lost(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Says who is there, and hears the same of the server.
    pub async fn greet(&mut self) -> Result<Hello, Failure> {
        self.exchange(&[own_hello()]).await
    }

    /// Sends the greeting and what is to be run, at once: the server's greeting comes together
    /// with its first answer, so that starting takes a single round trip.
    pub async fn start(&mut self, start: Start) -> Result<(), Failure> {
        let start = Message::Start(Box::new(Start {
            window: self.window,
            ..start
        }));
        if !start.fits() {
            return Err(Failure::Usage(format!(
                "arguments and environment are longer than {} bytes: pass less, or drop variables ([environment])",
                crate::message::MAX_START
            )));
        }
        self.exchange(&[own_hello(), start]).await.map(drop)
    }

    /// Sends the first messages and receives the server's greeting.
    async fn exchange(&mut self, messages: &[Message]) -> Result<Hello, Failure> {
        let limit = self.route.connect_timeout.max(self.route.link_timeout);
        let greeted = tokio::time::timeout(limit, async {
            if self.sender.send_all(messages).await.is_err() {
                // What the server had to say is read first.
                tracing::debug!("the server takes no greeting");
            }
            self.receiver.next().await
        });
        match greeted.await {
            Ok(Ok(Message::Hello(hello))) => Ok(hello),
            Ok(Ok(Message::Failed(refusal))) => Err(Failure::Refused(refusal)),
            Ok(Ok(_)) => {
                Err(self.explain(channel::Error::Wire(crate::wire::Error::Value("greeting"))))
            }
            Ok(Err(error)) => Err(self.explain(error)),
            Err(_) => Err(Failure::Connect(format!(
                "{}: no greeting within {} s: is that rexec_server?",
                self.route.address,
                limit.as_secs()
            ))),
        }
    }

    /// What an error of the connection means to the user.
    pub fn explain(&self, error: channel::Error) -> Failure {
        let address = &self.route.address;
        match error {
            channel::Error::Closed => {
                Failure::Lost(format!("{address}: connection lost: the server closed it"))
            }
            channel::Error::Io(error) => trust::explain(&address.to_string(), &error)
                .unwrap_or_else(|| {
                    Failure::Lost(format!(
                        "{address}: connection lost: {}",
                        crate::failure::io_text(&error)
                    ))
                }),
            channel::Error::Wire(error) => Failure::Protocol(format!(
                "{address}: this is no rexec_server of this release: {error}"
            )),
        }
    }
}
