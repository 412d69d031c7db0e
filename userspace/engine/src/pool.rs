// SPDX-License-Identifier: GPL-2.0

//! The worker threads.
//!
//! One [`Pool`] exists. Its workers live in the module's SERVE and come back when they were idle
//! for a while, when they are interrupted, or when something is wrong. One more thread, the
//! manager, lives in the module's WAIT and starts workers when requests wait for them. Both kinds
//! of threads end when `stop` is set; [`Pool::stop`] interrupts them until they have.

use crate::device::Demand;
use crate::device::Device;
use crate::device::Reason;
use crate::sys;
use nix::libc::EAGAIN;
use nix::libc::ENOMEM;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

/// Bytes of stack of a thread here; the work is done on the kernel's.
const STACK: usize = 256 * 1024;
/// How long to wait before a call is repeated that failed for want of memory.
const RETRY: Duration = Duration::from_millis(100);
/// How often threads are interrupted that are to end.
const INTERRUPT: Duration = Duration::from_millis(10);
/// How often the same complaint is logged.
const COMPLAINT: Duration = Duration::from_secs(60);
/// How long threads may take to end before that is logged.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many workers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Always.
    pub base: usize,
    /// At most.
    pub max: usize,
}

/// The worker threads and their manager.
pub struct Pool<D> {
    device: D,
    limits: Limits,
    inner: Mutex<Inner>,
    /// Notified when a thread is gone.
    gone: Condvar,
    /// Called once, with the first error that a thread cannot go on after.
    on_failure: Box<dyn Fn(&'static str, io::Error) + Send + Sync>,
}

/// What the lock of [`Pool`] protects.
#[derive(Default)]
struct Inner {
    stop: bool,
    failed: bool,
    /// By number, from 1. A thread takes itself out as the last thing it does under the lock, so
    /// every handle here belongs to a thread that can be interrupted.
    workers: BTreeMap<usize, JoinHandle<()>>,
    manager: Option<JoinHandle<()>>,
    complained: Option<Instant>,
}

impl<D: Device> Pool<D> {
    /// Starts the workers that are always there, and the manager.
    pub fn start(
        device: D,
        limits: Limits,
        on_failure: impl Fn(&'static str, io::Error) + Send + Sync + 'static,
    ) -> io::Result<Arc<Self>> {
        let pool = Arc::new(Self {
            device,
            limits,
            inner: Mutex::default(),
            gone: Condvar::new(),
            on_failure: Box::new(on_failure),
        });
        let result = pool.add_workers(limits.base).and_then(|()| {
            let this = Arc::clone(&pool);
            let thread = std::thread::Builder::new()
                .name("engine/manager".into())
                .stack_size(STACK);
            // Under the lock, so that the manager cannot be gone before it is noted.
            let mut inner = pool.lock();
            inner.manager = Some(thread.spawn(move || this.manage())?);
            Ok(())
        });
        if let Err(error) = result {
            pool.stop();
            return Err(error);
        }
        Ok(pool)
    }

    /// The module.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// How many workers there are now.
    pub fn workers(&self) -> usize {
        self.lock().workers.len()
    }

    /// Ends all threads, and returns when they are gone.
    ///
    /// A signal that comes between a thread's look at `stop` and its system call is lost, so
    /// everybody who is left is interrupted again and again.
    pub fn stop(&self) {
        let mut inner = self.lock();
        inner.stop = true;
        let mut complain = Instant::now() + PATIENCE;
        while inner.manager.is_some() || !inner.workers.is_empty() {
            inner
                .workers
                .values()
                .chain(&inner.manager)
                .for_each(sys::interrupt);
            if Instant::now() >= complain {
                complain += PATIENCE;
                tracing::warn!(
                    "waiting for {} threads that a file system of HOST holds up",
                    inner.workers.len()
                );
            }
            inner = self
                .gone
                .wait_timeout(inner, INTERRUPT)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_workers(self: &Arc<Self>, count: usize) -> io::Result<()> {
        let mut inner = self.lock();
        for _ in 0..count {
            if inner.stop {
                break;
            }
            // The lowest number that is free, so that names stay short and stable.
            let number = inner
                .workers
                .keys()
                .zip(1..)
                .find(|(have, n)| **have != *n)
                .map(|(_, n)| n);
            let number = number.unwrap_or(inner.workers.len() + 1);
            let this = Arc::clone(self);
            let thread = std::thread::Builder::new()
                .name(format!("engine/{number}"))
                .stack_size(STACK);
            let handle = thread.spawn(move || this.work(number))?;
            inner.workers.insert(number, handle);
        }
        Ok(())
    }

    /// What a worker does.
    fn work(&self, number: usize) {
        let _leave = OnDrop(|| {
            if std::thread::panicking() {
                self.fail("a worker", io::Error::other("it panicked"));
            }
            let mut inner = self.lock();
            // Another worker may have the number by now.
            let me = std::thread::current().id();
            if inner
                .workers
                .get(&number)
                .is_some_and(|handle| handle.thread().id() == me)
            {
                inner.workers.remove(&number);
            }
            self.gone.notify_all();
        });
        loop {
            if self.lock().stop {
                return;
            }
            match self.device.serve() {
                Ok(Reason::Idle) => {
                    let mut inner = self.lock();
                    if inner.workers.len() > self.limits.base {
                        // At once, so that the next one to be idle counts without this one.
                        inner.workers.remove(&number);
                        tracing::debug!(
                            "worker {number} was idle and ends, {} are left",
                            inner.workers.len()
                        );
                        return;
                    }
                }
                Ok(Reason::Again) => {}
                Err(error) if self.goes_on("serving", &error) => {}
                Err(error) => return self.fail("serving requests", error),
            }
        }
    }

    /// What the manager does.
    fn manage(self: &Arc<Self>) {
        let _leave = OnDrop(|| {
            if std::thread::panicking() {
                self.fail("the manager", io::Error::other("it panicked"));
            }
            self.lock().manager = None;
            self.gone.notify_all();
        });
        loop {
            if self.lock().stop {
                return;
            }
            match self.device.wait() {
                Ok(demand) => self.meet(demand),
                Err(error) if self.goes_on("waiting", &error) => {}
                Err(error) => return self.fail("waiting for requests", error),
            }
        }
    }

    /// Starts as many workers as would help and are allowed.
    fn meet(self: &Arc<Self>, demand: Demand) {
        let count = self.workers();
        let more = (demand.want as usize).min(self.limits.max.saturating_sub(count));
        if more > 0 {
            tracing::debug!(
                "{} requests wait: {more} workers more, {} in all",
                demand.queued,
                count + more
            );
            if let Err(error) = self.add_workers(more) {
                self.complain(&format!(
                    "a worker thread cannot be started ({error}): raise the limit of threads"
                ));
                std::thread::sleep(RETRY);
            }
        } else {
            self.complain(&format!(
                "all {count} workers are busy and {} requests wait: see what they wait for, or raise --max-threads",
                demand.queued
            ));
            std::thread::sleep(RETRY);
        }
    }

    /// Logs what would otherwise be logged too often.
    fn complain(&self, text: &str) {
        let mut inner = self.lock();
        if inner
            .complained
            .is_none_or(|last| last.elapsed() >= COMPLAINT)
        {
            inner.complained = Some(Instant::now());
            tracing::warn!("{text}");
        }
    }

    /// Whether a thread may call the module again after `error`.
    fn goes_on(&self, doing: &str, error: &io::Error) -> bool {
        match error.raw_os_error() {
            _ if error.kind() == io::ErrorKind::Interrupted => true,
            Some(ENOMEM | EAGAIN) => {
                self.complain(&format!("{doing} failed, trying again: {error}"));
                std::thread::sleep(RETRY);
                true
            }
            _ => false,
        }
    }

    fn fail(&self, doing: &'static str, error: io::Error) {
        let first = {
            let mut inner = self.lock();
            !std::mem::replace(&mut inner.failed, true)
        };
        if first {
            (self.on_failure)(doing, error);
        }
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
