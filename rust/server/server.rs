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

use qtfs_net::Pages;
use qtfs_vfs::{
    local::{
        file::{
            How,
            ReadHow, //
        },
        path::Symlinks,
        File,
        Path, //
    },
    random,
    unix::Aliases, //
};

use crate::{
    channels::Channels,
    listener::Connections,
    policy::{
        Current,
        Policy, //
    },
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
    pub(crate) queue: Arc<Queue>,
    /// Channels that engine has not fetched.
    #[pin]
    pub(crate) channels: Channels,
    /// What clients may use.
    pub(crate) current: Arc<Current>,
    #[pin]
    engine: Mutex<Engine>,
}

/// What is known of engine.
struct Engine {
    /// It has the device open.
    present: bool,
    /// Where it binds sockets.
    aliases: Option<Aliases>,
    /// It has handed over a policy since it came.
    configured: bool,
    /// Number of the next policy.
    next: u64,
    /// How many engines there were.
    epoch: u64,
    /// Which boot of HOST it is: the same number however often the module is loaded.
    boot: u64,
}

impl Server {
    /// Without clients, engine and policy.
    pub(crate) fn new() -> Result<Arc<Self>> {
        // Until engine comes and the kernel's own number can be read.
        let boot = random::number();
        Arc::pin_init(
            try_pin_init!(Self {
                connections <- Connections::new(),
                sessions <- Sessions::new(),
                queue: Arc::pin_init(Queue::new(), GFP_KERNEL)?,
                channels <- Channels::new(),
                current: Current::new()?,
                engine <- new_mutex!(Engine {
                    present: false,
                    aliases: None,
                    configured: false,
                    next: 1,
                    epoch: 0,
                    boot,
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

    /// Makes the directory in which engine binds sockets; it goes with engine.
    pub(crate) fn start_aliases(&self) -> Result {
        let aliases = Aliases::start()?;
        self.engine.lock().aliases = Some(aliases);
        Ok(())
    }

    /// Which engine is here.
    pub(crate) fn epoch(&self) -> u64 {
        self.engine.lock().epoch
    }

    /// Engine is gone.
    pub(crate) fn engine_goes(&self) {
        // Before another one may come, which has a directory of its own.
        let aliases = self.engine.lock().aliases.take();
        drop(aliases);
        let mut engine = self.engine.lock();
        engine.present = false;
        engine.configured = false;
    }

    /// Which boot of HOST it is; known once engine has handed over a policy.
    pub(crate) fn boot(&self) -> u64 {
        self.engine.lock().boot
    }

    /// The policy that holds now.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.current.get()
    }

    /// Sets another policy. Called in engine's context.
    pub(crate) fn configure(&self, bytes: &[u8]) -> Result<Arc<Policy>> {
        let number = {
            let mut engine = self.engine.lock();
            engine.next += 1;
            engine.next
        };
        let policy = Arc::new(Policy::parse(bytes, number)?, GFP_KERNEL)?;
        let boot = boot_id();
        let mut engine = self.engine.lock();
        engine.boot = boot.unwrap_or(engine.boot);
        self.current.set(&policy);
        engine.configured = true;
        Ok(policy)
    }

    /// What the reaping thread does: forgets what was lost, until the module is unloaded.
    pub(crate) fn reap_until_closed(&self) {
        let mut busy = false;
        while self.sessions.wait(busy) {
            self.connections.reap();
            busy = self.sessions.reap() || self.connections.has_lost();
        }
    }
}

/// The number that the kernel gave this boot, as far as it is in 64 bits, or nothing where engine
/// sees no procfs: then another load of the module counts as another boot.
fn boot_id() -> Option<u64> {
    let text = contents(c"/proc/sys/kernel/random/boot_id")?;
    let digits = text.iter().filter_map(|&b| char::from(b).to_digit(16));
    let number = digits
        .take(16)
        .fold(0, |number, digit| number << 4 | u64::from(digit));
    (number != 0).then_some(number)
}

/// The number in a file of procfs, or nothing where engine sees none. Called as engine.
pub(crate) fn setting(path: &CStr) -> Option<u32> {
    let text = contents(path)?;
    core::str::from_utf8(&text).ok()?.trim().parse().ok()
}

/// The first bytes of a file of procfs.
fn contents(path: &CStr) -> Option<KVVec<u8>> {
    let path = Path::absolute(path, Symlinks::Refuse).ok()?;
    let how = How {
        read: true,
        ..How::default()
    };
    let file = File::open(&path, how).ok()?;
    let pages = Pages::alloc(64).ok()?;
    let len = file.read(0, &pages, pages.len(), ReadHow::default()).ok()?;
    pages.to_vec(len).ok()
}
