// SPDX-License-Identifier: GPL-2.0

//! Numbers of mounts in sysfs: `/sys/fs/NAME/MAJOR:MINOR/`, one file each.
//!
//! C header: [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)

use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    },
};
use kernel::{
    error::from_result,
    prelude::*,
    str::CString, //
};

use crate::{
    bindings,
    fs::FileSystem, //
};

/// Most files of a directory.
const MAX_FILES: usize = 32;

/// The directory of the registered file system; a module has one.
static TOP: AtomicPtr<bindings::kobject> = AtomicPtr::new(ptr::null_mut());

/// The directory of a file system, until it is dropped.
///
/// # Invariants
///
/// There is one in a module, and [`TOP`] is a directory that it holds.
pub(crate) struct Top(());

impl Top {
    /// Makes `/sys/fs/NAME`.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is valid during the call, which copies it.
        let raw = unsafe { bindings::qtfs_sysfs_top(name.as_char_ptr()) };
        if raw.is_null() {
            return Err(ENOMEM);
        }
        TOP.store(raw, Ordering::Release);
        // INVARIANT: The call gave us the directory.
        Ok(Self(()))
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; no mount is left that could make another in it.
        unsafe { bindings::kobject_put(TOP.swap(ptr::null_mut(), Ordering::AcqRel)) };
    }
}

/// The directory of one mount, until it is dropped.
///
/// # Invariants
///
/// The pointer is a directory that is ours, and whose context is a mount of `F` that outlives it.
pub(crate) struct Directory<F: FileSystem>(NonNull<bindings::qtfs_sysfs>, PhantomData<F>);

impl<F: FileSystem> Directory<F> {
    /// Makes the directory of a mount with a device number.
    ///
    /// # Safety
    ///
    /// `F` is registered, and `mount` outlives the result.
    pub(crate) unsafe fn new(dev: bindings::dev_t, mount: &F::Mount) -> Result<Self> {
        // SAFETY: Calculates only.
        let (major, minor) = unsafe { (bindings::qtfs_major(dev), bindings::qtfs_minor(dev)) };
        let name = CString::try_from_fmt(fmt!("{major}:{minor}"))?;
        let mut files = [ptr::null(); MAX_FILES];
        for (place, file) in files.iter_mut().zip(F::COUNTERS) {
            *place = file.as_char_ptr();
        }
        let count = F::COUNTERS.len().min(MAX_FILES);
        // SAFETY: The directory of `F` is there as long as it is registered; the names are static.
        let raw = unsafe {
            bindings::qtfs_sysfs_add(
                TOP.load(Ordering::Acquire),
                name.as_char_ptr(),
                files.as_ptr(),
                count as c_uint,
                Some(show::<F>),
                ptr::from_ref(mount).cast_mut().cast(),
            )
        };
        // INVARIANT: It is new, with the mount for a context.
        Ok(Self(NonNull::new(raw).ok_or(ENOMEM)?, PhantomData))
    }
}

impl<F: FileSystem> Drop for Directory<F> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::qtfs_sysfs_remove(self.0.as_ptr()) };
    }
}

/// # Safety
///
/// `context` is a mount of `F`, and `page` has a page of room.
unsafe extern "C" fn show<F: FileSystem>(
    context: *mut c_void,
    number: c_uint,
    page: *mut c_char,
) -> isize {
    // SAFETY: By this function's requirements.
    let mount = unsafe { &*context.cast::<F::Mount>() };
    let result = F::counter(mount, number as usize).map(|text| {
        let text = text.to_bytes();
        let len = text.len().min(qtfs_net::pages::PAGE_SIZE);
        // SAFETY: By this function's requirements; the text has so many bytes.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), page.cast(), len) };
        len as isize
    });
    result.unwrap_or_else(|e| from_result(|| Err(e)))
}
