// SPDX-License-Identifier: GPL-2.0

//! Callers' identities, each registered with the server once.

use core::sync::atomic::{
    AtomicU32,
    AtomicUsize,
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
        Credential,
        CredentialReply, //
    },
    List, //
};
use qtfs_vfs::task::Caller;

use super::{
    Session,
    Wait, //
};

/// Most identities that are kept. When there are more, those that nobody uses make room.
const MOST: usize = 512;

/// An identity that the server knows by its index.
struct Identity {
    index: u32,
    uid: u32,
    gid: u32,
    caps: u64,
    all_caps: bool,
    groups: KVVec<u32>,
    /// The incarnation of the session that knows it.
    incarnation: AtomicU32,
    /// Number of [`Acting`] that name it; the first comes to be under the lock of the table.
    users: AtomicUsize,
}

/// An identity in use: its index keeps its meaning.
pub(crate) struct Acting(Arc<Identity>);

impl Acting {
    /// What requests name it by.
    pub(crate) fn index(&self) -> u32 {
        self.0.index
    }
}

impl Clone for Acting {
    fn clone(&self) -> Self {
        // There is one already, so nobody takes the identity for unused meanwhile.
        self.0.users.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::Release);
    }
}

impl Identity {
    fn is(&self, caller: &Caller) -> bool {
        self.uid == caller.uid
            && self.gid == caller.gid
            && self.caps == caller.caps
            && self.all_caps == caller.all_caps
            && self.groups.iter().copied().eq(caller.groups())
    }
}

/// The fields of [`Credentials`] protected by the lock.
struct Table {
    known: KVVec<Arc<Identity>>,
    /// Highest index that was given out.
    last: u32,
    /// Indices that can be given out again.
    free: KVVec<u32>,
}

/// The identities of one session.
#[pin_data]
pub(crate) struct Credentials {
    #[pin]
    table: Mutex<Table>,
}

impl Credentials {
    /// Root only.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            table <- new_mutex!(Table { known: KVVec::new(), last: 0, free: KVVec::new() }),
        })
    }

    /// The identity of the current task; registers it when it is new.
    pub(crate) fn current(&self, session: &Arc<Session>, wait: Wait) -> Result<Acting> {
        let caller = Caller::current();
        let acting = self.find(&caller)?;
        self.register(session, &acting, wait)?;
        Ok(acting)
    }

    /// Makes sure that the server knows an identity, also after it lost the session.
    pub(crate) fn register(&self, session: &Arc<Session>, acting: &Acting, wait: Wait) -> Result {
        let identity = &acting.0;
        let incarnation = session.incarnation();
        if identity.index == 0 || identity.incarnation.load(Ordering::Acquire) == incarnation {
            return Ok(());
        }
        let mut groups = KVVec::from_elem(0u8, identity.groups.len() * 4, GFP_KERNEL)?;
        let message = Credential {
            index: identity.index,
            uid: identity.uid,
            gid: identity.gid,
            caps: identity.caps,
            groups: List::pack(identity.groups.iter().copied(), &mut groups).map_err(|_| EINVAL)?,
        };
        let none = Arc::new(Pages::new(), GFP_KERNEL)?;
        let reply = session.exchange_as(&message, None, none, None, wait, incarnation)?;
        let CredentialReply {} = reply.decode::<Credential<'_>>()?;
        identity.incarnation.store(incarnation, Ordering::Release);
        Ok(())
    }

    fn find(&self, caller: &Caller) -> Result<Acting> {
        let mut table = self.table.lock();
        if let Some(known) = table.known.iter().find(|known| known.is(caller)) {
            known.users.fetch_add(1, Ordering::Relaxed);
            return Ok(Acting(known.clone()));
        }
        // Root with all capabilities needs no groups: index 0 is registered from the start.
        let root = caller.uid == 0 && caller.gid == 0 && caller.all_caps;
        let mut groups = KVVec::new();
        for group in caller.groups() {
            groups.push(group, GFP_KERNEL)?;
        }
        if table.known.len() >= MOST {
            table.drop_unused();
        }
        let index = match (root, table.free.pop()) {
            (true, free) => {
                if let Some(free) = free {
                    table.free.push(free, GFP_KERNEL)?;
                }
                0
            }
            (false, Some(free)) => free,
            (false, None) => {
                table.last += 1;
                table.last
            }
        };
        let identity = Arc::new(
            Identity {
                index,
                uid: caller.uid,
                gid: caller.gid,
                caps: caller.caps,
                all_caps: caller.all_caps,
                groups,
                incarnation: AtomicU32::new(0),
                users: AtomicUsize::new(1),
            },
            GFP_KERNEL,
        )?;
        table.known.push(identity.clone(), GFP_KERNEL)?;
        Ok(Acting(identity))
    }
}

impl Table {
    /// Drops the identities that nobody uses.
    fn drop_unused(&mut self) {
        let mut at = 0;
        while let Some(identity) = self.known.get(at) {
            if identity.users.load(Ordering::Acquire) > 0 {
                at += 1;
                continue;
            }
            if let Ok(gone) = self.known.remove(at) {
                if gone.index != 0 {
                    // Without memory the index is not used again.
                    let _ = self.free.push(gone.index, GFP_KERNEL);
                }
            }
        }
    }
}
