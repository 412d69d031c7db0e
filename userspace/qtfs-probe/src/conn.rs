// SPDX-License-Identifier: GPL-2.0

//! Frames on a connection.

use anyhow::Context;
use anyhow::Result;
use qtfs_proto::frame::HEADER_LEN;
use qtfs_proto::Error;
use qtfs_proto::Header;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

/// Which server, and how patient to be.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Its address.
    pub address: SocketAddr,
    /// How long to wait for a connection or a frame.
    pub timeout: Duration,
}

/// One received frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// The fields of the message.
    pub body: Vec<u8>,
    /// File contents or directory entries.
    pub data: Vec<u8>,
}

/// What came from the server.
#[derive(Clone, Debug)]
pub enum Received {
    /// A frame.
    Frame(Frame),
    /// The end of the connection.
    Closed,
    /// Nothing, or a part of a frame, for as long as the timeout.
    Silent,
    /// A header that breaks the rules.
    Bad(Error),
}

/// One TCP connection.
#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
    timeout: Duration,
    /// Bytes received that are no whole frame yet.
    buf: Vec<u8>,
}

impl Conn {
    /// Connects.
    pub fn open(server: Server) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server.address, server.timeout)
            .with_context(|| format!("no connection to {}", server.address))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(server.timeout))?;
        Ok(Self {
            stream,
            timeout: server.timeout,
            buf: Vec::new(),
        })
    }

    /// A second handle of the connection, to send from another thread.
    pub fn sender(&self) -> Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone()?,
            timeout: self.timeout,
            buf: Vec::new(),
        })
    }

    /// Sends a frame; the lengths in `header` are filled in.
    pub fn send(&mut self, header: Header, body: &[u8], data: &[u8]) -> Result<()> {
        self.send_bytes(&frame(header, body, data)?)
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("sending")
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) {
        // It fails when the server has closed the connection, which is all right.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Receives a frame.
    pub fn receive(&mut self) -> Received {
        self.receive_within(self.timeout)
    }

    /// Receives a frame if it comes within `time`.
    pub fn receive_within(&mut self, time: Duration) -> Received {
        let deadline = Instant::now() + time;
        loop {
            match self.take_frame() {
                Ok(None) => {}
                Ok(Some(frame)) => return Received::Frame(frame),
                Err(error) => return Received::Bad(error),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return Received::Silent;
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Received::Closed,
                Ok(len) => self.buf.extend(&chunk[..len]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Received::Silent,
                    ErrorKind::Interrupted => {}
                    _ => return Received::Closed,
                },
            }
        }
    }

    /// Takes frames until the connection ends; tells whether it did, and how many replies came.
    pub fn receive_all(&mut self) -> (bool, usize) {
        let mut replies = 0;
        loop {
            match self.receive() {
                Received::Frame(_) => replies += 1,
                Received::Closed => return (true, replies),
                Received::Silent | Received::Bad(_) => return (false, replies),
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, Error> {
        let Some((head, rest)) = self.buf.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = Header::read(head)?;
        let Some((body, rest)) = rest.split_at_checked(header.body_len) else {
            return Ok(None);
        };
        let Some(data) = rest.get(..header.data_len) else {
            return Ok(None);
        };
        let frame = Frame {
            header,
            body: body.to_vec(),
            data: data.to_vec(),
        };
        self.buf
            .drain(..HEADER_LEN + header.body_len + header.data_len);
        Ok(Some(frame))
    }
}

/// The bytes of a frame.
pub fn frame(header: Header, body: &[u8], data: &[u8]) -> Result<Vec<u8>> {
    let header = Header {
        body_len: body.len(),
        data_len: data.len(),
        ..header
    };
    let mut bytes = vec![0; HEADER_LEN];
    let head = bytes
        .first_chunk_mut()
        .context("a header has a fixed length")?;
    header.write(head).map_err(crate::args::invalid)?;
    bytes.extend(body);
    bytes.extend(data);
    Ok(bytes)
}
