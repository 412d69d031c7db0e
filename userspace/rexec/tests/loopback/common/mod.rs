// SPDX-License-Identifier: GPL-2.0

//! A server and callers for the tests, and what is left of them afterwards.

pub(crate) mod processes;
pub(crate) mod run;
pub(crate) mod server;

pub(crate) use processes::marked;
pub(crate) use processes::Process;
pub(crate) use run::Run;
pub(crate) use server::Server;

use std::time::Duration;
use std::time::Instant;

/// How long anything may take on a busy machine before it counts as never.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Waits until something is so.
///
/// # Panics
///
/// When it does not get so.
pub(crate) fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(within(LIMIT, holds), "never: {what}");
}

/// Waits until something is so, and says whether it got so in time.
pub(crate) fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !holds() {
        if begin.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
