// SPDX-License-Identifier: GPL-2.0

//! Channels: messages between the daemon of this machine and engine on HOST.
//!
//! The daemon has a descriptor for each. It reads and writes whole messages and never waits: what it
//! writes is on its way when `write(2)` returns, or will be once there is a slot for it, one message
//! at a time, and a message that comes is there before it asks, because a RECEIVE waits on HOST
//! already. Not for all channels, since that takes a slot of the session each: for those beyond
//! [`AHEAD`] HOST is asked to tell with WAKE when there is something, which is asked for then. None
//! of this waits for an answer, nor for a slot.

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

/// What HOST tells of.
const READABLE: PollEvents = PollEvents::IN.with(PollEvents::HUP);
/// Most RECEIVE requests of channels that wait on HOST, of all of a session's.
const AHEAD: u32 = 40;
/// How long a message that is waited for may usually take, in milliseconds.
const USUAL_MS: u32 = 1000;

/// The fields of [`Channel`] protected by the lock.
#[derive(Default)]
struct State {
    /// A message that nobody has read yet, and its length.
    received: Option<(Arc<Pages>, usize)>,
    /// A RECEIVE or POLL is on its way, and whether it is one of [`AHEAD`].
    asking: Option<bool>,
    /// HOST lets no RECEIVE wait, as it has said since the last message.
    refused: bool,
    /// A SEND is on its way.
    sending: bool,
    /// HOST has something, as it has told.
    may_have: bool,
    /// HOST will tell when it has something.
    armed: bool,
    /// Whoever reads is to see that HOST is asked once more.
    turn: bool,
    /// Engine has closed its end, and all was received.
    ended: bool,
    /// What came of the last request, if it is the last one.
    failed: Option<Error>,
    /// The descriptor is closed.
    closed: bool,
}

/// What HOST is asked next.
enum Question {
    /// For the next message, whenever that comes.
    Ahead,
    /// For a message that it has.
    Message,
    /// To tell when it has one.
    Wake,
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
            .exchange_as(call, None, none, None, wait, incarnation)?;
        Self::opened(&self.session, self.node, &reply)
    }

    fn opened(session: &Arc<Session>, node: NodeId, reply: &Reply) -> Result<Arc<Self>> {
        let id = reply.decode::<Open<'_>>()?.file;
        let incarnation = reply.asked.incarnation;
        let this = Arc::pin_init(
            pin_init!(Self {
                session: session.clone(),
                node,
                id,
                incarnation,
                watch: AtomicU64::new(0),
                queue <- PollQueue::new(),
                state <- new_mutex!(State::default()),
            }),
            GFP_KERNEL,
        );
        let this = this.inspect_err(|_| session.releases.close(session, id, incarnation))?;
        this.go_on();
        Ok(this)
    }

    /// HOST has told of something.
    pub(crate) fn wake(&self, events: PollEvents) {
        {
            let mut state = self.state.lock();
            state.armed = false;
            state.may_have = true;
            state.turn = true;
        }
        self.queue.wake(events);
    }

    /// Whether there is room for one more among [`AHEAD`].
    fn reserve(ahead: &Ahead) -> bool {
        let free = ahead.fetch_add(1, Ordering::Relaxed) < AHEAD;
        if !free {
            ahead.fetch_sub(1, Ordering::Relaxed);
        }
        free
    }

    /// What HOST is to be asked now, if anything.
    fn question(&self) -> Option<Question> {
        let ahead = &self.session.ahead;
        let mut state = self.state.lock();
        state.turn = false;
        let idle = state.asking.is_none() && state.received.is_none() && !state.ended;
        if !idle || state.failed.is_some() || state.closed {
            return None;
        }
        let question = if !state.refused && Self::reserve(ahead) {
            Question::Ahead
        } else {
            match (state.may_have, state.armed) {
                (true, _) => Question::Message,
                (false, false) => Question::Wake,
                (false, true) => return None,
            }
        };
        match question {
            Question::Wake => state.armed = true,
            // What comes meanwhile tells of itself.
            Question::Ahead | Question::Message => state.may_have = false,
        }
        state.asking = Some(matches!(question, Question::Ahead));
        Some(question)
    }

    /// Asks HOST for what is needed next, without waiting for the answer.
    fn go_on(self: &Arc<Self>) {
        let Some(question) = self.question() else {
            return;
        };
        let asked = match question {
            Question::Ahead => self.ask_message(ReceiveFlags::WAIT),
            Question::Message => self.ask_message(ReceiveFlags::NONE),
            Question::Wake => self.ask_wake(),
        };
        if let Err(e) = asked {
            self.received(Err(e), None);
        }
    }

    fn ask_message(self: &Arc<Self>, flags: ReceiveFlags) -> Result {
        let pages = Arc::new(Pages::alloc(MAX_MESSAGE)?, GFP_KERNEL)?;
        let none = Arc::new(Pages::new(), GFP_KERNEL)?;
        let call = Receive {
            file: self.id,
            len: MAX_MESSAGE as u32,
            flags,
        };
        let then = Then::Received(self.clone(), pages.clone());
        self.session
            .post(&call, none, Some(pages), then, self.incarnation);
        Ok(())
    }

    fn ask_wake(self: &Arc<Self>) -> Result {
        let watch = match self.watch.load(Ordering::Acquire) {
            0 => {
                let watched = Watched::Channel(self.clone());
                let new = self.session.watches.add(watched)?;
                self.watch.store(new, Ordering::Release);
                new
            }
            known => known,
        };
        let none = Arc::new(Pages::new(), GFP_KERNEL)?;
        let call = Poll {
            file: self.id,
            watch,
            wake: READABLE,
        };
        let then = Then::Polled(self.clone());
        self.session.post(&call, none, None, then, self.incarnation);
        Ok(())
    }

    /// A request of [`Channel::go_on`] is over. Whether it was one of [`AHEAD`].
    fn asked(&self, state: &mut State) -> bool {
        let was_ahead = state.asking.take() == Some(true);
        if was_ahead {
            self.session.ahead.fetch_sub(1, Ordering::Relaxed);
        }
        was_ahead
    }

    /// A RECEIVE has ended; `pages` have the message. Called by threads that must not wait.
    pub(crate) fn received(&self, result: Result<Reply>, pages: Option<Arc<Pages>>) {
        let len = result.and_then(|reply| {
            reply.decode::<Receive>()?;
            Ok(reply.data_len)
        });
        let mut state = self.state.lock();
        let was_ahead = self.asked(&mut state);
        match (len, pages) {
            (Ok(0), _) => state.ended = true,
            (Ok(len), Some(pages)) => {
                state.received = Some((pages, len));
                state.refused = false;
            }
            (Ok(_), None) => state.failed = Some(EIO),
            // Nothing is there, or too many wait there already.
            (Err(e), _) if e == EAGAIN => {
                state.refused = was_ahead || state.refused;
                state.turn = true;
            }
            (Err(e), _) => state.failed = Some(as_reset(e)),
        }
        drop(state);
        self.queue.wake(PollEvents::IN.with(PollEvents::RDNORM));
    }

    /// A POLL has ended. Called by threads that must not wait.
    pub(crate) fn polled(&self, result: Result<Reply>) {
        let ready = result.and_then(|reply| Ok(reply.decode::<Poll>()?.ready));
        let mut state = self.state.lock();
        self.asked(&mut state);
        match ready {
            Ok(ready) if ready.without(READABLE) == ready => {
                // WAKE may have come before.
                if !state.may_have {
                    return;
                }
            }
            Ok(_) => {
                state.armed = false;
                state.may_have = true;
            }
            Err(e) => state.failed = Some(as_reset(e)),
        }
        state.turn = true;
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

    /// Takes the next message and its length, 0 at the end. None if there is none yet.
    fn take(self: &Arc<Self>) -> Result<Option<(Arc<Pages>, usize)>> {
        let taken = {
            let mut state = self.state.lock();
            match state.received.take() {
                Some(received) => Some(received),
                None if state.ended => {
                    return Ok(Some((Arc::new(Pages::new(), GFP_KERNEL)?, 0)));
                }
                None => match state.failed {
                    Some(e) => return Err(e),
                    None => None,
                },
            }
        };
        self.go_on();
        Ok(taken)
    }

    /// Waits for the next message, and copies it. Empty at the end.
    ///
    /// Fails with [`ERESTARTSYS`] when the caller is killed, or when a signal has come and the
    /// message takes longer than usual.
    pub(crate) fn wait(self: &Arc<Self>) -> Result<KVVec<u8>> {
        loop {
            let seen = self.queue.generation();
            if let Some((pages, len)) = self.take()? {
                return pages.to_vec(len);
            }
            self.queue.sleep_firmly(seen, USUAL_MS)?;
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
            .post(&call, pages, None, then, this.incarnation);
        Ok(len)
    }

    fn queue(&self) -> &PollQueue {
        &self.queue
    }

    fn ready(&self) -> PollEvents {
        let state = self.state.lock();
        let failed = state.failed.is_some();
        let readable = state.received.is_some() || state.ended || failed || state.turn;
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
