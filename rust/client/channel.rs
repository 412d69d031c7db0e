// SPDX-License-Identifier: GPL-2.0

//! Channels: messages between the daemon of this machine and engine on HOST.
//!
//! The daemon has a descriptor for each. It reads and writes whole messages and never waits: what it
//! writes is on its way when `write(2)` returns, one message at a time, and a message that comes is
//! there before it asks, because a RECEIVE waits on HOST already. Not for all channels, since
//! that takes a slot of the session each: those beyond [`AHEAD`] ask first whether there is
//! something, and are told with WAKE when there is.

use core::sync::atomic::{
    AtomicU32,
    AtomicU64,
    Ordering, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};
use qtfs_net::Pages;
use qtfs_proto::{
    message::{
        Channel as Open,
        Poll,
        Receive,
        Send, //
    },
    relay::MAX_MESSAGE,
    FileId,
    NodeId,
    PollEvents,
    ReceiveFlags, //
};
use qtfs_vfs::{
    anon::AnonymousFile,
    io::Iter,
    poll::PollQueue, //
};

use crate::{
    mount::Mount,
    session::{
        request::{
            is_lost,
            Reply, //
        },
        then::Then,
        Session,
        Wait,
        Watched, //
    },
};

/// Most RECEIVE requests of channels that wait on HOST, of all of a session's.
const AHEAD: u32 = 40;

/// The fields of [`Channel`] protected by the lock.
#[derive(Default)]
struct State {
    /// A message that nobody has read yet, and its length.
    received: Option<(Arc<Pages>, usize)>,
    /// A RECEIVE is on its way.
    receiving: bool,
    /// A SEND is on its way.
    sending: bool,
    /// HOST may have something, which only asking tells.
    may_have: bool,
    /// Engine has closed its end, and all was received.
    ended: bool,
    /// What came of the last request, if it is the last one.
    failed: Option<Error>,
    /// The descriptor is closed.
    closed: bool,
}

/// See the module.
#[pin_data]
pub(crate) struct Channel {
    pub(crate) session: Arc<Session>,
    /// The socket that it is about, and the incarnation of the session in which both ids hold.
    pub(crate) node: NodeId,
    id: FileId,
    pub(crate) incarnation: u32,
    /// What the server calls it in WAKE; 0 until it is needed.
    watch: AtomicU64,
    #[pin]
    queue: PollQueue,
    #[pin]
    state: Mutex<State>,
}

impl Channel {
    /// Opens a channel as the current caller; `build` gives the request.
    pub(crate) fn open<'a>(
        mount: &Mount,
        node: NodeId,
        build: impl FnMut() -> Result<Open<'a>>,
    ) -> Result<Arc<Self>> {
        let (reply, _) = mount.call_into(None, Wait::Killable, build)?;
        Self::opened(&mount.session, node, &reply)
    }

    /// Opens a channel beside this one, about the same socket, as root.
    pub(crate) fn open_beside(&self, call: &Open<'_>) -> Result<Arc<Self>> {
        let none = Arc::new(Pages::new(), GFP_KERNEL)?;
        let (wait, incarnation) = (Wait::Killable, self.incarnation);
        let reply = self
            .session
            .exchange_as(call, 0, none, None, wait, incarnation)?;
        Self::opened(&self.session, self.node, &reply)
    }

    fn opened(session: &Arc<Session>, node: NodeId, reply: &Reply) -> Result<Arc<Self>> {
        let id = reply.decode::<Open<'_>>()?.file;
        let incarnation = reply.asked.incarnation;
        let state = State {
            may_have: true,
            ..State::default()
        };
        let this = Arc::pin_init(
            pin_init!(Self {
                session: session.clone(),
                node,
                id,
                incarnation,
                watch: AtomicU64::new(0),
                queue <- PollQueue::new(),
                state <- new_mutex!(state),
            }),
            GFP_KERNEL,
        );
        let this = this.inspect_err(|_| session.releases.close(session, id, incarnation))?;
        this.receive_ahead();
        Ok(this)
    }

    /// Whoever waits for it is to look again.
    pub(crate) fn wake(&self, events: PollEvents) {
        self.state.lock().may_have = true;
        self.queue.wake(events);
    }

    /// Has a RECEIVE wait on HOST for the next message, if there may be one more.
    fn receive_ahead(self: &Arc<Self>) {
        let ahead = &self.session.ahead;
        {
            let mut state = self.state.lock();
            let idle = !state.receiving && state.received.is_none() && !state.ended;
            if !idle || state.failed.is_some() || state.closed {
                return;
            }
            if ahead.fetch_add(1, Ordering::Relaxed) >= AHEAD {
                ahead.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            state.receiving = true;
        }
        let begun = (|| {
            let pages = Arc::new(Pages::alloc(MAX_MESSAGE)?, GFP_KERNEL)?;
            let none = Arc::new(Pages::new(), GFP_KERNEL)?;
            let call = self.receive(ReceiveFlags::WAIT);
            let then = Then::Received(self.clone(), pages.clone());
            self.session
                .submit(&call, 0, none, Some(pages), then, self.incarnation);
            Ok(())
        })();
        if let Err(e) = begun {
            self.received(Err(e), None);
        }
    }

    fn receive(&self, flags: ReceiveFlags) -> Receive {
        Receive {
            file: self.id,
            len: MAX_MESSAGE as u32,
            flags,
        }
    }

    /// A RECEIVE has ended; `pages` have the message. Called by threads that must not wait.
    pub(crate) fn received(&self, result: Result<Reply>, pages: Option<Arc<Pages>>) {
        self.session.ahead.fetch_sub(1, Ordering::Relaxed);
        let len = result.and_then(|reply| {
            reply.decode::<Receive>()?;
            Ok(reply.data_len)
        });
        let mut state = self.state.lock();
        state.receiving = false;
        match (len, pages) {
            (Ok(0), _) => state.ended = true,
            (Ok(len), Some(pages)) => state.received = Some((pages, len)),
            (Ok(_), None) => state.failed = Some(EIO),
            // Too many wait there already.
            (Err(e), _) if e == EAGAIN => state.may_have = true,
            (Err(e), _) => state.failed = Some(as_reset(e)),
        }
        drop(state);
        self.queue.wake(PollEvents::IN.with(PollEvents::RDNORM));
    }

    /// A SEND has ended. Called by threads that must not wait.
    pub(crate) fn sent(&self, result: Result<Reply>) {
        let result = result.and_then(|reply| reply.decode::<Send>().map(|_| ()));
        let closed = {
            let mut state = self.state.lock();
            state.sending = false;
            if let Err(e) = result {
                state.failed = state.failed.or(Some(as_reset(e)));
            }
            state.closed
        };
        if closed {
            self.close();
        }
        self.queue.wake(PollEvents::NONE);
    }

    /// Asks HOST for a message, without waiting for one.
    fn ask(self: &Arc<Self>) -> Result<Option<(Arc<Pages>, usize)>> {
        let session = &self.session;
        let none = || Arc::new(Pages::new(), GFP_KERNEL);
        let watch = match self.watch.load(Ordering::Acquire) {
            0 => {
                let new = session.watches.add(Watched::Channel(self.clone()))?;
                self.watch.store(new, Ordering::Release);
                new
            }
            known => known,
        };
        let call = Poll {
            file: self.id,
            watch,
            wake: PollEvents::IN.with(PollEvents::HUP),
        };
        let wait = Wait::Killable;
        let reply = session.exchange_as(&call, 0, none()?, None, wait, self.incarnation)?;
        let ready = reply.decode::<Poll>()?.ready;
        if ready.without(call.wake) == ready {
            return Ok(None);
        }
        let pages = Arc::new(Pages::alloc(MAX_MESSAGE)?, GFP_KERNEL)?;
        let call = self.receive(ReceiveFlags::NONE);
        let sink = Some(pages.clone());
        let reply = session.exchange_as(&call, 0, none()?, sink, wait, self.incarnation)?;
        match reply.decode::<Receive>() {
            Err(e) if e == EAGAIN => Ok(None),
            Err(e) => Err(e),
            Ok(_) => Ok(Some((pages, reply.data_len))),
        }
    }

    /// Takes the next message and its length, 0 at the end. None if there is none yet.
    ///
    /// One task reads a channel at a time.
    fn take(self: &Arc<Self>) -> Result<Option<(Arc<Pages>, usize)>> {
        {
            let mut state = self.state.lock();
            if let Some(received) = state.received.take() {
                // Perhaps it may have the next one wait on HOST now.
                state.may_have = true;
                drop(state);
                self.receive_ahead();
                return Ok(Some(received));
            }
            if state.ended {
                return Ok(Some((Arc::new(Pages::new(), GFP_KERNEL)?, 0)));
            }
            if let Some(e) = state.failed {
                return Err(e);
            }
            if state.receiving || !state.may_have {
                return Ok(None);
            }
            state.may_have = false;
        }
        let taken = self.ask();
        let mut state = self.state.lock();
        match &taken {
            Err(e) => state.failed = Some(as_reset(*e)),
            Ok(Some((_, 0))) => state.ended = true,
            Ok(Some(_)) => state.may_have = true,
            Ok(None) => {}
        }
        drop(state);
        if matches!(taken, Ok(Some(_))) {
            self.receive_ahead();
        }
        taken.map_err(as_reset)
    }

    /// Waits for the next message, and copies it. Empty at the end.
    ///
    /// Fails with [`ERESTARTSYS`] when the caller is killed.
    pub(crate) fn wait(self: &Arc<Self>) -> Result<KVVec<u8>> {
        loop {
            let seen = self.queue.generation();
            if let Some((pages, len)) = self.take()? {
                return pages.to_vec(len);
            }
            self.queue.sleep_killable(seen)?;
        }
    }

    fn close(&self) {
        match self.watch.swap(0, Ordering::AcqRel) {
            0 => {}
            watch => self.session.watches.remove(watch),
        }
        let releases = &self.session.releases;
        releases.close(&self.session, self.id, self.incarnation);
    }

    /// The channel is not used any more.
    pub(crate) fn end(&self) {
        let idle = {
            let mut state = self.state.lock();
            state.closed = true;
            let received = state.received.take();
            let idle = !state.sending;
            drop(state);
            drop(received);
            idle
        };
        // What was sent last must be there before it is closed.
        if idle {
            self.close();
        }
    }
}

/// What programs are told when the connection to HOST, or HOST's memory of it, is lost.
fn as_reset(error: Error) -> Error {
    if is_lost(error) || error == EBADF {
        ECONNRESET
    } else {
        error
    }
}

impl AnonymousFile for Channel {
    type Module = crate::LocalModule;
    const NAME: &'static CStr = c"[qtfs-channel]";

    fn read(this: &Arc<Self>, iter: &mut Iter<'_>, nonblocking: bool) -> Result<usize> {
        if iter.count() < MAX_MESSAGE {
            return Err(EINVAL);
        }
        loop {
            let seen = this.queue.generation();
            if let Some((pages, len)) = this.take()? {
                let copied = iter.copy_from_pages(&pages, len);
                return if copied < len { Err(EFAULT) } else { Ok(len) };
            }
            if nonblocking {
                return Err(EAGAIN);
            }
            this.queue.sleep(seen)?;
        }
    }

    fn write(this: &Arc<Self>, iter: &mut Iter<'_>, nonblocking: bool) -> Result<usize> {
        let len = iter.count();
        if len == 0 || len > MAX_MESSAGE {
            return Err(EMSGSIZE);
        }
        let pages = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
        if iter.copy_to_pages(&pages) < len {
            return Err(EFAULT);
        }
        loop {
            let seen = this.queue.generation();
            {
                let mut state = this.state.lock();
                if let Some(e) = state.failed {
                    return Err(e);
                }
                if !state.sending {
                    state.sending = true;
                    break;
                }
            }
            if nonblocking {
                return Err(EAGAIN);
            }
            this.queue.sleep(seen)?;
        }
        let call = Send { file: this.id };
        let then = Then::Sent(this.clone());
        this.session
            .submit(&call, 0, pages, None, then, this.incarnation);
        Ok(len)
    }

    fn queue(&self) -> &PollQueue {
        &self.queue
    }

    fn ready(&self) -> PollEvents {
        let state = self.state.lock();
        let asks = state.may_have && !state.receiving;
        let failed = state.failed.is_some();
        let readable = state.received.is_some() || state.ended || failed || asks;
        let (input, output) = (
            PollEvents::IN.with(PollEvents::RDNORM),
            PollEvents::OUT.with(PollEvents::WRNORM),
        );
        PollEvents::NONE
            .with_if(readable, input)
            .with_if(!state.sending || failed, output)
            .with_if(failed, PollEvents::ERR)
    }

    fn release(this: &Arc<Self>) {
        this.end();
    }
}

/// How many RECEIVE requests of channels wait on HOST.
pub(crate) type Ahead = AtomicU32;
