// SPDX-License-Identifier: GPL-2.0

//! The trait that a file system implements, and its registration.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/fs/super_types.h`](srctree/include/linux/fs/super_types.h)

use core::ptr;
use kernel::{
    error::to_result,
    prelude::*,
    seq_file::SeqFile,
    str::{
        CStr,
        CString, //
    },
    sync::Arc,
    types::Opaque, //
};

use crate::{
    bindings,
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
    inode::{
        Identity,
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
use qtfs_net::Pages;
use qtfs_proto::PollEvents;

/// What a look-up found.
pub enum Found<F: FileSystem> {
    /// The name leads to this inode.
    Inode(InodeRef<F>),
    /// As `Inode`, and HOST has mounted that there: it becomes the root of a mount of its own, see
    /// [`FileSystem::automount`].
    MountRoot(InodeRef<F>),
    /// The name leads to this inode, which is no directory, for the caller alone: nobody else is
    /// to find it in the kernel's cache.
    Private(InodeRef<F>),
    /// Nobody asked: the operation that follows decides.
    Unknown,
}

/// What [`FileSystem::atomic_open`] did.
pub enum AtomicOpen<F: FileSystem> {
    /// The file is open.
    Opened {
        /// Its inode.
        inode: InodeRef<F>,
        /// What the file keeps.
        open: Arc<F::Open>,
        /// Whether the call made it.
        created: bool,
    },
    /// The name was found, the caller goes on with it.
    Found(Found<F>),
}

/// A file system.
///
/// All methods may be called at the same time; the VFS's own locks are named where they matter.
/// Methods may sleep unless they say otherwise.
pub trait FileSystem: Sized + Send + Sync + 'static {
    /// Name, as in `mount -t`.
    const NAME: &'static CStr;
    /// Mount options that are being collected.
    type Options: Send;
    /// What a super block keeps.
    type Mount: Send + Sync;
    /// What an inode keeps.
    type Node: Identity + Send + Sync;
    /// What an open file keeps.
    type Open: Send + Sync;

    /// Options before the first one is parsed.
    fn options() -> Result<Self::Options>;
    /// Takes one option; fails with [`ENOPARAM`] when there is none of that name.
    fn option(options: &mut Self::Options, key: &CStr, value: Option<&CStr>, log: &Log) -> Result;
    /// Mounts what `source` names. Returns what the super block keeps and its root.
    fn mount(
        options: &mut Self::Options,
        source: &CStr,
        log: &Log,
    ) -> Result<(Arc<Self::Mount>, NewInode<Self>)>;
    /// The root has its inode.
    fn mounted(mount: &Self::Mount, root: &Inode<Self>);
    /// Changes the options of a mount.
    fn remount(mount: &Self::Mount, options: &mut Self::Options, log: &Log) -> Result;
    /// `umount -f`: whoever waits must not wait any longer.
    fn abort(mount: &Self::Mount);
    /// The super block is about to go away: no inode of it may be held any more when this returns.
    fn unmounting(mount: &Self::Mount);
    /// The super block goes away; no operation runs or comes any more.
    fn unmounted(mount: &Self::Mount);
    /// Shows the options as `/proc/mounts` has them, each with a comma in front.
    fn show_options(mount: &Self::Mount, seq: &SeqFile);
    /// Shows the counters that `/proc/self/mountstats` has.
    fn show_stats(mount: &Self::Mount, seq: &SeqFile);
    /// Names of the files of a mount in `/sys/fs/NAME/MAJOR:MINOR`, at most 32.
    const COUNTERS: &'static [&'static CStr];
    /// What the file with a number in [`FileSystem::COUNTERS`] says: less than a page.
    fn counter(mount: &Self::Mount, number: usize) -> Result<CString>;
    /// Numbers for `statfs(2)`.
    fn statfs(dentry: &Dentry<Self>) -> Result<Statfs>;
    /// Puts everything on stable storage; dirty pages were written before.
    fn sync(mount: &Self::Mount, root: &Inode<Self>) -> Result;

    /// Initializes what an inode keeps.
    fn node() -> impl PinInit<Self::Node>;
    /// An inode leaves memory. Called from reclaim: may not wait for the network.
    fn evict(inode: &Inode<Self>);

    /// Whether a directory entry still leads to its inode, and is `mounted` as
    /// [`Found::MountRoot`]. Fails with [`ECHILD`] when that cannot
    /// be said without sleeping and `flags` forbid it; `dir` and `name` are the stable ones.
    fn revalidate(
        dir: &Inode<Self>,
        name: &[u8],
        child: Option<&Inode<Self>>,
        mounted: bool,
        flags: LookupFlags,
    ) -> Result<bool>;
    /// Finds a name.
    fn lookup(dir: &Inode<Self>, name: &[u8], flags: LookupFlags) -> Result<Found<Self>>;
    /// What [`Found::MountRoot`] led to at `point` is being mounted there. Returns what the table of
    /// mounts says is mounted.
    fn automount(root: &Inode<Self>, point: &Dentry<Self>) -> Result<CString>;
    /// Finds or makes a file, and opens it. `flags` are `O_*`.
    fn atomic_open(
        dir: &Inode<Self>,
        name: &[u8],
        flags: u32,
        mode: u32,
        file: &File<Self>,
    ) -> Result<AtomicOpen<Self>>;
    /// Makes a nameless file.
    fn tmpfile(
        dir: &Inode<Self>,
        flags: u32,
        mode: u32,
    ) -> Result<(InodeRef<Self>, Arc<Self::Open>)>;
    /// Makes a node of the type in `mode`.
    fn mknod(dir: &Inode<Self>, name: &[u8], mode: u32, rdev: (u32, u32))
        -> Result<InodeRef<Self>>;
    /// Makes a directory.
    fn mkdir(dir: &Inode<Self>, name: &[u8], mode: u32) -> Result<InodeRef<Self>>;
    /// Makes a symlink.
    fn symlink(dir: &Inode<Self>, name: &[u8], text: &CStr) -> Result<InodeRef<Self>>;
    /// Makes a hard link; `source` is an entry of the inode that gets the new name.
    fn link(source: &Dentry<Self>, dir: &Inode<Self>, name: &[u8]) -> Result;
    /// Removes a name.
    fn unlink(dir: &Inode<Self>, name: &[u8], child: &Inode<Self>, directory: bool) -> Result;
    /// Renames `source`; `flags` are `RENAME_*`.
    fn rename(
        dir: &Inode<Self>,
        source: &Inode<Self>,
        name: &[u8],
        new_dir: &Inode<Self>,
        new_name: &[u8],
        replaced: Option<&Inode<Self>>,
        flags: u32,
    ) -> Result;
    /// What a symlink says, without a NUL.
    fn readlink(dentry: &Dentry<Self>) -> Result<KVVec<u8>>;
    /// The path with which the kernel goes on when a program follows a symlink that is not
    /// followed by its text.
    fn follow(dentry: &Dentry<Self>) -> Result<KVVec<u8>>;
    /// Whether the caller may; `mask` is `MAY_*`. Fails with [`ECHILD`] when that cannot be said
    /// without sleeping and `MAY_NOT_BLOCK` is set.
    fn permission(inode: &Inode<Self>, mask: u32) -> Result;
    /// Attributes for `stat(2)`; those of the inode are filled in already.
    fn getattr(dentry: &Dentry<Self>, stat: &mut Stat) -> Result;
    /// Changes attributes.
    fn setattr(dentry: &Dentry<Self>, attr: &SetAttr<'_, Self>) -> Result;

    /// Copies the value of an extended attribute to `buf`, or tells its length when that is empty.
    fn getxattr(
        dentry: Option<&Dentry<Self>>,
        inode: &Inode<Self>,
        name: &[u8],
        buf: &mut [u8],
    ) -> Result<usize>;
    /// Sets (`Some`) or removes (`None`) an extended attribute; `flags` are `XATTR_*`.
    fn setxattr(
        dentry: Option<&Dentry<Self>>,
        inode: &Inode<Self>,
        name: &[u8],
        value: Option<&[u8]>,
        flags: u32,
    ) -> Result;
    /// Copies the names of extended attributes to `buf`, or tells their length when that is empty.
    fn listxattr(dentry: &Dentry<Self>, buf: &mut [u8]) -> Result<usize>;
    /// Inode flags.
    fn fileattr_get(dentry: &Dentry<Self>) -> Result<qtfs_proto::message::InodeFlags>;
    /// Sets inode flags.
    fn fileattr_set(dentry: &Dentry<Self>, flags: &qtfs_proto::message::InodeFlags) -> Result;

    /// Opens a file that was found before.
    fn open(inode: &Inode<Self>, file: &File<Self>) -> Result<Arc<Self::Open>>;
    /// The last reference to an open file goes away.
    fn release(inode: &Inode<Self>, open: &Arc<Self::Open>);
    /// A descriptor is closed.
    fn flush(file: &File<Self>) -> Result;
    /// Reads.
    fn read(iocb: &mut Kiocb<'_, Self>, iter: &mut Iter<'_>) -> Result<usize>;
    /// Writes.
    fn write(iocb: &mut Kiocb<'_, Self>, iter: &mut Iter<'_>) -> Result<usize>;
    /// A mapping is made.
    fn mmap(file: &File<Self>) -> Result;
    /// A mapping is about to be written to. Fails when it must not be, which sends `SIGBUS`.
    fn page_mkwrite(file: &File<Self>) -> Result;
    /// Opens a FIFO: waits for the other end unless the file is not to.
    fn open_fifo(inode: &Inode<Self>, file: &File<Self>) -> Result<Arc<Self::Open>>;
    /// Reads from a FIFO. Returns the number of bytes.
    fn receive(iocb: &Kiocb<'_, Self>, iter: &mut Iter<'_>) -> Result<usize>;
    /// Writes into a FIFO. Returns the number of bytes.
    fn send(iocb: &Kiocb<'_, Self>, iter: &mut Iter<'_>) -> Result<usize>;
    /// Number of bytes that can be read from a FIFO.
    fn queued(file: &File<Self>) -> Result<u32>;
    /// `SEEK_DATA` (`hole` is false) and `SEEK_HOLE`.
    fn seek(file: &File<Self>, offset: u64, hole: bool) -> Result<u64>;
    /// Size as far as it matters to `SEEK_END`.
    fn size(file: &File<Self>) -> Result<u64>;
    /// Puts a range on stable storage; dirty pages were written before.
    fn fsync(file: &File<Self>, start: u64, end: u64, datasync: bool) -> Result;
    /// `fallocate(2)`.
    fn fallocate(file: &File<Self>, mode: u32, offset: u64, len: u64) -> Result;
    /// Copies or shares a range; see [`qtfs_proto::CopyFlags`].
    fn copy(
        source: &File<Self>,
        source_offset: u64,
        dest: &File<Self>,
        dest_offset: u64,
        len: u64,
        flags: qtfs_proto::CopyFlags,
    ) -> Result<u64>;
    /// Takes, releases or tests a lock.
    fn lock(file: &File<Self>, request: &mut LockRequest<'_>) -> Result;
    /// Where whoever waits for an open file waits; nothing for files that are always ready.
    fn poll_queue(open: &Self::Open) -> Option<&PollQueue>;
    /// What a file is ready for. Those who wait in its queue are to be woken at the first of each of
    /// `wake` from now on.
    fn poll(file: &File<Self>, wake: PollEvents) -> Result<PollEvents>;
    /// Lists a directory.
    fn readdir(file: &File<Self>, emitter: &mut DirEmitter<'_>) -> Result;

    /// Reads pages of the cache; `done` is told when they are there. Must not wait for that.
    fn read_pages(
        inode: &Inode<Self>,
        open: Option<&Arc<Self::Open>>,
        pos: u64,
        pages: Pages,
        done: ReadDone,
    );
    /// Reads one range and waits. Returns how many bytes there are.
    fn read_now(
        inode: &Inode<Self>,
        open: Option<&Arc<Self::Open>>,
        pos: u64,
        pages: Pages,
    ) -> Result<usize>;
    /// Writes all dirty pages of an inode and waits until they are on the server, so that the
    /// caller can be killed.
    fn write_out(inode: &Inode<Self>) -> Result;
    /// Writes pages of the cache; `done` is told when they are on the server. Must not wait for
    /// that. With `last` they are the last that the caller has found dirty.
    fn write_pages(inode: &Inode<Self>, pos: u64, pages: Pages, last: bool, done: WriteDone);
}

/// A registered file system; unregistered on drop.
#[pin_data(PinnedDrop)]
pub struct Registration<F: FileSystem> {
    #[pin]
    kind: Opaque<bindings::file_system_type>,
    cache: crate::inode::Cache<F>,
    sysfs: crate::sysfs::Top,
}

// SAFETY: The kernel serialises access to the registered type.
unsafe impl<F: FileSystem> Send for Registration<F> {}
// SAFETY: As above.
unsafe impl<F: FileSystem> Sync for Registration<F> {}

impl<F: FileSystem> Registration<F> {
    /// Registers `F` for the module `owner`.
    pub fn new(owner: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            cache: crate::inode::Cache::new()?,
            sysfs: crate::sysfs::Top::new(F::NAME)?,
            kind <- Opaque::try_ffi_init(|place: *mut bindings::file_system_type| {
                // SAFETY: All bytes zero is the empty type; the place is ours.
                unsafe {
                    ptr::write_bytes(place, 0, 1);
                    (*place).name = F::NAME.as_char_ptr();
                    (*place).owner = owner.as_ptr().cast();
                    (*place).init_fs_context = Some(crate::context::init_fs_context::<F>);
                    (*place).kill_sb = Some(crate::sb::kill_sb::<F>);
                }
                // SAFETY: The type is pinned and lives until `drop` unregisters it.
                to_result(unsafe { bindings::register_filesystem(place) })
            }),
        })
    }
}

#[pinned_drop]
impl<F: FileSystem> PinnedDrop for Registration<F> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered in `new`. No super block is left: each holds the module.
        unsafe {
            bindings::unregister_filesystem(self.kind.get());
            bindings::qtfs_submounts_stop();
        }
    }
}
