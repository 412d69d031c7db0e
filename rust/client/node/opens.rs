// SPDX-License-Identifier: GPL-2.0

//! The files of HOST that are open for an inode, and what is being written through them.

use core::sync::atomic::Ordering;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::Completion;
use qtfs_proto::OpenFlags;

use super::{
    Inner,
    Node, //
};
use crate::{
    file::{
        Borrowed,
        OpenFile, //
    },
    session::Session, //
};

impl Node {
    /// Remembers an open file.
    pub(crate) fn opened(&self, open: &Arc<OpenFile>) -> Result {
        Ok(self.inner.lock().opens.push(open.clone(), GFP_KERNEL)?)
    }

    /// Forgets an open file.
    pub(crate) fn closed(&self, open: &Arc<OpenFile>) {
        let gone = {
            let mut inner = self.inner.lock();
            let gone = inner.take_open(open);
            if inner.opens.is_empty() {
                self.ranges_locked.store(false, Ordering::Relaxed);
            }
            gone
        };
        drop(gone);
    }

    /// A request that writes pages back begins.
    pub(crate) fn write_begins(&self) {
        self.inner.lock().writes += 1;
    }

    /// A request that writes pages back has ended.
    pub(crate) fn write_ended(&self) {
        let told = {
            let mut inner = self.inner.lock();
            inner.writes = inner.writes.saturating_sub(1);
            match inner.writes {
                0 => inner.written.take(),
                _ => None,
            }
        };
        if let Some(told) = told {
            told.complete();
        }
    }

    /// Waits until no request writes pages back.
    ///
    /// Fails with [`EINTR`] when the caller is killed, [`ETIMEDOUT`] after `timeout` milliseconds.
    pub(crate) fn wait_writes(&self, timeout: Option<u32>) -> Result {
        loop {
            let written = {
                let mut inner = self.inner.lock();
                if inner.writes == 0 {
                    return Ok(());
                }
                match &inner.written {
                    Some(written) => written.clone(),
                    None => {
                        let new = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
                        inner.written = Some(new.clone());
                        new
                    }
                }
            };
            match timeout {
                Some(ms) => written.wait_killable_timeout(ms)?,
                None => written.wait_killable()?,
            }
        }
    }

    /// An open file to write pages through, `last` those that are dirty.
    ///
    /// If that is the last use of the file, it is taken out of the list, and the server closes it
    /// with the WRITE: see [`OpenFile::leaves`].
    pub(crate) fn writer(&self, last: bool, session: &Arc<Session>) -> Option<Borrowed> {
        let gone;
        let open = {
            let mut inner = self.inner.lock();
            let open = find_open(&inner.opens, OpenFlags::WRITE)?;
            let open = Borrowed::new(open.clone(), session);
            gone = match last && open.leave() {
                true => inner.take_open(&open),
                false => None,
            };
            open
        };
        drop(gone);
        Some(open)
    }

    /// An open file that can do what `how` says.
    pub(crate) fn any_open(&self, how: OpenFlags, session: &Arc<Session>) -> Option<Borrowed> {
        let inner = self.inner.lock();
        // Who closes it takes it out of the list before.
        find_open(&inner.opens, how).map(|open| Borrowed::new(open.clone(), session))
    }

    /// Takes the open files out that only waited for data to be written.
    pub(crate) fn take_lingering(&self) -> KVVec<Arc<OpenFile>> {
        let mut gone = KVVec::new();
        let mut inner = self.inner.lock();
        while let Some(at) = inner.opens.iter().position(|open| open.lingers()) {
            let Ok(open) = inner.opens.remove(at) else {
                break;
            };
            // Without memory the file stays open until umount.
            let _ = gone.push(open, GFP_KERNEL);
        }
        gone
    }
}

impl Inner {
    /// Takes an open file out of the list.
    fn take_open(&mut self, open: &Arc<OpenFile>) -> Option<Arc<OpenFile>> {
        let at = self
            .opens
            .iter()
            .position(|other| Arc::ptr_eq(other, open))?;
        self.opens.remove(at).ok()
    }
}

/// An open file that can do what `how` says, if possible one that a program still has.
fn find_open(opens: &[Arc<OpenFile>], how: OpenFlags) -> Option<&Arc<OpenFile>> {
    let can = |open: &&Arc<OpenFile>| open.flags.has(how);
    let is_open = |open: &&Arc<OpenFile>| can(open) && !open.lingers();
    let found = opens.iter().find(is_open);
    found.or_else(|| opens.iter().find(can))
}
