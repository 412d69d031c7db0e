// SPDX-License-Identifier: GPL-2.0

//! What all threads of the module share.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

use crate::{
    listener::Connections,
    policy::Policy,
    queue::Queue,
    sessions::Sessions, //
};

/// One exists while the module is loaded.
#[pin_data]
pub(crate) struct Server {
    /// Connections of clients.
    #[pin]
    pub(crate) connections: Connections,
    /// Sessions of clients.
    #[pin]
    pub(crate) sessions: Sessions,
    /// Requests that wait for engine's threads.
    #[pin]
    pub(crate) queue: Queue,
    #[pin]
    engine: Mutex<Engine>,
}

/// What is known of engine.
struct Engine {
    /// It has the device open.
    present: bool,
    /// It has handed over a policy since it came.
    configured: bool,
    policy: Arc<Policy>,
    /// Number of the next policy.
    next: u64,
    /// How many engines there were.
    epoch: u64,
}

impl Server {
    /// Without clients, engine and policy.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let policy = Arc::new(Policy::empty(), GFP_KERNEL)?;
        Arc::pin_init(
            try_pin_init!(Self {
                connections <- Connections::new(),
                sessions <- Sessions::new(),
                queue <- Queue::new(),
                engine <- new_mutex!(Engine {
                    present: false,
                    configured: false,
                    policy,
                    next: 1,
                    epoch: 0,
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether requests will be executed.
    pub(crate) fn is_ready(&self) -> bool {
        let engine = self.engine.lock();
        engine.present && engine.configured
    }

    /// Engine comes; fails with [`EBUSY`] when it is here.
    pub(crate) fn engine_comes(&self) -> Result {
        let mut engine = self.engine.lock();
        if engine.present {
            return Err(EBUSY);
        }
        engine.present = true;
        engine.configured = false;
        engine.epoch += 1;
        Ok(())
    }

    /// Which engine is here.
    pub(crate) fn epoch(&self) -> u64 {
        self.engine.lock().epoch
    }

    /// Engine is gone.
    pub(crate) fn engine_goes(&self) {
        let mut engine = self.engine.lock();
        engine.present = false;
        engine.configured = false;
    }

    /// The policy that holds now.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.engine.lock().policy.clone()
    }

    /// Sets another policy.
    pub(crate) fn configure(&self, bytes: &[u8]) -> Result<Arc<Policy>> {
        let number = {
            let mut engine = self.engine.lock();
            engine.next += 1;
            engine.next
        };
        let policy = Arc::new(Policy::parse(bytes, number)?, GFP_KERNEL)?;
        let mut engine = self.engine.lock();
        let old = core::mem::replace(&mut engine.policy, policy.clone());
        engine.configured = true;
        drop(engine);
        drop(old);
        Ok(policy)
    }

    /// What the reaping thread does: forgets what was lost, until the module is unloaded.
    pub(crate) fn reap_until_closed(&self) {
        let mut busy = false;
        while self.sessions.wait(busy) {
            self.connections.reap();
            busy = self.sessions.reap(&self.queue) || self.connections.has_lost();
        }
    }
}
