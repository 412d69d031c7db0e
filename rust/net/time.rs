// SPDX-License-Identifier: GPL-2.0

//! The monotonic clock.

use crate::bindings;

/// Microseconds since boot.
pub fn now_us() -> u64 {
    // SAFETY: The clock can be read at any time.
    (unsafe { bindings::ktime_get() }).max(0).unsigned_abs() / 1000
}

/// The timeout of a wait, in the kernel's ticks.
pub fn ticks(ms: u32) -> usize {
    // SAFETY: A pure conversion.
    unsafe { bindings::__msecs_to_jiffies(ms) }
}
