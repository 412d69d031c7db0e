// SPDX-License-Identifier: GPL-2.0

//! The sending side of a connection.
//!
//! A frame that was begun must be sent to its end, whatever happens to the thread that began it;
//! and a caller must not wait for a peer that does not read. So callers only ever send what the
//! socket takes at once; what is left, and frames that come meanwhile, are sent by a thread of the
//! outbox. In the usual case no thread is woken.

use core::mem;
use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        Mutex,
        SetOnce, //
    },
};

use crate::{
    Counted,
    Meter,
    Pages,
    Socket,
    Thread, //
};

/// One frame to send: header and body in `head`, then data.
pub struct Frame {
    /// Header and body.
    pub head: KVVec<u8>,
    /// Data section.
    pub data: Arc<Pages>,
}

impl Frame {
    /// Bytes of all of it.
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.head.len() + self.data.len()
    }
}

/// Sends frames in order over one socket.
#[pin_data]
pub struct Outbox {
    socket: Arc<Socket>,
    /// Counts what waits.
    meter: SetOnce<Arc<Meter>>,
    #[pin]
    state: Mutex<State>,
    #[pin]
    changed: CondVar,
}

/// The fields of [`Outbox`] protected by the lock.
struct State {
    /// Frames that nobody sends yet, oldest first.
    queue: KVVec<Waiting>,
    /// How many of them nobody has asked for.
    unasked: usize,
    /// A frame that was sent in part.
    begun: Option<Waiting>,
    /// Somebody is sending without the lock.
    busy: bool,
    /// Nothing is sent any more.
    closed: bool,
}

/// A frame that waits because the peer does not read.
struct Waiting {
    frame: Arc<Frame>,
    /// How much of it was sent.
    sent: usize,
    /// Nobody has asked for it.
    unasked: bool,
    _counted: Option<Counted>,
}

impl Outbox {
    /// Makes the outbox of `socket` and its thread. The thread ends after [`Outbox::close`].
    pub fn new(socket: Arc<Socket>, name: core::fmt::Arguments<'_>) -> Result<(Arc<Self>, Thread)> {
        let this = Arc::pin_init(
            pin_init!(Self {
                socket,
                meter: SetOnce::new(),
                state <- new_mutex!(State {
                    queue: KVVec::new(),
                    unasked: 0,
                    begun: None,
                    busy: false,
                    closed: false,
                }),
                changed <- new_condvar!(),
            }),
            GFP_KERNEL,
        )?;
        let worker = this.clone();
        let thread = Thread::spawn(name, move || worker.run())?;
        Ok((this, thread))
    }

    /// Has `meter` count what waits from now on. Once.
    pub fn count_by(&self, meter: &Arc<Meter>) {
        self.meter.populate(meter.clone());
    }

    /// Sends a frame, or leaves it to the thread; never waits for the peer.
    ///
    /// Fails with [`ENOTCONN`] after [`Outbox::close`] or when the connection broke.
    pub fn send(&self, frame: Arc<Frame>) -> Result {
        self.put(frame, false)
    }

    /// As [`Outbox::send`], of what the peer has not asked for.
    pub fn tell(&self, frame: Arc<Frame>) -> Result {
        self.put(frame, true)
    }

    fn put(&self, frame: Arc<Frame>, unasked: bool) -> Result {
        {
            let mut state = self.state.lock();
            if state.closed {
                return Err(ENOTCONN);
            }
            if state.busy || state.begun.is_some() || !state.queue.is_empty() {
                let waiting = self.waiting(frame, 0, unasked);
                state.queue.push(waiting, GFP_KERNEL)?;
                state.unasked += usize::from(unasked);
                self.changed.notify_one();
                return Ok(());
            }
            state.busy = true;
        }
        let result = self.socket.send_some(&frame.head, &frame.data, 0, false);
        let mut state = self.state.lock();
        state.busy = false;
        match result {
            Ok(n) if n < frame.len() => state.begun = Some(self.waiting(frame, n, unasked)),
            Ok(_) => {}
            Err(_) => {
                self.fail(&mut state);
                return Err(ENOTCONN);
            }
        }
        if state.begun.is_some() || !state.queue.is_empty() || state.closed {
            self.changed.notify_one();
        }
        Ok(())
    }

    fn waiting(&self, frame: Arc<Frame>, sent: usize, unasked: bool) -> Waiting {
        let meter = self.meter.as_ref();
        Waiting {
            _counted: meter.map(|meter| meter.count(frame.len())),
            frame,
            sent,
            unasked,
        }
    }

    /// How many frames wait because the peer does not read, without those of [`Outbox::tell`].
    pub fn backlog(&self) -> usize {
        let state = self.state.lock();
        state.queue.len().saturating_sub(state.unasked)
    }

    /// How many frames of [`Outbox::tell`] wait because the peer does not read.
    pub fn untold(&self) -> usize {
        self.state.lock().unasked
    }

    /// Stops sending and ends the connection; frames that were not sent are dropped.
    pub fn close(&self) {
        self.fail(&mut self.state.lock());
    }

    fn fail(&self, state: &mut State) {
        state.closed = true;
        state.begun = None;
        state.queue.clear();
        state.unasked = 0;
        self.socket.shutdown();
        self.changed.notify_one();
    }

    fn run(&self) {
        loop {
            let waiting = {
                let mut state = self.state.lock();
                loop {
                    if state.closed && !state.busy {
                        return;
                    }
                    if !state.busy {
                        if let Some(begun) = state.begun.take() {
                            state.busy = true;
                            break begun;
                        }
                        if !state.queue.is_empty() {
                            state.busy = true;
                            // Removing from the front keeps the order; queues are short.
                            match state.queue.remove(0) {
                                Ok(waiting) => {
                                    state.unasked -= usize::from(waiting.unasked);
                                    break waiting;
                                }
                                Err(_) => state.busy = false,
                            }
                        }
                    }
                    // No signal comes; the kernel takes this for idle, not for stuck.
                    let _ = self.changed.wait_interruptible(&mut state);
                }
            };
            let Waiting { frame, sent, .. } = &waiting;
            let result = self.socket.send_some(&frame.head, &frame.data, *sent, true);
            let mut state = self.state.lock();
            state.busy = false;
            if !matches!(result, Ok(n) if sent + n == frame.len()) {
                self.fail(&mut state);
            }
            // The last reference may be this one; its pages are released without the lock.
            drop(state);
            mem::drop(waiting);
        }
    }
}
