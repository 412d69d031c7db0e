// SPDX-License-Identifier: GPL-2.0

//! Super blocks.
//!
//! C header: [`include/linux/fs/super_types.h`](srctree/include/linux/fs/super_types.h)

use core::marker::PhantomData;
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    seq_file::SeqFile,
    sync::Arc, //
};

use crate::{
    bindings,
    dentry::{
        self,
        Dentry, //
    },
    fs::FileSystem,
    inode::{
        self,
        Inode,
        NewInode, //
    },
    sysfs,
    xattr,
    Table, //
};

/// Number of pages that are read ahead: four requests of the largest size.
const READ_AHEAD_PAGES: usize = 4 * qtfs_proto::MAX_DATA / qtfs_net::pages::PAGE_SIZE;
/// Number of pages of one request.
const IO_PAGES: usize = qtfs_proto::MAX_DATA / qtfs_net::pages::PAGE_SIZE;

/// Numbers of a file system, as `struct kstatfs`.
pub type Statfs = qtfs_proto::message::StatfsReply;

/// The table of functions of `F`'s super blocks.
struct Ops<F>(PhantomData<F>);

impl<F: FileSystem> Ops<F> {
    const TABLE: &'static Table<bindings::super_operations> = &Table({
        let mut ops: bindings::super_operations = pin_init::zeroed();
        ops.alloc_inode = Some(inode::alloc_inode::<F>);
        ops.free_inode = Some(inode::free_inode::<F>);
        ops.evict_inode = Some(inode::evict_inode::<F>);
        ops.sync_fs = Some(sync_fs::<F>);
        ops.statfs = Some(statfs::<F>);
        ops.umount_begin = Some(umount_begin::<F>);
        ops.show_options = Some(show_options::<F>);
        ops.show_stats = Some(show_stats::<F>);
        ops
    });
}

/// What a super block keeps.
struct Info<F: FileSystem> {
    /// Goes before the mount.
    sysfs: Option<sysfs::Directory<F>>,
    mount: Arc<F::Mount>,
}

/// Gives a super block what it keeps.
///
/// # Safety
///
/// `sb` is new, and ours.
pub(crate) unsafe fn keep<F: FileSystem>(
    sb: *mut bindings::super_block,
    mount: Arc<F::Mount>,
) -> Result {
    // SAFETY: The file system is registered as long as there are super blocks of it. The mount is
    // kept until the directory is gone, see `Info`.
    let sysfs = unsafe { sysfs::Directory::<F>::new((*sb).s_dev, &mount) };
    let info = sysfs.and_then(|sysfs| {
        let info = Info::<F> {
            sysfs: Some(sysfs),
            mount: mount.clone(),
        };
        Ok(KBox::new(info, GFP_KERNEL)?)
    });
    let info = info.inspect_err(|_| F::unmounted(&mount))?;
    // SAFETY: By this function's requirements; `kill_sb` takes it back.
    unsafe { (*sb).s_fs_info = KBox::into_raw(info).cast() };
    Ok(())
}

/// The mount that a super block keeps.
///
/// # Safety
///
/// `sb` is a super block of `F` that was filled, and it outlives the reference.
pub(crate) unsafe fn mount<'a, F: FileSystem>(sb: *mut bindings::super_block) -> &'a F::Mount {
    // SAFETY: `keep` left a box of this type, which `kill_sb` takes back.
    unsafe { &(*(*sb).s_fs_info.cast::<Info<F>>()).mount }
}

/// Whether a super block is one of `F`.
///
/// # Safety
///
/// `sb` is alive.
pub(crate) unsafe fn is_of<F: FileSystem>(sb: *mut bindings::super_block) -> bool {
    // SAFETY: By this function's requirements.
    core::ptr::eq(unsafe { (*sb).s_op }, &raw const Ops::<F>::TABLE.0)
}

/// Fills a new super block and makes its root.
///
/// # Safety
///
/// `sb` is new, ours, and has its `s_fs_info`.
pub(crate) unsafe fn fill<F: FileSystem>(
    sb: *mut bindings::super_block,
    root: NewInode<F>,
) -> Result {
    // SAFETY: By this function's requirements.
    unsafe {
        (*sb).s_magic = u64::from(qtfs_proto::MAGIC) as c_ulong;
        (*sb).s_op = &raw const Ops::<F>::TABLE.0;
        (*sb).s_xattr = xattr::handlers::<F>();
        (*sb).s_maxbytes = bindings::MAX_LFS_FILESIZE;
        (*sb).s_time_gran = 1;
        (*sb).s_blocksize = 4096;
        (*sb).s_blocksize_bits = 12;
        (*sb).s_flags |= bindings::SB_POSIXACL | bindings::SB_NOATIME;
        (*sb).s_iflags |= bindings::SB_I_NOIDMAP as c_ulong;
        to_result(bindings::super_setup_bdi(sb))?;
        (*(*sb).s_bdi).ra_pages = READ_AHEAD_PAGES as c_ulong;
        (*(*sb).s_bdi).io_pages = IO_PAGES as c_ulong;
        bindings::set_default_d_op(sb, dentry::operations::<F>());
        let root = Inode::<F>::get_in(sb, root)?;
        F::mounted(mount::<F>(sb), &root);
        (*sb).s_root = bindings::d_make_root(root.into_raw());
        if (*sb).s_root.is_null() {
            return Err(ENOMEM);
        }
    }
    Ok(())
}

/// # Safety
///
/// Called by the VFS when the last reference to the super block is gone.
pub(crate) unsafe extern "C" fn kill_sb<F: FileSystem>(sb: *mut bindings::super_block) {
    // SAFETY: The super block stays alive until `kill_anon_super` was called; `s_fs_info` is what
    // `keep` left, or null when it did not come so far.
    unsafe {
        bindings::qtfs_aliases_detach(sb);
        let info = (*sb).s_fs_info.cast::<Info<F>>();
        if info.is_null() {
            return bindings::kill_anon_super(sb);
        }
        // The next mount may get the device number, and with it the name of the directory.
        let sysfs = (*info).sysfs.take();
        drop(sysfs);
        F::unmounting(&(*info).mount);
        bindings::kill_anon_super(sb);
        let info = KBox::from_raw(info);
        F::unmounted(&info.mount);
    }
}

/// # Safety
///
/// Called by the VFS with a super block of `F`.
unsafe extern "C" fn sync_fs<F: FileSystem>(sb: *mut bindings::super_block, wait: c_int) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says; a super block that is synced has a root.
        unsafe {
            if wait != 0 && !(*sb).s_root.is_null() {
                F::sync(mount::<F>(sb), Inode::from_raw((*(*sb).s_root).d_inode))?;
            }
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with a dentry of `F` and a place for the result.
unsafe extern "C" fn statfs<F: FileSystem>(
    dentry: *mut bindings::dentry,
    out: *mut bindings::kstatfs,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        let numbers = F::statfs(unsafe { Dentry::from_raw(dentry) })?;
        // SAFETY: As the VFS says; it zeroed the place.
        unsafe {
            (*out).f_type = numbers.kind as c_long;
            (*out).f_bsize = numbers.bsize as c_long;
            (*out).f_frsize = numbers.frsize as c_long;
            (*out).f_blocks = numbers.blocks;
            (*out).f_bfree = numbers.bfree;
            (*out).f_bavail = numbers.bavail;
            (*out).f_files = numbers.files;
            (*out).f_ffree = numbers.ffree;
            (*out).f_fsid.val = [numbers.fsid as i32, (numbers.fsid >> 32) as i32];
            (*out).f_namelen = numbers.namelen as c_long;
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with a super block of `F`.
unsafe extern "C" fn umount_begin<F: FileSystem>(sb: *mut bindings::super_block) {
    // SAFETY: As the VFS says.
    F::abort(unsafe { mount::<F>(sb) });
}

/// # Safety
///
/// Called by the VFS with the root of a mount of `F`.
unsafe extern "C" fn show_options<F: FileSystem>(
    seq: *mut bindings::seq_file,
    root: *mut bindings::dentry,
) -> c_int {
    // SAFETY: As the VFS says; the kernel crate's type is the same C structure.
    unsafe { F::show_options(mount::<F>((*root).d_sb), SeqFile::from_raw(seq.cast())) };
    0
}

/// # Safety
///
/// Called by the VFS with the root of a mount of `F`.
unsafe extern "C" fn show_stats<F: FileSystem>(
    seq: *mut bindings::seq_file,
    root: *mut bindings::dentry,
) -> c_int {
    // SAFETY: As in `show_options`.
    unsafe {
        let sb = (*root).d_sb;
        // Mounts of what HOST has mounted below it are counted with it.
        if core::ptr::eq(root, (*sb).s_root) || !bindings::qtfs_d_is_root(root) {
            F::show_stats(mount::<F>(sb), SeqFile::from_raw(seq.cast()));
        }
    }
    0
}
