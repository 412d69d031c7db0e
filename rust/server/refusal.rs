// SPDX-License-Identifier: GPL-2.0

//! Why a request failed: an errno for programs, and sometimes a text for people.

use kernel::{
    fmt,
    prelude::*,
    str::CString, //
};
use qtfs_proto::wire;

/// Longest text in a reply.
const MAX_TEXT: usize = 512;

/// The failure of a request.
pub(crate) struct Refusal {
    error: Error,
    /// What was refused and what to do, as UTF-8; empty when the errno says it all.
    text: KVec<u8>,
}

/// What an operation comes to.
pub(crate) type Result<T = ()> = core::result::Result<T, Refusal>;

impl Refusal {
    /// A failure with a text; when there is no memory for it, without.
    pub(crate) fn new(error: Error, text: fmt::Arguments<'_>) -> Self {
        let mut bytes = KVec::new();
        if let Ok(text) = CString::try_from_fmt(text) {
            let text = text.to_bytes();
            // Names in it may be anything; the client is promised UTF-8.
            let text = text.get(..MAX_TEXT).unwrap_or(text);
            let valid = match core::str::from_utf8(text) {
                Ok(text) => text.as_bytes(),
                Err(e) => text.get(..e.valid_up_to()).unwrap_or_default(),
            };
            let _ = bytes.extend_from_slice(valid, GFP_KERNEL);
        }
        Self { error, text: bytes }
    }

    /// The failure as the kernel sees it.
    pub(crate) fn error(&self) -> Error {
        self.error
    }

    /// The text.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether somebody interrupted a wait.
    pub(crate) fn is_interrupt(&self) -> bool {
        status(self.error) == status(EINTR)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self {
            error,
            text: KVec::new(),
        }
    }
}

impl From<kernel::alloc::AllocError> for Refusal {
    fn from(error: kernel::alloc::AllocError) -> Self {
        Error::from(error).into()
    }
}

impl From<core::num::TryFromIntError> for Refusal {
    fn from(error: core::num::TryFromIntError) -> Self {
        Error::from(error).into()
    }
}

impl From<wire::Error> for Refusal {
    /// A reply that cannot be written; requests are checked before.
    fn from(error: wire::Error) -> Self {
        match error {
            wire::Error::NoSpace => EMSGSIZE.into(),
            _ => EIO.into(),
        }
    }
}

/// The errno as it goes over the wire: one that user space knows.
pub(crate) fn status(error: Error) -> u32 {
    let known = match error {
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND | ERESTART_RESTARTBLOCK => EINTR,
        ENOIOCTLCMD | ENOTSUPP => EOPNOTSUPP,
        EOPENSTALE => ESTALE,
        e if (512..).contains(&e.to_errno().unsigned_abs()) => EIO,
        e => e,
    };
    known.to_errno().unsigned_abs()
}
