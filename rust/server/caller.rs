// SPDX-License-Identifier: GPL-2.0

//! Who a request is executed as.
//!
//! A client registers identities of its callers under indices; index 0 is root. The kernel's
//! credential for an identity is made from engine's own when it is needed first, by a thread of
//! engine: it then has engine's security label and no capability that engine lacks.

use kernel::{
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        Arc,
        Mutex, //
    },
};
use qtfs_proto::{
    List,
    CAPABILITIES,
    MAX_GROUPS, //
};
use qtfs_vfs::local::cred::{
    self,
    Cred, //
};

use crate::{
    budget::{
        Budget,
        Charge, //
    },
    refusal::Result, //
};

/// Most identities of one session.
const MAX_CALLERS: usize = 4096;
/// What one takes, and each of its groups: here and in both credentials.
const BYTES: usize = 1024;
const GROUP_BYTES: usize = 12;

/// An identity.
#[pin_data]
pub(crate) struct Caller {
    uid: u32,
    gid: u32,
    groups: KVVec<u32>,
    caps: u64,
    _charge: Charge,
    #[pin]
    made: Mutex<Made>,
}

/// Credentials that were made.
#[derive(Default)]
struct Made {
    /// Of which engine they were made.
    epoch: u64,
    /// As the client said.
    full: Option<Arc<Cred>>,
    /// Without the capability to leave set-id bits of files that are written.
    stripping: Option<Arc<Cred>>,
}

impl Caller {
    fn new(
        budget: &Arc<Budget>,
        uid: u32,
        gid: u32,
        groups: KVVec<u32>,
        caps: u64,
    ) -> Result<Arc<Self>> {
        let charge = budget.charge(BYTES + groups.len() * GROUP_BYTES)?;
        Ok(Arc::pin_init(
            try_pin_init!(Self {
                uid,
                gid,
                groups,
                caps,
                _charge: charge,
                made <- new_mutex!(Made::default()),
            }),
            GFP_KERNEL,
        )?)
    }

    /// User, group, supplementary groups.
    pub(crate) fn ids(&self) -> (u32, u32, &[u32]) {
        (self.uid, self.gid, &self.groups)
    }

    fn make(&self, caps: u64) -> Result<Arc<Cred>> {
        let cred = Cred::for_user(self.uid, self.gid, &self.groups, caps)?;
        Ok(Arc::new(cred, GFP_KERNEL)?)
    }

    /// The credential; the current thread acts as engine, the one of `epoch`.
    pub(crate) fn cred(&self, epoch: u64) -> Result<Arc<Cred>> {
        let mut made = self.made.lock();
        made.of(epoch);
        if let Some(cred) = &made.full {
            return Ok(cred.clone());
        }
        let cred = self.make(self.caps)?;
        made.full = Some(cred.clone());
        Ok(cred)
    }

    /// The credential for writes that have to remove set-id bits; the current thread acts as
    /// engine.
    pub(crate) fn stripping_cred(&self, epoch: u64) -> Result<Arc<Cred>> {
        let mut made = self.made.lock();
        made.of(epoch);
        if let Some(cred) = &made.stripping {
            return Ok(cred.clone());
        }
        let cred = self.make(self.caps & !cred::FSETID)?;
        made.stripping = Some(cred.clone());
        Ok(cred)
    }
}

impl Made {
    /// Forgets what was made of another engine, which may have had another security label.
    fn of(&mut self, epoch: u64) {
        if self.epoch != epoch {
            *self = Self {
                epoch,
                ..Self::default()
            };
        }
    }
}

/// The identities of a session.
#[pin_data]
pub(crate) struct Callers {
    budget: Arc<Budget>,
    #[pin]
    inner: Mutex<Inner>,
}

/// The fields of [`Callers`] protected by the lock.
struct Inner {
    by_index: RBTree<u32, Arc<Caller>>,
    count: usize,
}

impl Callers {
    /// Only root, which is made when it is needed.
    pub(crate) fn new(budget: &Arc<Budget>) -> impl PinInit<Self> + use<> {
        let budget = budget.clone();
        pin_init!(Self {
            budget,
            inner <- new_mutex!(Inner {
                by_index: RBTree::new(),
                count: 0,
            }),
        })
    }

    /// CREDENTIAL: the identity that an index means from now on.
    pub(crate) fn register(
        &self,
        index: u32,
        uid: u32,
        gid: u32,
        caps: u64,
        groups: &List<'_, u32>,
    ) -> Result {
        // -1 is no id in the kernel.
        if index == 0 || uid == u32::MAX || gid == u32::MAX {
            return Err(EINVAL.into());
        }
        if groups.len() > MAX_GROUPS {
            return Err(E2BIG.into());
        }
        let mut copy = KVVec::with_capacity(groups.len(), GFP_KERNEL)?;
        for group in groups.iter() {
            copy.push(group, GFP_KERNEL)?;
        }
        let caller = Caller::new(&self.budget, uid, gid, copy, caps & CAPABILITIES)?;
        let mut inner = self.inner.lock();
        let known = inner.by_index.get(&index).is_some();
        if !known && inner.count >= MAX_CALLERS {
            return Err(EUSERS.into());
        }
        inner
            .by_index
            .try_create_and_insert(index, caller, GFP_KERNEL)?;
        if !known {
            inner.count += 1;
        }
        Ok(())
    }

    /// The identity that an index means.
    ///
    /// Fails with [`EKEYREJECTED`] when it was not registered.
    pub(crate) fn get(&self, index: u32) -> Result<Arc<Caller>> {
        let mut inner = self.inner.lock();
        if let Some(caller) = inner.by_index.get(&index) {
            return Ok(caller.clone());
        }
        if index != 0 {
            return Err(EKEYREJECTED.into());
        }
        let root = Caller::new(&self.budget, 0, 0, KVVec::new(), u64::MAX)?;
        inner
            .by_index
            .try_create_and_insert(0, root.clone(), GFP_KERNEL)?;
        Ok(root)
    }

    /// Forgets all.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        let callers = core::mem::replace(&mut inner.by_index, RBTree::new());
        inner.count = 0;
        drop(inner);
        drop(callers);
    }
}
