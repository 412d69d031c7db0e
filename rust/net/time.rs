// SPDX-License-Identifier: GPL-2.0

//! The monotonic clock.

use kernel::prelude::*;

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

/// Sleeps; fails with [`ERESTARTSYS`] when a signal came.
pub fn sleep_interruptible(ms: u32) -> Result {
    // SAFETY: Callers may sleep.
    match unsafe { bindings::msleep_interruptible(ms) } {
        0 => Ok(()),
        _ => Err(ERESTARTSYS),
    }
}
