// SPDX-License-Identifier: GPL-2.0

//! Writing back: what the page cache has, to the server and to its disk.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::Pages;
use qtfs_proto::{
    message::{
        Fsync,
        Write, //
    },
    WriteFlags, //
};
use qtfs_vfs::{
    cache::WriteDone,
    file::File,
    inode::Inode, //
};

use crate::{
    fs::Qtfs,
    session::{
        then::{
            not_written,
            Then,
            Writeback, //
        },
        Session,
        Wait, //
    },
};

pub(crate) fn write_pages(
    inode: &Inode<Qtfs>,
    pos: u64,
    pages: Pages,
    last: bool,
    done: WriteDone,
) {
    let session = &inode.mount().session;
    let open = inode.node().writer(last, session).ok_or(EBADF);
    let pages = Arc::new(pages, GFP_KERNEL).map_err(Error::from);
    match (open, pages) {
        (Ok(open), Ok(pages)) => {
            write_back(session, Writeback::new(inode, open, pos, pages, done));
        }
        (Err(e), _) | (_, Err(e)) => {
            session.log_error("WRITE", e, "data that a program wrote is lost");
            done.fail(e);
            done.finish();
        }
    }
}

/// Writes all dirty pages of an inode and waits until they are on the server. Errors of the server
/// are kept for `fsync(2)` and `close(2)`.
pub(crate) fn write_out(inode: &Inode<Qtfs>) -> Result {
    let timeout = inode.mount().session.config.timeout;
    // The kernel would wait for pages that are being written already so that nothing could kill
    // the caller.
    inode.node().wait_writes(timeout)?;
    inode.start_writing()?;
    inode.node().wait_writes(timeout)
}

/// Sends pages of the cache to the server.
pub(crate) fn write_back(session: &Arc<Session>, writeback: Writeback) {
    let incarnation = session.incarnation();
    let prepared = (|| {
        let inode = writeback.inode()?;
        inode.node().changed(session);
        let file = writeback.open.id(inode.mount(), inode)?;
        session
            .credentials
            .register(session, &writeback.open.acting, Wait::Killable)?;
        Ok(Write {
            file,
            offset: writeback.pos,
            flags: WriteFlags::WRITEBACK.with_if(writeback.open.leaves(), WriteFlags::CLOSE),
        })
    })();
    match prepared {
        Ok(call) => {
            let cred = Some(writeback.open.acting.clone());
            let data = writeback.pages.clone();
            session.submit(&call, cred, data, None, Then::Write(writeback), incarnation);
        }
        Err(e) => not_written(session, e, writeback),
    }
}

pub(crate) fn fsync(file: &File<Qtfs>, start: u64, end: u64, datasync: bool) -> Result {
    let (inode, open) = (file.inode(), file.open()?);
    let mount = inode.mount();
    let datasync = datasync.into();
    let durable = &mount.session.durable;
    let unsynced = &inode.node().unsynced;
    let begun = durable.begin_fsync(unsynced);
    let synced = mount.call(|| {
        Ok(Fsync {
            file: open.id(mount, inode)?,
            datasync,
            start,
            end,
        })
    });
    let synced = synced.and_then(|(reply, _)| reply.decode::<Fsync>().map(|_| ()));
    if durable.end_fsync(begun, synced.is_ok(), unsynced) {
        let what = "HOST was rebooted before data that a program wrote was on its disk";
        mount.session.log_error("FSYNC", EIO, what);
        return Err(EIO);
    }
    synced
}
