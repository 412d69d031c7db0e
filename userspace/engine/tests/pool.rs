// SPDX-License-Identifier: GPL-2.0

//! The worker threads, with a stand-in for the module that waits in real system calls, so that
//! threads are interrupted by the signal that engine uses.

use nix::poll::poll;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::unistd::pipe;
use nix::unistd::read;
use nix::unistd::write;
use qtfs_engine::device::Demand;
use qtfs_engine::device::Device;
use qtfs_engine::device::Reason;
use qtfs_engine::pool::Limits;
use qtfs_engine::pool::Pool;
use qtfs_engine::sys;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

/// Requests are bytes in a pipe; a worker that takes one is busy until `release` has a byte.
struct Fake {
    requests: (OwnedFd, OwnedFd),
    release: (OwnedFd, OwnedFd),
    idle_after: PollTimeout,
    inside: AtomicU32,
    /// Threads that were wanted and have not come yet.
    coming: AtomicU32,
    idle: AtomicU32,
    queued: AtomicU32,
    served: AtomicU32,
    names: Mutex<BTreeSet<String>>,
    fail: Mutex<Option<i32>>,
}

impl Fake {
    fn new(idle_after_ms: u16) -> Arc<Self> {
        sys::prepare_interrupt().unwrap();
        Arc::new(Self {
            requests: pipe().unwrap(),
            release: pipe().unwrap(),
            idle_after: idle_after_ms.into(),
            inside: AtomicU32::default(),
            coming: AtomicU32::default(),
            idle: AtomicU32::default(),
            queued: AtomicU32::default(),
            served: AtomicU32::default(),
            names: Mutex::default(),
            fail: Mutex::default(),
        })
    }

    fn request(&self, count: u32) {
        self.queued.fetch_add(count, SeqCst);
        write(&self.requests.1, &vec![0; count as usize]).unwrap();
    }

    fn release(&self, count: usize) {
        write(&self.release.1, &vec![0; count]).unwrap();
    }

    fn serve_one(&self) -> io::Result<Reason> {
        self.idle.fetch_add(1, SeqCst);
        let mut fds = [PollFd::new(self.requests.0.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, self.idle_after);
        self.idle.fetch_sub(1, SeqCst);
        if ready? == 0 {
            return Ok(Reason::Idle);
        }
        // Whoever comes first; the others wait here until they are interrupted or there is more.
        read(&self.requests.0, &mut [0])?;
        self.queued.fetch_sub(1, SeqCst);
        read(&self.release.0, &mut [0])?;
        self.served.fetch_add(1, SeqCst);
        Ok(Reason::Again)
    }
}

/// So that the test can keep what it gives to the pool.
struct Handle(Arc<Fake>);

impl Device for Handle {
    fn configure(&self, _blob: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn serve(&self) -> io::Result<Reason> {
        if let Some(errno) = *self.0.fail.lock().unwrap() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let name = std::thread::current().name().unwrap().to_owned();
        self.0.names.lock().unwrap().insert(name);
        self.0.inside.fetch_add(1, SeqCst);
        let _ = self
            .0
            .coming
            .fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1));
        let result = self.0.serve_one();
        self.0.inside.fetch_sub(1, SeqCst);
        result
    }

    fn wait(&self) -> io::Result<Demand> {
        let mut asked = Instant::now();
        loop {
            poll(&mut [], 5u8)?;
            if asked.elapsed() > Duration::from_millis(100) {
                self.0.coming.store(0, SeqCst);
                asked = Instant::now();
            }
            let (idle, queued) = (self.0.idle.load(SeqCst), self.0.queued.load(SeqCst));
            let want = queued.saturating_sub(idle + self.0.coming.load(SeqCst));
            if want > 0 {
                self.0.coming.fetch_add(want, SeqCst);
                return Ok(Demand {
                    workers: self.0.inside.load(SeqCst),
                    idle,
                    queued,
                    want,
                });
            }
        }
    }
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "not in time: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn start(
    fake: &Arc<Fake>,
    base: usize,
    max: usize,
) -> (Arc<Pool<Handle>>, mpsc::Receiver<io::Error>) {
    let (sender, receiver) = mpsc::channel();
    let report = move |_: &str, error| sender.send(error).unwrap();
    (
        Pool::start(Handle(fake.clone()), Limits { base, max }, report).unwrap(),
        receiver,
    )
}

#[test]
fn grows_with_the_work_and_shrinks_when_idle() {
    let fake = Fake::new(100);
    let (pool, _failures) = start(&fake, 2, 10);
    assert_eq!(pool.workers(), 2);
    fake.request(6);
    eventually("six requests are executed at once", || {
        fake.queued.load(SeqCst) == 0
    });
    assert!((6..=10).contains(&pool.workers()), "{}", pool.workers());
    fake.release(6);
    eventually("all are answered", || fake.served.load(SeqCst) == 6);
    eventually("only the base is left", || pool.workers() == 2);
    assert!(fake.names.lock().unwrap().contains("engine/1"));
    pool.stop();
    assert_eq!(pool.workers(), 0);
}

#[test]
fn never_has_more_than_the_limit() {
    let fake = Fake::new(100);
    let (pool, _failures) = start(&fake, 1, 3);
    fake.request(20);
    eventually("the limit is reached", || pool.workers() == 3);
    for _ in 0..20 {
        assert!(pool.workers() <= 3);
        fake.release(1);
        std::thread::sleep(Duration::from_millis(5));
    }
    eventually("all are answered", || fake.served.load(SeqCst) == 20);
    pool.stop();
}

#[test]
fn keeps_the_base_when_idle() {
    let fake = Fake::new(1);
    let (pool, _failures) = start(&fake, 3, 5);
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(pool.workers(), 3);
    }
    pool.stop();
}

#[test]
fn stops_promptly_wherever_threads_are() {
    for round in 0..100 {
        let fake = Fake::new(if round % 2 == 0 { 1 } else { 10_000 });
        let (pool, _failures) = start(&fake, 8, 16);
        fake.request(round % 12);
        if round % 3 == 0 {
            std::thread::sleep(Duration::from_millis(u64::from(round % 7)));
        }
        let start = Instant::now();
        pool.stop();
        assert_eq!(pool.workers(), 0);
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }
}

#[test]
fn reports_the_first_error_and_goes_on_after_passing_ones() {
    let fake = Fake::new(1);
    let (pool, failures) = start(&fake, 4, 4);
    *fake.fail.lock().unwrap() = Some(nix::libc::ENOMEM);
    std::thread::sleep(Duration::from_millis(20));
    *fake.fail.lock().unwrap() = None;
    std::thread::sleep(Duration::from_millis(150));
    assert!(failures.try_recv().is_err());
    assert_eq!(pool.workers(), 4);
    *fake.fail.lock().unwrap() = Some(nix::libc::ENODEV);
    let error = failures.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(error.raw_os_error(), Some(nix::libc::ENODEV));
    eventually("nobody goes on", || pool.workers() == 0);
    assert!(failures.try_recv().is_err(), "one report is enough");
    pool.stop();
}
