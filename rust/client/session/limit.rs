// SPDX-License-Identifier: GPL-2.0

//! How many lines of a mount go into the kernel log, so that HOST cannot flood it.

use core::sync::atomic::{
    AtomicU32,
    AtomicU64,
    Ordering, //
};
use qtfs_net::time::now_us;

/// Lines that may be logged in one period.
const BURST: u32 = 30;
/// Length of a period, in microseconds.
const PERIOD_US: u64 = 5_000_000;

/// The lines of one level.
pub(super) struct Limit {
    /// When the current period began, in microseconds since boot.
    began: AtomicU64,
    /// Lines that were asked for in it.
    lines: AtomicU32,
}

impl Limit {
    /// No line yet.
    pub(super) const fn new() -> Self {
        Self {
            began: AtomicU64::new(0),
            lines: AtomicU32::new(0),
        }
    }

    /// Whether a line may be logged; if so, also how many were left out before.
    ///
    /// Two tasks that begin a period at once may both log a line more; nobody minds.
    pub(super) fn take(&self) -> Option<u32> {
        let now = now_us();
        let mut left_out = 0;
        if now.saturating_sub(self.began.load(Ordering::Relaxed)) >= PERIOD_US {
            self.began.store(now, Ordering::Relaxed);
            left_out = self.lines.swap(0, Ordering::Relaxed).saturating_sub(BURST);
        }
        (self.lines.fetch_add(1, Ordering::Relaxed) < BURST).then_some(left_out)
    }
}
