// SPDX-License-Identifier: GPL-2.0

//! The operations: one function for each request.
//!
//! Every function resolves what the request names ([`crate::resolve`]), which also checks the
//! policy, acts with the caller's credential, and makes the reply. What belongs to which request is
//! in `rust/proto/message.rs`.

pub(crate) mod attach;
pub(crate) mod attr;
pub(crate) mod channel;
pub(crate) mod class;
pub(crate) mod data;
pub(crate) mod fifo;
pub(crate) mod lock;
pub(crate) mod lookup;
pub(crate) mod make;
mod names;
pub(crate) mod notify;
pub(crate) mod open;
pub(crate) mod readdir;
pub(crate) mod rename;
pub(crate) mod space;
pub(crate) mod xattr;
