// SPDX-License-Identifier: GPL-2.0

//! A server in a few lines: sessions, slots and a set of names, so that the probe is tested
//! without the kernel module. `Faults` are what the probe has to find.

use qtfs_probe::conn::frame;
use qtfs_probe::table::encode;
use qtfs_proto::frame::flag;
use qtfs_proto::frame::HEADER_LEN;
use qtfs_proto::message::*;
use qtfs_proto::*;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Leaves connections open after a bad message.
    pub(crate) lenient: bool,
    /// Executes again what was sent again.
    pub(crate) forgetful: bool,
}

#[derive(Default)]
struct State {
    next: u128,
    sessions: BTreeMap<[u8; 16], Session>,
    names: BTreeSet<Vec<u8>>,
}

type Session = BTreeMap<u16, (u32, Vec<u8>)>;

pub(crate) fn start(faults: Faults) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new(State::default()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let state = state.clone();
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let ended = serve(&mut stream, &state, faults);
                if ended.is_none() && faults.lenient {
                    // Until the other end has had enough.
                    let _ = stream.read_to_end(&mut Vec::new());
                    std::thread::sleep(std::time::Duration::from_secs(2));
                }
            });
        }
    });
    address
}

fn receive(stream: &mut TcpStream) -> Option<(Header, Vec<u8>, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).ok()?;
    let header = Header::read(&head).ok()?;
    let (mut body, mut data) = (vec![0; header.body_len], vec![0; header.data_len]);
    stream.read_exact(&mut body).ok()?;
    stream.read_exact(&mut data).ok()?;
    Some((header, body, data))
}

/// Until the connection or the session ends.
fn serve(stream: &mut TcpStream, state: &Mutex<State>, faults: Faults) -> Option<()> {
    let mut session = None;
    loop {
        let (header, body, _) = receive(stream)?;
        let request = Request::decode(Op::try_from(header.op).ok()?, &body).ok()?;
        if header.kind == Kind::Cancel {
            continue;
        }
        let reply = match (request, session) {
            (Request::Hello(hello), _) => {
                let reply = say_hello(&mut state.lock().unwrap(), &hello)?;
                session = Some(reply.session);
                send(header, 0, &encode(&reply).unwrap())
            }
            (_, None) => return None,
            (request, Some(id)) => {
                let mut state = state.lock().unwrap();
                let (seq, kept) = state
                    .sessions
                    .get(&id)?
                    .get(&header.slot)
                    .cloned()
                    .unwrap_or_default();
                let again = header.seq == seq && header.flags & flag::RETRANSMIT != 0;
                if again && !faults.forgetful && !request.op().repeatable() {
                    kept
                } else if again || header.seq == seq.wrapping_add(1) {
                    let (status, body) = execute(&mut state, &request);
                    let reply = send(header, status, &body);
                    let slot = (header.seq, reply.clone());
                    state.sessions.get_mut(&id)?.insert(header.slot, slot);
                    reply
                } else if seq.wrapping_sub(header.seq) as i32 > 0 {
                    continue;
                } else {
                    return None;
                }
            }
        };
        stream.write_all(&reply).ok()?;
    }
}

fn send(request: Header, status: u32, body: &[u8]) -> Vec<u8> {
    let header = Header {
        kind: Kind::Reply,
        status,
        cred: 0,
        flags: 0,
        ..request
    };
    frame(header, body, &[]).unwrap()
}

fn say_hello(state: &mut State, hello: &Hello<'_>) -> Option<HelloReply> {
    if hello.magic != MAGIC {
        return None;
    }
    state.next += 1;
    let known = state.sessions.contains_key(&hello.session);
    let id = if known {
        hello.session
    } else {
        state.next.to_le_bytes()
    };
    state.sessions.entry(id).or_default();
    Some(HelloReply {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        version: if hello.version_min <= VERSION_MAX {
            VERSION_MAX
        } else {
            0
        },
        features: 0,
        max_data: hello.max_data,
        slots: hello.slots.min(MAX_SLOTS),
        session: id,
        ttl: 60_000,
        boot: 1,
    })
}

fn execute(state: &mut State, request: &Request<'_>) -> (u32, Vec<u8>) {
    const ENOENT: u32 = 2;
    const EEXIST: u32 = 17;
    const EOPNOTSUPP: u32 = 95;
    let attr = Reader::new(&[7; 8].repeat(40)).get::<u64>().map(|node| {
        let zeros = [0; 400];
        let mut attr: Attr = Reader::new(&zeros).get().unwrap();
        attr.node = NodeId(node);
        attr
    });
    let attr = attr.unwrap();
    match request {
        Request::Ping(_) => (0, vec![]),
        Request::Attach(_) => (0, encode(&AttachReply { attr, read_only: 1 }).unwrap()),
        Request::Lookup(r) if state.names.contains(r.name.bytes()) => {
            (0, encode(&LookupReply { attr }).unwrap())
        }
        Request::Lookup(_) => (ENOENT, b"there is no such name".to_vec()),
        Request::Mkdir(r) if state.names.insert(r.name.bytes().into()) => {
            (0, encode(&MkdirReply { attr }).unwrap())
        }
        Request::Mkdir(_) => (EEXIST, vec![]),
        Request::Unlink(r) if state.names.remove(r.name.bytes()) => {
            (0, encode(&UnlinkReply { nlink: 0 }).unwrap())
        }
        Request::Unlink(_) => (ENOENT, vec![]),
        _ => (EOPNOTSUPP, vec![]),
    }
}
