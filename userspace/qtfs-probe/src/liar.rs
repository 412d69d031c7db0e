// SPDX-License-Identifier: GPL-2.0

//! A server that makes up a small tree and answers as it should, but for one lie.
//!
//! Which one is said by the client: who looks up `lie:NAME` has it told from then on, and is
//! answered that there is no such name. A new session begins without.

use crate::conn::frame;
use crate::table::encode;
use anyhow::Context;
use anyhow::Result;
use clap::ValueEnum;
use qtfs_proto::dirent::Entry;
use qtfs_proto::frame::HEADER_LEN;
use qtfs_proto::message::*;
use qtfs_proto::*;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;

/// What is answered badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lie {
    /// Nothing.
    None,
    /// An errno that means something to the kernel alone, for contents of files and FIFOs.
    KernelErrno,
    /// A directory that programs can wait for, with contents.
    PolledDirectory,
    /// Whatever is opened was made by that.
    Created,
    /// An existing file without a name.
    NamedTmpfile,
    /// Extended attributes of 4 GiB.
    HugeXattr,
    /// A list of extended attributes without an end.
    EndlessList,
    /// A list of extended attributes with a name that is too long.
    LongName,
    /// Objects without a type.
    NoType,
    /// Objects of all types.
    EveryType,
    /// Entries of directories without a type.
    ListedNoType,
    /// A list of entries that ends in one.
    CutListing,
    /// Objects on the client's own file systems.
    OwnDevice,
    /// Objects of more bytes than there are.
    TooLarge,
    /// Attributes whose end is missing.
    CutBody,
    /// Connections end after the greeting.
    GreetAndGo,
    /// Each WRITE ends the connection, and the next one finds the session lost.
    LostSession,
    /// There is no memory for what is written.
    NoMemory,
    /// Nothing is answered.
    Silence,
}

const ENOENT: u32 = 2;
const ENOMEM: u32 = 12;
const EINVAL: u32 = 22;
const ENODATA: u32 = 61;
const EOPNOTSUPP: u32 = 95;
/// `EIOCBQUEUED` of the kernel.
const EIOCBQUEUED: u32 = 529;

const ROOT: NodeId = NodeId(1);
const FILE: NodeId = NodeId(2);
/// Name, node and mode of each object.
const TREE: [(&[u8], NodeId, u32); 4] = [
    (b"", ROOT, 0o040_755),
    (b"file", FILE, 0o100_644),
    (b"directory", NodeId(3), 0o040_755),
    (b"fifo", NodeId(4), 0o010_644),
];
/// Slots of a session: few, so that all of them can be in use.
const SLOTS: u16 = 8;

struct State {
    lie: Lie,
    sessions: u128,
    /// The last node.
    last: u64,
    contents: Vec<u8>,
}

/// What is answered: errno, body, data.
type Said = (u32, Vec<u8>, Vec<u8>);

/// Serves until it is killed.
pub fn lie(listen: &str) -> Result<()> {
    let listener =
        TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    println!("listens on {}", listener.local_addr()?);
    let state = Arc::new(Mutex::new(State {
        lie: Lie::None,
        sessions: 0,
        last: 1000,
        contents: b"contents".to_vec(),
    }));
    for stream in listener.incoming() {
        let (stream, state) = (stream.context("accepting")?, state.clone());
        std::thread::spawn(move || {
            // The client comes again.
            let _ = serve(stream, &state);
        });
    }
    Ok(())
}

fn lock(state: &Mutex<State>) -> Result<MutexGuard<'_, State>> {
    state.lock().ok().context("another connection has failed")
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> Result<()> {
    loop {
        let (header, body, data) = receive(&mut stream)?;
        if header.kind != Kind::Request {
            continue;
        }
        let op = Op::try_from(header.op).map_err(crate::args::invalid)?;
        let request = Request::decode(op, &body).map_err(crate::args::invalid)?;
        let (said, is_over) = {
            let mut state = lock(state)?;
            let said = match &request {
                Request::Hello(hello) => state.greet(hello),
                _ if state.lie == Lie::Silence => None,
                Request::Write(_) if state.lie == Lie::LostSession => return Ok(()),
                request => Some(state.answer(request, &data)),
            };
            (said, state.lie == Lie::GreetAndGo)
        };
        if let Some((status, body, data)) = said {
            let header = Header {
                kind: Kind::Reply,
                status,
                cred: 0,
                flags: 0,
                ..header
            };
            stream.write_all(&frame(header, &body, &data)?)?;
        }
        if is_over {
            return Ok(());
        }
    }
}

fn receive(stream: &mut TcpStream) -> Result<(Header, Vec<u8>, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head)?;
    let header = Header::read(&head).map_err(crate::args::invalid)?;
    let (mut body, mut data) = (vec![0; header.body_len], vec![0; header.data_len]);
    stream.read_exact(&mut body)?;
    stream.read_exact(&mut data)?;
    Ok((header, body, data))
}

/// A reply without data.
fn said(reply: &impl Encode) -> Said {
    match encode(reply) {
        Ok(body) => (0, body, vec![]),
        Err(_) => refused(EINVAL),
    }
}

fn invalid(_: Error) -> Said {
    refused(EINVAL)
}

fn refused(errno: u32) -> Said {
    (errno, vec![], vec![])
}

impl State {
    fn greet(&mut self, hello: &Hello<'_>) -> Option<Said> {
        let is_new = hello.session == [0; 16];
        if is_new {
            self.lie = Lie::None;
        }
        let is_lost = self.lie == Lie::LostSession && hello.lane == 0;
        self.sessions += 1;
        let session = match is_new || is_lost {
            true => self.sessions.to_le_bytes(),
            false => hello.session,
        };
        Some(said(&HelloReply {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            version: VERSION_MAX,
            features: 0,
            max_data: hello.max_data,
            slots: SLOTS,
            session,
            ttl: 60_000,
            boot: 1,
        }))
    }

    fn answer(&mut self, request: &Request<'_>, data: &[u8]) -> Said {
        match request {
            Request::Attach(_) => said(&AttachReply {
                attr: self.attr(ROOT),
                read_only: 0,
            }),
            Request::Lookup(r) => self.look_up(r.name.bytes()),
            Request::Walk(r) => self.look_up(r.path.bytes()),
            Request::Getattr(r) => self.told(GetattrReply {
                attr: self.attr(self.found(&r.target)),
            }),
            Request::Setattr(r) => {
                if r.valid.has(SetattrValid::SIZE) {
                    self.contents.truncate(r.size as usize);
                }
                said(&SetattrReply {
                    attr: self.attr(self.found(&r.target)),
                })
            }
            Request::Open(r) => self.open(r),
            Request::Read(_) | Request::Receive(_) | Request::Write(_)
                if self.lie == Lie::KernelErrno =>
            {
                refused(EIOCBQUEUED)
            }
            Request::Read(r) => {
                let begin = self.contents.len().min(r.offset as usize);
                let end = self.contents.len().min(begin + r.len as usize);
                let (_, body, _) = said(&ReadReply {
                    attr: self.attr(NodeId(r.file.0)),
                });
                (0, body, self.contents[begin..end].to_vec())
            }
            Request::Write(_) if self.lie == Lie::NoMemory => refused(ENOMEM),
            Request::Write(r) => {
                let end = r.offset as usize + data.len();
                self.contents.resize(self.contents.len().max(end), 0);
                self.contents[r.offset as usize..end].copy_from_slice(data);
                said(&WriteReply {
                    written: data.len() as u32,
                    offset: r.offset,
                    attr: self.attr(NodeId(r.file.0)),
                })
            }
            Request::Readdir(_) => self.list(),
            Request::Statfs(_) => said(&StatfsReply {
                kind: 1,
                bsize: 4096,
                frsize: 4096,
                blocks: 1,
                bfree: 0,
                bavail: 0,
                files: 1,
                ffree: 0,
                fsid: 1,
                namelen: 255,
                flags: 0,
            }),
            Request::Getxattr(r) if self.lie == Lie::HugeXattr => {
                let value = vec![1; r.max as usize];
                Bytes::new(&value).map_or_else(invalid, |value| {
                    let len = u32::MAX;
                    said(&GetxattrReply { len, value })
                })
            }
            Request::Getxattr(_) => refused(ENODATA),
            Request::Listxattr(r) => self.list_xattrs(r.max as usize),
            Request::Lock(r) => said(&LockReply {
                attr: self.attr(NodeId(r.file.0)),
            }),
            Request::Poll(_) => said(&PollReply {
                ready: PollEvents::IN.with(PollEvents::OUT).with(PollEvents::MSG),
                queued: 1,
            }),
            Request::Receive(_) => (0, vec![], b"x".to_vec()),
            // Their replies have no fields.
            Request::Credential(_)
            | Request::Ping(_)
            | Request::Release(_)
            | Request::Access(_)
            | Request::Fsync(_)
            | Request::Syncfs(_)
            | Request::Notify(_) => (0, vec![], vec![]),
            _ => refused(EOPNOTSUPP),
        }
    }

    fn look_up(&mut self, name: &[u8]) -> Said {
        if let Some(lie) = name.strip_prefix(b"lie:") {
            let lie = Lie::from_str(&String::from_utf8_lossy(lie), false);
            self.lie = lie.unwrap_or(Lie::None);
            return refused(ENOENT);
        }
        match TREE.iter().find(|(known, ..)| *known == name) {
            Some((_, node, _)) => self.told(LookupReply {
                attr: self.attr(*node),
            }),
            None => refused(ENOENT),
        }
    }

    /// A reply with attributes, perhaps cut.
    fn told(&self, reply: impl Encode) -> Said {
        let (status, mut body, data) = said(&reply);
        if self.lie == Lie::CutBody {
            body.pop();
        }
        (status, body, data)
    }

    /// The node that a target means.
    fn found(&self, target: &Target<'_>) -> NodeId {
        let name = target.name.bytes();
        let entry = TREE.iter().find(|(known, ..)| *known == name);
        match entry {
            Some((_, node, _)) if !name.is_empty() => *node,
            _ if name.is_empty() => target.node,
            _ => NodeId::NONE,
        }
    }

    fn open(&mut self, r: &Open<'_>) -> Said {
        let has = |flag| r.flags.has(flag);
        let mut node = self.found(&r.target);
        let mut opened = Opened::OPENED.with_if(self.lie == Lie::Created, Opened::CREATED);
        if has(OpenFlags::TMPFILE) || (node.is_none() && has(OpenFlags::CREATE)) {
            self.last += 1;
            node = match self.lie {
                Lie::NamedTmpfile => FILE,
                _ => NodeId(self.last),
            };
            opened = opened.with(Opened::CREATED);
        }
        if node.is_none() {
            return refused(ENOENT);
        }
        let mut attr = self.attr(node);
        let kind = attr.mode & 0o170_000;
        if kind == 0o010_000 && !r.target.name.bytes().is_empty() {
            let (file, opened) = (FileId::NONE, Opened::NONE);
            return said(&OpenReply { file, opened, attr });
        }
        if kind == 0o040_000 && self.lie == Lie::PolledDirectory {
            opened = opened.with(Opened::POLL).with(Opened::STREAM);
            attr.size = 1 << 40;
        }
        said(&OpenReply {
            file: FileId(node.0),
            opened,
            attr,
        })
    }

    fn list(&self) -> Said {
        let kinds = [4, 8, 4, 1];
        let mut bytes = Vec::new();
        for (number, ((name, node, _), kind)) in TREE.iter().zip(kinds).enumerate().skip(1) {
            let Ok(name) = Name::new(name) else { continue };
            let mut attr = self.attr(*node);
            if self.lie == Lie::ListedNoType {
                attr.mode = 0;
            }
            let entry = Entry {
                next: number as u64,
                ino: attr.ino,
                kind,
                name,
                attr: Some(attr),
            };
            bytes.extend(encode(&entry).unwrap_or_default());
        }
        if self.lie == Lie::CutListing {
            bytes.pop();
        }
        let (status, body, _) = said(&ReaddirReply { eof: 1 });
        (status, body, bytes)
    }

    fn list_xattrs(&self, max: usize) -> Said {
        let (len, mut names) = match self.lie {
            Lie::HugeXattr => (u32::MAX, vec![]),
            Lie::EndlessList => (8, b"user.abc".to_vec()),
            Lie::LongName => (301, [vec![b'x'; 300], vec![0]].concat()),
            _ => (9, b"user.abc\0".to_vec()),
        };
        if max == 0 {
            names.clear();
        }
        Bytes::new(&names).map_or_else(invalid, |names| said(&ListxattrReply { len, names }))
    }

    fn attr(&self, node: NodeId) -> Attr {
        let entry = TREE.iter().find(|(_, known, _)| *known == node);
        let mode = entry.map_or(0o100_600, |(.., mode)| *mode);
        // The client is to have something to begin with.
        let lie = match node == ROOT {
            true => Lie::None,
            false => self.lie,
        };
        let time = Time { sec: 1, nsec: 0 };
        Attr {
            node,
            stamp: 1,
            ino: node.0,
            generation: 0,
            flags: AttrFlags::NONE,
            dev: if lie == Lie::OwnDevice { u64::MAX } else { 1 },
            mount: 0,
            class: FsClass::Regular,
            grant: 0,
            mode: match lie {
                Lie::NoType => mode & 0o7777,
                Lie::EveryType => mode | 0o170_000,
                _ => mode,
            },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev_major: 0,
            rdev_minor: 0,
            blksize: 4096,
            size: match lie {
                Lie::TooLarge => u64::MAX,
                _ => self.contents.len() as u64,
            },
            blocks: 8,
            attributes: 0,
            attributes_mask: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
        }
    }
}
