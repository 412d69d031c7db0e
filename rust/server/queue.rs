// SPDX-License-Identifier: GPL-2.0

//! Requests that wait for a worker, and workers that wait for a request.
//!
//! A request that cannot go on before something else happens is *parked*: it holds no worker, and is
//! put into the queue again by who is told of that.
//!
//! One queue exists, for all sessions. Its length is bounded by the slots of the sessions.

use kernel::{
    list::{
        List,
        ListArc, //
    },
    new_condvar, new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        CondVar,
        CondVarTimeoutResult,
        Mutex, //
    },
    time::msecs_to_jiffies,
};

use crate::{
    job::Job,
    log::now_ms,
    session::Session, //
};

/// How long threads that engine was asked for may take to come before it is asked again.
const ARRIVAL_MS: i64 = 1_000;

/// See the module.
#[pin_data]
pub(crate) struct Queue {
    #[pin]
    inner: Mutex<Inner>,
    /// There is a request to execute.
    work: Pin<KBox<CondVar>>,
    /// A request may be waiting in vain.
    need: Pin<KBox<CondVar>>,
}

/// What a parked request waits for. Never used for anything else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParkKey(pub(crate) u64);

impl ParkKey {
    /// A key that nobody has had.
    pub(crate) fn new() -> Self {
        static LAST: Atomic<u64> = Atomic::<u64>::new(0);
        Self(LAST.fetch_add(1, Relaxed) + 1)
    }
}

/// The fields of [`Queue`] protected by the lock.
struct Inner {
    jobs: List<Job>,
    /// Those that wait for something else than a worker.
    parked: List<Job>,
    demand: Demand,
    /// Threads that engine was asked for and that have not come yet, and since when.
    coming: u32,
    asked_ms: i64,
}

/// How busy the workers are.
#[derive(Clone, Copy, Default)]
pub(crate) struct Demand {
    /// Threads that are here to execute requests.
    pub(crate) workers: u32,
    /// Those of them that have nothing to do.
    pub(crate) idle: u32,
    /// Requests that wait.
    pub(crate) queued: u32,
    /// How many more threads would help.
    pub(crate) want: u32,
}

/// What a worker does next.
pub(crate) enum Next {
    /// Execute this.
    Job(ListArc<Job>),
    /// There was nothing to do for a while.
    Idle,
    /// A signal came.
    Signal,
}

/// A worker that is here; it is counted until it is dropped.
pub(crate) struct Present<'a>(&'a Queue);

impl Queue {
    /// An empty queue.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            inner <- new_mutex!(Inner {
                jobs: List::new(),
                parked: List::new(),
                demand: Demand::default(),
                coming: 0,
                asked_ms: 0,
            }),
            work: KBox::pin_init(new_condvar!(), GFP_KERNEL)?,
            need: KBox::pin_init(new_condvar!(), GFP_KERNEL)?,
        })
    }

    /// Adds a request at the end.
    pub(crate) fn push(&self, job: ListArc<Job>) {
        let mut inner = self.inner.lock();
        self.add(&mut inner, job, |jobs, job| jobs.push_back(job));
    }

    /// Adds a request that was begun, to be executed before all others.
    pub(crate) fn push_front(&self, job: ListArc<Job>) {
        let mut inner = self.inner.lock();
        self.add(&mut inner, job, |jobs, job| jobs.push_front(job));
    }

    fn add(
        &self,
        inner: &mut Inner,
        job: ListArc<Job>,
        add: impl FnOnce(&mut List<Job>, ListArc<Job>),
    ) {
        add(&mut inner.jobs, job);
        inner.demand.queued += 1;
        self.work.notify_one();
        if inner.demand.queued > inner.demand.idle {
            self.need.notify_one();
        }
    }

    /// Takes a request out that is waiting; nothing when it is not any more.
    pub(crate) fn remove(&self, job: &Arc<Job>) -> Option<ListArc<Job>> {
        self.take_if(|other| core::ptr::eq(other, &**job))
    }

    /// Takes a request of a session out that is waiting.
    pub(crate) fn take_of(&self, session: &Session) -> Option<ListArc<Job>> {
        self.take_if(|job| core::ptr::eq(&*job.session, session))
    }

    fn take_if(&self, mut wanted: impl FnMut(&Job) -> bool) -> Option<ListArc<Job>> {
        let mut inner = self.inner.lock();
        if let Some(job) = take(&mut inner.jobs, &mut wanted) {
            inner.demand.queued = inner.demand.queued.saturating_sub(1);
            return Some(job);
        }
        take(&mut inner.parked, &mut wanted)
    }

    /// Lets a request wait for what `key` stands for; gives it back when `max` of its session do.
    pub(crate) fn park(
        &self,
        job: ListArc<Job>,
        key: ParkKey,
        max: usize,
    ) -> core::result::Result<(), ListArc<Job>> {
        let mut inner = self.inner.lock();
        let others = inner.parked.iter();
        let others = others.filter(|other| Arc::ptr_eq(&other.session, &job.session));
        if others.count() >= max {
            return Err(job);
        }
        job.set_parked_for(key);
        inner.parked.push_back(job);
        Ok(())
    }

    /// What `key` stands for has happened, or may have: whoever waits for it is to go on.
    pub(crate) fn unpark(&self, key: ParkKey) {
        let mut inner = self.inner.lock();
        while let Some(job) = take(&mut inner.parked, |job| job.is_parked_for(key)) {
            self.add(&mut inner, job, |jobs, job| jobs.push_back(job));
        }
    }

    /// Counts the current thread as a worker.
    pub(crate) fn enter(&self) -> Present<'_> {
        let mut inner = self.inner.lock();
        inner.demand.workers += 1;
        inner.coming = inner.coming.saturating_sub(1);
        Present(self)
    }

    /// Waits until requests wait that no worker is there for.
    ///
    /// Fails with [`EINTR`] when a signal came.
    pub(crate) fn wait_for_need(&self) -> Result<Demand> {
        let mut inner = self.inner.lock();
        loop {
            let now = now_ms();
            if now - inner.asked_ms >= ARRIVAL_MS {
                inner.coming = 0;
            }
            let have = inner.demand.idle.saturating_add(inner.coming);
            let want = inner.demand.queued.saturating_sub(have);
            if want > 0 {
                inner.coming += want;
                inner.asked_ms = now;
                let mut demand = inner.demand;
                demand.want = want;
                return Ok(demand);
            }
            // Requests that wait for threads that are coming are looked at again.
            let timeout = if inner.demand.queued > inner.demand.idle {
                ARRIVAL_MS as u32
            } else {
                3_600_000
            };
            let result = self
                .need
                .wait_interruptible_timeout(&mut inner, msecs_to_jiffies(timeout));
            if let CondVarTimeoutResult::Signal { .. } = result {
                return Err(EINTR);
            }
        }
    }
}

/// Takes the first request that is wanted out of a list.
fn take(jobs: &mut List<Job>, mut wanted: impl FnMut(&Job) -> bool) -> Option<ListArc<Job>> {
    let mut cursor = jobs.cursor_front();
    while let Some(next) = cursor.peek_next() {
        if wanted(&next) {
            return Some(next.remove());
        }
        cursor.move_next();
    }
    None
}

impl Inner {
    fn pop(&mut self) -> Option<ListArc<Job>> {
        let job = self.jobs.pop_front()?;
        self.demand.queued = self.demand.queued.saturating_sub(1);
        Some(job)
    }
}

impl Present<'_> {
    /// Waits for a request, for at most `idle_ms`.
    pub(crate) fn next(&self, idle_ms: u32) -> Next {
        let queue = self.0;
        let mut inner = queue.inner.lock();
        let mut expired = false;
        loop {
            if kernel::current!().signal_pending() {
                // A wake-up that was meant for a worker must reach one.
                queue.work.notify_one();
                return Next::Signal;
            }
            if let Some(job) = inner.pop() {
                return Next::Job(job);
            }
            if expired {
                return Next::Idle;
            }
            inner.demand.idle += 1;
            let result = queue
                .work
                .wait_interruptible_timeout(&mut inner, msecs_to_jiffies(idle_ms));
            inner.demand.idle = inner.demand.idle.saturating_sub(1);
            expired = matches!(result, CondVarTimeoutResult::Timeout);
        }
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock();
        inner.demand.workers = inner.demand.workers.saturating_sub(1);
        if inner.demand.queued > inner.demand.idle {
            self.0.need.notify_one();
        }
    }
}
