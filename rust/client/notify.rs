// SPDX-License-Identifier: GPL-2.0

//! `inotify(7)` and `fanotify(7)` of what other machines do.
//!
//! The VFS does not say that somebody watches an inode, but it asks for permission to read it in the
//! same system call, just before: that is when HOST is asked to watch, so that nothing is missed.
//! That nobody watches any more is noticed when HOST tells something, or when the inode leaves
//! memory.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::Pages;
use qtfs_proto::{
    frame::Header,
    message::Notify,
    Kind,
    NodeId,
    NotifyMask, //
};
use qtfs_vfs::{
    inode::{
        Inode,
        InodeRef, //
    },
    notify::wanted, //
};

use crate::{
    fs::Qtfs,
    own,
    session::{
        bare,
        notices::{
            Answer,
            Chore,
            Notice, //
        },
        then::Then,
        Session,
        Wait, //
    },
};

/// What happens to entries of a directory, rather than to what they lead to.
const OF_ENTRIES: NotifyMask = NotifyMask::MOVED_FROM
    .with(NotifyMask::MOVED_TO)
    .with(NotifyMask::CREATE)
    .with(NotifyMask::DELETE);

/// The current system call asks whether it may read an inode. If that is because it is going to
/// watch it, HOST does so from now on.
pub(crate) fn permission(inode: &Inode<Qtfs>) -> Result {
    let mask = wanted();
    if mask == NotifyMask::NONE {
        return Ok(());
    }
    let mount = inode.mount();
    let session = &mount.session;
    let notices = &session.notices;
    let watch = notices.begin(session, inode, mask)?;
    let asked = mount.call(|| {
        Ok(Notify {
            node: mount.id(inode)?,
            watch,
            // Others may ask at the same time.
            mask: mask.with(NotifyMask::MASK_ADD),
        })
    });
    let (answer, result) = match asked {
        Ok((reply, _)) => match reply.decode::<Notify>() {
            Ok(_) => (Answer::Granted, Ok(())),
            Err(e) => (Answer::Refused, Err(e)),
        },
        Err(e) => (Answer::Unknown, Err(e)),
    };
    if notices.answered(inode, watch, answer) {
        forget(session, watch);
    }
    result
}

/// An inode leaves memory. Called from reclaim.
pub(crate) fn evict(inode: &Inode<Qtfs>) {
    match inode.node().watch() {
        0 => {}
        watch => inode.mount().session.notices.evicted(watch),
    }
}

/// HOST need not watch by this number any more. Without memory it goes on.
fn forget(session: &Arc<Session>, watch: u64) {
    if let Ok(none) = Arc::new(Pages::new(), GFP_KERNEL) {
        let call = Notify {
            node: NodeId::NONE,
            watch,
            mask: NotifyMask::NONE,
        };
        let incarnation = session.incarnation();
        session.submit(&call, None, none, None, Then::Forget, incarnation);
    }
}

/// What the thread of a session does that tells programs what HOST told, until the mount goes away.
pub(crate) fn run(session: &Arc<Session>) {
    while let Some(chore) = session.notices.next() {
        match chore {
            Chore::Tell(notice) if notice.mask.has(NotifyMask::OVERFLOW) => overflow(session),
            Chore::Tell(notice) => tell(session, &notice),
            Chore::Acknowledge(seq) => {
                let mut header = Header::new(Kind::Ack, 0);
                header.seq = seq;
                // Without a connection the event comes once more, and so does this.
                let _ = bare(&header).and_then(|frame| session.send_first(frame));
            }
            Chore::Forget(watch) => forget(session, watch),
            Chore::Renew => renew(session),
        }
    }
}

fn tell(session: &Arc<Session>, notice: &Notice) {
    let notices = &session.notices;
    let mask = notice.mask;
    let own = inode_of(session, notice.watch);
    if let Some(dir) = inode_of(session, notice.parent) {
        // Who watches the directory is told by what the entry leads to; any inode that nobody
        // watches does for that, as far as inotify is concerned.
        let child = match &own {
            Some(child) => child.grab(),
            None => own::stranger(&dir).ok(),
        };
        if let Some(child) = child {
            dir.tell_parent(&child, mask, notice.name());
        }
        drop_unwatched(session, &dir, notice.parent);
    } else if let Some(inode) = &own {
        let is_entry = mask.without(OF_ENTRIES) != mask;
        inode.tell(mask, is_entry.then(|| notice.name()), notice.cookie);
    }
    if let Some(inode) = own {
        if mask.has(NotifyMask::DELETE_SELF) || mask.has(NotifyMask::UNMOUNT) {
            inode.unwatch();
            notices.end(&inode, notice.watch);
            forget(session, notice.watch);
        } else {
            drop_unwatched(session, &inode, notice.watch);
        }
    }
}

fn inode_of(session: &Session, watch: u64) -> Option<InodeRef<Qtfs>> {
    match watch {
        0 => None,
        watch => session.notices.inode(watch),
    }
}

/// Tells HOST when nobody watches any more, or not as much.
fn drop_unwatched(session: &Arc<Session>, inode: &Inode<Qtfs>, watch: u64) {
    let incarnation = session.incarnation();
    let Some(node) = inode.node().id(session) else {
        return;
    };
    let Some(mask) = session.notices.narrow(inode, watch) else {
        return;
    };
    if mask == NotifyMask::NONE {
        return forget(session, watch);
    }
    let call = Notify { node, watch, mask };
    let then = Then::Narrowed(watch, mask);
    match Arc::new(Pages::new(), GFP_KERNEL) {
        Ok(none) => session.submit(&call, None, none, None, then, incarnation),
        // HOST goes on telling.
        Err(e) => then.fail(session, e.into()),
    }
}

/// Tells all who watch that something is missing.
fn overflow(session: &Session) {
    let Ok(numbers) = session.notices.numbers() else {
        return session.notices.overflow_later();
    };
    for watch in numbers {
        if let Some(inode) = session.notices.inode(watch) {
            missing(&inode);
        }
    }
}

/// The kernel tells a program of an overflow only when its own queue is full. So the event is one of
/// those that the program waits for, with the mark of an overflow.
fn missing(inode: &Inode<Qtfs>) {
    let wanted = inode.watched();
    if wanted != NotifyMask::NONE {
        inode.tell(wanted.with(NotifyMask::OVERFLOW), None, 0);
    }
}

/// Has HOST watch anew what it may have forgotten. An umount waits for this, so HOST, if it does not
/// answer, is asked once more later.
fn renew(session: &Arc<Session>) {
    let Ok(stale) = session.notices.stale() else {
        return session.notices.renew_later();
    };
    let mut later = false;
    for watch in stale {
        if !session.is_connected() {
            later = true;
            break;
        }
        let Some(inode) = session.notices.inode(watch) else {
            continue;
        };
        let mount = inode.mount();
        let mut incarnation = session.incarnation();
        let asked = mount.call_into(None, Wait::Shortly, || {
            incarnation = session.incarnation();
            let node = mount.id_within(&inode, Wait::Shortly)?;
            // Somebody may have asked for more meanwhile.
            let watched = session.notices.watched(watch).ok_or(ENOENT)?;
            Ok(Notify {
                node,
                watch,
                mask: watched.mask.with(NotifyMask::MASK_ADD),
            })
        });
        let asked = asked.and_then(|(reply, _)| reply.decode::<Notify>().map(|_| ()));
        if matches!(asked, Err(e) if e == ETIMEDOUT || e == ENOMEM) {
            later = true;
            continue;
        }
        let is_so = || session.incarnation() == incarnation;
        session.notices.renewed(watch, is_so);
        if session.notices.watched(watch).is_none() {
            // It was ended while HOST was asked.
            forget(session, watch);
            continue;
        }
        if let Err(e) = asked {
            let what = "what happens to a file that a program watches is not told any more";
            session.log_error("NOTIFY", e, what);
        }
        missing(&inode);
    }
    if later {
        session.notices.renew_later();
    }
}
