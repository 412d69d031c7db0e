// SPDX-License-Identifier: GPL-2.0

//! What one client has on this server.
//!
//! A session lives as long as it has connections, and [`crate::sessions::TTL_MS`] longer; neither
//! lost connections nor a restart of engine end it. Its parts have locks of their own.

use kernel::{
    fmt,
    list::ListArc,
    new_mutex,
    prelude::*,
    str::BStr,
    sync::{
        Arc,
        Mutex, //
    },
};
use qtfs_net::{
    Address,
    Frame,
    Meter, //
};
use qtfs_vfs::random;

use crate::{
    budget::Budget,
    caller::Callers,
    file::Files,
    hello::MAX_LANES,
    job::Job,
    lane::Lane,
    log::now_ms,
    node::Nodes,
    notices::{
        Notices,
        Watching, //
    },
    owner::Owners,
    policy::Current,
    queue::{
        ParkKey,
        Queue, //
    },
    refusal::Refusal,
    reply,
    slot::{
        Kept,
        Slots, //
    },
};

/// Bytes of a client's name that are kept.
const MAX_NAME: usize = 64;

/// One in so many slots may have a request that is parked: the others are for what it waits for.
const PARKED_SHARE: usize = 2;

/// See the module.
#[pin_data]
pub(crate) struct Session {
    /// For logs.
    number: u32,
    origin: Origin,
    /// What it may make this machine keep, with others from the same address.
    pub(crate) budget: Arc<Budget>,
    /// Counts data on its way from the client and to it.
    pub(crate) passing: Arc<Meter>,
    /// What the client says to come back.
    id: [u8; 16],
    /// What the client calls itself.
    name: KVec<u8>,
    max_data: usize,
    credits: u16,
    /// Where its requests wait.
    pub(crate) queue: Arc<Queue>,
    #[pin]
    slots: Mutex<Slots>,
    #[pin]
    lanes: Mutex<Lanes>,
    /// Who acts.
    #[pin]
    pub(crate) callers: Callers,
    /// Objects that the client knows.
    #[pin]
    pub(crate) nodes: Nodes,
    /// Files that it has open. Dropped before the owners of their locks.
    #[pin]
    pub(crate) files: Files,
    /// Owners of locks.
    #[pin]
    pub(crate) owners: Owners,
    /// What it watches, once it does.
    #[pin]
    watching: Mutex<Option<Watching>>,
}

/// Which machine a client runs on, and since when.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    /// From where it connected first.
    pub(crate) peer: Address,
    /// As HELLO says; all 0 when it is not known.
    pub(crate) machine: [u8; 16],
    /// As HELLO says.
    pub(crate) instance: u64,
}

impl Origin {
    /// Whether `other` is of the same machine, before it or its module was started anew.
    fn follows(&self, other: &Self) -> bool {
        self.machine != [0; 16]
            && self.machine == other.machine
            && self.peer.is_same_host(&other.peer)
            && self.instance != other.instance
    }
}

/// The connections of a session.
struct Lanes {
    list: KVec<Arc<Lane>>,
    /// When the last connection was lost, in milliseconds since boot.
    alone_ms: Option<i64>,
    /// The session has ended.
    ended: bool,
}

impl Session {
    /// Makes a session without connections.
    pub(crate) fn new(
        queue: &Arc<Queue>,
        number: u32,
        origin: Origin,
        budget: Arc<Budget>,
        name: &[u8],
        max_data: usize,
        slots: u16,
    ) -> Result<Arc<Self>> {
        let slots = Slots::new(slots)?;
        let mut id = [0; 16];
        random::fill(&mut id);
        let name = name.get(..MAX_NAME).unwrap_or(name);
        let mut copy = KVec::with_capacity(name.len(), GFP_KERNEL)?;
        copy.extend_from_slice(name, GFP_KERNEL)?;
        let passing = Meter::new(Some(budget.passing().clone()))?;
        Arc::pin_init(
            try_pin_init!(Self {
                number,
                origin,
                budget: budget.clone(),
                passing,
                id,
                name: copy,
                max_data,
                credits: slots.count(),
                queue: queue.clone(),
                slots <- new_mutex!(slots),
                lanes <- new_mutex!(Lanes {
                    list: KVec::new(),
                    alone_ms: Some(now_ms()),
                    ended: false,
                }),
                callers <- Callers::new(budget),
                nodes <- Nodes::new(budget),
                files <- Files::new(),
                owners <- Owners::new(budget),
                watching <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )
    }

    /// What the client says to come back.
    pub(crate) fn id(&self) -> &[u8; 16] {
        &self.id
    }

    /// Whether the client of `other` is gone: the one of this session runs on the same machine, which
    /// was started anew since.
    pub(crate) fn follows(&self, other: &Self) -> bool {
        self.origin.follows(&other.origin)
    }

    /// Whether its client comes from the address of `peer`.
    pub(crate) fn is_from(&self, peer: &Address) -> bool {
        self.origin.peer.is_same_host(peer)
    }

    /// From where its client connected first.
    pub(crate) fn peer(&self) -> &Address {
        &self.origin.peer
    }

    /// Its number, for logs and for engine.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Longest data section.
    pub(crate) fn max_data(&self) -> usize {
        self.max_data
    }

    /// How many slots there are.
    pub(crate) fn credits(&self) -> u16 {
        self.credits
    }

    /// The slots.
    pub(crate) fn slots(&self) -> &Mutex<Slots> {
        &self.slots
    }

    /// Whether the session has ended; nothing is executed for it any more.
    pub(crate) fn is_ended(&self) -> bool {
        self.lanes.lock().ended
    }

    /// When the session ends if nobody connects, in milliseconds since boot.
    pub(crate) fn alone_since(&self) -> Option<i64> {
        self.lanes.lock().alone_ms
    }

    /// Adds a connection, in the place of an old one of the same number, and answers its HELLO with
    /// `greeting`, before anything else can be sent by it.
    ///
    /// Fails with [`ESTALE`] when the session has ended.
    pub(crate) fn add_lane(&self, lane: &Arc<Lane>, greeting: Arc<Frame>) -> Result {
        let mut lanes = self.lanes.lock();
        if lanes.ended {
            return Err(ESTALE);
        }
        lanes.list.retain(|old| {
            let keep = old.number() != lane.number();
            if !keep {
                old.close();
            }
            keep
        });
        if lanes.list.len() >= usize::from(MAX_LANES) {
            return Err(EUSERS);
        }
        lanes.list.reserve(1, GFP_KERNEL)?;
        lane.set_credits(self.credits, &self.passing);
        lane.send(greeting)?;
        // There is room.
        let _ = lanes.list.push_within_capacity(lane.clone());
        lanes.alone_ms = None;
        Ok(())
    }

    /// Forgets a connection that was lost.
    pub(crate) fn remove_lane(&self, lane: &Arc<Lane>) {
        let mut lanes = self.lanes.lock();
        lanes.list.retain(|l| !Arc::ptr_eq(l, lane));
        if lanes.list.is_empty() && lanes.alone_ms.is_none() {
            lanes.alone_ms = Some(now_ms());
        }
    }

    /// Sends a frame by `first` while that lives, else by any other connection. With none the frame
    /// is lost; the client will ask again.
    pub(crate) fn send(&self, frame: Arc<Frame>, first: Option<&Arc<Lane>>) {
        if let Some(lane) = first {
            if lane.send(frame.clone()).is_ok() {
                return;
            }
        }
        self.by_any_lane(|lane| lane.send(frame.clone()));
    }

    /// Sends what the client has not asked for. Without a connection it is lost, which the client
    /// expects.
    pub(crate) fn tell(&self, frame: Arc<Frame>) {
        self.by_any_lane(|lane| lane.tell(frame.clone()));
    }

    /// Tries one connection after another.
    fn by_any_lane(&self, send: impl Fn(&Arc<Lane>) -> Result) {
        let mut at = 0;
        loop {
            let lane = match self.lanes.lock().list.get(at) {
                Some(lane) => lane.clone(),
                None => return,
            };
            if send(&lane).is_ok() {
                return;
            }
            at += 1;
        }
    }

    /// Puts a request into the queue: at its end, or in front when it was begun before.
    pub(crate) fn submit(&self, job: ListArc<Job>, begun: bool) {
        let queued = job.clone_arc();
        self.slots.lock().queue(queued.clone());
        if begun {
            self.queue.push_front(job);
        } else {
            self.queue.push(job);
        }
        self.take_back_if_ended(&queued);
    }

    /// Lets a request that was begun wait for what `key` stands for, without a thread, until
    /// [`Queue::unpark`] is told of that. Whatever happened before is to be looked for afterwards.
    ///
    /// Gives the request back when its caller gave up, or when too many of the session's wait.
    pub(crate) fn park(
        &self,
        job: ListArc<Job>,
        key: ParkKey,
    ) -> core::result::Result<(), (ListArc<Job>, Error)> {
        let parked = job.clone_arc();
        {
            let mut slots = self.slots.lock();
            if job.is_cancelled() {
                return Err((job, EINTR));
            }
            slots.queue(parked.clone());
        }
        job.parks();
        let max = usize::from(self.credits) / PARKED_SHARE;
        self.queue
            .park(job, key, max)
            .map_err(|job| (job, EAGAIN))?;
        // Who cancelled it may have looked for it before it was there.
        if parked.is_cancelled() && self.queue.remove(&parked).is_some() {
            self.answer_cancelled(&parked);
        }
        self.take_back_if_ended(&parked);
        Ok(())
    }

    fn take_back_if_ended(&self, queued: &Arc<Job>) {
        // The end of the session takes its requests out of the queue, and may have done so before
        // this one was in it.
        if self.is_ended() && self.queue.remove(queued).is_some() {
            self.slots.lock().finish(&queued.ticket, None);
        }
    }

    /// Answers a request that was cancelled before it was executed.
    pub(crate) fn answer_cancelled(&self, job: &Job) {
        let refusal = Refusal::from(EINTR);
        let frame = match reply::failure(&job.ticket, self.credits, &refusal) {
            Ok(frame) => frame,
            Err(e) => {
                log_error!("{self}: an answer is lost: {e:?}\n");
                return;
            }
        };
        let keep = Kept::of(job.op, &frame, &self.budget);
        let lane = self.slots.lock().finish(&job.ticket, keep);
        self.send(frame, lane.as_ref());
    }

    /// What the client watches, if it does.
    pub(crate) fn watching(&self) -> Option<Watching> {
        self.watching.lock().clone()
    }

    /// What the client watches from now on, as far as the policy allows.
    pub(crate) fn watch(self: &Arc<Self>, current: &Arc<Current>) -> Result<Watching> {
        let mut watching = self.watching.lock();
        if let Some(watching) = &*watching {
            return Ok(watching.clone());
        }
        if self.is_ended() {
            return Err(ESTALE);
        }
        let new = Notices::listen(self, current)?;
        *watching = Some(new.clone());
        Ok(new)
    }

    /// Has events sent that wait.
    pub(crate) fn pump_notices(&self) {
        if let Some(watching) = &*self.watching.lock() {
            watching.pump();
        }
    }

    /// Closes all connections; the client comes back.
    pub(crate) fn close_lanes(&self) {
        for lane in self.lanes.lock().list.iter() {
            lane.close();
        }
    }

    /// Ends the session: its connections are closed, its files too as soon as nobody uses them, its
    /// locks released, its objects forgotten. Says whether this call did it.
    pub(crate) fn end(&self) -> bool {
        self.end_if(|_| true)
    }

    fn end_if(&self, may: impl FnOnce(&Lanes) -> bool) -> bool {
        let lanes = {
            let mut lanes = self.lanes.lock();
            if lanes.ended || !may(&lanes) {
                return false;
            }
            lanes.ended = true;
            core::mem::replace(&mut lanes.list, KVec::new())
        };
        for lane in lanes.iter() {
            lane.close();
        }
        // The slots refer to the requests and these to the session: nobody may be left behind.
        while let Some(job) = self.queue.take_of(self) {
            self.slots.lock().finish(&job.ticket, None);
        }
        self.slots.lock().cancel_all();
        let watching = self.watching.lock().take();
        drop(watching);
        self.files.close();
        self.nodes.close();
        self.callers.close();
        true
    }

    /// Ends the session if it was without connections since before `ms`.
    pub(crate) fn end_if_alone_since(&self, ms: i64) -> bool {
        self.end_if(|lanes| lanes.alone_ms.is_some_and(|since| since <= ms))
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{}#{}", BStr::from_bytes(&self.name), self.number))
    }
}
