// SPDX-License-Identifier: GPL-2.0

//! From a request to the function that executes it.

use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
};
use qtfs_net::Pages;
use qtfs_proto::{
    Attr,
    AttrFlags,
    Encode,
    FileId,
    FsClass,
    Request,
    Time, //
};
use qtfs_vfs::local::{
    cred::Acting,
    stat,
    xattr,
    Cred,
    Path,
    Stat, //
};

use crate::{
    caller::Caller,
    file::OpenFile,
    job::Job,
    node::Node,
    op,
    parking::Parking,
    policy::Policy,
    refusal::{
        Refusal,
        Result, //
    },
    resolve::{
        At,
        Found, //
    },
    server::Server,
    session::Session,
    worker::{
        Reply,
        Worker, //
    },
};

/// What the execution of one request needs.
pub(crate) struct Context<'a> {
    pub(crate) server: &'a Server,
    pub(crate) worker: &'a mut Worker,
    pub(crate) session: &'a Arc<Session>,
    pub(crate) job: &'a Job,
    /// The policy when the execution began.
    pub(crate) policy: Arc<Policy>,
    /// Who asks; the thread acts as them.
    pub(crate) caller: Arc<Caller>,
}

/// What came of a request.
pub(crate) enum Outcome {
    /// The answer.
    Reply(Reply),
    /// It is to be executed again once something has happened.
    Park(Parking),
}

/// Executes a request in the current thread.
pub(crate) fn execute(server: &Server, worker: &mut Worker, job: &Job) -> Result<Outcome> {
    // Decoded once before, so it can be.
    let request = Request::decode(job.op, &job.body)?;
    let caller = job.session.callers.get(job.cred)?;
    let cred = caller.cred(worker.epoch())?;
    let _acting = cred.enter();
    let mut ctx = Context {
        server,
        worker,
        session: &job.session,
        job,
        policy: server.policy(),
        caller,
    };
    let ctx = &mut ctx;
    let reply = match &request {
        Request::Attach(r) => op::attach::attach(ctx, r),
        Request::Release(r) => op::attach::release(ctx, r),
        Request::Lookup(r) => op::lookup::lookup(ctx, r),
        Request::Walk(r) => op::lookup::walk(ctx, r),
        Request::Getattr(r) => op::attr::getattr(ctx, r),
        Request::Setattr(r) => op::attr::setattr(ctx, r),
        Request::Access(r) => op::attr::access(ctx, r),
        Request::Open(r) => op::open::open(ctx, r),
        Request::Read(r) => return op::data::read(ctx, r),
        Request::Write(r) => op::data::write(ctx, r),
        Request::Fsync(r) => op::data::fsync(ctx, r),
        Request::Readdir(r) => op::readdir::readdir(ctx, r),
        Request::Mkdir(r) => op::make::mkdir(ctx, r),
        Request::Mknod(r) => op::make::mknod(ctx, r),
        Request::Symlink(r) => op::make::symlink(ctx, r),
        Request::Link(r) => op::make::link(ctx, r),
        Request::Unlink(r) => op::rename::unlink(ctx, r),
        Request::Rename(r) => op::rename::rename(ctx, r),
        Request::Readlink(r) => op::lookup::readlink(ctx, r),
        Request::Statfs(r) => op::space::statfs(ctx, r),
        Request::Getxattr(r) => op::xattr::get(ctx, r),
        Request::Setxattr(r) => op::xattr::set(ctx, r),
        Request::Removexattr(r) => op::xattr::remove(ctx, r),
        Request::Listxattr(r) => op::xattr::list(ctx, r),
        Request::Lock(r) => return op::lock::lock(ctx, r),
        Request::Testlock(r) => op::lock::test(ctx, r),
        Request::Fallocate(r) => op::space::fallocate(ctx, r),
        Request::Seek(r) => op::space::seek(ctx, r),
        Request::Copy(r) => op::space::copy(ctx, r),
        Request::Getflags(r) => op::attr::getflags(ctx, r),
        Request::Setflags(r) => op::attr::setflags(ctx, r),
        Request::Syncfs(r) => op::space::syncfs(ctx, r),
        Request::Poll(r) => op::open::poll(ctx, r),
        Request::Notify(r) => op::notify::notify(ctx, r),
        Request::Receive(r) => return op::fifo::receive(ctx, r),
        Request::Channel(r) => op::channel::channel(ctx, r),
        Request::Send(r) => op::channel::send(ctx, r),
        // Answered where they are received.
        Request::Hello(_) | Request::Credential(_) | Request::Ping(_) => Err(EOPNOTSUPP.into()),
    };
    reply.map(Outcome::Reply)
}

impl Context<'_> {
    /// Acts as engine itself until the guard is dropped.
    pub(crate) fn as_engine(&self) -> Acting<'_> {
        self.worker.cred().enter()
    }

    /// A credential with which writing removes set-id bits, whoever asks.
    pub(crate) fn stripping_cred(&self) -> Result<Arc<Cred>> {
        let _engine = self.as_engine();
        self.caller.stripping_cred(self.worker.epoch())
    }

    /// A reply without data.
    pub(crate) fn reply(&mut self, body: &dyn Encode) -> Result<Reply> {
        self.worker.reply(body, Pages::new())
    }

    /// A reply with data.
    pub(crate) fn reply_with(&mut self, body: &dyn Encode, data: Pages) -> Result<Reply> {
        self.worker.reply(body, data)
    }

    /// An open file that may be used, for a change or not.
    pub(crate) fn file(&self, id: FileId, change: bool) -> Result<Arc<OpenFile>> {
        let file = self.session.files.get(id)?;
        file.check(&self.policy, change)?;
        Ok(file)
    }

    /// The node of what was found, if the client may know it already.
    pub(crate) fn known(&self, found: &Found<'_>) -> Option<Arc<Node>> {
        match &found.at {
            At::Node(node) => Some(node.clone()),
            At::Entry { .. } => self.session.nodes.find(&found.path.identity()),
        }
    }

    /// The node of what was found.
    pub(crate) fn node(&self, found: &Found<'_>) -> Result<Arc<Node>> {
        match &found.at {
            At::Node(node) => Ok(node.clone()),
            At::Entry { dir, name } => self.session.nodes.entry(*dir, name.bytes(), &found.path),
        }
    }

    /// Attributes of what was found.
    pub(crate) fn attr(&self, found: &Found<'_>) -> Result<Attr> {
        if let At::Node(node) = &found.at {
            return self.attr_of_known(node, &found.path);
        }
        let node = self.node(found)?;
        let result = match self.attr_of(&node, &found.path) {
            // The client forgot the object while it was being looked at.
            Err(refusal) if refusal.error() == ESTALE => {
                self.attr_of(&self.node(found)?, &found.path)
            }
            result => result,
        };
        // A node that the client does not get to know of must not stay.
        result.inspect_err(|_| self.session.nodes.trim(node.id))
    }

    /// Attributes of a node whose object is at `path`, for a reply that makes the client know it.
    pub(crate) fn attr_of(&self, node: &Arc<Node>, path: &Path) -> Result<Attr> {
        let mut attr = self.attributes(node, path)?;
        attr.stamp = self.session.nodes.hand_out(node)?;
        Ok(attr)
    }

    /// The same for a reply to a request that named the node itself. It may be given up without
    /// anybody having read it, and must not make a later FORGET look out of date.
    fn attr_of_known(&self, node: &Arc<Node>, path: &Path) -> Result<Attr> {
        let mut attr = self.attributes(node, path)?;
        attr.stamp = self.session.nodes.stamp(node)?;
        Ok(attr)
    }

    /// The same without a stamp.
    fn attributes(&self, node: &Arc<Node>, path: &Path) -> Result<Attr> {
        let moment = node.version.moment();
        let stat = Stat::of(path)?;
        if !stat.has_type() {
            // A pidfd that is mounted on a file is such an object.
            return Err(EOPNOTSUPP.into());
        }
        let class = op::class::of(path.magic());
        let mut flags = AttrFlags::NONE;
        if class != FsClass::Regular {
            flags = flags.with(AttrFlags::STREAM);
        }
        let mut attributes = stat.attributes();
        if path.is_mount_root() {
            flags = flags.with(AttrFlags::MOUNT_ROOT);
            attributes |= Stat::MOUNT_ROOT;
        }
        if path.is_magic_link() {
            flags = flags.with(AttrFlags::MAGIC_LINK);
        }
        if self.has_no_xattr(path) {
            flags = flags.with(AttrFlags::NO_XATTR);
        }
        let (rdev_major, rdev_minor) = stat.rdev();
        // An open directory stays what it was when its mount is taken away.
        let identity = match path.identity() {
            now if now.same_object(&node.identity) => node.identity,
            now => now,
        };
        Ok(Attr {
            node: node.id,
            stamp: 0,
            ino: stat.ino(),
            generation: identity.generation(),
            flags,
            dev: stat.dev(),
            mount: identity.mount(),
            class,
            grant: 0,
            mode: stat.mode(),
            nlink: stat.nlink(),
            uid: stat.uid(),
            gid: stat.gid(),
            rdev_major,
            rdev_minor,
            blksize: stat.blksize(),
            size: stat.size(),
            blocks: stat.blocks(),
            attributes,
            attributes_mask: stat.attributes_mask() | Stat::MOUNT_ROOT,
            atime: time(stat.atime()),
            mtime: time(stat.mtime()),
            ctime: time(stat.ctime()),
            btime: time(stat.btime()),
            version: node.version.see(stat.cookie(), moment),
        })
    }

    /// Attributes of an open file that the client has.
    pub(crate) fn attr_of_file(&self, file: &OpenFile) -> Result<Attr> {
        self.attr_of_known(&file.node, &file.file().path())
    }

    /// Whether the object is known to have no extended attributes, also none that only root sees.
    fn has_no_xattr(&self, path: &Path) -> bool {
        if !path.is_regular() && !path.is_dir() {
            return false;
        }
        if !op::class::lists_all_xattrs(path.magic()) {
            return false;
        }
        let _engine = self.as_engine();
        matches!(xattr::list(path, &mut []), Ok(0))
    }

    /// Runs `change`, which changes the object of a node, so that the version stays the same if
    /// nobody else changes it.
    pub(crate) fn change<T>(
        &mut self,
        node: &Node,
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        if path.is_dir() {
            return change(self);
        }
        let look = || {
            let cookie = Stat::of(path).ok().map(|stat| stat.cookie());
            (cookie, path.writers() > node.writers.load(Relaxed))
        };
        let changing = node.version.change(look);
        let result = change(self);
        changing.finish(look);
        result
    }

    /// As [`Context::change`], for an object that may have no node.
    pub(crate) fn change_found<T>(
        &mut self,
        found: &Found<'_>,
        change: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        match self.known(found) {
            Some(node) => self.change(&node, &found.path, change),
            None => change(self),
        }
    }
}

/// File systems take nanoseconds from disks and from other machines as they are.
fn time((sec, nsec): stat::Time) -> Time {
    Time {
        sec,
        nsec: nsec.min(999_999_999),
    }
}

/// A request that cannot be meant; the client is asked for nothing else than what it sent.
pub(crate) fn invalid(what: &str) -> Refusal {
    Refusal::new(EINVAL, fmt!("{what}"))
}
