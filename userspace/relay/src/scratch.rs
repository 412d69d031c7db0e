// SPDX-License-Identifier: GPL-2.0

//! A place for one message, for as long as a thread does nothing else.

use qtfs_proto::relay::MAX_MESSAGE;
use std::cell::RefCell;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_MESSAGE]);
}

/// Calls `f` with `MAX_MESSAGE` bytes; what is of use in them is copied before it returns.
pub(crate) fn with<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| f(scratch))
}
