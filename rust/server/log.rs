// SPDX-License-Identifier: GPL-2.0

//! The kernel log: as much as `qtfs_log_level` says, and never flooded by a peer.

use kernel::{
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        ClockSource,
        Monotonic, //
    },
};
use qtfs_vfs::param;

pub(crate) use param::Level;

/// Lines that may be logged in one period.
const BURST: u32 = 30;
/// Length of a period.
const PERIOD_MS: i64 = 5_000;

/// Start of the current period.
static PERIOD: Atomic<i64> = Atomic::<i64>::new(0);
/// Lines that were asked for in the current period.
static LINES: Atomic<u32> = Atomic::<u32>::new(0);

/// Milliseconds since boot.
pub(crate) fn now_ms() -> i64 {
    Monotonic::ktime_get() / 1_000_000
}

/// Whether a line of `level` is to be logged.
///
/// Two tasks that begin a period at once may both log a line more; nobody minds.
pub(crate) fn wants(level: Level) -> bool {
    if !param::logs(level) {
        return false;
    }
    if level == Level::Debug {
        return true;
    }
    let now = now_ms();
    if now - PERIOD.load(Relaxed) >= PERIOD_MS {
        PERIOD.store(now, Relaxed);
        let lost = LINES.xchg(0, Relaxed).saturating_sub(BURST);
        if lost > 0 {
            kernel::pr_warn!("{lost} messages were left out\n");
        }
    }
    LINES.fetch_add(1, Relaxed) < BURST
}

/// Logs what does not work.
macro_rules! log_error {
    ($($arg:tt)*) => {
        if $crate::log::wants($crate::log::Level::Error) {
            kernel::pr_err!($($arg)*);
        }
    };
}

/// Logs what works in spite of something, and what was refused.
macro_rules! log_warn {
    ($($arg:tt)*) => {
        if $crate::log::wants($crate::log::Level::Warn) {
            kernel::pr_warn!($($arg)*);
        }
    };
}

/// Logs what begins and ends.
macro_rules! log_info {
    ($($arg:tt)*) => {
        if $crate::log::wants($crate::log::Level::Info) {
            kernel::pr_info!($($arg)*);
        }
    };
}

/// Logs an operation.
macro_rules! log_debug {
    ($($arg:tt)*) => {
        if $crate::log::wants($crate::log::Level::Debug) {
            // `pr_debug` says nothing in a kernel without dynamic debugging of Rust.
            kernel::pr_info!($($arg)*);
        }
    };
}
