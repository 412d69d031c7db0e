// SPDX-License-Identifier: GPL-2.0

//! LOCK and TESTLOCK: locks that hold against HOST's processes and other clients.
//!
//! Who waits for the lock of a range is parked, and the kernel tells when it is worth asking again.
//! For the locks of `flock(2)`, and on file systems that have their own way with locks, it has no
//! such way for a module: there a wait holds a thread of engine, which starts another when the last
//! one is taken, and ends when the client cancels the request: its thread then sees a signal that is
//! none. Engine has only so many threads, so only so many requests wait; the clients of others ask
//! again.

use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};
use qtfs_proto::{
    message::{
        Lock,
        LockReply,
        Testlock,
        TestlockReply, //
    },
    LockFlags,
    LockType, //
};
use qtfs_vfs::local::{
    lock::{
        self,
        Class,
        Kind,
        Request, //
    },
    lock_wait::{
        self,
        Asked,
        LockWait, //
    },
};

use crate::{
    dispatch::{
        Context,
        Outcome, //
    },
    parking::{
        Parking,
        Unlocked, //
    },
    queue::ParkKey,
    refusal::Result,
    worker::Reply, //
};

/// Requests of all clients that may wait with a thread at the same time: a fourth of the threads
/// that engine starts.
const MAX_WAITING: u32 = 128;

/// Requests that wait.
static WAITING: Atomic<u32> = Atomic::<u32>::new(0);

/// A place among the requests that wait, until it is dropped.
struct Place;

impl Place {
    /// Takes a place; nothing when there is none left.
    fn take() -> Option<Self> {
        let place = Self;
        let others = WAITING.fetch_add(1, Relaxed);
        // Dropping it gives it back.
        (others < MAX_WAITING).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Relaxed);
    }
}

fn class(flags: LockFlags) -> Class {
    if flags.has(LockFlags::FLOCK) {
        Class::Flock
    } else if flags.has(LockFlags::OFD) {
        Class::OpenFile
    } else {
        Class::Process
    }
}

fn kind(kind: LockType) -> Kind {
    match kind {
        LockType::Read => Kind::Read,
        LockType::Write => Kind::Write,
        LockType::Unlock => Kind::Unlock,
    }
}

/// Takes or releases a lock.
pub(crate) fn lock(ctx: &mut Context<'_>, r: &Lock) -> Result<Outcome> {
    // What it waited for is asked for again.
    drop(ctx.job.awaited.lock().take());
    let open = ctx.file(r.file, false)?;
    let mut request = Request {
        kind: kind(r.kind),
        start: r.start,
        end: r.end,
        // Of the client's; HOST's processes see it as that of the holder.
        pid: i32::try_from(r.pid).unwrap_or(0),
        wait: false,
        class: class(r.flags),
    };
    let locking = open.locking(r.owner)?;
    let all = r.start == 0 && i64::try_from(r.end).map_or(true, |end| end == i64::MAX);
    let takes = request.kind != Kind::Unlock;
    if request.class != Class::Flock && (takes || !all) {
        let owners = &ctx.session.owners;
        owners.more_ranges(r.owner, open.node.id, takes)?;
    }
    let result = lock::apply(open.file(), &locking.owner, &request);
    locking.count();
    match result {
        Err(EAGAIN) if r.flags.has(LockFlags::WAIT) => {
            request.wait = true;
            if lock_wait::can_wait(open.file(), &locking.owner, &request) {
                let key = ParkKey::new();
                let waiter = Unlocked::new(&ctx.session.queue, key);
                let asked = LockWait::ask(open.file(), &locking.owner, &request, waiter)?;
                if let Asked::Waits(wait) = asked {
                    *ctx.job.awaited.lock() = Some(wait);
                    return Ok(Outcome::Park(Parking::Lock(key)));
                }
            } else {
                // The client asks again later when there are too many.
                let _place = Place::take().ok_or(EAGAIN)?;
                lock::apply(open.file(), &locking.owner, &request)?;
            }
            locking.count();
        }
        result => result?,
    }
    match request.kind {
        // The kernel releases them with the file.
        _ if request.class == Class::Flock => {}
        Kind::Unlock if all => locking.released_all(),
        Kind::Unlock => {}
        Kind::Read | Kind::Write => locking.took(),
    }
    // Whoever gets the lock must see what others have written under it.
    let attr = ctx.attr_of_file(&open)?;
    let reply = ctx.reply(&LockReply { attr })?;
    Ok(Outcome::Reply(reply))
}

/// Who holds a lock that conflicts.
pub(crate) fn test(ctx: &mut Context<'_>, r: &Testlock) -> Result<Reply> {
    let open = ctx.file(r.file, false)?;
    let request = Request {
        kind: kind(r.kind),
        start: r.start,
        end: r.end,
        pid: 0,
        wait: false,
        class: class(r.flags),
    };
    if request.class == Class::Flock || request.kind == Kind::Unlock {
        return Err(EINVAL.into());
    }
    let locking = open.locking(r.owner)?;
    let conflict = lock::test(open.file(), &locking.owner, &request)?;
    let kind = match conflict.kind {
        Kind::Read => LockType::Read,
        Kind::Write => LockType::Write,
        Kind::Unlock => LockType::Unlock,
    };
    ctx.reply(&TestlockReply {
        kind,
        start: conflict.start,
        end: conflict.end,
        // CAST: -1 stays all ones.
        pid: conflict.pid as u32,
    })
}
