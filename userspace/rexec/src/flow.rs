// SPDX-License-Identifier: GPL-2.0

//! Credit: how many bytes of a stream may be under way, so that a slow reader slows its writer
//! and nobody has to keep more than was agreed on.

use crate::message::MAX_DATA;
use crate::message::MAX_WINDOW;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use tokio::sync::Semaphore;

/// Bytes of stdin that may be sent before the first CREDIT.
pub const STDIN_WINDOW: u32 = 256 << 10;

/// The peer gave more credit than a stream can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

fn size(bytes: u32) -> usize {
    // Linux has no machine where this does not fit.
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Credit that a task waits for; only one task takes.
#[derive(Debug)]
pub struct Window(Semaphore);

impl Window {
    /// Starts with so many bytes.
    pub fn new(bytes: u32) -> Self {
        Self(Semaphore::new(size(bytes.min(MAX_WINDOW))))
    }

    /// Adds what the peer gives.
    pub fn grant(&self, bytes: u32) -> Result<(), TooMuch> {
        if self.0.available_permits() + size(bytes) > size(MAX_WINDOW) {
            return Err(TooMuch);
        }
        self.0.add_permits(size(bytes));
        Ok(())
    }

    /// Takes as much as there is, at least one byte and no more than a message holds.
    pub async fn take(&self) -> usize {
        // It is never closed.
        let Ok(first) = self.0.acquire().await else {
            return std::future::pending().await;
        };
        first.forget();
        1 + self.0.forget_permits(MAX_DATA - 1)
    }

    /// Gives back what was taken and not used.
    pub fn put_back(&self, bytes: usize) {
        self.0.add_permits(bytes);
    }
}

/// Credit that a thread waits for.
#[derive(Debug)]
pub struct Gate {
    /// Bytes, or `None` when there will never be more.
    credit: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Gate {
    /// Starts with so many bytes.
    pub fn new(bytes: u32) -> Self {
        Self {
            credit: Mutex::new(Some(size(bytes))),
            changed: Condvar::new(),
        }
    }

    /// Adds what the peer gives.
    pub fn grant(&self, bytes: u32) -> Result<(), TooMuch> {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credit) = credit.as_mut() {
            *credit += size(bytes);
            if *credit > size(MAX_WINDOW) {
                return Err(TooMuch);
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Says that nobody reads any more.
    pub fn close(&self) {
        *self.credit.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.changed.notify_one();
    }

    /// Waits for credit and tells how much there is; `None` when nobody reads any more.
    pub fn wait(&self) -> Option<usize> {
        let credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(credit, |credit| *credit == Some(0));
        *waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what [`Gate::wait`] said that there is, or less.
    pub fn take(&self, bytes: usize) {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credit) = credit.as_mut() {
            *credit = credit.saturating_sub(bytes);
        }
    }
}

/// What a receiver of a stream may still get, and when it says that there is room again.
#[derive(Debug)]
pub struct Budget {
    window: u32,
    expected: u32,
    free: u32,
}

impl Budget {
    /// The sender may send `window` bytes before it hears of more.
    pub fn new(window: u32) -> Self {
        Self {
            window,
            expected: window,
            free: 0,
        }
    }

    /// Counts what came. The peer must not send what it has no credit for.
    pub fn received(&mut self, bytes: usize) -> Result<(), TooMuch> {
        let bytes = u32::try_from(bytes).map_err(|_| TooMuch)?;
        self.expected = self.expected.checked_sub(bytes).ok_or(TooMuch)?;
        Ok(())
    }

    /// Counts what was passed on, and returns the credit to give now, or 0: a message for every
    /// few bytes would cost more than it brings.
    pub fn passed_on(&mut self, bytes: usize) -> u32 {
        self.free += u32::try_from(bytes).unwrap_or(0);
        if self.free < self.window / 4 {
            return 0;
        }
        let credit = std::mem::take(&mut self.free);
        self.expected += credit;
        credit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_window_gives_what_it_got() {
        let window = Window::new(100);
        assert_eq!(window.take().await, 100);
        window.put_back(30);
        window.grant(10).unwrap();
        assert_eq!(window.take().await, 40);
        window.grant(MAX_WINDOW).unwrap();
        assert_eq!(window.grant(1), Err(TooMuch));
        assert_eq!(window.take().await, MAX_DATA);
    }

    #[test]
    fn a_gate_opens_and_closes() {
        let gate = Gate::new(5);
        assert_eq!(gate.wait(), Some(5));
        gate.take(5);
        gate.grant(7).unwrap();
        assert_eq!(gate.wait(), Some(7));
        assert_eq!(gate.grant(MAX_WINDOW), Err(TooMuch));
        gate.close();
        assert_eq!(gate.wait(), None);
    }

    #[test]
    fn a_budget_refuses_what_was_not_agreed_on() {
        let mut budget = Budget::new(100);
        budget.received(100).unwrap();
        assert_eq!(budget.received(1), Err(TooMuch));
        assert_eq!(budget.passed_on(24), 0);
        assert_eq!(budget.passed_on(1), 25);
        budget.received(25).unwrap();
        assert_eq!(budget.received(1), Err(TooMuch));
    }
}
