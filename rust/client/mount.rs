// SPDX-License-Identifier: GPL-2.0

//! What a mount keeps, and how its inodes get their ids.

use core::marker::PhantomData;
use kernel::{
    new_mutex,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    str::CStr,
    sync::{
        Arc,
        Mutex, //
    },
};
use qtfs_net::{
    Pages,
    Thread, //
};
use qtfs_proto::{
    message::{
        Attach,
        Call,
        Walk, //
    },
    Attr,
    AttrFlags,
    NodeId,
    Op,
    Path, //
};
use qtfs_vfs::{
    context::Log,
    inode::{
        AnonymousDevice,
        Device,
        Inode,
        InodeRef,
        Key,
        NewInode, //
    },
    param::Level,
};

use crate::{
    fs::Qtfs,
    node,
    options::{
        Mode,
        Options,
        Shown,
        Text,
        LOCAL_PROC, //
    },
    place,
    session::{
        request::{
            Asked,
            Reply,
            LOST,
            UNSENT, //
        },
        Config,
        Session,
        Wait, //
    },
};

/// How often an operation is begun anew because the server lost the session meanwhile.
const TRIES: usize = 8;

/// What a mount keeps.
#[pin_data]
pub(crate) struct Mount {
    /// The connection to the server.
    pub(crate) session: Arc<Session>,
    /// What ATTACH said at first.
    pub(crate) root: Attr,
    /// What kind of directory it is.
    pub(crate) mode: Mode,
    /// Where this machine's own procfs is.
    pub(crate) local_proc: KVVec<u8>,
    /// Threads of the session; taken when the mount ends.
    #[pin]
    threads: Mutex<KVec<Thread>>,
    /// Device numbers of file systems on HOST other than that of the root.
    #[pin]
    devices: Mutex<KVVec<(u64, AnonymousDevice)>>,
}

impl Mount {
    /// Connects, and finds the directory that `source` names.
    pub(crate) fn new(options: &Options, source: &CStr, log: &Log) -> Result<Arc<Self>> {
        let mut path = KVVec::new();
        path.extend_from_slice(source.to_bytes(), GFP_KERNEL)?;
        if path.first() != Some(&b'/') {
            let what = "name a directory of HOST by its absolute path";
            log.error(fmt!("{}: {what}", Text(&path)));
            return Err(EINVAL);
        }
        let server = options.server(log)?;
        let config = Config {
            server,
            path,
            lanes: options.nconnect(),
            timeout: options.timeout(),
        };
        let (session, threads) = Session::start(config).inspect_err(|&e| {
            log.error(fmt!("HOST {server} cannot be reached: {}", Why(e)));
        })?;
        let attached = attach(&session, session.incarnation(), Wait::Killable).inspect_err(|&e| {
            let path = Text(&session.config.path);
            log.error(fmt!("{path} on HOST {server}: {}", Why(e)));
        });
        let checked = attached.and_then(|root| {
            let mode = options.mode(root.class).inspect_err(|_| {
                let path = Text(&session.config.path);
                log.error(fmt!("{path} on HOST {server}: {}", options.why_other()));
            })?;
            Ok((root, mode, options.local_proc()?))
        });
        let (root, mode, local_proc) = match checked {
            Ok(checked) => checked,
            Err(e) => {
                session.stop();
                drop(threads);
                return Err(e);
            }
        };
        let mount = Arc::pin_init(
            pin_init!(Self {
                session,
                root,
                mode,
                local_proc,
                threads <- new_mutex!(threads),
                devices <- new_mutex!(KVVec::new()),
            }),
            GFP_KERNEL,
        )?;
        Ok(mount)
    }

    /// Ends the session.
    pub(crate) fn end(&self) {
        self.session.stop();
        let threads = core::mem::take(&mut *self.threads.lock());
        drop(threads);
    }

    /// Shows the options as `/proc/mounts` has them.
    pub(crate) fn show_options(&self, seq: &SeqFile) {
        let config = &self.session.config;
        match config.server {
            qtfs_net::Address::V4([a, b, c, d], _) => {
                seq_print!(seq, ",server={}.{}.{}.{}", a, b, c, d);
            }
            qtfs_net::Address::V6(addr, _) => {
                seq_print!(seq, ",server=");
                for (i, pair) in addr.chunks_exact(2).enumerate() {
                    let [high, low] = pair else { continue };
                    let colon = if i > 0 { ":" } else { "" };
                    seq_print!(seq, "{}{:x}", colon, u16::from_be_bytes([*high, *low]));
                }
            }
        }
        seq_print!(
            seq,
            ",port={},nconnect={}",
            config.server.port(),
            config.lanes
        );
        match config.timeout {
            Some(ms) => seq_print!(seq, ",soft,timeo={}", ms / 100),
            None => seq_print!(seq, ",hard"),
        }
        match self.mode {
            Mode::Plain => {}
            Mode::Proc => seq_print!(seq, ",proc"),
            Mode::Sys => seq_print!(seq, ",sys"),
        }
        if self.mode == Mode::Proc || self.local_proc.as_slice() != LOCAL_PROC {
            seq_print!(seq, ",local_proc={}", Shown(&self.local_proc));
        }
    }

    /// The device number that programs see for a file system on HOST: one for each, as far as they go.
    pub(crate) fn device(&self, root: Device, dev: u64) -> Result<Device> {
        if dev == self.root.dev {
            return Ok(root);
        }
        let mut devices = self.devices.lock();
        if let Some((_, device)) = devices.iter().find(|(known, _)| *known == dev) {
            return Ok(device.device());
        }
        if devices.len() >= MAX_DEVICES {
            return Ok(root);
        }
        let new = AnonymousDevice::new()?;
        let device = new.device();
        devices.push((dev, new), GFP_KERNEL)?;
        Ok(device)
    }

    /// Sends what `build` makes, as the current caller, and waits for the reply. When the server
    /// loses the session meanwhile, ids are found again and the request is made anew; the second
    /// value tells that a request which must not be repeated may have been executed before.
    pub(crate) fn call<C: Call>(&self, build: impl FnMut() -> Result<C>) -> Result<(Reply, bool)> {
        self.call_into(None, Wait::Killable, build)
    }

    /// As [`Mount::call`], for what would do harm if it were executed twice.
    ///
    /// Fails with [`EIO`] when the server lost the session after the request was sent: whether it
    /// was executed is not known then.
    pub(crate) fn call_once<C: Call>(&self, mut build: impl FnMut() -> Result<C>) -> Result<Reply> {
        for _ in 0..TRIES {
            let incarnation = self.session.incarnation();
            let result = build().and_then(|call| {
                self.session
                    .exchange(&call, None, Wait::Killable, incarnation)
            });
            match result {
                Err(e) if e == UNSENT => {}
                Err(e) if e == LOST => {
                    let what = "HOST lost the session; whether it was executed is not known";
                    self.session.log_error(C::OP.name(), EIO, what);
                    return Err(EIO);
                }
                result => return result,
            }
        }
        Err(EIO)
    }

    /// As [`Mount::call`], waiting as `wait` says; the data section of the reply goes to `sink`.
    pub(crate) fn call_into<C: Call>(
        &self,
        sink: Option<&Arc<Pages>>,
        wait: Wait,
        mut build: impl FnMut() -> Result<C>,
    ) -> Result<(Reply, bool)> {
        let mut repeated = false;
        for _ in 0..TRIES {
            let incarnation = self.session.incarnation();
            let result = build().and_then(|call| {
                self.session
                    .exchange(&call, sink.cloned(), wait, incarnation)
            });
            match result {
                Err(e) if e == LOST => repeated = true,
                Err(e) if e == UNSENT => {}
                Ok(reply) => return Ok((reply, repeated)),
                Err(e) => return Err(e),
            }
        }
        Err(EIO)
    }

    /// The id of an inode in the current session; finds it again when it is from an older one.
    pub(crate) fn id(&self, inode: &Inode<Qtfs>) -> Result<NodeId> {
        self.id_within(inode, Wait::Killable)
    }

    /// As [`Mount::id`], waiting as `wait` says.
    pub(crate) fn id_within(&self, inode: &Inode<Qtfs>, wait: Wait) -> Result<NodeId> {
        if inode.node().is_own() {
            return Err(EOPNOTSUPP);
        }
        if let Some(id) = inode.node().id(&self.session) {
            return Ok(id);
        }
        let incarnation = self.session.incarnation();
        let root = attach(&self.session, incarnation, wait)?;
        let root_id = root.node;
        // An entry that is held while HOST is asked would be in use when the mount ends.
        let path = inode.with_alias(place::path).unwrap_or(Err(ESTALE));
        // The root, whose path is empty, stands for whatever is there.
        let found = path.and_then(|path| match path.as_slice() {
            [] => Ok((root, true)),
            path => {
                let walk = Walk {
                    root: root_id,
                    path: Path::new(path).map_err(|_| ESTALE)?,
                };
                let reply = self.as_root(&walk, incarnation, wait)?;
                Ok((reply.decode::<Walk<'_>>()?.attr, false))
            }
        });
        let (attr, is_root) = match found {
            Err(e) if e == ENOENT || e == ENOTDIR => return Err(ESTALE),
            other => other?,
        };
        // HOST may have mounted anew what the object lies on.
        let same = key(&attr).is_same_object(&inode.node().identity());
        if !(same || is_root) || attr.mode & S_IFMT != inode.kind() {
            self.session.forget(&attr, incarnation);
            return Err(ESTALE);
        }
        node::adopt(inode, &attr, incarnation);
        Ok(attr.node)
    }

    /// Sends a request with root's identity.
    fn as_root<C: Call>(&self, call: &C, incarnation: u32, wait: Wait) -> Result<Reply> {
        let none = Arc::new(Pages::new(), GFP_KERNEL)?;
        self.session
            .exchange_as(call, None, none, None, wait, incarnation)
    }

    /// The inode of what a reply told, found or made.
    pub(crate) fn inode(
        &self,
        any: &Inode<Qtfs>,
        attr: &Attr,
        asked: Asked,
    ) -> Result<InodeRef<Qtfs>> {
        let inode = any.get(new_inode(attr)).inspect_err(|_| {
            self.session.forget(attr, asked.incarnation);
        })?;
        node::apply(&inode, attr, asked);
        Ok(inode)
    }
}

/// Most file systems of HOST that a mount tells apart. This machine has 2^20 numbers in all.
const MAX_DEVICES: usize = 1 << 14;

/// Bits of the mode that are the type.
pub(crate) const S_IFMT: u32 = 0o170_000;

/// What identifies the object that `attr` is of.
pub(crate) fn key(attr: &Attr) -> Key {
    Key {
        dev: attr.dev,
        mount: attr.mount,
        ino: attr.ino,
        generation: attr.generation,
    }
}

/// What the inode of `attr` is made from.
pub(crate) fn new_inode(attr: &Attr) -> NewInode<Qtfs> {
    NewInode {
        key: key(attr),
        mode: attr.mode,
        rdev: (attr.rdev_major, attr.rdev_minor),
        magic: attr.flags.has(AttrFlags::MAGIC_LINK),
        kind: PhantomData,
    }
}

fn attach(session: &Arc<Session>, incarnation: u32, wait: Wait) -> Result<Attr> {
    let call = Attach {
        path: Path::new(&session.config.path).map_err(|_| ENAMETOOLONG)?,
    };
    let none = Arc::new(Pages::new(), GFP_KERNEL)?;
    let reply = session.exchange_as(&call, None, none, None, wait, incarnation)?;
    if reply.status != 0 && !reply.body.is_empty() {
        // What the server says is better than what can be guessed here.
        let (name, text) = (Op::Attach.name(), Text(reply.text()));
        session.log(Level::Error, fmt!("{name}: {text}"));
    }
    let reply = reply.decode::<Attach<'_>>()?;
    if reply.attr.mode & S_IFMT != 0o040_000 {
        return Err(ENOTDIR);
    }
    Ok(reply.attr)
}

/// Explains why a mount failed, and what to do.
struct Why(Error);

impl kernel::fmt::Display for Why {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        let e = self.0;
        f.write_str(if e == ECONNREFUSED {
            "nobody listens there; load qtfs_server.ko with this address and port"
        } else if e == ETIMEDOUT || e == EHOSTUNREACH || e == ENETUNREACH {
            "no answer; check the address, the link and the firewall"
        } else if e == EHOSTDOWN {
            "engine is not running there; start it with: engine"
        } else if e == EUSERS {
            "it has as many clients as it takes; umount some, or wait a minute"
        } else if e == EPROTONOSUPPORT {
            "it speaks another version; install the same qtfs on both machines"
        } else if e == EPROTO {
            "what answers there is no qtfs server"
        } else if e == ENOENT {
            "no such directory there; make it, or correct the path"
        } else if e == ENOTDIR {
            "not a directory there; name one"
        } else if e == EACCES {
            "not exported; add it to /etc/qtfs/engine.toml there and reload engine"
        } else {
            return write!(f, "{e:?}; the kernel log of HOST may say more");
        })
    }
}
