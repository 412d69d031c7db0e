// SPDX-License-Identifier: GPL-2.0

//! Symbolic links: reading their text, and following them.

use kernel::{
    error::from_result,
    prelude::*, //
};

use crate::{
    bindings,
    dentry::Dentry,
    fs::FileSystem, //
};

/// # Safety
///
/// Called by `do_delayed_call` with what [`get_link`] gave it.
unsafe extern "C" fn put_link(text: *mut c_void) {
    // SAFETY: `get_link` left memory of `kvmalloc` that nobody else frees.
    unsafe { bindings::kvfree(text) };
}

/// # Safety
///
/// Called by the VFS with a symlink of `F`, and without an entry when it must not sleep.
pub(super) unsafe extern "C" fn get_link<F: FileSystem>(
    dentry: *mut bindings::dentry,
    _inode: *mut bindings::inode,
    done: *mut bindings::delayed_call,
) -> *const c_char {
    // SAFETY: As the VFS says.
    unsafe { go_on_with::<F>(dentry, done, F::readlink) }
}

/// # Safety
///
/// As [`get_link`], with a link that is not followed by its text.
pub(super) unsafe extern "C" fn follow<F: FileSystem>(
    dentry: *mut bindings::dentry,
    _inode: *mut bindings::inode,
    done: *mut bindings::delayed_call,
) -> *const c_char {
    // SAFETY: As the VFS says.
    unsafe { go_on_with::<F>(dentry, done, F::follow) }
}

/// Gives the kernel the text with which it goes on.
///
/// # Safety
///
/// `dentry` is null or a symlink of `F`; `done` is a place for what has to be done afterwards.
unsafe fn go_on_with<F: FileSystem>(
    dentry: *mut bindings::dentry,
    done: *mut bindings::delayed_call,
    text: fn(&Dentry<F>) -> Result<KVVec<u8>>,
) -> *const c_char {
    if dentry.is_null() {
        return ECHILD.to_ptr::<c_char>();
    }
    // SAFETY: By this function's requirements.
    let text = text(unsafe { Dentry::from_raw(dentry) });
    match text.and_then(|mut text| text.push(0, GFP_KERNEL).map_err(Error::from).map(|()| text)) {
        Ok(text) => {
            let (raw, _, _) = text.into_raw_parts();
            // SAFETY: By this function's requirements; `put_link` frees the memory.
            unsafe { bindings::qtfs_set_delayed_call(done, Some(put_link), raw.cast()) };
            raw.cast()
        }
        Err(e) => e.to_ptr::<c_char>(),
    }
}

/// # Safety
///
/// Called by the VFS with a symlink of `F` and `len` bytes of the caller's memory.
pub(super) unsafe extern "C" fn readlink<F: FileSystem>(
    dentry: *mut bindings::dentry,
    buf: *mut c_char,
    len: c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        let text = F::readlink(unsafe { Dentry::from_raw(dentry) })?;
        let len = text.len().min(usize::try_from(len)?);
        // SAFETY: `text` has so many bytes; a bad address of the caller's is an error.
        let left = unsafe {
            bindings::qtfs_copy_to_user(buf.cast(), text.as_ptr().cast(), len as c_ulong)
        };
        if left != 0 {
            return Err(EFAULT);
        }
        Ok(c_int::try_from(len)?)
    })
}
