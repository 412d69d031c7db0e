// SPDX-License-Identifier: GPL-2.0

//! What an open file keeps, and its id on the server, which may lose it.

use core::ops::Deref;
use core::sync::atomic::{
    AtomicBool,
    AtomicU32,
    AtomicU64,
    AtomicUsize,
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
        Call,
        Open,
        OpenReply,
        Release, //
    },
    FileId,
    List,
    OpenFlags,
    Opened,
    Target, //
};
use qtfs_vfs::{
    flags::kind,
    inode::Inode,
    task::{
        self,
        Moment, //
    },
};

use crate::{
    dir::{
        Listing,
        Window, //
    },
    fs::Qtfs,
    mount::{
        Mount,
        S_IFMT, //
    },
    node,
    poll::Polled,
    session::{
        request::Reply,
        Acting,
        Session,
        Wait, //
    },
};

/// In [`OpenFile::uses`]: it is closed as soon as nobody borrows it.
const CLOSED: u32 = 1 << 31;

/// Contents that came with the opening. They are what one read would have returned at that moment,
/// and good for as long as the task that opened the file has waited for nothing.
pub(crate) struct First {
    /// Until they have been read.
    pub(super) pages: Option<Arc<Pages>>,
    pub(super) len: usize,
    /// HOST said that nothing follows.
    pub(super) end: bool,
    pub(super) moment: Moment,
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
    /// The task that closes its last descriptor, until it has written what is dirty; or 0.
    closer: AtomicUsize,
    /// See [`OpenFile::leaves`].
    leaves: AtomicBool,
    /// The server has closed it with such a WRITE.
    left: AtomicBool,
    /// How many [`Borrowed`] there are, and [`CLOSED`].
    uses: AtomicU32,
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
    pub(super) fn new(
        mount: &Mount,
        reply: &OpenReply,
        incarnation: u32,
        flags: OpenFlags,
        stream: bool,
    ) -> Result<Arc<Self>> {
        let acting = mount
            .session
            .credentials
            .current(&mount.session, Wait::Killable)?;
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
                closer: AtomicUsize::new(0),
                leaves: AtomicBool::new(false),
                left: AtomicBool::new(false),
                uses: AtomicU32::new(0),
                again <- new_mutex!(()),
                window <- new_mutex!(Window::default()),
                listing,
                first <- new_mutex!(None),
                pollable: reply.opened.has(Opened::POLL)
                    && reply.attr.mode & S_IFMT != kind::DIRECTORY,
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
        self.id_within(mount, inode, Wait::Killable)
    }

    /// As [`OpenFile::id`], waiting as `wait` says.
    pub(crate) fn id_within(
        &self,
        mount: &Mount,
        inode: &Inode<Qtfs>,
        wait: Wait,
    ) -> Result<FileId> {
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
        session.credentials.register(session, &self.acting, wait)?;
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
            target: Target::node(mount.id_within(inode, wait)?),
            flags: self.flags.without(once.with(waits)),
            mode: 0,
            umask: 0,
            want: 0,
        };
        let none = Arc::new(Pages::new(), GFP_KERNEL)?;
        let cred = Some(self.acting.clone());
        let reply = session.exchange_as(&message, cred, none, None, wait, incarnation)?;
        let reply = reply.decode::<Open<'_>>()?;
        if !reply.opened.has(Opened::OPENED) {
            return Err(ESTALE);
        }
        node::adopt(inode, &reply.attr, incarnation);
        self.id.store(reply.file.0, Ordering::Release);
        self.incarnation.store(incarnation, Ordering::Release);
        Ok(reply.file)
    }

    /// Sends what `build` makes of the id, with the identity of who opened the file, and waits for
    /// the reply, whose data goes to `sink`.
    ///
    /// Fails as [`is_lost`](crate::session::request::is_lost) says when the server loses the session
    /// meanwhile, for the caller to decide whether to ask anew.
    pub(crate) fn exchange<C: Call>(
        &self,
        inode: &Inode<Qtfs>,
        data: Arc<Pages>,
        sink: Option<Arc<Pages>>,
        wait: Wait,
        build: impl FnOnce(FileId) -> C,
    ) -> Result<Reply> {
        let mount = inode.mount();
        let session = &mount.session;
        let incarnation = session.incarnation();
        let call = build(self.id_within(mount, inode, wait)?);
        session.credentials.register(session, &self.acting, wait)?;
        session.exchange_as(
            &call,
            Some(self.acting.clone()),
            data,
            sink,
            wait,
            incarnation,
        )
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

    /// It is closed, but for data that is to be written.
    pub(super) fn linger(&self) {
        self.lingers.store(true, Ordering::Release);
    }

    /// Whether [`OpenFile::linger`] was called.
    pub(crate) fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Acquire)
    }

    /// Calls `write`, which writes what is dirty while the current task closes the last descriptor:
    /// the server may close the file together with it.
    pub(super) fn write_last<R>(&self, inode: &Inode<Qtfs>, write: impl FnOnce() -> R) -> R {
        // The kernel releases locks of the process after this, by this file.
        let is_locked = self.locked.load(Ordering::Acquire) || inode.node().has_locked_ranges();
        if !is_locked {
            self.closer.store(task::current_id(), Ordering::Release);
        }
        let result = write();
        self.closer.store(0, Ordering::Release);
        result
    }

    /// What is written now is the last through this file: makes the server close it with that, if
    /// the current task is in [`OpenFile::write_last`] and nobody else uses the file.
    pub(crate) fn leave(&self) -> bool {
        let leaves = self.closer.load(Ordering::Acquire) == task::current_id()
            && self.uses.load(Ordering::Acquire) == 1;
        if leaves {
            self.leaves.store(true, Ordering::Release);
        }
        leaves
    }

    /// The server closes it with a WRITE that is on its way, so that `close(2)` of a file that was
    /// just written costs no round trip of its own.
    pub(crate) fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Acquire)
    }

    /// The server has closed it.
    pub(crate) fn has_left(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// Tells the server to close the file, and waits for a moment until it has. When `close(2)`
    /// returns, others see what it changed at the other end of a FIFO, and HOST can execute the
    /// program that was written, or unmount the file system that it is on.
    pub(super) fn close_now(&self, mount: &Mount) {
        let session = &mount.session;
        if self.uses.fetch_or(CLOSED, Ordering::AcqRel) != 0 || self.left.load(Ordering::Acquire) {
            return;
        }
        let incarnation = self.incarnation.load(Ordering::Acquire);
        let id = FileId(self.id.load(Ordering::Acquire));
        let closed = (|| {
            if !session.is_connected() {
                return Err(EHOSTUNREACH);
            }
            let mut bytes = [0; 8];
            let release = Release {
                files: List::pack([id], &mut bytes).map_err(|_| EINVAL)?,
                nodes: List::pack([], &mut []).map_err(|_| EINVAL)?,
            };
            let none = Arc::new(Pages::new(), GFP_KERNEL)?;
            session.exchange_as(&release, None, none, None, Wait::Briefly, incarnation)
        })();
        if closed.is_err() {
            // Perhaps once more, which does no harm: ids are never used again.
            self.release(session);
        }
    }

    /// Tells the server to close the file, without waiting, as soon as nobody borrows it.
    pub(crate) fn close(&self, mount: &Mount) {
        if self.uses.fetch_or(CLOSED, Ordering::AcqRel) == 0 {
            self.release(&mount.session);
        }
    }

    fn release(&self, session: &Session) {
        if self.left.load(Ordering::Acquire) {
            return;
        }
        let incarnation = self.incarnation.load(Ordering::Acquire);
        let id = FileId(self.id.load(Ordering::Acquire));
        session.releases.close(session, id, incarnation);
    }
}

/// An open file that somebody else has opened. Until this is dropped the server does not close it:
/// a RELEASE could overtake what goes by another connection.
pub(crate) struct Borrowed {
    open: Arc<OpenFile>,
    session: Arc<Session>,
}

impl Borrowed {
    /// Callers see to it that the file is not closed at this moment.
    pub(crate) fn new(open: Arc<OpenFile>, session: &Arc<Session>) -> Self {
        open.uses.fetch_add(1, Ordering::AcqRel);
        Self {
            open,
            session: session.clone(),
        }
    }
}

impl Deref for Borrowed {
    type Target = Arc<OpenFile>;

    fn deref(&self) -> &Self::Target {
        &self.open
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if self.open.uses.fetch_sub(1, Ordering::AcqRel) == CLOSED + 1 {
            self.open.release(&self.session);
        }
    }
}
