// SPDX-License-Identifier: GPL-2.0

//! Open files that have no name and belong to no file system, as `eventfd(2)` makes them.
//!
//! C header: [`include/linux/anon_inodes.h`](srctree/include/linux/anon_inodes.h)

use core::{
    marker::PhantomData,
    mem, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    module::this_module,
    prelude::*,
    sync::Arc,
    ModuleMetadata, //
};
use qtfs_proto::PollEvents;

use crate::{
    bindings,
    io::Iter,
    poll::PollQueue,
    Table, //
};

/// What an open file does.
pub trait AnonymousFile: Send + Sync + Sized + 'static {
    /// The module that must not be unloaded while the file is open.
    type Module: ModuleMetadata;
    /// What `/proc/PID/fd` shows.
    const NAME: &'static CStr;

    /// Reads. Returns the number of bytes, 0 at the end.
    fn read(this: &Arc<Self>, iter: &mut Iter<'_>, nonblocking: bool) -> Result<usize>;
    /// Writes. Returns the number of bytes.
    fn write(this: &Arc<Self>, iter: &mut Iter<'_>, nonblocking: bool) -> Result<usize>;
    /// Where whoever waits for the file waits.
    fn queue(&self) -> &PollQueue;
    /// What the file is ready for now.
    fn ready(&self) -> PollEvents;
    /// The last descriptor is closed.
    fn release(this: &Arc<Self>);
}

struct Ops<T>(PhantomData<T>);

impl<T: AnonymousFile> Ops<T> {
    const TABLE: &'static Table<bindings::file_operations> = &Table({
        let mut ops: bindings::file_operations = pin_init::zeroed();
        ops.owner = this_module::<T::Module>().as_ptr().cast();
        ops.release = Some(release::<T>);
        ops.read_iter = Some(read_iter::<T>);
        ops.write_iter = Some(write_iter::<T>);
        ops.poll = Some(poll::<T>);
        ops
    });
}

/// Makes an open file and gives the current task a descriptor of it.
pub fn install<T: AnonymousFile>(this: Arc<T>) -> Result<i32> {
    let flags = (bindings::O_RDWR | bindings::O_NONBLOCK) as c_int;
    // SAFETY: An `Arc` is one pointer.
    let raw = unsafe { mem::transmute::<Arc<T>, *mut c_void>(this) };
    // SAFETY: The name and the table are static; the file owns the reference, if it is made.
    let file = from_err_ptr(unsafe {
        bindings::anon_inode_getfile(
            T::NAME.as_char_ptr(),
            &raw const Ops::<T>::TABLE.0,
            raw,
            flags,
        )
    });
    let file = file.inspect_err(|_| {
        // SAFETY: It was not made, so the reference is ours again.
        let this = unsafe { mem::transmute::<*mut c_void, Arc<T>>(raw) };
        T::release(&this);
    })?;
    // SAFETY: The file is new. Its reference goes to the descriptor.
    let fd = unsafe {
        bindings::stream_open(bindings::qtfs_file_inode(file), file);
        bindings::qtfs_install_file(file)
    };
    to_result(fd.min(0))?;
    Ok(fd)
}

/// What the open file behind a descriptor of the current task is.
///
/// Fails with [`EBADF`] when it is no file of this kind.
pub fn from_fd<T: AnonymousFile>(fd: i32) -> Result<Arc<T>> {
    // SAFETY: Looks into the current task's table. The reference is put below.
    let file = unsafe { bindings::fget(fd as c_uint) };
    if file.is_null() {
        return Err(EBADF);
    }
    // SAFETY: The file is held. By its functions its data is what `install` gave it.
    let found = unsafe {
        core::ptr::eq((*file).f_op, &raw const Ops::<T>::TABLE.0).then(|| this::<T>(file).clone())
    };
    // SAFETY: Taken above.
    unsafe { bindings::fput(file) };
    found.ok_or(EBADF)
}

/// # Safety
///
/// `file` was made by [`install`] for `T`, and is not released yet.
unsafe fn this<'a, T: AnonymousFile>(file: *mut bindings::file) -> &'a Arc<T> {
    // SAFETY: By this function's requirements the field has the one pointer that an `Arc` is.
    unsafe { &*(&raw const (*file).private_data).cast::<Arc<T>>() }
}

/// # Safety
///
/// Called by the VFS with a file of `T`.
unsafe extern "C" fn release<T: AnonymousFile>(
    _: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: As the VFS says; nobody uses the file any more. See `this`.
    let this = unsafe { mem::transmute::<*mut c_void, Arc<T>>((*file).private_data) };
    T::release(&this);
    0
}

/// # Safety
///
/// Called by the VFS with a request on a file of `T` and its memory.
unsafe extern "C" fn read_iter<T: AnonymousFile>(
    iocb: *mut bindings::kiocb,
    iter: *mut bindings::iov_iter,
) -> isize {
    // SAFETY: As the VFS says.
    let result = unsafe {
        T::read(
            this::<T>((*iocb).ki_filp),
            &mut Iter::new(&mut *iter),
            is_nonblocking(iocb),
        )
    };
    result.map_or_else(|e| e.to_errno() as isize, |n| n as isize)
}

/// # Safety
///
/// Called by the VFS with a request on a file of `T` and its memory.
unsafe extern "C" fn write_iter<T: AnonymousFile>(
    iocb: *mut bindings::kiocb,
    iter: *mut bindings::iov_iter,
) -> isize {
    // SAFETY: As the VFS says.
    let result = unsafe {
        T::write(
            this::<T>((*iocb).ki_filp),
            &mut Iter::new(&mut *iter),
            is_nonblocking(iocb),
        )
    };
    result.map_or_else(|e| e.to_errno() as isize, |n| n as isize)
}

/// # Safety
///
/// `iocb` is a request on an open file.
unsafe fn is_nonblocking(iocb: *const bindings::kiocb) -> bool {
    // SAFETY: By this function's requirements.
    unsafe {
        (*(*iocb).ki_filp).f_flags & bindings::O_NONBLOCK != 0
            || (*iocb).ki_flags & bindings::IOCB_NOWAIT as c_int != 0
    }
}

/// # Safety
///
/// Called by the VFS with a file of `T`, and null or a table that is valid during the call.
unsafe extern "C" fn poll<T: AnonymousFile>(
    file: *mut bindings::file,
    table: *mut bindings::poll_table_struct,
) -> bindings::__poll_t {
    // SAFETY: As the VFS says. The queue is part of what the file keeps until `release`, when nobody
    // waits for it any more.
    unsafe {
        let this = this::<T>(file);
        this.queue().wait(file, table);
        this.ready().bits()
    }
}
