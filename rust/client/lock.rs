// SPDX-License-Identifier: GPL-2.0

//! File locks. The server holds them, against HOST's processes and other clients; this machine's
//! kernel records them so that it releases them when a process ends.

use kernel::prelude::*;
use qtfs_net::time::sleep_interruptible;
use qtfs_proto::{
    message::{
        Lock,
        Testlock, //
    },
    LockFlags,
    LockType, //
};
use qtfs_vfs::{
    file::File,
    lock::{
        Command,
        LockRequest, //
    },
    task::is_dying,
};

use crate::{
    data,
    fs::Qtfs,
    node,
    session::{
        Acting,
        Session,
        Wait, //
    },
};

/// First and longest pause between two requests for a lock that cannot wait on the server, in
/// milliseconds.
const PAUSE_MS: (u32, u32) = (10, 250);

pub(crate) fn lock(file: &File<Qtfs>, request: &mut LockRequest<'_>) -> Result {
    let (inode, open) = (file.inode(), file.open()?);
    let mount = inode.mount();
    let kind = request.kind()?;
    let flags = LockFlags::NONE
        .with_if(request.is_flock(), LockFlags::FLOCK)
        .with_if(request.is_ofd(), LockFlags::OFD);
    let (owner, start, end) = (request.owner(), request.start(), request.end());
    if request.command == Command::Test {
        if request.test_local() {
            return Ok(());
        }
        let (reply, _) = mount.call(|| {
            Ok(Testlock {
                file: open.id(mount, inode)?,
                owner,
                kind,
                start,
                end,
                flags,
            })
        })?;
        let found = reply.decode::<Testlock>()?;
        // The lock of a process here may have been granted just now.
        if found.kind != LockType::Unlock && request.test_local() {
            return Ok(());
        }
        request.answer(found.kind, found.start, found.end, found.pid);
        return Ok(());
    }
    if kind == LockType::Unlock {
        return unlock(file, request, flags);
    }
    let waits = request.command == Command::Wait;
    let pid = request.pid();
    let mut pause = PAUSE_MS.0;
    let reply = loop {
        let room = waits.then(|| mount.session.may_wait_for_lock()).flatten();
        let flags = flags.with_if(room.is_some(), LockFlags::WAIT);
        let wait = if waits {
            Wait::Interruptible
        } else {
            Wait::Killable
        };
        let (reply, _) = mount.call_into(None, wait, || {
            Ok(Lock {
                file: open.id(mount, inode)?,
                owner,
                pid,
                kind,
                start,
                end,
                flags,
            })
        })?;
        match reply.decode::<Lock>() {
            // Too many wait already, here or on the server.
            Err(e) if e == EAGAIN && waits => {}
            Err(e) => return Err(e),
            Ok(_) => break reply,
        }
        drop(room);
        sleep_interruptible(pause)?;
        pause = (pause * 2).min(PAUSE_MS.1);
    };
    open.set_locked(true);
    if !request.is_flock() {
        inode.node().lock_ranges();
    }
    if let Err(e) = request.record() {
        let lock = Lock {
            file: open.id(mount, inode)?,
            owner,
            pid,
            kind,
            start,
            end,
            flags,
        };
        let acting = mount
            .session
            .credentials
            .current(&mount.session, Wait::Killable)?;
        release(&mount.session, &lock, Some(acting), reply.asked.incarnation);
        inode.node().note_locks(inode);
        return Err(e);
    }
    // Whoever released another lock meanwhile did not know of this one yet.
    open.set_locked(true);
    if inode.is_regular() {
        // What others wrote while they had the lock is to be seen from now on.
        open.last_end
            .store(0, core::sync::atomic::Ordering::Relaxed);
        node::apply(inode, &reply.decode::<Lock>()?.attr, reply.asked);
        data::refresh(inode)?;
    }
    Ok(())
}

/// Releases a lock.
fn unlock(file: &File<Qtfs>, request: &mut LockRequest<'_>, flags: LockFlags) -> Result {
    let (inode, open) = (file.inode(), file.open()?);
    let mount = inode.mount();
    // Nobody may see the lock free here while the server still holds it for us, and what was
    // written under it must be there for whoever gets it next.
    if inode.is_regular() && inode.is_dirty() {
        let _ = data::write_out(inode);
    }
    if open.has_lost_lock() {
        let recorded = request.record();
        inode.node().note_locks(inode);
        return recorded;
    }
    let lock = |file| Lock {
        file,
        owner: request.owner(),
        pid: request.pid(),
        kind: LockType::Unlock,
        start: request.start(),
        end: request.end(),
        flags,
    };
    // A program that ends cannot be killed any more, and must not wait for a HOST that is away:
    // the server executes the request in any case, or drops the lock with the session.
    let wait = if request.is_close() || is_dying() {
        Wait::Briefly
    } else {
        Wait::Killable
    };
    let released = mount.call_into(None, wait, || Ok(lock(open.id_within(mount, inode, wait)?)));
    let released = released.and_then(|(reply, _)| reply.decode::<Lock>().map(|_| ()));
    // Whatever the server says, the kernel must not think that it is still held: the file may
    // be on its way out.
    let recorded = request.record();
    inode.node().note_locks(inode);
    recorded?;
    match released {
        Err(_) if wait == Wait::Briefly => Ok(()),
        released => released,
    }
}

/// Releases a lock that was granted when nobody waited for it any more. Waits for nothing.
pub(crate) fn release(session: &Session, lock: &Lock, cred: Option<Acting>, incarnation: u32) {
    if lock.kind != LockType::Unlock {
        let unlock = Lock {
            kind: LockType::Unlock,
            flags: lock.flags.without(LockFlags::WAIT),
            ..*lock
        };
        session.unlock(unlock, cred, incarnation);
    }
}
