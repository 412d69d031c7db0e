// SPDX-License-Identifier: GPL-2.0

//! The housekeeper: a thread that does what nobody waits for, and what those who could do it must
//! not wait for.

use core::{
    mem,
    sync::atomic::Ordering, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::{
    time::{
        now_us,
        ticks, //
    },
    NoFs,
    Pages, //
};
use qtfs_proto::{
    message::{
        Lock,
        Release, //
    },
    List, //
};

use super::{
    request::Request,
    then::{
        Then,
        Writeback, //
    },
    Acting,
    Inner,
    Session,
    Wait, //
};

/// How often requests are looked at that nobody waits for, with `soft`, in milliseconds.
const TICK_MS: u32 = 500;

impl Session {
    /// Begins a write of pages anew when it is due, in the session that there is by then.
    pub(crate) fn write_again(&self, writeback: Writeback) {
        let _nofs = NoFs::enter();
        // Without memory the write fails, which `Writeback` tells when it is dropped; that may take
        // the lock.
        let _refused = {
            let mut inner = self.inner.lock();
            if inner.stopped || inner.again.reserve(1, GFP_KERNEL).is_err() {
                Some(writeback)
            } else {
                let _ = inner.again.push_within_capacity(writeback);
                inner.chores = true;
                self.changed.notify_all();
                None
            }
        };
    }

    /// Releases a lock, soon.
    pub(crate) fn unlock(&self, unlock: Lock, cred: Option<Acting>, incarnation: u32) {
        let _nofs = NoFs::enter();
        let mut inner = self.inner.lock();
        let queued = inner
            .unlocks
            .push((unlock, cred, incarnation), GFP_KERNEL)
            .is_ok();
        inner.chores = true;
        drop(inner);
        self.changed.notify_all();
        if !queued {
            self.log_error(
                "LOCK",
                ENOMEM,
                "a lock stays on HOST until its file is closed",
            );
        }
    }

    /// Has the housekeeper look what there is to do.
    pub(crate) fn chores(&self) {
        self.inner.lock().chores = true;
        self.changed.notify_all();
    }

    /// What the housekeeper does until the session ends: what nobody waits for.
    pub(super) fn keep_house(self: &Arc<Self>) {
        let _nofs = NoFs::enter();
        loop {
            let (again, unlocks) = {
                let mut inner = self.inner.lock();
                let again = loop {
                    // After `umount -f` there is nothing to wait for.
                    let now = if self.is_aborted() {
                        u64::MAX
                    } else {
                        now_us()
                    };
                    let again = inner.take_due(now);
                    if again.is_some() || inner.chores || inner.stopped {
                        break again;
                    }
                    let pause = inner
                        .next_due()
                        .map(|due| pause_ms(due.saturating_sub(now)));
                    let tick = self.config.timeout.map(|_| TICK_MS);
                    // No signal comes; the kernel takes this for idle, not for stuck.
                    let Some(wait) = [pause, tick].into_iter().flatten().min() else {
                        let _ = self.changed.wait_interruptible(&mut inner);
                        continue;
                    };
                    let _ = self
                        .changed
                        .wait_interruptible_timeout(&mut inner, ticks(wait));
                    if tick.is_some() {
                        break None;
                    }
                };
                inner.chores = false;
                if inner.stopped {
                    // What was to be written is lost with the mount; dropping it says so.
                    let lost = mem::take(&mut inner.again);
                    drop(inner);
                    drop((again, lost));
                    return;
                }
                (again, mem::take(&mut inner.unlocks))
            };
            self.expire_reads();
            for (unlock, cred, incarnation) in unlocks {
                // Without memory, or the session, the lock ends with its file.
                if let Ok(none) = Arc::new(Pages::new(), GFP_KERNEL) {
                    self.submit(&unlock, cred, none, None, Then::Forget, incarnation);
                }
            }
            self.send_releases();
            if let Some(writeback) = again {
                crate::data::write_back(self, writeback);
            }
        }
    }

    /// Fails reads of pages that take longer than `timeo`; those that read wait for them.
    fn expire_reads(self: &Arc<Self>) {
        let Some(ms) = self.config.timeout else {
            return;
        };
        let made_before = now_us().saturating_sub(u64::from(ms) * 1000);
        let mut late = KVVec::new();
        {
            let inner = self.inner.lock();
            for (_, _, request) in inner.slots.iter() {
                let mut state = request.state.lock();
                let reads = matches!(state.then, Then::Read(..));
                // A reply that is coming in at this moment is taken.
                let receiving = request.receiving.load(Ordering::Acquire);
                if !reads || receiving || request.started >= made_before {
                    continue;
                }
                request.unwanted.store(true, Ordering::Release);
                let then = mem::replace(&mut state.then, Then::Forget);
                // Without memory the pages fail now, which dropping does.
                let _ = late.push((request.clone(), then), GFP_KERNEL);
            }
        }
        for (request, then) in late {
            then.run(self, &request, Err(ETIMEDOUT));
            self.stats.failed(request.op);
        }
    }

    /// Sends what waits in the queue of releases.
    fn send_releases(&self) {
        while let Some(queue) = self.releases.next() {
            let sent = (|| -> Result {
                let mut files = KVVec::from_elem(0u8, queue.files.len() * 8, GFP_KERNEL)?;
                let mut nodes = KVVec::from_elem(0u8, queue.nodes.len() * 16, GFP_KERNEL)?;
                let message = Release {
                    files: List::pack(queue.files.iter().copied(), &mut files)
                        .map_err(|_| EINVAL)?,
                    nodes: List::pack(queue.nodes.iter().copied(), &mut nodes)
                        .map_err(|_| EINVAL)?,
                };
                let none = Arc::new(Pages::new(), GFP_KERNEL)?;
                let request = Request::new(&message, None, none, None, Then::Forget)?;
                self.place(&request, queue.incarnation, Wait::Killable)
            })();
            match sent {
                // With `soft` there may be no place for long; without memory later is better too.
                Err(e) if e == ETIMEDOUT || e == ENOMEM => return self.releases.put_back(queue),
                // The session has ended, and with it files and nodes on the server.
                _ => {}
            }
        }
    }
}

impl Inner {
    /// Takes out a write of pages that is to be begun anew by now.
    fn take_due(&mut self, now: u64) -> Option<Writeback> {
        let at = self.again.iter().position(|again| again.due <= now)?;
        self.again.remove(at).ok()
    }

    /// When the next one is.
    fn next_due(&self) -> Option<u64> {
        self.again.iter().map(|again| again.due).min()
    }
}

/// Milliseconds until so many microseconds are over.
fn pause_ms(us: u64) -> u32 {
    u32::try_from(us.div_ceil(1000)).unwrap_or(u32::MAX)
}
