// SPDX-License-Identifier: GPL-2.0

//! All sessions, and the end of those whose client does not come back.

use core::cmp::Reverse;
use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        Mutex, //
    },
    time::msecs_to_jiffies,
};
use qtfs_net::Address;

use crate::{
    budget::Budget,
    log::now_ms,
    session::Session, //
};

/// How long a session without connections is kept.
pub(crate) const TTL_MS: i64 = 60_000;
/// Most sessions; each mount of a client is one.
pub(crate) const MAX_SESSIONS: usize = 1024;
/// Most sessions from one address.
const MAX_OF_ADDRESS: usize = MAX_SESSIONS / 4;
/// How often sessions without connections are looked at.
const TICK_MS: u32 = 1_000;
/// How often they are looked at when there are none.
const IDLE_MS: u32 = 60_000;

/// See the module.
#[pin_data]
pub(crate) struct Sessions {
    #[pin]
    inner: Mutex<Inner>,
    /// Something may have to be done sooner.
    #[pin]
    changed: CondVar,
}

/// The fields of [`Sessions`] protected by the lock.
struct Inner {
    list: KVec<Arc<Session>>,
    /// Number of the next one.
    next: u32,
    /// Look at all sessions at once.
    look: bool,
    /// The module is being unloaded.
    closed: bool,
}

impl Inner {
    /// How many sessions come from the address of `peer`.
    fn of_address(&self, peer: &Address) -> usize {
        self.list.iter().filter(|s| s.is_from(peer)).count()
    }

    /// When there are too many sessions for one more from `peer`: one without connections, of the
    /// address that has the most, and of these the one that has been so for the longest time.
    /// Nobody's who has fewer sessions than `peer`.
    fn to_be_replaced(&self, peer: &Address) -> Option<Arc<Session>> {
        let own = self.of_address(peer);
        if self.list.len() < MAX_SESSIONS && own < MAX_OF_ADDRESS {
            return None;
        }
        let alone = self.list.iter().filter_map(|session| {
            let since = session.alone_since()?;
            let others = self.of_address(session.peer());
            let may = own < MAX_OF_ADDRESS || session.is_from(peer);
            (may && others >= own).then_some(((others, Reverse(since)), session))
        });
        let first = alone.max_by_key(|(key, _)| *key);
        first.map(|(_, session)| session.clone())
    }
}

impl Sessions {
    /// No sessions.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(Inner {
                list: KVec::new(),
                next: 1,
                look: false,
                closed: false,
            }),
            changed <- new_condvar!(),
        })
    }

    /// A number for a new session.
    pub(crate) fn next_number(&self) -> u32 {
        let mut inner = self.inner.lock();
        let number = inner.next;
        inner.next = inner.next.wrapping_add(1).max(1);
        number
    }

    /// The session with this id.
    pub(crate) fn find(&self, id: &[u8; 16]) -> Option<Arc<Session>> {
        let inner = self.inner.lock();
        inner.list.iter().find(|s| s.id() == id).cloned()
    }

    /// Adds a session, in the place of one whose client has left when there are too many.
    ///
    /// Fails with [`EUSERS`] when there is none that may be ended for it.
    pub(crate) fn insert(&self, session: &Arc<Session>) -> Result {
        let peer = session.peer();
        let left = self.inner.lock().to_be_replaced(peer);
        if let Some(left) = left {
            log_warn!("{left}: others take its place\n");
            self.end(&left);
        }
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(ESHUTDOWN);
        }
        let (all, own) = (inner.list.len(), inner.of_address(peer));
        if all >= MAX_SESSIONS || own >= MAX_OF_ADDRESS {
            log_warn!("{session}: refused, there are {all} sessions, {own} of them of {peer}\n");
            return Err(EUSERS);
        }
        inner.list.push(session.clone(), GFP_KERNEL)?;
        Ok(())
    }

    /// Ends a session now.
    pub(crate) fn end(&self, session: &Arc<Session>) {
        let removed = {
            let mut inner = self.inner.lock();
            let at = inner.list.iter().position(|s| Arc::ptr_eq(s, session));
            at.and_then(|at| inner.list.remove(at).ok())
        };
        if session.end() {
            log_info!("{session}: is ended\n");
        }
        drop(removed);
    }

    /// What the sessions of a client may use together.
    pub(crate) fn budget(&self, peer: &Address) -> Result<Arc<Budget>> {
        let known = {
            let inner = self.inner.lock();
            let other = inner.list.iter().find(|session| session.is_from(peer));
            other.map(|session| session.budget.clone())
        };
        known.map_or_else(Budget::new, Ok)
    }

    /// Ends the sessions that the machine of a new one had before it was started anew.
    pub(crate) fn end_older(&self, new: &Session) {
        loop {
            let found = {
                let inner = self.inner.lock();
                let older = inner.list.iter().find(|session| new.follows(session));
                older.cloned()
            };
            let Some(session) = found else { return };
            log_info!("{session}: its machine was started anew\n");
            self.end(&session);
        }
    }

    /// Makes [`Sessions::wait`] return soon.
    pub(crate) fn look_again(&self) {
        self.inner.lock().look = true;
        self.changed.notify_one();
    }

    /// Waits until it is time to look at all sessions; `busy` says that it soon is. False when the
    /// module is being unloaded.
    pub(crate) fn wait(&self, busy: bool) -> bool {
        let mut inner = self.inner.lock();
        if !inner.closed && !inner.look {
            let ms = if busy { TICK_MS } else { IDLE_MS };
            let _ = self
                .changed
                .wait_interruptible_timeout(&mut inner, msecs_to_jiffies(ms));
        }
        inner.look = false;
        !inner.closed
    }

    /// Ends sessions that were alone for too long; says whether others are alone.
    pub(crate) fn reap(&self) -> bool {
        let now = now_ms();
        let mut alone = false;
        let mut at = 0;
        loop {
            let session = match self.inner.lock().list.get(at) {
                Some(session) => session.clone(),
                None => return alone,
            };
            if session.end_if_alone_since(now - TTL_MS) {
                log_warn!(
                    "{session}: did not come back for {} s, is ended\n",
                    TTL_MS / 1000
                );
                self.end(&session);
            } else {
                alone |= session.alone_since().is_some();
                at += 1;
            }
        }
    }

    /// Ends all sessions; there will be no new ones.
    pub(crate) fn close(&self) {
        let list = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            core::mem::replace(&mut inner.list, KVec::new())
        };
        self.changed.notify_one();
        for session in list.iter() {
            session.end();
        }
    }
}
