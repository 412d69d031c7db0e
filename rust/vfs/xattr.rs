// SPDX-License-Identifier: GPL-2.0

//! Extended attributes, POSIX ACLs and inode flags.
//!
//! C headers: [`include/linux/xattr.h`](srctree/include/linux/xattr.h),
//! [`include/linux/posix_acl_xattr.h`](srctree/include/linux/posix_acl_xattr.h),
//! [`include/linux/fileattr.h`](srctree/include/linux/fileattr.h)

use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
    slice, //
};
use kernel::{
    error::from_result,
    prelude::*,
    str::CStr, //
};

use crate::{
    bindings,
    dentry::Dentry,
    fs::FileSystem,
    inode::{
        check,
        Inode, //
    },
    Table, //
};
use qtfs_proto::{
    message::InodeFlags,
    XATTR_MAX, //
};

/// ACLs with up to some hundred entries fit into this many bytes.
const USUAL_ACL: usize = 4096;

/// The handlers of `F`'s extended attributes: one for all names.
struct Handlers<F>(PhantomData<F>);

impl<F: FileSystem> Handlers<F> {
    const ALL: &'static Table<bindings::xattr_handler> = &Table({
        let mut handler: bindings::xattr_handler = pin_init::zeroed();
        handler.prefix = kernel::str::as_char_ptr_in_const_context(c"");
        handler.get = Some(get::<F>);
        handler.set = Some(set::<F>);
        handler
    });

    const LIST: &'static Table<[*const bindings::xattr_handler; 2]> =
        &Table([&raw const Self::ALL.0, ptr::null()]);
}

pub(crate) fn handlers<F: FileSystem>() -> *const *const bindings::xattr_handler {
    Handlers::<F>::LIST.0.as_ptr()
}

/// The memory that a caller gave, or nothing.
///
/// # Safety
///
/// `raw` is null or `len` bytes that nobody else uses while the result lives.
unsafe fn buffer<'a>(raw: *mut c_void, len: usize) -> &'a mut [u8] {
    if raw.is_null() || len == 0 {
        return &mut [];
    }
    // SAFETY: By this function's requirements.
    unsafe { slice::from_raw_parts_mut(raw.cast(), len) }
}

/// # Safety
///
/// Called by the VFS with an inode of `F`, its entry when there is one, a name and memory.
unsafe extern "C" fn get<F: FileSystem>(
    _handler: *const bindings::xattr_handler,
    dentry: *mut bindings::dentry,
    inode: *mut bindings::inode,
    name: *const c_char,
    value: *mut c_void,
    len: usize,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        let len = unsafe {
            F::getxattr(
                NonNull::new(dentry).map(|d| Dentry::from_raw(d.as_ptr())),
                Inode::from_raw(inode),
                CStr::from_char_ptr(name.cast()).to_bytes(),
                buffer(value, len),
            )?
        };
        Ok(c_int::try_from(len)?)
    })
}

/// # Safety
///
/// Called by the VFS with an inode of `F`, its entry when there is one, a name and a value.
unsafe extern "C" fn set<F: FileSystem>(
    _handler: *const bindings::xattr_handler,
    _idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    inode: *mut bindings::inode,
    name: *const c_char,
    value: *const c_void,
    len: usize,
    flags: c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says. A null value means to remove the attribute.
        unsafe {
            let bytes = buffer(value.cast_mut(), len);
            F::setxattr(
                NonNull::new(dentry).map(|d| Dentry::from_raw(d.as_ptr())),
                Inode::from_raw(inode),
                CStr::from_char_ptr(name.cast()).to_bytes(),
                if value.is_null() { None } else { Some(bytes) },
                flags as u32,
            )?;
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with an entry of `F` and memory.
pub(crate) unsafe extern "C" fn listxattr<F: FileSystem>(
    dentry: *mut bindings::dentry,
    list: *mut c_char,
    len: usize,
) -> isize {
    // SAFETY: As the VFS says.
    match unsafe { F::listxattr(Dentry::from_raw(dentry), buffer(list.cast(), len)) } {
        Ok(len) => isize::try_from(len).unwrap_or(isize::MAX),
        Err(e) => e.to_errno() as isize,
    }
}

/// The name under which an ACL is stored.
fn acl_name(kind: c_int) -> &'static [u8] {
    if kind == bindings::ACL_TYPE_DEFAULT as c_int {
        b"system.posix_acl_default"
    } else {
        b"system.posix_acl_access"
    }
}

/// # Safety
///
/// Called by the VFS with an entry of `F`.
pub(crate) unsafe extern "C" fn get_acl<F: FileSystem>(
    _idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    kind: c_int,
) -> *mut bindings::posix_acl {
    let result = (|| {
        // SAFETY: As the VFS says.
        let dentry = unsafe { Dentry::<F>::from_raw(dentry) };
        let inode = dentry.inode()?;
        let mut value = KVVec::from_elem(0u8, USUAL_ACL, GFP_KERNEL)?;
        let len = match F::getxattr(Some(dentry), inode, acl_name(kind), &mut value) {
            Err(e) if e == ENODATA || e == EOPNOTSUPP => return Ok(ptr::null_mut()),
            Err(e) if e == ERANGE => {
                value = KVVec::from_elem(0u8, XATTR_MAX, GFP_KERNEL)?;
                F::getxattr(Some(dentry), inode, acl_name(kind), &mut value)?
            }
            other => other?,
        };
        let value = value.get(..len).ok_or(EIO)?;
        // SAFETY: The value has the given length; the function checks what is in it.
        check(unsafe {
            bindings::posix_acl_from_xattr(
                &raw mut bindings::init_user_ns,
                value.as_ptr().cast(),
                value.len(),
            )
        })
    })();
    result.unwrap_or_else(|e: Error| e.to_ptr())
}

/// # Safety
///
/// Called by the VFS with an entry of `F` and an ACL, or null to remove it.
pub(crate) unsafe extern "C" fn set_acl<F: FileSystem>(
    _idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    acl: *mut bindings::posix_acl,
    kind: c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        let dentry = unsafe { Dentry::<F>::from_raw(dentry) };
        let inode = dentry.inode()?;
        let name = acl_name(kind);
        if acl.is_null() {
            match F::setxattr(Some(dentry), inode, name, None, 0) {
                Err(e) if e == ENODATA => {}
                other => other?,
            }
            return Ok(0);
        }
        let mut len = 0;
        // SAFETY: As the VFS says; the value is freed below.
        let value = check(unsafe {
            bindings::posix_acl_to_xattr(
                &raw mut bindings::init_user_ns,
                acl,
                &mut len,
                bindings::GFP_KERNEL,
            )
        })?;
        if value.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: The function made memory of that length.
        let bytes = unsafe { buffer(value, len) };
        let result = F::setxattr(Some(dentry), inode, name, Some(bytes), 0);
        // SAFETY: Nobody else has it.
        unsafe { bindings::kfree(value) };
        result?;
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with an entry of `F` and a place for the result.
pub(crate) unsafe extern "C" fn fileattr_get<F: FileSystem>(
    dentry: *mut bindings::dentry,
    out: *mut bindings::file_kattr,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            let flags = F::fileattr_get(Dentry::from_raw(dentry))?;
            if (*out).flags_valid() {
                bindings::fileattr_fill_flags(out, flags.flags);
            } else {
                bindings::fileattr_fill_xflags(out, flags.xflags);
                (*out).fsx_extsize = flags.extsize;
                (*out).fsx_cowextsize = flags.cowextsize;
                (*out).fsx_projid = flags.projid;
            }
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the VFS with an entry of `F` and the flags.
pub(crate) unsafe extern "C" fn fileattr_set<F: FileSystem>(
    _idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    fa: *mut bindings::file_kattr,
) -> c_int {
    from_result(|| {
        // SAFETY: As the VFS says.
        unsafe {
            let flags = InodeFlags {
                flags: (*fa).flags,
                xflags: (*fa).fsx_xflags,
                extsize: (*fa).fsx_extsize,
                projid: (*fa).fsx_projid,
                cowextsize: (*fa).fsx_cowextsize,
                flags_valid: (*fa).flags_valid().into(),
            };
            F::fileattr_set(Dentry::from_raw(dentry), &flags)?;
        }
        Ok(0)
    })
}
