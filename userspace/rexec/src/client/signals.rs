// SPDX-License-Identifier: GPL-2.0

//! Signals that rexec gets and the program is to have.

use nix::libc;
use signal_hook::iterator::Signals;
use std::io;
use tokio::sync::mpsc;

/// Those that cannot be caught, that tell of a mistake of rexec's own, or that are about rexec's
/// own children, terminal and streams.
const OWN: [i32; 13] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGTTIN,
    libc::SIGTTOU,
];
/// glibc keeps those between the named and the real-time signals for itself.
const LAST_NAMED: i32 = 31;
const FIRST_REAL_TIME: i32 = 34;
const LAST: i32 = 64;

/// Catches all signals that are the program's, except those that rexec was told to ignore.
pub(super) fn catch(ignored: u64) -> io::Result<mpsc::UnboundedReceiver<u8>> {
    let named = (1..=LAST_NAMED).filter(|signal| !OWN.contains(signal));
    let all = named.chain(FIRST_REAL_TIME..=LAST);
    let mut signals = Signals::new(all.filter(|signal| ignored & (1 << (signal - 1)) == 0))?;
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("rexec/signals".into())
        .spawn(move || {
            for signal in &mut signals {
                let Ok(signal) = u8::try_from(signal) else {
                    continue;
                };
                if sender.send(signal).is_err() {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

/// Whether a signal ends a process that has not asked for anything else.
pub(super) fn is_deadly(signal: u8) -> bool {
    let harmless = [libc::SIGCONT, libc::SIGTSTP, libc::SIGURG, libc::SIGWINCH];
    !harmless.contains(&signal.into())
}
