// SPDX-License-Identifier: GPL-2.0

//! The kernel's C side, as bindgen sees it through `helper.h`.
//!
//! These are types of their own, distinct from those of `kernel::bindings`: the kernel crate's
//! bindings leave most of the VFS and the network opaque. Where the two meet, cast raw pointers.
//! Inline functions of the kernel appear under the prefix `qtfs_`, see `rust/shim`.

#![allow(
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

use kernel::ffi;
use pin_init::{
    MaybeZeroable,
    Zeroable, //
};

// The types that bindgen is told to leave out.
type __kernel_size_t = usize;
type __kernel_ssize_t = isize;
type __kernel_ptrdiff_t = isize;

// SAFETY: `__BindgenBitfieldUnit<Storage>` is a newtype around `Storage`.
unsafe impl<Storage> Zeroable for __BindgenBitfieldUnit<Storage> where Storage: Zeroable {}

include!(env!("QTFS_BINDINGS"));
