// SPDX-License-Identifier: GPL-2.0

//! A thread of engine while it executes requests.

use kernel::{
    list::ListArc,
    prelude::*, //
};
use qtfs_net::Pages;
use qtfs_proto::{
    Encode,
    Writer,
    MAX_BODY, //
};
use qtfs_vfs::local::{
    task::{
        self,
        Thread,
        Unaudited, //
    },
    window::Window,
    Cred, //
};

use crate::{
    dispatch::{
        self,
        Outcome, //
    },
    job::Job,
    queue::Next,
    refusal::{
        self,
        Refusal, //
    },
    server::Server, //
};

/// How long a worker waits for a request before engine may end it.
const IDLE_MS: u32 = 10_000;

/// Why a worker goes back to engine.
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    /// There was nothing to do for a while.
    Idle = 1,
    /// The kernel has something to do on the way out, such as the end of an unmount; come again.
    Again = 2,
}

/// What a worker has of its own.
pub(crate) struct Worker {
    thread: Thread,
    /// Engine's own credential.
    cred: Cred,
    /// Which engine it is.
    epoch: u64,
    /// The body of a reply in the making.
    body: KVVec<u8>,
    /// User memory, once it was needed.
    window: Option<Window>,
}

/// A reply whose body lies in the worker's buffer.
pub(crate) struct Reply {
    len: usize,
    data: Pages,
}

/// Executes requests in the current thread, which belongs to engine, until there is nothing to
/// do or a signal comes ([`EINTR`]).
pub(crate) fn serve(server: &Server) -> Result<Reason> {
    let mut worker = Worker {
        thread: Thread::current()?,
        cred: Cred::current()?,
        epoch: server.epoch(),
        body: KVVec::from_elem(0, MAX_BODY, GFP_KERNEL)?,
        window: None,
    };
    let _unaudited = Unaudited::enter();
    let present = server.queue.enter();
    loop {
        match present.next(IDLE_MS) {
            Next::Job(job) => worker.execute(server, job)?,
            Next::Idle => return Ok(Reason::Idle),
            Next::Signal => return Err(EINTR),
        }
        if task::has_work() {
            return Ok(Reason::Again);
        }
    }
}

impl Worker {
    /// Engine's own credential.
    pub(crate) fn cred(&self) -> &Cred {
        &self.cred
    }

    /// Which engine the thread belongs to.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// User memory of this thread.
    pub(crate) fn window(&mut self) -> Result<&Window> {
        if self.window.is_none() {
            self.window = Some(Window::map()?);
        }
        self.window.as_ref().ok_or(ENOMEM)
    }

    /// A reply with `body`'s fields and a data section.
    pub(crate) fn reply(&mut self, body: &dyn Encode, data: Pages) -> refusal::Result<Reply> {
        let mut writer = Writer::new(&mut self.body);
        body.encode(&mut writer)?;
        Ok(Reply {
            len: writer.len(),
            data,
        })
    }

    /// Executes a request and answers it.
    ///
    /// Fails with [`EINTR`] when a signal came meanwhile; then the request is in the queue again.
    fn execute(&mut self, server: &Server, job: ListArc<Job>) -> Result {
        let session = job.session.clone();
        if session.is_ended() {
            session.slots().lock().finish(&job.ticket, None);
            return Ok(());
        }
        let running = job.clone_arc();
        session.slots().lock().run(running, self.thread.clone());
        let outcome = if job.is_cancelled() {
            Err(Refusal::from(EINTR))
        } else {
            dispatch::execute(server, self, &job)
        };
        let (job, result) = match outcome {
            Ok(Outcome::Park(parking)) => match parking.park(job) {
                Ok(()) => return Ok(()),
                Err((job, e)) => (job, Err(Refusal::from(e))),
            },
            Ok(Outcome::Reply(reply)) => (job, Ok(reply)),
            Err(refusal) => (job, Err(refusal)),
        };
        if let Err(refusal) = &result {
            // A thread that is being killed can't reach its own memory any more either.
            let interrupted = refusal.is_interrupt() || refusal.error() == EFAULT;
            if interrupted && !job.is_cancelled() && task::has_signal() {
                session.submit(job, true);
                return Err(EINTR);
            }
            log_debug!("{session}: {} {:?}\n", job.op.name(), refusal.error());
        } else {
            log_debug!("{session}: {}\n", job.op.name());
        }
        let result = result.map(|Reply { len, data }| {
            let body = self.body.get(..len).unwrap_or_default();
            (body, data)
        });
        job.answer(result);
        if job.is_cancelled() {
            task::uncancel();
        }
        Ok(())
    }
}
