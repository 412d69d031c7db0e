// SPDX-License-Identifier: GPL-2.0

//! Open files: opening by name or by identity, and opening again after the server lost them.

use core::sync::atomic::{
    AtomicBool,
    AtomicU32,
    AtomicU64,
    Ordering, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};
use qtfs_net::Pages;
use qtfs_proto::{
    message::{
        Lookup,
        Open,
        OpenReply,
        Release, //
    },
    AttrFlags,
    FileId,
    FsClass,
    List,
    LookupFlags,
    OpenFlags,
    Opened,
    Target, //
};
use qtfs_vfs::{
    file::File,
    flags::{
        kind,
        open_flags, //
    },
    fs::AtomicOpen,
    inode::{
        Inode,
        InodeRef, //
    },
    task::{
        umask,
        Moment, //
    },
};

use crate::{
    data,
    dir::{
        self,
        Listing,
        Window, //
    },
    fs::Qtfs,
    mount::{
        Mount,
        S_IFMT, //
    },
    names, node, own,
    place::{
        self,
        Place, //
    },
    poll::Polled,
    session::{
        request::Asked,
        Acting,
        Wait, //
    },
};

/// Bytes of entries that come with the opening of a directory.
const FIRST_LISTING: usize = 256 * 1024;

/// Bytes of contents that come with the opening of a file whose contents are made at read time.
const FIRST_BYTES: usize = 16 * 1024;

/// Contents that came with the opening. They are what one read would have returned at that moment,
/// and good for as long as the task that opened the file has waited for nothing.
pub(crate) struct First {
    /// Until they have been read.
    pages: Option<Arc<Pages>>,
    len: usize,
    /// HOST said that nothing follows.
    end: bool,
    moment: Moment,
}

impl First {
    /// What a read of `len` bytes at `pos` returns, if it need not ask: how many bytes, and where
    /// they are if there are any.
    pub(crate) fn take(&mut self, pos: u64, len: usize) -> Option<(usize, Option<Arc<Pages>>)> {
        if !self.moment.lasts() {
            return None;
        }
        match &self.pages {
            Some(_) if pos == 0 && len >= self.len => Some((self.len, self.pages.take())),
            None if pos == self.len as u64 && self.end => Some((0, None)),
            _ => None,
        }
    }
}

/// What an open file keeps.
#[pin_data]
pub(crate) struct OpenFile {
    /// Id on the server, and the incarnation of the session in which it means this file.
    id: AtomicU64,
    incarnation: AtomicU32,
    /// How the server has it open.
    pub(crate) flags: OpenFlags,
    /// Contents are made at read time.
    pub(crate) stream: bool,
    /// Who opened it.
    pub(crate) acting: Acting,
    /// Where the last read through the page cache ended.
    pub(crate) last_end: AtomicU64,
    /// The server cut the file when it opened it.
    truncated: AtomicBool,
    /// A program holds a lock through it, as far as this machine knows.
    locked: AtomicBool,
    /// The server has lost such a lock, and with it the program's reason to believe what it reads.
    lock_lost: AtomicBool,
    /// It is closed, but data that was written through it is not on the server yet.
    lingers: AtomicBool,
    /// Taken by whoever opens the file again.
    #[pin]
    again: Mutex<()>,
    /// The part of the directory that is being listed.
    #[pin]
    pub(crate) window: Mutex<Window>,
    /// What the listing told.
    pub(crate) listing: Arc<Listing>,
    /// Contents that came with the opening.
    #[pin]
    pub(crate) first: Mutex<Option<First>>,
    /// Programs can wait for it; others are always ready.
    pub(crate) pollable: bool,
    /// The server takes it for a FIFO.
    pub(crate) is_fifo: bool,
    /// Who waits for it.
    #[pin]
    pub(crate) polled: Polled,
}

impl OpenFile {
    fn new(
        mount: &Mount,
        reply: &OpenReply,
        incarnation: u32,
        flags: OpenFlags,
        stream: bool,
    ) -> Result<Arc<Self>> {
        let acting = mount.session.credentials.current(&mount.session)?;
        let listing = Arc::new(Listing::new(), GFP_KERNEL)?;
        let polled = Polled::new(incarnation);
        let this = Arc::pin_init(
            pin_init!(Self {
                id: AtomicU64::new(reply.file.0),
                incarnation: AtomicU32::new(incarnation),
                flags,
                stream,
                acting,
                last_end: AtomicU64::new(0),
                truncated: AtomicBool::new(flags.has(OpenFlags::TRUNC)),
                locked: AtomicBool::new(false),
                lock_lost: AtomicBool::new(false),
                lingers: AtomicBool::new(false),
                again <- new_mutex!(()),
                window <- new_mutex!(Window::default()),
                listing,
                first <- new_mutex!(None),
                pollable: reply.opened.has(Opened::POLL),
                is_fifo: reply.attr.mode & S_IFMT == kind::FIFO,
                polled <- polled,
            }),
            GFP_KERNEL,
        )?;
        Ok(this)
    }

    /// The id in the current session; opens the file again when it is from an older one.
    ///
    /// Fails with [`EIO`] when a lock was lost with the older one, until it is released.
    pub(crate) fn id(&self, mount: &Mount, inode: &Inode<Qtfs>) -> Result<FileId> {
        let session = &mount.session;
        let current = || {
            (self.incarnation.load(Ordering::Acquire) == session.incarnation())
                .then(|| FileId(self.id.load(Ordering::Acquire)))
        };
        if self.lock_lost.load(Ordering::Acquire) {
            return Err(EIO);
        }
        if let Some(id) = current() {
            return Ok(id);
        }
        let _again = self.again.lock();
        if let Some(id) = current() {
            return Ok(id);
        }
        if self.locked.load(Ordering::Acquire) {
            let what = "HOST lost a lock that a program holds; its file fails until it is unlocked";
            session.log_error("LOCK", EIO, what);
            self.lock_lost.store(true, Ordering::Release);
            return Err(EIO);
        }
        let incarnation = session.incarnation();
        session.credentials.register(session, &self.acting)?;
        let once = OpenFlags::CREATE
            .with(OpenFlags::EXCL)
            .with(OpenFlags::TRUNC)
            .with(OpenFlags::TMPFILE);
        // A FIFO that nobody reads is an error when it is written to, not here.
        let waits = match self.is_fifo {
            true => OpenFlags::NONBLOCK,
            false => OpenFlags::NONE,
        };
        let message = Open {
            target: Target::node(mount.id(inode)?),
            flags: self.flags.without(once.with(waits)),
            mode: 0,
            umask: 0,
            want: 0,
        };
        let none = Arc::new(Pages::new(), GFP_KERNEL)?;
        let cred = self.acting.index();
        let reply = session.exchange_as(&message, cred, none, None, Wait::Killable, incarnation)?;
        let reply = reply.decode::<Open<'_>>()?;
        if !reply.opened.has(Opened::OPENED) {
            return Err(ESTALE);
        }
        node::adopt(inode, &reply.attr, incarnation);
        self.id.store(reply.file.0, Ordering::Release);
        self.incarnation.store(incarnation, Ordering::Release);
        Ok(reply.file)
    }

    /// Whether the server cut the file when it opened it. Once only.
    pub(crate) fn take_truncated(&self) -> bool {
        self.truncated.swap(false, Ordering::AcqRel)
    }

    /// A lock through it was granted (`true`), or all of them were released.
    pub(crate) fn set_locked(&self, locked: bool) {
        self.locked.store(locked, Ordering::Release);
        if !locked {
            self.lock_lost.store(false, Ordering::Release);
        }
    }

    /// Whether a lock through it was lost.
    pub(crate) fn has_lost_lock(&self) -> bool {
        self.lock_lost.load(Ordering::Acquire)
    }

    /// Whether it is closed but for data that is to be written.
    pub(crate) fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Acquire)
    }

    /// Tells the server to close the file, and waits for a moment until it has: what others see of
    /// the other end of a FIFO has changed when `close(2)` returns.
    fn close_now(&self, mount: &Mount) {
        let session = &mount.session;
        let incarnation = self.incarnation.load(Ordering::Acquire);
        let id = FileId(self.id.load(Ordering::Acquire));
        let closed = (|| {
            let mut bytes = [0; 8];
            let release = Release {
                files: List::pack([id], &mut bytes).map_err(|_| EINVAL)?,
                nodes: List::pack([], &mut []).map_err(|_| EINVAL)?,
            };
            let none = Arc::new(Pages::new(), GFP_KERNEL)?;
            session.exchange_as(&release, 0, none, None, Wait::Briefly, incarnation)
        })();
        if closed.is_err() {
            // Perhaps once more, which does no harm: ids are never used again.
            self.close(mount);
        }
    }

    /// Tells the server to close the file, without waiting.
    pub(crate) fn close(&self, mount: &Mount) {
        let session = &mount.session;
        let incarnation = self.incarnation.load(Ordering::Acquire);
        let id = FileId(self.id.load(Ordering::Acquire));
        session.releases.close(session, id, incarnation);
    }
}

/// What the server is asked for when a program opens with `flags`.
///
/// The page cache reads what a write does not cover, so files for writing are opened for reading
/// too. When the caller may not read, [`sent`] tries again without.
/// Files whose contents are made at read time (`stream`) have no page cache, and some of them cannot
/// be opened for reading by anybody.
fn wanted(flags: u32, stream: bool) -> OpenFlags {
    let flags = open_flags(flags);
    let write = flags.has(OpenFlags::WRITE) && !stream;
    flags.with_if(write, OpenFlags::READ)
}

/// Room for contents that may come with the opening, which there is when the file is opened for
/// reading alone and its contents are made at read time.
fn first_bytes(program: u32, stream: bool) -> Result<Option<Arc<Pages>>> {
    let flags = open_flags(program);
    let not = OpenFlags::WRITE;
    let reads = flags.has(OpenFlags::READ) && !flags.has(not) && !flags.has(OpenFlags::DIRECTORY);
    if !stream || !reads {
        return Ok(None);
    }
    Ok(Some(Arc::new(Pages::alloc(FIRST_BYTES)?, GFP_KERNEL)?))
}

/// What came of an OPEN.
struct Sent {
    reply: OpenReply,
    /// The open file; none when the object is not to be opened on the server.
    open: Option<Arc<OpenFile>>,
    asked: Asked,
}

/// Sends an OPEN and makes the open file. `build` gives the request for the given flags.
fn sent<'a>(
    mount: &Mount,
    program: u32,
    stream: bool,
    sink: Option<&Arc<Pages>>,
    mut build: impl FnMut(OpenFlags) -> Result<Open<'a>>,
) -> Result<Sent> {
    let mut flags = wanted(program, stream);
    loop {
        let (reply, repeated) = mount.call_into(sink, Wait::Killable, || build(flags))?;
        let moment = Moment::now();
        let (data_len, asked) = (reply.data_len, reply.asked);
        let reply = match reply.decode::<Open<'_>>() {
            Err(e) if e == EEXIST && repeated => {
                let what = "HOST lost the session; whether the file was made here is not known";
                mount.session.log_error("OPEN", EIO, what);
                return Err(EIO);
            }
            // So says sysfs of a file that nobody can read.
            Err(e) if (e == EACCES || e == EINVAL) && flags != open_flags(program) => {
                flags = open_flags(program);
                continue;
            }
            other => other?,
        };
        if !reply.opened.has(Opened::OPENED) {
            return Ok(Sent {
                reply,
                open: None,
                asked,
            });
        }
        let created = reply.opened.has(Opened::CREATED);
        // A new file is not cut afterwards.
        let kept = if created {
            flags.without(OpenFlags::TRUNC)
        } else {
            flags
        };
        let stream = reply.opened.has(Opened::STREAM) || reply.attr.flags.has(AttrFlags::STREAM);
        let incarnation = asked.incarnation;
        let open = OpenFile::new(mount, &reply, incarnation, kept, stream).inspect_err(|_| {
            let releases = &mount.session.releases;
            releases.close(&mount.session, reply.file, incarnation);
        })?;
        if let Some(sink) = sink.filter(|_| data_len > 0 || reply.opened.has(Opened::EOF)) {
            let end = reply.opened.has(Opened::EOF);
            if reply.attr.mode & S_IFMT == kind::DIRECTORY {
                *open.window.lock() = Window::first(sink.to_vec(data_len)?, end, asked);
            } else {
                open.polled.set_unread(reply.attr.class != FsClass::Proc);
                if data_len < sink.len() {
                    *open.first.lock() = Some(First {
                        pages: Some(sink.clone()),
                        len: data_len,
                        end,
                        moment,
                    });
                }
            }
        }
        return Ok(Sent {
            reply,
            open: Some(open),
            asked,
        });
    }
}

/// What every open does at its end.
fn begin(inode: &Inode<Qtfs>, open: &Arc<OpenFile>) -> Result {
    close_lingering(inode);
    let result = inode.node().opened(open).and_then(|()| {
        if open.stream {
            if let Some(first) = &*open.first.lock() {
                inode.node().set_fresh_at(first.moment);
            }
        }
        if inode.is_regular() && !open.stream {
            data::refresh(inode)?;
        }
        Ok(())
    });
    if result.is_err() {
        release(inode, open);
    }
    result
}

pub(crate) fn open(inode: &Inode<Qtfs>, file: &File<Qtfs>) -> Result<Arc<OpenFile>> {
    let mount = inode.mount();
    let node = inode.node();
    if node.is_own() {
        // So that lsns(8) goes on: it takes a namespace that it cannot ask for one of others.
        return Err(EACCES);
    }
    let second = node.is_second_try();
    let place = if second {
        Place::anywhere()
    } else {
        Place::of(file.dentry(), true)
    };
    let program = file.flags();
    let once = OpenFlags::CREATE.with(OpenFlags::EXCL);
    let truncates = open_flags(program).has(OpenFlags::TRUNC);
    if truncates && inode.is_regular() && inode.is_dirty() {
        data::write_out(inode)?;
    }
    // opendir(3) opens like this; its listing may begin at once.
    let opendir = OpenFlags::DIRECTORY.with(OpenFlags::NONBLOCK);
    let lists = inode.is_dir() && open_flags(program).has(opendir);
    let stream = inode.is_regular() && !node.is_of(FsClass::Regular);
    let sink = match lists {
        true => Some(Arc::new(Pages::alloc(FIRST_LISTING)?, GFP_KERNEL)?),
        false => first_bytes(program, stream)?,
    };
    let want = sink.as_ref().map_or(0, |sink| sink.len() as u32);
    let result = sent(mount, program, stream, sink.as_ref(), |flags| {
        Ok(Open {
            target: place.target(mount, inode)?,
            flags: flags.without(once).with_if(lists, OpenFlags::LIST),
            mode: 0,
            umask: 0,
            want,
        })
    });
    let Sent { reply, open, asked } = match result {
        Err(e) if e == ESTALE && !second => {
            node.note_try();
            return Err(e);
        }
        other => other?,
    };
    let open = open.ok_or(ESTALE)?;
    if crate::mount::key(&reply.attr) != node.identity() {
        open.close(mount);
        return Err(ESTALE);
    }
    node::apply(inode, &reply.attr, asked);
    begin(inode, &open)?;
    file.allow_direct();
    if lists {
        dir::learn(file, &open, &open.window.lock());
    }
    Ok(open)
}

/// Opens a FIFO, without waiting. Returns whether it waits for the other end.
pub(crate) fn open_fifo(inode: &Inode<Qtfs>, file: &File<Qtfs>) -> Result<(Arc<OpenFile>, bool)> {
    let mount = inode.mount();
    let once = OpenFlags::CREATE.with(OpenFlags::EXCL);
    let Sent { reply, open, asked } = sent(mount, file.flags(), true, None, |flags| {
        Ok(Open {
            target: Target::node(mount.id(inode)?),
            flags: flags.without(once.with(OpenFlags::TRUNC)),
            mode: 0,
            umask: 0,
            want: 0,
        })
    })?;
    let open = open.ok_or(ESTALE)?;
    if crate::mount::key(&reply.attr) != inode.node().identity() || !open.is_fifo {
        open.close(mount);
        return Err(ESTALE);
    }
    node::apply(inode, &reply.attr, asked);
    begin(inode, &open)?;
    Ok((open, reply.opened.has(Opened::ALONE)))
}

pub(crate) fn atomic_open(
    dir: &Inode<Qtfs>,
    bytes: &[u8],
    program: u32,
    mode: u32,
    file: &File<Qtfs>,
) -> Result<AtomicOpen<Qtfs>> {
    if let Some(found) = own::lookup(dir, bytes)? {
        return Ok(AtomicOpen::Found(found));
    }
    let mount = dir.mount();
    let (name, umask) = (place::name(bytes)?, umask());
    if dir.node().is_second_try() {
        // The directory is not where it was; the look-up finds it by its identity.
        let flags = LookupFlags::REBIND;
        let (reply, _) = mount.call(|| {
            Ok(Lookup {
                dir: mount.id(dir)?,
                name,
                flags,
            })
        })?;
        if let Ok(found) = reply.decode::<Lookup<'_>>() {
            let (attr, incarnation) = (found.attr, reply.asked.incarnation);
            let session = &mount.session;
            session
                .releases
                .forget(session, attr.node, attr.stamp, incarnation);
        }
    }
    let stream = !dir.node().is_of(FsClass::Regular);
    let sink = first_bytes(program, stream)?;
    let want = sink.as_ref().map_or(0, |sink| sink.len() as u32);
    let result = sent(mount, program, stream, sink.as_ref(), |flags| {
        Ok(Open {
            target: Target::entry(mount.id(dir)?, name, qtfs_proto::NodeId::NONE),
            flags,
            mode: mode & 0o7777,
            umask,
            want,
        })
    });
    if matches!(&result, Err(e) if *e == ESTALE) {
        dir.node().note_try();
    }
    let Sent { reply, open, asked } = result?;
    let created = reply.opened.has(Opened::CREATED);
    if created {
        dir.node().changed(&mount.session);
    }
    let inode = mount.inode(dir, &reply.attr, asked).inspect_err(|_| {
        if let Some(open) = &open {
            open.close(mount);
        }
    })?;
    let open = match open {
        // The kernel does not ask whether the caller may cross mount points once a file is open.
        Some(open) if names::is_mount_root(&reply.attr) => {
            open.close(mount);
            None
        }
        open => open,
    };
    let Some(open) = open else {
        return Ok(AtomicOpen::Found(names::found(inode, &reply.attr)));
    };
    begin(&inode, &open)?;
    file.allow_direct();
    Ok(AtomicOpen::Opened {
        inode,
        open,
        created,
    })
}

pub(crate) fn tmpfile(
    dir: &Inode<Qtfs>,
    program: u32,
    mode: u32,
) -> Result<(InodeRef<Qtfs>, Arc<OpenFile>)> {
    let mount = dir.mount();
    let umask = umask();
    // O_TMPFILE contains O_DIRECTORY, which is about the directory that is named.
    let Sent { reply, open, asked } = sent(mount, program, false, None, |flags| {
        Ok(Open {
            target: Target::node(mount.id(dir)?),
            flags: flags.without(OpenFlags::DIRECTORY).with(OpenFlags::TMPFILE),
            mode: mode & 0o7777,
            umask,
            want: 0,
        })
    })?;
    let open = open.ok_or(EIO)?;
    let inode = mount
        .inode(dir, &reply.attr, asked)
        .inspect_err(|_| open.close(mount))?;
    begin(&inode, &open)?;
    Ok((inode, open))
}

/// The last reference to an open file goes away.
pub(crate) fn release(inode: &Inode<Qtfs>, open: &Arc<OpenFile>) {
    open.listing.end();
    open.polled.end(&inode.mount().session);
    if open.flags.has(OpenFlags::WRITE) && inode.is_regular() && inode.is_dirty() {
        // Programs that mapped the file may have written after its descriptors were closed. Errors
        // of HOST stay with the inode for fsync(2); nobody can be told here.
        if data::write_out(inode).is_err() {
            // The program is being killed, or HOST is away. What it wrote still goes there by
            // this file, which is closed once nothing is left.
            open.lingers.store(true, Ordering::Release);
            close_lingering(inode);
            return;
        }
    }
    inode.node().closed(open);
    if open.is_fifo {
        open.close_now(inode.mount());
    } else {
        open.close(inode.mount());
    }
}

/// Closes the files that only waited for data to be written, if it is.
pub(crate) fn close_lingering(inode: &Inode<Qtfs>) {
    if inode.is_dirty() {
        return;
    }
    for open in inode.node().take_lingering() {
        open.close(inode.mount());
    }
}

/// A descriptor is closed: what was written must be on the server, or the program be told.
pub(crate) fn flush(file: &File<Qtfs>) -> Result {
    let inode = file.inode();
    if !file.writable() || !inode.is_regular() {
        return Ok(());
    }
    data::write_out(inode)?;
    inode.take_write_error()
}
