// SPDX-License-Identifier: GPL-2.0

//! Open files, and the functions that the VFS calls on them.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

use crate::{
    bindings,
    cache,
    dentry::Dentry,
    fs::FileSystem,
    inode::Inode,
    io,
    lock,
    poll,
    Table, //
};
use qtfs_proto::CopyFlags;

/// A `struct file` of the file system `F`.
///
/// Its private data is an `Arc<F::Open>`, or null as long as it is not open.
#[repr(transparent)]
pub struct File<F: FileSystem>(Opaque<bindings::file>, PhantomData<F>);

impl<F: FileSystem> File<F> {
    /// # Safety
    ///
    /// `raw` is a live file of `F` and outlives the reference.
    pub(crate) unsafe fn from_raw<'a>(raw: *mut bindings::file) -> &'a Self {
        // SAFETY: By this function's requirements.
        unsafe { &*raw.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::file {
        self.0.get()
    }

    /// `O_*` flags, as `fcntl(2)` may have changed them.
    pub fn flags(&self) -> u32 {
        // SAFETY: The file is alive.
        unsafe { (*self.as_raw()).f_flags }
    }

    /// Whether nothing may wait (`O_NONBLOCK`).
    pub fn is_nonblocking(&self) -> bool {
        self.flags() & bindings::O_NONBLOCK != 0
    }

    /// Whether the file is open for writing.
    pub fn writable(&self) -> bool {
        // SAFETY: The file is alive.
        unsafe { (*self.as_raw()).f_mode & bindings::FMODE_WRITE != 0 }
    }

    /// Whether the descriptor that [`FileSystem::flush`] is called for is the last, and nothing maps
    /// the file: it is released next.
    pub fn is_last(&self) -> bool {
        // SAFETY: The file is alive.
        unsafe { bindings::qtfs_file_is_last(self.as_raw()) }
    }

    /// Lets the caller open it with `O_DIRECT`.
    pub fn allow_direct(&self) {
        // SAFETY: The file is being opened, so nobody else uses its mode.
        unsafe { (*self.as_raw()).f_mode |= bindings::FMODE_CAN_ODIRECT };
    }

    /// The inode.
    pub fn inode(&self) -> &Inode<F> {
        // SAFETY: An open file holds its inode.
        unsafe { Inode::from_raw(bindings::qtfs_file_inode(self.as_raw())) }
    }

    /// The directory entry.
    pub fn dentry(&self) -> &Dentry<F> {
        // SAFETY: An open file holds its entry.
        unsafe { Dentry::from_raw(bindings::qtfs_file_dentry(self.as_raw())) }
    }

    /// What the open file keeps.
    ///
    /// Fails with [`EBADF`] when it is not one of ours, as a device node's is not.
    pub fn open(&self) -> Result<&Arc<F::Open>> {
        // SAFETY: The private data of an open file is set once and stays until `release`. An
        // `Arc` is one pointer, so the field can be seen as one.
        unsafe {
            let field = &raw const (*self.as_raw()).private_data;
            if (*field).is_null() {
                return Err(EBADF);
            }
            Ok(&*field.cast::<Arc<F::Open>>())
        }
    }
}

/// Calls `f` with the open file behind a descriptor of the current task, which must be one of `F`, and
/// no device node, socket or `O_PATH` descriptor.
///
/// Fails with [`EBADF`] when it is none.
pub fn with_fd<F: FileSystem, R>(fd: i32, f: impl FnOnce(&File<F>) -> Result<R>) -> Result<R> {
    // SAFETY: Looks into the current task's table; `O_PATH` descriptors are not found. The reference
    // is put below.
    let file = unsafe { bindings::fget(fd as c_uint) };
    if file.is_null() {
        return Err(EBADF);
    }
    // SAFETY: The file is held, and with it its inode. Files of these types on `F` have functions of
    // `F`, and what they keep.
    let result = unsafe {
        let inode = bindings::qtfs_file_inode(file);
        let kind = u32::from((*inode).i_mode) & bindings::S_IFMT;
        let opened = [bindings::S_IFREG, bindings::S_IFDIR, bindings::S_IFIFO].contains(&kind);
        match opened && crate::sb::is_of::<F>((*inode).i_sb) {
            true => f(File::from_raw(file)),
            false => Err(EBADF),
        }
    };
    // SAFETY: Taken above.
    unsafe { bindings::fput(file) };
    result
}

/// Sets what `file` keeps.
///
/// # Safety
///
/// `file` is a file of `F` that keeps nothing and is not open yet.
pub(crate) unsafe fn set_open<F: FileSystem>(
    file: *mut bindings::file,
    open: Option<Arc<F::Open>>,
) {
    let raw = match open {
        // SAFETY: An `Arc` is one pointer that is not null.
        Some(open) => unsafe { core::mem::transmute::<Arc<F::Open>, *mut c_void>(open) },
        None => ptr::null_mut(),
    };
    // SAFETY: By this function's requirements.
    unsafe { (*file).private_data = raw };
}

/// Takes what `file` keeps.
///
/// # Safety
///
/// `file` is a file of `F` that nobody else uses.
pub(crate) unsafe fn take_open<F: FileSystem>(file: *mut bindings::file) -> Option<Arc<F::Open>> {
    // SAFETY: By this function's requirements; see `set_open`.
    unsafe {
        let raw = (*file).private_data;
        (*file).private_data = ptr::null_mut();
        if raw.is_null() {
            None
        } else {
            Some(core::mem::transmute::<*mut c_void, Arc<F::Open>>(raw))
        }
    }
}

/// The tables of functions of `F`'s files.
struct Ops<F>(PhantomData<F>);

impl<F: FileSystem> Ops<F> {
    const REGULAR: &'static Table<bindings::file_operations> = &Table({
        let mut ops: bindings::file_operations = pin_init::zeroed();
        ops.open = Some(open::<F>);
        ops.release = Some(release::<F>);
        ops.flush = Some(flush::<F>);
        ops.llseek = Some(llseek::<F>);
        ops.read_iter = Some(io::read_iter::<F>);
        ops.write_iter = Some(io::write_iter::<F>);
        ops.splice_read = Some(bindings::copy_splice_read);
        ops.splice_write = Some(bindings::iter_file_splice_write);
        ops.mmap_prepare = Some(cache::mmap_prepare::<F>);
        ops.fsync = Some(fsync::<F>);
        ops.fallocate = Some(fallocate::<F>);
        ops.copy_file_range = Some(copy_file_range::<F>);
        ops.remap_file_range = Some(remap_file_range::<F>);
        ops.lock = Some(lock::lock::<F>);
        ops.flock = Some(lock::lock::<F>);
        ops
    });

    /// As `REGULAR`, for files that can be waited for.
    const POLLABLE: &'static Table<bindings::file_operations> = &Table({
        let mut ops = Self::REGULAR.0;
        ops.poll = Some(poll::poll::<F>);
        ops
    });

    const FIFO: &'static Table<bindings::file_operations> = &Table({
        let mut ops: bindings::file_operations = pin_init::zeroed();
        ops.open = Some(open_fifo::<F>);
        ops.release = Some(release::<F>);
        ops.read_iter = Some(io::receive_iter::<F>);
        ops.write_iter = Some(io::send_iter::<F>);
        ops.splice_read = Some(bindings::copy_splice_read);
        ops.splice_write = Some(bindings::iter_file_splice_write);
        ops.poll = Some(poll::poll::<F>);
        ops.unlocked_ioctl = Some(fifo_ioctl::<F>);
        ops.compat_ioctl = Some(fifo_ioctl::<F>);
        ops.lock = Some(lock::lock::<F>);
        ops.flock = Some(lock::lock::<F>);
        ops
    });

    const DIRECTORY: &'static Table<bindings::file_operations> = &Table({
        let mut ops: bindings::file_operations = pin_init::zeroed();
        ops.open = Some(open::<F>);
        ops.release = Some(release::<F>);
        ops.llseek = Some(bindings::generic_file_llseek);
        ops.read = Some(bindings::generic_read_dir);
        ops.iterate_shared = Some(iterate_shared::<F>);
        ops.fsync = Some(fsync::<F>);
        ops.lock = Some(lock::lock::<F>);
        ops.flock = Some(lock::lock::<F>);
        ops
    });
}

pub(crate) fn regular<F: FileSystem>() -> *const bindings::file_operations {
    &raw const Ops::<F>::REGULAR.0
}

pub(crate) fn pollable<F: FileSystem>() -> *const bindings::file_operations {
    &raw const Ops::<F>::POLLABLE.0
}

pub(crate) fn fifo<F: FileSystem>() -> *const bindings::file_operations {
    &raw const Ops::<F>::FIFO.0
}

pub(crate) fn directory<F: FileSystem>() -> *const bindings::file_operations {
    &raw const Ops::<F>::DIRECTORY.0
}

/// # Safety
///
/// Called by the VFS with an inode of `F` and a file that is being opened.
unsafe extern "C" fn open<F: FileSystem>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            let open = F::open(Inode::from_raw(inode), File::from_raw(file))?;
            set_open::<F>(file, Some(open));
            poll::allow::<F>(file);
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with the inode of a FIFO of `F` and a file that is being opened.
unsafe extern "C" fn open_fifo<F: FileSystem>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            bindings::stream_open(inode, file);
            let open = F::open_fifo(Inode::from_raw(inode), File::from_raw(file))?;
            set_open::<F>(file, Some(open));
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with an open FIFO of `F`.
unsafe extern "C" fn fifo_ioctl<F: FileSystem>(
    file: *mut bindings::file,
    cmd: c_uint,
    arg: c_ulong,
) -> c_long {
    let result = (|| {
        if cmd != bindings::FIONREAD {
            return Err(ENOTTY);
        }
        // SAFETY: As the VFS says.
        let queued = F::queued(unsafe { File::from_raw(file) })?;
        // SAFETY: The address is checked.
        to_result(unsafe { bindings::qtfs_put_int(arg, queued as c_int) })
    })();
    result.map_or_else(|e: Error| e.to_errno() as c_long, |()| 0)
}

/// # Safety
///
/// Called by the VFS once for each open file.
unsafe extern "C" fn release<F: FileSystem>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: As the VFS says.
    unsafe {
        if let Some(open) = take_open::<F>(file) {
            F::release(Inode::from_raw(inode), &open);
        }
    }
    0
}

/// # Safety
///
/// Called by the VFS with an open file of `F`.
unsafe extern "C" fn flush<F: FileSystem>(
    file: *mut bindings::file,
    _owner: bindings::fl_owner_t,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        F::flush(unsafe { File::from_raw(file) })?;
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with an open file of `F`.
unsafe extern "C" fn llseek<F: FileSystem>(
    file: *mut bindings::file,
    offset: bindings::loff_t,
    whence: c_int,
) -> bindings::loff_t {
    // SAFETY: As the VFS says.
    let this = unsafe { File::<F>::from_raw(file) };
    let result = (|| {
        let hole = match whence as u32 {
            bindings::SEEK_END => {
                let size = i64::try_from(F::size(this)?)?;
                // SAFETY: As the VFS says.
                return Ok(unsafe {
                    bindings::generic_file_llseek_size(
                        file,
                        offset,
                        whence,
                        bindings::MAX_LFS_FILESIZE,
                        size,
                    )
                });
            }
            bindings::SEEK_DATA => false,
            bindings::SEEK_HOLE => true,
            // SAFETY: As the VFS says.
            _ => return Ok(unsafe { bindings::generic_file_llseek(file, offset, whence) }),
        };
        let offset = u64::try_from(offset).map_err(|_| ENXIO)?;
        let found = i64::try_from(F::seek(this, offset, hole)?)?;
        // SAFETY: As the VFS says.
        Ok(unsafe { bindings::vfs_setpos(file, found, bindings::MAX_LFS_FILESIZE) })
    })();
    result.unwrap_or_else(|e: Error| e.to_errno().into())
}

/// # Safety
///
/// Called by the VFS with an open file of `F`.
unsafe extern "C" fn fsync<F: FileSystem>(
    file: *mut bindings::file,
    start: bindings::loff_t,
    end: bindings::loff_t,
    datasync: c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            F::write_out(File::<F>::from_raw(file).inode())?;
            to_result(bindings::file_check_and_advance_wb_err(file))?;
            let start = u64::try_from(start)?;
            F::fsync(
                File::from_raw(file),
                start,
                u64::try_from(end)?,
                datasync != 0,
            )?;
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with an open file of `F`.
unsafe extern "C" fn fallocate<F: FileSystem>(
    file: *mut bindings::file,
    mode: c_int,
    offset: bindings::loff_t,
    len: bindings::loff_t,
) -> c_long {
    let result = (|| {
        // SAFETY: As the VFS says.
        let file = unsafe { File::<F>::from_raw(file) };
        F::fallocate(
            file,
            mode as u32,
            u64::try_from(offset)?,
            u64::try_from(len)?,
        )
    })();
    result.map_or_else(|e: Error| e.to_errno() as c_long, |()| 0)
}

/// # Safety
///
/// Called by the VFS with two files, the second of them an open file of `F`.
unsafe extern "C" fn copy_file_range<F: FileSystem>(
    source: *mut bindings::file,
    source_pos: bindings::loff_t,
    dest: *mut bindings::file,
    dest_pos: bindings::loff_t,
    len: usize,
    _flags: c_uint,
) -> isize {
    let result = (|| {
        // SAFETY: As the VFS says; both are files of `F` when they are on the same super block.
        let copied = unsafe {
            let same = (*bindings::qtfs_file_inode(source)).i_sb
                == (*bindings::qtfs_file_inode(dest)).i_sb;
            if !same {
                return Err(EXDEV);
            }
            F::copy(
                File::from_raw(source),
                u64::try_from(source_pos)?,
                File::from_raw(dest),
                u64::try_from(dest_pos)?,
                len as u64,
                CopyFlags::CAN_SHORTEN,
            )
        };
        copied
    })();
    match result {
        Ok(copied) => isize::try_from(copied).unwrap_or(isize::MAX),
        Err(e) if e == EXDEV || e == EOPNOTSUPP => {
            // SAFETY: As the VFS says: it lets a file system fall back to this.
            unsafe {
                bindings::qtfs_splice_copy_file_range(source, source_pos, dest, dest_pos, len)
            }
        }
        Err(e) => e.to_errno() as isize,
    }
}

/// # Safety
///
/// Called by the VFS with two open files of the same super block of `F`.
unsafe extern "C" fn remap_file_range<F: FileSystem>(
    source: *mut bindings::file,
    source_pos: bindings::loff_t,
    dest: *mut bindings::file,
    dest_pos: bindings::loff_t,
    len: bindings::loff_t,
    flags: c_uint,
) -> bindings::loff_t {
    let result = (|| {
        let known = bindings::REMAP_FILE_DEDUP | bindings::REMAP_FILE_CAN_SHORTEN;
        if flags & !known != 0 {
            return Err(EINVAL);
        }
        let kind = if flags & bindings::REMAP_FILE_DEDUP != 0 {
            CopyFlags::DEDUPE
        } else {
            CopyFlags::CLONE
        };
        let shorten = flags & bindings::REMAP_FILE_CAN_SHORTEN != 0;
        // SAFETY: As the VFS says.
        unsafe {
            F::copy(
                File::from_raw(source),
                u64::try_from(source_pos)?,
                File::from_raw(dest),
                u64::try_from(dest_pos)?,
                u64::try_from(len)?,
                kind.with_if(shorten, CopyFlags::CAN_SHORTEN),
            )
        }
    })();
    match result {
        Ok(done) => i64::try_from(done).unwrap_or(i64::MAX),
        Err(e) => e.to_errno().into(),
    }
}

/// Where a listing puts its entries.
pub struct DirEmitter<'a> {
    file: *mut bindings::file,
    ctx: &'a mut bindings::dir_context,
}

impl DirEmitter<'_> {
    /// Where the listing goes on.
    pub fn pos(&self) -> u64 {
        u64::try_from(self.ctx.pos).unwrap_or(0)
    }

    /// Emits `.` and `..` when the listing is at its start. Returns false when the caller's
    /// buffer is full.
    pub fn dots(&mut self) -> bool {
        // SAFETY: The file is the directory that is listed.
        unsafe { bindings::qtfs_dir_emit_dots(self.file, self.ctx) }
    }

    /// Emits one entry; the listing goes on at `next`. Returns false when the caller's buffer is
    /// full and the entry was not taken.
    pub fn emit(&mut self, name: &[u8], ino: u64, kind: u8, next: u64) -> bool {
        // SAFETY: The name has the given length.
        let taken = unsafe {
            bindings::qtfs_dir_emit(
                self.ctx,
                name.as_ptr().cast(),
                name.len() as c_int,
                ino,
                kind.into(),
            )
        };
        if taken {
            self.ctx.pos = i64::try_from(next).unwrap_or(i64::MAX);
        }
        taken
    }
}

/// # Safety
///
/// Called by the VFS with an open directory of `F`, which is locked shared.
unsafe extern "C" fn iterate_shared<F: FileSystem>(
    file: *mut bindings::file,
    ctx: *mut bindings::dir_context,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            let mut emitter = DirEmitter {
                file,
                ctx: &mut *ctx,
            };
            F::readdir(File::from_raw(file), &mut emitter)?;
        }
        Ok(0)
    })
}
