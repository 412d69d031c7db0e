// SPDX-License-Identifier: GPL-2.0

//! How many bytes are kept for a peer until it, or somebody else, has done something.

use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        Mutex, //
    },
};

use crate::time::ticks;

/// See the module.
#[pin_data]
pub struct Meter {
    /// Counts the same, and others.
    above: Option<Arc<Meter>>,
    #[pin]
    bytes: Mutex<usize>,
    #[pin]
    fewer: CondVar,
}

/// Bytes that are counted until this is dropped.
pub struct Counted {
    meter: Arc<Meter>,
    bytes: usize,
}

impl Meter {
    /// Nothing is kept.
    pub fn new(above: Option<Arc<Self>>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                above,
                bytes <- new_mutex!(0),
                fewer <- new_condvar!(),
            }),
            GFP_KERNEL,
        )
    }

    /// How many bytes are kept.
    pub fn bytes(&self) -> usize {
        *self.bytes.lock()
    }

    /// Counts bytes that are kept now.
    pub fn count(self: &Arc<Self>, bytes: usize) -> Counted {
        *self.bytes.lock() += bytes;
        self.counted(bytes)
    }

    /// Counts bytes that will be kept if there are at most `most` then, or if there are no others.
    /// Else waits for fewer, for at most `ms`, and counts nothing.
    pub fn count_within(self: &Arc<Self>, bytes: usize, most: usize, ms: u32) -> Option<Counted> {
        let mut kept = self.bytes.lock();
        if *kept > 0 && kept.saturating_add(bytes) > most {
            let _ = self.fewer.wait_interruptible_timeout(&mut kept, ticks(ms));
            return None;
        }
        *kept += bytes;
        drop(kept);
        Some(self.counted(bytes))
    }

    fn counted(self: &Arc<Self>, bytes: usize) -> Counted {
        if let Some(above) = &self.above {
            *above.bytes.lock() += bytes;
        }
        Counted {
            meter: self.clone(),
            bytes,
        }
    }

    fn subtract(&self, bytes: usize) {
        *self.bytes.lock() -= bytes;
        self.fewer.notify_all();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.meter.subtract(self.bytes);
        if let Some(above) = &self.meter.above {
            above.subtract(self.bytes);
        }
    }
}
