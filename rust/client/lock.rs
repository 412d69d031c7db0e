// SPDX-License-Identifier: GPL-2.0

//! File locks. The server holds them, against HOST's processes and other clients; this machine's
//! kernel records them so that it releases them when a process ends.

use kernel::prelude::*;
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
};

use crate::{
    data,
    fs::Qtfs,
    session::Wait, //
};

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
        // Nobody may see the lock free here while the server still holds it for us, and what was
        // written under it must be there for whoever gets it next.
        if inode.is_regular() && inode.is_dirty() {
            let _ = data::write_out(inode);
        }
    }
    let waits = request.command == Command::Wait && kind != LockType::Unlock;
    let flags = flags.with_if(waits, LockFlags::WAIT);
    let pid = request.pid();
    let wait = if waits {
        Wait::Interruptible
    } else {
        Wait::Killable
    };
    let granted = mount.call_into(None, wait, || {
        Ok(Lock {
            file: open.id(mount, inode)?,
            owner,
            pid,
            kind,
            start,
            end,
            flags,
        })
    });
    let granted = granted.and_then(|(reply, _)| reply.decode::<Lock>().map(|_| ()));
    if kind == LockType::Unlock {
        // Whatever the server says, the kernel must not think that it is still held: the file may
        // be on its way out.
        request.record()?;
        return granted;
    }
    granted?;
    request.record()?;
    if inode.is_regular() {
        // What others wrote while they had the lock is to be seen from now on.
        open.last_end
            .store(0, core::sync::atomic::Ordering::Relaxed);
    }
    Ok(())
}
