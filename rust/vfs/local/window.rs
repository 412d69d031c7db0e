// SPDX-License-Identifier: GPL-2.0

//! A piece of the current task's own user memory.
//!
//! Many files of procfs and debugfs, and its links to open files, can read and write user memory
//! only. The threads that serve requests belong to engine, so they have some: a few pages that
//! nothing in engine looks at.

use core::marker::PhantomData;
use kernel::{
    error::to_result,
    prelude::*, //
};
use qtfs_bindings as bindings;
use qtfs_net::Pages;

use super::{
    file::count,
    File,
    Path, //
};

/// Bytes of a window; no file of the kernel's own takes or gives more at once.
const SIZE: usize = 256 * 1024;

/// Anonymous memory mapped by the current task for itself, unmapped on drop.
///
/// # Invariants
///
/// `address` is the start of [`SIZE`] bytes that the current task mapped.
pub struct Window {
    address: usize,
    /// The memory belongs to the task's address space.
    not_send: PhantomData<*const ()>,
}

impl Window {
    /// Maps the memory; fails with [`EINVAL`] in a kernel thread.
    pub fn map() -> Result<Self> {
        // SAFETY: Looks at the current task only.
        if !unsafe { bindings::qtfs_current_has_mm() } {
            return Err(EINVAL);
        }
        // SAFETY: The kernel chooses the place.
        let address = unsafe { bindings::qtfs_map_memory(SIZE) };
        // CAST: Errors are small negative numbers.
        if let errno @ -4095..=-1 = address as isize {
            return Err(Error::from_errno(errno as c_int));
        }
        // INVARIANT: `SIZE` bytes were mapped there.
        Ok(Self {
            address,
            not_send: PhantomData,
        })
    }

    /// Copies the first bytes of the window into `buf`.
    fn copy_out(&self, buf: &mut [u8]) -> Result {
        if buf.len() > SIZE {
            return Err(EINVAL);
        }
        // SAFETY: `buf` is valid; a bad user address is an error, not undefined.
        let left = unsafe {
            bindings::qtfs_copy_from_user(
                buf.as_mut_ptr().cast(),
                self.address as *const c_void,
                buf.len(),
            )
        };
        if left == 0 {
            Ok(())
        } else {
            Err(EFAULT)
        }
    }

    /// Copies `buf` to the start of the window.
    fn copy_in(&self, buf: &[u8]) -> Result {
        if buf.len() > SIZE {
            return Err(EINVAL);
        }
        // SAFETY: `buf` is valid; a bad user address is an error, not undefined.
        let left = unsafe {
            bindings::qtfs_copy_to_user(self.address as *mut c_void, buf.as_ptr().cast(), buf.len())
        };
        if left == 0 {
            Ok(())
        } else {
            Err(EFAULT)
        }
    }

    /// Reads up to `len` bytes of a file by its `read` method into `pages`.
    pub fn read(&self, file: &File, offset: u64, pages: &mut Pages, len: usize) -> Result<usize> {
        let len = len.min(pages.len()).min(SIZE);
        let mut pos = i64::try_from(offset).map_err(|_| EINVAL)?;
        // SAFETY: The file is held; the window has `len` bytes.
        let n = count(unsafe {
            bindings::qtfs_file_read_user(file.as_ptr(), self.address, len, &mut pos)
        })?;
        let mut buf = KVVec::from_elem(0u8, n.min(len), GFP_KERNEL)?;
        self.copy_out(&mut buf)?;
        pages.write_at(0, &buf)?;
        Ok(buf.len())
    }

    /// Writes the first `len` bytes of `pages` by the file's `write` method, at once; returns how
    /// many it took.
    pub fn write(&self, file: &File, offset: u64, pages: &Pages, len: usize) -> Result<usize> {
        let len = len.min(pages.len());
        if len > SIZE {
            return Err(EFBIG);
        }
        let mut buf = KVVec::from_elem(0u8, len, GFP_KERNEL)?;
        pages.read_at(0, &mut buf)?;
        self.copy_in(&buf)?;
        let mut pos = i64::try_from(offset).map_err(|_| EINVAL)?;
        // SAFETY: The file is held; the window has `len` bytes.
        count(unsafe { bindings::qtfs_file_write_user(file.as_ptr(), self.address, len, &mut pos) })
    }

    /// Reads the text of a symlink of any kind into `buf`.
    pub fn read_link<'b>(&self, link: &Path, buf: &'b mut [u8]) -> Result<&'b [u8]> {
        let len = buf.len().min(SIZE);
        // SAFETY: The dentry is held; the window has `len` bytes.
        let n = unsafe {
            bindings::vfs_readlink(
                link.dentry(),
                self.address as *mut c_char,
                c_int::try_from(len)?,
            )
        };
        to_result(n.min(0))?;
        let text = buf.get_mut(..usize::try_from(n)?).ok_or(EIO)?;
        self.copy_out(text)?;
        Ok(text)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the type is not `Send`, so this is the task that mapped
        // it. When the address space is gone with its task, so is the mapping.
        unsafe {
            if bindings::qtfs_current_has_mm() {
                bindings::vm_munmap(self.address, SIZE);
            }
        }
    }
}

/// Reads the text of a symlink that has one in the kernel into `buf`; fails with [`EINVAL`] when
/// it needs [`Window::read_link`].
pub fn read_link<'b>(link: &Path, buf: &'b mut [u8]) -> Result<&'b [u8]> {
    let mut call: bindings::delayed_call = pin_init::zeroed();
    // SAFETY: The dentry is held, `call` is a place for what has to be done afterwards.
    let text = kernel::error::from_err_ptr(unsafe {
        bindings::qtfs_link_text(link.dentry(), &mut call).cast_mut()
    });
    let result = text.and_then(|text| {
        if text.is_null() {
            return Err(EIO);
        }
        // SAFETY: The text ends with a NUL and stays until the call below.
        let bytes = unsafe { CStr::from_char_ptr(text) }.to_bytes();
        let out = buf.get_mut(..bytes.len()).ok_or(ENAMETOOLONG)?;
        out.copy_from_slice(bytes);
        Ok(bytes.len())
    });
    // SAFETY: The call was filled or is still zero, which means nothing to do.
    unsafe { bindings::qtfs_do_delayed_call(&mut call) };
    let len = result?;
    buf.get(..len).ok_or(EIO)
}
