// SPDX-License-Identifier: GPL-2.0

//! A connection as a sequence of messages: one half to receive, one to send.

use crate::codec::Header;
use crate::codec::HEADER;
use crate::message::Message;
use crate::message::Stream;
use crate::wire;
use bytes::Buf;
use bytes::BytesMut;
use std::fmt;
use std::io;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

/// Bytes that are asked of the connection at a time, when little comes and when much does.
const CHUNKS: [usize; 2] = [4 << 10, 64 << 10];

/// Why there is no next message.
#[derive(Debug)]
pub enum Error {
    /// The connection ended, at the end of a message or within one.
    Closed,
    /// The connection failed.
    Io(io::Error),
    /// The peer sent what is no message.
    Wire(wire::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the peer closed the connection"),
            Self::Io(error) => error.fmt(f),
            Self::Wire(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // TLS without its own goodbye; also what a killed peer leaves.
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl From<wire::Error> for Error {
    fn from(error: wire::Error) -> Self {
        Self::Wire(error)
    }
}

/// The half that receives.
#[derive(Debug)]
pub struct Receiver<R> {
    input: R,
    buffer: BytesMut,
    /// One of [`CHUNKS`].
    chunk: usize,
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// Receives from `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            buffer: BytesMut::new(),
            chunk: CHUNKS[0],
        }
    }

    /// Receives the first message, which must be a HELLO: nothing else is read from a peer that
    /// has not said what it is.
    pub async fn hello(&mut self) -> Result<Message, Error> {
        let header = self.header().await?;
        if !header.is_hello() {
            return Err(wire::Error::Value("first message").into());
        }
        self.payload(header).await
    }

    /// Receives the next message.
    ///
    /// May be cancelled: what was received so far stays for the next call.
    pub async fn next(&mut self) -> Result<Message, Error> {
        let header = self.header().await?;
        self.payload(header).await
    }

    /// Receives and forgets until the peer sends nothing more.
    pub async fn discard(&mut self) {
        let mut rest = [0; 4096];
        while matches!(self.input.read(&mut rest).await, Ok(read) if read > 0) {}
    }

    async fn header(&mut self) -> Result<Header, Error> {
        loop {
            if let Some(bytes) = self.buffer.first_chunk::<HEADER>() {
                return Ok(Header::decode(*bytes)?);
            }
            self.more().await?;
        }
    }

    async fn payload(&mut self, header: Header) -> Result<Message, Error> {
        // Memory grows with what arrives, not with what was announced.
        while self.buffer.len() - HEADER < header.len {
            self.more().await?;
        }
        self.buffer.advance(HEADER);
        let payload = self.buffer.split_to(header.len).freeze();
        if self.buffer.is_empty() {
            // An idle connection holds no buffer.
            self.buffer = BytesMut::new();
        }
        Ok(header.message(payload)?)
    }

    async fn more(&mut self) -> Result<(), Error> {
        // A thousand connections that wait for their next small message hold little memory.
        self.buffer.reserve(self.chunk);
        let got = self.input.read_buf(&mut self.buffer).await?;
        self.chunk = CHUNKS[usize::from(got >= CHUNKS[0])];
        match got {
            0 => Err(Error::Closed),
            _ => Ok(()),
        }
    }
}

/// The half that sends; shared by all who have something to say.
#[derive(Debug)]
pub struct Sender<W> {
    output: Mutex<W>,
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    /// Sends to `output`.
    pub fn new(output: W) -> Self {
        Self {
            output: Mutex::new(output),
        }
    }

    /// Sends one message.
    ///
    /// When it is cancelled the connection cannot be used any more.
    pub async fn send(&self, message: &Message) -> io::Result<()> {
        self.send_all(std::slice::from_ref(message)).await
    }

    /// Sends several messages at once.
    pub async fn send_all(&self, messages: &[Message]) -> io::Result<()> {
        let mut bytes = BytesMut::with_capacity(256);
        for message in messages {
            message.encode(&mut bytes);
        }
        self.write(&bytes).await
    }

    /// Sends bytes of a stream, at most [`crate::message::MAX_DATA`], without copying them.
    pub async fn send_data(&self, stream: Stream, data: &[u8]) -> io::Result<()> {
        let header = Header::of_data(stream, data.len());
        let mut both = Buf::chain(&header[..], data);
        let mut output = self.output.lock().await;
        output.write_all_buf(&mut both).await?;
        output.flush().await
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut output = self.output.lock().await;
        output.write_all(bytes).await?;
        output.flush().await
    }

    /// Says that nothing more will be sent.
    pub async fn shutdown(&self) -> io::Result<()> {
        self.output.lock().await.shutdown().await
    }
}
