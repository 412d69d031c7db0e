// SPDX-License-Identifier: GPL-2.0

//! Mounting and mount options.
//!
//! C header: [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h)

use core::marker::PhantomData;
use kernel::{
    error::from_result,
    prelude::*,
    str::{
        CStr,
        CString, //
    },
};

use crate::{
    bindings,
    fs::FileSystem,
    sb,
    Table, //
};

/// Where messages about a mount go: to the caller of `mount(2)` and to the kernel log.
pub struct Log(*mut bindings::fs_context);

impl Log {
    /// Says why the mount is refused, in one line.
    pub fn error(&self, args: core::fmt::Arguments<'_>) {
        // Without memory for the text there is still the errno.
        if let Ok(text) = CString::try_from_fmt(args) {
            // SAFETY: The context lives as long as this object; the text ends with NUL.
            unsafe { bindings::qtfs_mount_error(self.0, text.as_char_ptr()) };
        }
    }
}

/// The table of functions of `F`'s mounts.
struct Ops<F>(PhantomData<F>);

impl<F: FileSystem> Ops<F> {
    const TABLE: &'static Table<bindings::fs_context_operations> = &Table({
        let mut ops: bindings::fs_context_operations = pin_init::zeroed();
        ops.free = Some(free::<F>);
        ops.parse_param = Some(parse_param::<F>);
        ops.get_tree = Some(get_tree::<F>);
        ops.reconfigure = Some(reconfigure::<F>);
        ops
    });
}

/// # Safety
///
/// Called by the VFS with a new context.
pub(crate) unsafe extern "C" fn init_fs_context<F: FileSystem>(
    fc: *mut bindings::fs_context,
) -> c_int {
    from_result(|| {
        let options = KBox::new(F::options()?, GFP_KERNEL)?;
        // SAFETY: The context is ours to fill.
        unsafe {
            (*fc).ops = &raw const Ops::<F>::TABLE.0;
            (*fc).fs_private = KBox::into_raw(options).cast();
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS once for each context.
unsafe extern "C" fn free<F: FileSystem>(fc: *mut bindings::fs_context) {
    // SAFETY: `init_fs_context` left a box of this type, which nobody else frees.
    unsafe {
        let options = (*fc).fs_private.cast::<F::Options>();
        if !options.is_null() {
            drop(KBox::from_raw(options));
        }
    }
}

/// The options that `init_fs_context` left.
///
/// # Safety
///
/// `fc` is a context of `F`, and nobody else has a reference to its options.
unsafe fn options<'a, F: FileSystem>(fc: *mut bindings::fs_context) -> &'a mut F::Options {
    // SAFETY: By this function's requirements.
    unsafe { &mut *(*fc).fs_private.cast::<F::Options>() }
}

/// # Safety
///
/// Called by the VFS with a context of `F` and a parameter.
unsafe extern "C" fn parse_param<F: FileSystem>(
    fc: *mut bindings::fs_context,
    param: *mut bindings::fs_parameter,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a valid parameter, whose key is a string.
        let (key, kind) = unsafe { (CStr::from_char_ptr((*param).key.cast()), (*param).type_()) };
        let value = if kind == bindings::fs_value_type_fs_value_is_string {
            // SAFETY: The type says that it is a string.
            Some(unsafe {
                CStr::from_char_ptr((*param).__bindgen_anon_1.string.cast_const().cast())
            })
        } else if kind == bindings::fs_value_type_fs_value_is_flag {
            None
        } else {
            return Err(EINVAL);
        };
        // SAFETY: The VFS serialises the calls of one context.
        let options = unsafe { options::<F>(fc) };
        F::option(options, key, value, &Log(fc))?;
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with a context of `F`.
unsafe extern "C" fn get_tree<F: FileSystem>(fc: *mut bindings::fs_context) -> c_int {
    // SAFETY: As the VFS says.
    if unsafe { (*fc).source.is_null() } {
        Log(fc).error(fmt!(
            "no directory was named; mount -t qtfs /path/on/host /mnt"
        ));
        return EINVAL.to_errno();
    }
    // SAFETY: As above.
    unsafe { bindings::get_tree_nodev(fc, Some(fill_super::<F>)) }
}

/// # Safety
///
/// Called by the VFS with a new super block and a context of `F`.
unsafe extern "C" fn fill_super<F: FileSystem>(
    sb: *mut bindings::super_block,
    fc: *mut bindings::fs_context,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS serialises the calls of one context; `get_tree` checked the source.
        let (options, source) =
            unsafe { (options::<F>(fc), CStr::from_char_ptr((*fc).source.cast())) };
        let (mount, root) = F::mount(options, source, &Log(fc))?;
        // SAFETY: The super block is new and ours to fill; `kill_sb` takes the mount back.
        unsafe {
            sb::keep::<F>(sb, mount)?;
            sb::fill::<F>(sb, root)?;
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with a context of `F` whose root is set.
unsafe extern "C" fn reconfigure<F: FileSystem>(fc: *mut bindings::fs_context) -> c_int {
    from_result(|| {
        // SAFETY: A context for reconfiguration has a root, whose super block is one of `F`.
        let mount = unsafe { sb::mount::<F>((*(*fc).root).d_sb) };
        // SAFETY: The VFS serialises the calls of one context.
        F::remount(mount, unsafe { options::<F>(fc) }, &Log(fc))?;
        Ok(0)
    })
}
