// SPDX-License-Identifier: GPL-2.0

//! The sessions that a server has, for those who ask.

use crate::policy::Peer;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// What is known about a session; the form of `rexec-ps --json`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Session {
    /// Its number, never used again by this server.
    pub session: u64,
    /// The program's process id, 0 while it is started.
    pub pid: u32,
    /// Who asked for it: the name that the policy has for the peer.
    pub peer: String,
    /// From where.
    pub origin: String,
    /// The user that the program was started as.
    pub uid: u32,
    /// Seconds since 1970 when it was started.
    pub started: u64,
    /// `starting`, `running`, or `detached` when only descendants are left.
    pub state: String,
    /// Whether descendants may live on.
    pub detach: bool,
    /// The program's file.
    pub program: String,
    /// The arguments, the program's name first.
    pub arguments: Vec<String>,
}

impl Session {
    /// A session that is about to start.
    pub(super) fn new(peer: &Peer, origin: String, uid: u32) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            session: 0,
            pid: 0,
            peer: peer.to_string(),
            origin,
            uid,
            started: since.map_or(0, |since| since.as_secs()),
            state: "starting".into(),
            detach: false,
            program: String::new(),
            arguments: Vec::new(),
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    sessions: BTreeMap<u64, Session>,
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Registry(Mutex<Inner>);

impl Registry {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session until the entry is dropped.
    pub(super) fn add(self: &std::sync::Arc<Self>, mut session: Session) -> Entry {
        let mut inner = self.inner();
        inner.next += 1;
        session.session = inner.next;
        let number = inner.next;
        inner.sessions.insert(number, session);
        Entry {
            registry: self.clone(),
            number,
        }
    }

    /// The sessions, oldest first.
    pub fn list(&self) -> Vec<Session> {
        self.inner().sessions.values().cloned().collect()
    }
}

/// A session's place in the registry.
#[derive(Debug)]
pub(super) struct Entry {
    registry: std::sync::Arc<Registry>,
    /// The session's number.
    pub(super) number: u64,
}

impl Entry {
    /// Changes what is known about it.
    pub(super) fn update(&self, change: impl FnOnce(&mut Session)) {
        if let Some(session) = self.registry.inner().sessions.get_mut(&self.number) {
            change(session);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.inner().sessions.remove(&self.number);
    }
}
