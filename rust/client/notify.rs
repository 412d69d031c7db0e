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
    let (mount, node) = (inode.mount(), inode.node());
    let session = &mount.session;
    let notices = &session.notices;
    let before = node.watch();
    let (watch, mask) = notices.begin(session, inode, before, mask)?;
    node.set_watch(watch);
    let asked = mount.call(|| {
        Ok(Notify {
            node: mount.id(inode)?,
            watch,
            mask,
        })
    });
    let asked = asked.and_then(|(reply, _)| reply.decode::<Notify>().map(|_| ()));
    if asked.is_err() && before != watch {
        node.set_watch(0);
        notices.end(watch);
    }
    asked
}

/// An inode leaves memory. Called from reclaim.
pub(crate) fn evict(inode: &Inode<Qtfs>) {
    match inode.node().watch() {
        0 => {}
        watch => inode.mount().session.notices.evicted(watch),
    }
}

/// Asks HOST for something else, and waits for no answer. Without memory HOST goes on telling.
fn ask(session: &Arc<Session>, node: NodeId, watch: u64, mask: NotifyMask) {
    if let Ok(none) = Arc::new(Pages::new(), GFP_KERNEL) {
        let call = Notify { node, watch, mask };
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
            Chore::Forget(watch) => ask(session, NodeId::NONE, watch, NotifyMask::NONE),
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
            inode.node().set_watch(0);
            notices.end(notice.watch);
            ask(session, NodeId::NONE, notice.watch, NotifyMask::NONE);
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
    let notices = &session.notices;
    let Some(watched) = notices.watched(watch) else {
        return;
    };
    let wanted = inode.watched();
    if watched.is_fresh() || watched.mask.without(wanted) == NotifyMask::NONE {
        return;
    }
    if wanted == NotifyMask::NONE {
        inode.node().set_watch(0);
        notices.end(watch);
        ask(session, NodeId::NONE, watch, NotifyMask::NONE);
    } else if let Some(node) = inode.node().id(session) {
        notices.narrow(watch, wanted);
        ask(session, node, watch, wanted);
    }
}

/// Tells all who watch that something is missing.
fn overflow(session: &Session) {
    for watch in session.notices.numbers().unwrap_or_default() {
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

/// Has HOST watch everything anew. An umount waits for this, so HOST, if it does not answer, is asked
/// once more later.
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
                mask: watched.mask,
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
