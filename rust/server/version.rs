// SPDX-License-Identifier: GPL-2.0

//! When the client's cached contents of a file are good.
//!
//! `Attr::version` stays the same while only this session changes a file and grows when anybody
//! else did. HOST's file systems only say *that* a file changed, by its change cookie or time. So a
//! change that the session makes is put in brackets: the cookie is looked at before, which finds
//! what others did until then, and after, which becomes the known one. In between others could
//! change the file unseen; whenever somebody else has it open for writing, the version grows all the
//! same.
//!
//! Changes that the session makes to one file take turns ([`Version::change`]), so that brackets
//! do not overlap. A look from outside does not wait for them.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        lock::mutex::MutexGuard,
        Mutex, //
    },
};

/// The version of a file in a session.
#[pin_data]
pub(crate) struct Version {
    /// Held by whoever changes the file.
    #[pin]
    turn: Mutex<()>,
    #[pin]
    state: Mutex<State>,
}

/// The fields of [`Version`] protected by the inner lock.
struct State {
    version: u64,
    /// Cookie of the last look; none before the first.
    cookie: Option<u64>,
    /// The session is changing the file.
    changing: bool,
    /// Changes that the session made.
    changes: u64,
}

/// When a look from outside began.
#[derive(Clone, Copy)]
pub(crate) struct Moment(u64);

impl State {
    fn see(&mut self, cookie: u64) {
        if self.cookie != Some(cookie) {
            if self.cookie.is_some() {
                self.version = self.version.wrapping_add(1);
            }
            self.cookie = Some(cookie);
        }
    }
}

/// A change in progress.
pub(crate) struct Changing<'a> {
    version: &'a Version,
    _turn: MutexGuard<'a, ()>,
    /// The cookie afterwards, when it could be had.
    after: Option<u64>,
    /// Others may have changed the file meanwhile.
    suspect: bool,
}

impl Version {
    /// A version that begins with `start`.
    pub(crate) fn new(start: u64) -> impl PinInit<Self> {
        pin_init!(Self {
            turn <- new_mutex!(()),
            state <- new_mutex!(State {
                version: start,
                cookie: None,
                changing: false,
                changes: 0,
            }),
        })
    }

    /// To be called before the cookie is looked at from outside of a change.
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.state.lock().changes)
    }

    /// Takes note of the cookie that a look found which began at `moment`; returns the version.
    ///
    /// What was seen before or during a change of the session itself is no news.
    pub(crate) fn see(&self, cookie: u64, moment: Moment) -> u64 {
        let mut state = self.state.lock();
        if !state.changing && state.changes == moment.0 {
            state.see(cookie);
        }
        state.version
    }

    /// Begins a change; `look` returns the cookie, and whether somebody else may be changing the
    /// file too.
    pub(crate) fn change(&self, look: impl FnOnce() -> (Option<u64>, bool)) -> Changing<'_> {
        let turn = self.turn.lock();
        self.state.lock().changing = true;
        let (cookie, suspect) = look();
        if let Some(cookie) = cookie {
            self.state.lock().see(cookie);
        }
        Changing {
            version: self,
            _turn: turn,
            after: None,
            suspect,
        }
    }
}

impl Changing<'_> {
    /// Ends a change; `look` as for [`Version::change`].
    pub(crate) fn finish(mut self, look: impl FnOnce() -> (Option<u64>, bool)) {
        let (cookie, suspect) = look();
        self.after = cookie;
        self.suspect |= suspect;
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut state = self.version.state.lock();
        state.changing = false;
        state.changes = state.changes.wrapping_add(1);
        match self.after {
            Some(cookie) if !self.suspect => state.cookie = Some(cookie),
            after => {
                state.cookie = after.or(state.cookie);
                state.version = state.version.wrapping_add(1);
            }
        }
    }
}
