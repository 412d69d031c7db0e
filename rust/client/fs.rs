// SPDX-License-Identifier: GPL-2.0

//! The file system: which function of this crate does what the VFS asks for.

use kernel::{
    prelude::*,
    seq_file::SeqFile,
    str::{
        CStr,
        CString, //
    },
    sync::Arc, //
};
use qtfs_net::Pages;
use qtfs_proto::{
    message::{
        InodeFlags,
        Syncfs, //
    },
    CopyFlags,
    PollEvents, //
};
use qtfs_vfs::{
    cache::{
        ReadDone,
        WriteDone, //
    },
    context::Log,
    dentry::{
        Dentry,
        LookupFlags, //
    },
    file::{
        DirEmitter,
        File, //
    },
    fs::{
        AtomicOpen,
        FileSystem,
        Found, //
    },
    inode::{
        Inode,
        InodeRef,
        NewInode,
        SetAttr,
        Stat, //
    },
    io::{
        Iter,
        Kiocb, //
    },
    lock::LockRequest,
    poll::PollQueue,
    sb::Statfs, //
};

use crate::{
    attr,
    data,
    dir,
    fifo,
    file::{
        self,
        OpenFile, //
    },
    lock,
    mount::{
        self,
        Mount, //
    },
    names,
    node::{
        self,
        Node, //
    },
    notify,
    options::Options,
    own,
    poll,
    space,
    stats,
    xattr, //
};

/// The file system `qtfs`.
pub(crate) struct Qtfs;

impl FileSystem for Qtfs {
    const NAME: &'static CStr = c"qtfs";
    type Options = Options;
    type Mount = Mount;
    type Node = Node;
    type Open = OpenFile;

    fn options() -> Result<Options> {
        Ok(Options::new())
    }

    fn option(options: &mut Options, key: &CStr, value: Option<&CStr>, log: &Log) -> Result {
        options.parse(key, value, log)
    }

    fn mount(
        options: &mut Options,
        source: &CStr,
        log: &Log,
    ) -> Result<(Arc<Mount>, NewInode<Self>)> {
        let mount = Mount::new(options, source, log)?;
        let root = mount::new_inode(&mount.root);
        Ok((mount, root))
    }

    fn mounted(mount: &Mount, root: &Inode<Self>) {
        node::apply(root, &mount.root, mount.session.asked());
    }

    fn remount(mount: &Mount, options: &mut Options, log: &Log) -> Result {
        // Flags of the VFS (ro, rw, …) are changed by the VFS itself.
        options.check_remount(mount, log)
    }

    fn abort(mount: &Mount) {
        mount.session.abort();
    }

    fn unmounting(mount: &Mount) {
        mount.session.notices.close();
    }

    fn unmounted(mount: &Mount) {
        mount.end();
    }

    fn show_options(mount: &Mount, seq: &SeqFile) {
        mount.show_options(seq);
    }

    fn show_stats(mount: &Mount, seq: &SeqFile) {
        mount.session.stats.show(seq, mount.session.in_flight());
    }

    const COUNTERS: &'static [&'static CStr] = stats::FILES;

    fn counter(mount: &Mount, number: usize) -> Result<CString> {
        let session = &mount.session;
        session
            .stats
            .file(number, &session.config, session.in_flight())
    }

    fn statfs(dentry: &Dentry<Self>) -> Result<Statfs> {
        attr::statfs(dentry)
    }

    fn sync(mount: &Mount, root: &Inode<Self>) -> Result {
        if mount.session.is_aborted() {
            return Ok(());
        }
        let mark = mount.session.durable.begin_syncfs();
        let (reply, _) = mount.call(|| {
            Ok(Syncfs {
                node: mount.id(root)?,
            })
        })?;
        reply.decode::<Syncfs>()?;
        if mount.session.durable.end_syncfs(mark) {
            let what = "HOST was rebooted before data that programs wrote was on its disk";
            mount.session.log_error("SYNCFS", EIO, what);
            // sync(2) tells nobody.
            root.tell_syncfs(EIO);
        }
        Ok(())
    }

    fn node() -> impl PinInit<Node> {
        Node::new()
    }

    fn evict(inode: &Inode<Self>) {
        notify::evict(inode);
        let session = &inode.mount().session;
        inode.node().unbind();
        for open in inode.node().take_lingering() {
            open.close(inode.mount());
        }
        if let Some((node, stamp, incarnation)) = inode.node().forget(session) {
            session.releases.forget(session, node, stamp, incarnation);
        }
    }

    fn revalidate(
        dir: &Inode<Self>,
        name: &[u8],
        child: Option<&Inode<Self>>,
        mounted: bool,
        flags: LookupFlags,
    ) -> Result<bool> {
        names::revalidate(dir, name, child, mounted, flags)
    }

    fn lookup(dir: &Inode<Self>, name: &[u8], flags: LookupFlags) -> Result<Found<Self>> {
        names::lookup(dir, name, flags)
    }

    fn automount(root: &Inode<Self>, point: &Dentry<Self>) -> Result<CString> {
        names::automount(root, point)
    }

    fn atomic_open(
        dir: &Inode<Self>,
        name: &[u8],
        flags: u32,
        mode: u32,
        file: &File<Self>,
    ) -> Result<AtomicOpen<Self>> {
        file::atomic_open(dir, name, flags, mode, file)
    }

    fn tmpfile(
        dir: &Inode<Self>,
        flags: u32,
        mode: u32,
    ) -> Result<(InodeRef<Self>, Arc<OpenFile>)> {
        file::tmpfile(dir, flags, mode)
    }

    fn mknod(
        dir: &Inode<Self>,
        name: &[u8],
        mode: u32,
        rdev: (u32, u32),
    ) -> Result<InodeRef<Self>> {
        names::mknod(dir, name, mode, rdev)
    }

    fn mkdir(dir: &Inode<Self>, name: &[u8], mode: u32) -> Result<InodeRef<Self>> {
        names::mkdir(dir, name, mode)
    }

    fn symlink(dir: &Inode<Self>, name: &[u8], text: &CStr) -> Result<InodeRef<Self>> {
        names::symlink(dir, name, text)
    }

    fn link(source: &Dentry<Self>, dir: &Inode<Self>, name: &[u8]) -> Result {
        names::link(source, dir, name)
    }

    fn unlink(dir: &Inode<Self>, name: &[u8], child: &Inode<Self>, directory: bool) -> Result {
        names::unlink(dir, name, child, directory)
    }

    fn rename(
        dir: &Inode<Self>,
        source: &Inode<Self>,
        name: &[u8],
        new_dir: &Inode<Self>,
        new_name: &[u8],
        replaced: Option<&Inode<Self>>,
        flags: u32,
    ) -> Result {
        names::rename(dir, source, name, new_dir, new_name, replaced, flags)
    }

    fn readlink(dentry: &Dentry<Self>) -> Result<KVVec<u8>> {
        attr::readlink(dentry)
    }

    fn follow(dentry: &Dentry<Self>) -> Result<KVVec<u8>> {
        own::follow(dentry)
    }

    fn permission(inode: &Inode<Self>, mask: u32) -> Result {
        attr::permission(inode, mask)
    }

    fn getattr(dentry: &Dentry<Self>, stat: &mut Stat) -> Result {
        attr::getattr(dentry, stat)
    }

    fn setattr(dentry: &Dentry<Self>, changes: &SetAttr<'_, Self>) -> Result {
        attr::setattr(dentry, changes)
    }

    fn getxattr(
        dentry: Option<&Dentry<Self>>,
        inode: &Inode<Self>,
        name: &[u8],
        buf: &mut [u8],
    ) -> Result<usize> {
        xattr::get(dentry, inode, name, buf)
    }

    fn setxattr(
        dentry: Option<&Dentry<Self>>,
        inode: &Inode<Self>,
        name: &[u8],
        value: Option<&[u8]>,
        flags: u32,
    ) -> Result {
        xattr::set(dentry, inode, name, value, flags)
    }

    fn listxattr(dentry: &Dentry<Self>, buf: &mut [u8]) -> Result<usize> {
        xattr::list(dentry, buf)
    }

    fn fileattr_get(dentry: &Dentry<Self>) -> Result<InodeFlags> {
        attr::flags(dentry)
    }

    fn fileattr_set(dentry: &Dentry<Self>, flags: &InodeFlags) -> Result {
        attr::set_flags(dentry, flags)
    }

    fn open(inode: &Inode<Self>, file: &File<Self>) -> Result<Arc<OpenFile>> {
        file::open(inode, file)
    }

    fn release(inode: &Inode<Self>, open: &Arc<OpenFile>) {
        file::release(inode, open);
    }

    fn flush(file: &File<Self>) -> Result {
        file::flush(file)
    }

    fn read(iocb: &mut Kiocb<'_, Self>, iter: &mut Iter<'_>) -> Result<usize> {
        data::read(iocb, iter)
    }

    fn write(iocb: &mut Kiocb<'_, Self>, iter: &mut Iter<'_>) -> Result<usize> {
        data::write(iocb, iter)
    }

    fn mmap(file: &File<Self>) -> Result {
        data::mmap(file)
    }

    fn page_mkwrite(file: &File<Self>) -> Result {
        data::page_mkwrite(file)
    }

    fn open_fifo(inode: &Inode<Self>, file: &File<Self>) -> Result<Arc<OpenFile>> {
        fifo::open(inode, file)
    }

    fn receive(iocb: &Kiocb<'_, Self>, iter: &mut Iter<'_>) -> Result<usize> {
        fifo::receive(iocb, iter)
    }

    fn send(iocb: &Kiocb<'_, Self>, iter: &mut Iter<'_>) -> Result<usize> {
        fifo::send(iocb, iter)
    }

    fn queued(file: &File<Self>) -> Result<u32> {
        fifo::queued(file)
    }

    fn seek(file: &File<Self>, offset: u64, hole: bool) -> Result<u64> {
        space::seek(file, offset, hole)
    }

    fn size(file: &File<Self>) -> Result<u64> {
        data::size(file)
    }

    fn fsync(file: &File<Self>, start: u64, end: u64, datasync: bool) -> Result {
        data::fsync(file, start, end, datasync)
    }

    fn fallocate(file: &File<Self>, mode: u32, offset: u64, len: u64) -> Result {
        space::fallocate(file, mode, offset, len)
    }

    fn copy(
        source: &File<Self>,
        source_offset: u64,
        dest: &File<Self>,
        dest_offset: u64,
        len: u64,
        flags: CopyFlags,
    ) -> Result<u64> {
        space::copy(source, source_offset, dest, dest_offset, len, flags)
    }

    fn lock(file: &File<Self>, request: &mut LockRequest<'_>) -> Result {
        lock::lock(file, request)
    }

    fn poll_queue(open: &OpenFile) -> Option<&PollQueue> {
        open.pollable.then_some(&open.polled.queue)
    }

    fn poll(file: &File<Self>, wake: PollEvents) -> Result<PollEvents> {
        poll::poll(file, wake)
    }

    fn readdir(file: &File<Self>, emitter: &mut DirEmitter<'_>) -> Result {
        dir::readdir(file, emitter)
    }

    fn read_pages(
        inode: &Inode<Self>,
        open: Option<&Arc<OpenFile>>,
        pos: u64,
        pages: Pages,
        done: ReadDone,
    ) {
        data::read_pages(inode, open, pos, pages, done);
    }

    fn read_now(
        inode: &Inode<Self>,
        open: Option<&Arc<OpenFile>>,
        pos: u64,
        pages: Pages,
    ) -> Result<usize> {
        data::read_now(inode, open, pos, pages)
    }

    fn write_out(inode: &Inode<Self>) -> Result {
        data::write_out(inode)
    }

    fn write_pages(inode: &Inode<Self>, pos: u64, pages: Pages, last: bool, done: WriteDone) {
        data::write_pages(inode, pos, pages, last, done);
    }
}
