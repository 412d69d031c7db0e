// SPDX-License-Identifier: GPL-2.0

//! What becomes of a request: it is given a slot and a lane, waited for, given up or ended.

use core::{
    mem,
    sync::atomic::Ordering, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::{
    time::now_us,
    Completion,
    NoFs,
    Outbox,
    Pages, //
};
use qtfs_proto::{
    message::Call,
    Op, //
};
use qtfs_vfs::param::Level;

use super::{
    credentials::Acting,
    request::{
        self,
        Asked,
        Reply,
        Request,
        UNSENT, //
    },
    slots::Waiter,
    then::{
        self,
        Then, //
    },
    Inner,
    Session,
    Wait, //
};

/// Frames with more data than this go by a lane of their own.
const BULK: usize = 64 * 1024;
/// How long [`Wait::Briefly`] and [`Wait::Shortly`] wait, in milliseconds.
const BRIEFLY_MS: u32 = 1000;

/// A request that was given a slot.
pub(super) struct Placed {
    request: Arc<Request>,
    slot: u16,
    seq: u32,
    /// Of its lane, if one is connected.
    outbox: Option<Arc<Outbox>>,
}

impl Session {
    /// Sends `call` with the current caller's identity, and waits for the reply. Ids in it are of
    /// `incarnation`; when that is over, or ends before the reply comes, it fails as
    /// [`request::is_lost`] says.
    pub(crate) fn exchange<C: Call>(
        self: &Arc<Self>,
        call: &C,
        sink: Option<Arc<Pages>>,
        wait: Wait,
        incarnation: u32,
    ) -> Result<Reply> {
        let cred = self.credentials.current(self, wait)?;
        let none = Arc::new(Pages::new(), GFP_KERNEL)?;
        self.exchange_as(call, Some(cred), none, sink, wait, incarnation)
    }

    /// Sends `call` with data and the identity `cred`, and waits for the reply, whose data goes
    /// to `sink`.
    pub(crate) fn exchange_as<C: Call>(
        self: &Arc<Self>,
        call: &C,
        cred: Option<Acting>,
        data: Arc<Pages>,
        sink: Option<Arc<Pages>>,
        wait: Wait,
        incarnation: u32,
    ) -> Result<Reply> {
        let request = Request::new(call, cred, data, sink, Then::Wake)?;
        self.stats.waits(C::OP);
        self.place(&request, incarnation, wait)?;
        self.traced(&request).wait();
        let mut interrupted = false;
        let waited = match (wait, self.config.timeout) {
            (Wait::Killable, None) => request.done.wait_killable(),
            (Wait::Killable, Some(ms)) => request.done.wait_killable_timeout(ms),
            (Wait::Briefly | Wait::Shortly, _) => request.done.wait_killable_timeout(BRIEFLY_MS),
            (Wait::Interruptible, _) => request.done.wait_interruptible().or_else(|_| {
                interrupted = true;
                self.cancel(&request);
                request.done.wait_killable()
            }),
        };
        match waited {
            Ok(()) => {
                let result = request.state.lock().result.take().unwrap_or(Err(EIO));
                match result {
                    // The program's handler decides whether the system call goes on after it.
                    Ok(reply) if interrupted && matches!(reply.error(), Err(e) if e == EINTR) => {
                        Err(ERESTARTSYS)
                    }
                    result => result,
                }
            }
            Err(e) => self.give_up(&request, e, wait),
        }
    }

    /// Sends `call` without waiting for the reply, but for a slot; `then` is told when the reply is
    /// there, or that it will not come.
    pub(crate) fn submit<C: Call>(
        self: &Arc<Self>,
        call: &C,
        cred: Option<Acting>,
        data: Arc<Pages>,
        sink: Option<Arc<Pages>>,
        then: Then,
        incarnation: u32,
    ) {
        if matches!(then, Then::Read(..) | Then::Write(..)) {
            // Some program waits for it in the end.
            self.stats.waits(C::OP);
        }
        let Some(request) = self.request(call, cred, data, sink, then) else {
            return;
        };
        if let Err(e) = self.place(&request, incarnation, Wait::Killable) {
            self.finish(&request, Err(e));
        }
    }

    /// As [`Session::submit`], as root and without waiting at all: the request is sent once there is
    /// a slot for it.
    pub(crate) fn post<C: Call>(
        self: &Arc<Self>,
        call: &C,
        data: Arc<Pages>,
        sink: Option<Arc<Pages>>,
        then: Then,
        incarnation: u32,
    ) {
        let Some(request) = self.request(call, None, data, sink, then) else {
            return;
        };
        let placed = (|| {
            let _nofs = NoFs::enter();
            let mut inner = self.inner.lock();
            self.takes(&inner, incarnation)?;
            let placed = self.take_slot(&mut inner, &request);
            if placed.is_none() {
                inner.slots.wait(Waiter::Request(request.clone()))?;
            }
            Ok(placed)
        })();
        match placed {
            Ok(placed) => self.send_placed(placed),
            Err(e) => self.finish(&request, Err(e)),
        }
    }

    /// Makes a request for `then`, which is told if there is none.
    fn request<C: Call>(
        self: &Arc<Self>,
        call: &C,
        cred: Option<Acting>,
        data: Arc<Pages>,
        sink: Option<Arc<Pages>>,
        then: Then,
    ) -> Option<Arc<Request>> {
        match Request::new(call, cred, data, sink, Then::Forget) {
            Ok(request) => {
                request.state.lock().then = then;
                Some(request)
            }
            Err(e) => {
                then.fail(self, e);
                None
            }
        }
    }

    /// Whether requests with ids of `incarnation` can be sent.
    fn takes(&self, inner: &Inner, incarnation: u32) -> Result {
        if self.is_aborted() || inner.stopped {
            return Err(EIO);
        }
        if self.incarnation() != incarnation {
            return Err(UNSENT);
        }
        Ok(())
    }

    /// Gives the request a slot, waiting for one if need be, and sends it.
    pub(super) fn place(&self, request: &Arc<Request>, incarnation: u32, wait: Wait) -> Result {
        let deadline = self
            .config
            .timeout
            .map(|ms| now_us() + u64::from(ms) * 1000);
        loop {
            let waiter: Arc<Completion> = {
                let _nofs = NoFs::enter();
                let mut inner = self.inner.lock();
                self.takes(&inner, incarnation)?;
                let placed = self.take_slot(&mut inner, request);
                if placed.is_some() {
                    drop(inner);
                    self.send_placed(placed);
                    return Ok(());
                }
                let waiter = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
                inner.slots.wait(Waiter::Caller(waiter.clone()))?;
                waiter
            };
            let waited = match (deadline, wait) {
                (Some(deadline), _) => {
                    let left = deadline.saturating_sub(now_us()) / 1000;
                    waiter.wait_killable_timeout(u32::try_from(left).unwrap_or(u32::MAX))
                }
                (None, Wait::Killable) => waiter.wait_killable(),
                (None, Wait::Interruptible) => waiter.wait_interruptible().map_err(|_| ERESTARTSYS),
                (None, Wait::Briefly | Wait::Shortly) => waiter.wait_killable_timeout(BRIEFLY_MS),
            };
            if let Err(e) = waited {
                let next = {
                    let mut inner = self.inner.lock();
                    match inner.slots.give_up(&waiter) {
                        true => self.pass_on(&mut inner),
                        false => None,
                    }
                };
                self.send_placed(next);
                return Err(e);
            }
        }
    }

    /// Gives the request a slot and a lane, if a slot is free.
    fn take_slot(&self, inner: &mut Inner, request: &Arc<Request>) -> Option<Placed> {
        let (slot, seq) = inner.slots.take(request)?;
        let (lane, outbox) = inner.lane_for(request);
        request.lane.store(lane, Ordering::Relaxed);
        request.sent(Asked {
            clock: self.clock(),
            incarnation: self.incarnation(),
        });
        self.traced(request).start();
        Some(Placed {
            request: request.clone(),
            slot,
            seq,
            outbox,
        })
    }

    /// Lets who has waited longest have a slot that became free. What comes of it is to be sent
    /// without the lock.
    pub(super) fn pass_on(&self, inner: &mut Inner) -> Option<Placed> {
        let request = inner.slots.next()?;
        self.take_slot(inner, &request)
    }

    /// Sends a request that was given a slot, if there is one.
    pub(super) fn send_placed(&self, placed: Option<Placed>) {
        let Some(placed) = placed else { return };
        // Without a lane the request waits until one is connected again.
        if let Some(outbox) = placed.outbox {
            let request = placed.request;
            self.stats.sent(request.op, request.len(), false);
            let frame = request.frame(placed.slot, placed.seq, false);
            // A lane that fails sends the request again when it is back.
            let _ = frame.and_then(|frame| outbox.send(frame));
        }
    }

    /// Tells the server that nobody waits for the request any more.
    pub(super) fn cancel(&self, request: &Arc<Request>) {
        let _nofs = NoFs::enter();
        let (outbox, frame) = {
            let inner = self.inner.lock();
            request.given_up.store(true, Ordering::Relaxed);
            let Some((slot, seq)) = inner.slots.place_of(request) else {
                return;
            };
            // By the first lane it does not wait behind data; the server knows one that comes early.
            let own = usize::from(request.lane.load(Ordering::Relaxed));
            let outbox = [0, own]
                .iter()
                .find_map(|&lane| inner.lanes.get(lane).and_then(Clone::clone));
            (outbox, request.cancel(slot, seq))
        };
        // Without a lane the server is told by the next one; without memory it executes the
        // request to its end.
        let _ = outbox.map(|outbox| outbox.send(frame?));
    }

    /// The caller does not wait any more: what the reply brings is given back when it comes.
    fn give_up(
        self: &Arc<Self>,
        request: &Arc<Request>,
        error: Error,
        wait: Wait,
    ) -> Result<Reply> {
        if wait != Wait::Briefly {
            self.cancel(request);
        }
        // What these bring is given back, and nobody else has their pages.
        let is_own = matches!(request.op, Op::Readdir | Op::Open);
        if request.sink.is_some() && !is_own {
            self.withdraw_sink(request);
        }
        let result = {
            let mut state = request.state.lock();
            state.then = Then::Forget;
            state.result.take()
        };
        match result {
            // The reply came at the last moment.
            Some(result) => then::give_back(self, request, &result),
            None => self.stats.failed(request.op),
        }
        Err(error)
    }

    /// Returns when nothing is written to the sink of the request any more: its pages may be in the
    /// page cache, where others use them from now on.
    fn withdraw_sink(&self, request: &Request) {
        let mut inner = self.inner.lock();
        request.unwanted.store(true, Ordering::Release);
        while request.receiving.load(Ordering::Acquire) {
            // The rest of the reply may take as long as the peer likes.
            let lane = request.receiver.load(Ordering::Relaxed);
            let outbox = inner.lanes.get(usize::from(lane)).and_then(Clone::clone);
            if let Some(outbox) = outbox {
                outbox.close();
            }
            self.changed.wait(&mut inner);
        }
    }

    /// Ends the request in a slot.
    pub(super) fn end(self: &Arc<Self>, slot: u16, seq: u32, result: Result<Reply>) {
        let (request, next) = {
            let mut inner = self.inner.lock();
            let request = inner.slots.release(slot, seq);
            let next = request.is_some().then(|| self.pass_on(&mut inner));
            (request, next.flatten())
        };
        self.send_placed(next);
        if let Some(request) = request {
            self.finish(&request, result);
        }
    }

    /// Tells whoever is interested what became of a request.
    pub(super) fn finish(self: &Arc<Self>, request: &Arc<Request>, result: Result<Reply>) {
        let failed = !matches!(&result, Ok(reply) if reply.status == 0);
        let us = now_us().saturating_sub(request.started);
        self.stats.ended(request.op, us, failed);
        let status = match &result {
            Ok(reply) => i64::from(reply.status),
            Err(e) => i64::from(-e.to_errno()),
        };
        self.traced(request).finish(status, us);
        let name = request.op.name();
        self.log(Level::Debug, fmt!("{name}: status {status} after {us} us"));
        let acting = {
            let mut state = request.state.lock();
            match mem::replace(&mut state.then, Then::Forget) {
                // In one step: whoever gives up finds the one or leaves the other.
                Then::Wake => {
                    state.result = Some(result);
                    None
                }
                then => Some((then, result)),
            }
        };
        if let Some((then, result)) = acting {
            then.run(self, request, result);
        }
        request.done.complete();
    }
}

impl Inner {
    /// The lane that takes a request, if one is connected.
    fn lane_for(&self, request: &Request) -> (u16, Option<Arc<Outbox>>) {
        // What else is long, as the listing of a directory, is not to wait for a file's data.
        let bulk = matches!(request.op, Op::Read | Op::Write) && request.bulk() > BULK;
        let count = self.lanes.len();
        // Bulk data goes by the lanes after the first, all of them in turn.
        let first = if bulk && count > 1 {
            1 + (request.started as usize >> 4) % (count - 1)
        } else {
            0
        };
        for lane in [first, 0] {
            if let Some(Some(outbox)) = self.lanes.get(lane) {
                return (u16::try_from(lane).unwrap_or(0), Some(outbox.clone()));
            }
        }
        (request::NO_LANE, None)
    }
}
