// SPDX-License-Identifier: GPL-2.0

//! Files that clients have open.
//!
//! An open file lives until RELEASE or the end of the session, also when its name is removed, and
//! is closed when the last request that uses it is done.

use kernel::{
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        atomic::Relaxed,
        Arc,
        Mutex, //
    },
};
use qtfs_proto::{
    FileId,
    FsClass, //
};
use qtfs_vfs::local::{
    lock::{
        self,
        Owner, //
    },
    File, //
};

use crate::{
    node::Node,
    op::class,
    policy::{
        Policy,
        Rule, //
    },
    refusal::{
        Refusal,
        Result, //
    },
    session::Session, //
};

/// Most open files of one session.
const MAX_FILES: usize = 1 << 18;

/// An open file.
#[pin_data(PinnedDrop)]
pub(crate) struct OpenFile {
    /// The object that is open.
    pub(crate) node: Arc<Node>,
    session: Arc<Session>,
    /// Where it was opened, for the policy.
    text: KVVec<u8>,
    #[pin]
    checked: Mutex<Checked>,
    /// Held by whoever lists the directory: the position in it belongs to the open file.
    #[pin]
    pub(crate) listing: Mutex<()>,
    /// Owners that may have locks on it, and their numbers.
    #[pin]
    owners: Mutex<KVec<(u64, Arc<Owner>)>>,
    /// Its contents are kept in the page cache.
    cached: bool,
    file: File,
}

/// What a policy says of an open file.
#[derive(Clone, Copy)]
struct Checked {
    /// Number of the policy.
    policy: u64,
    rule: Option<Rule>,
}

impl OpenFile {
    /// Takes over a file that was opened at `text` by the rule of `policy`.
    pub(crate) fn new(
        session: &Arc<Session>,
        node: Arc<Node>,
        file: File,
        text: KVVec<u8>,
        rule: Rule,
        policy: &Policy,
    ) -> Result<Arc<Self>> {
        let checked = Checked {
            policy: policy.number(),
            rule: Some(rule),
        };
        let counted = node.clone();
        let cached = class::of(file.path().magic()) == FsClass::Regular;
        let writes = file.is_writable();
        let this = Arc::pin_init(
            try_pin_init!(Self {
                node,
                session: session.clone(),
                text,
                checked <- new_mutex!(checked),
                listing <- new_mutex!(()),
                owners <- new_mutex!(KVec::new()),
                cached,
                file,
            }),
            GFP_KERNEL,
        )?;
        if writes {
            counted.writers.fetch_add(1, Relaxed);
        }
        Ok(this)
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether its contents are kept in the page cache, and not made at read time.
    pub(crate) fn is_cached(&self) -> bool {
        self.cached
    }

    /// Where it was opened.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Checks that the policy of now still allows its use.
    ///
    /// A file that HOST renames stays what it is; what counts is where it was opened.
    pub(crate) fn check(&self, policy: &Policy, change: bool) -> Result {
        let mut checked = self.checked.lock();
        if checked.policy != policy.number() {
            *checked = Checked {
                policy: policy.number(),
                rule: policy.rule(&self.text),
            };
        }
        match checked.rule {
            None => Err(Refusal::new(
                EACCES,
                fmt!("HOST does not export the file any more"),
            )),
            Some(Rule { read_only: true }) if change => Err(EROFS.into()),
            Some(_) => Ok(()),
        }
    }

    /// The owner with a number, who is about to lock.
    pub(crate) fn owner(&self, number: u64) -> Result<Arc<Owner>> {
        let mut owners = self.owners.lock();
        if let Some((_, owner)) = owners.iter().find(|(n, _)| *n == number) {
            return Ok(owner.clone());
        }
        owners.reserve(1, GFP_KERNEL)?;
        let owner = self.session.owners.take(number)?;
        // There is room.
        let _ = owners.push_within_capacity((number, owner.clone()));
        Ok(owner)
    }

    /// Forgets an owner that has released all its locks on the file.
    pub(crate) fn forget_owner(&self, number: u64) {
        let mut owners = self.owners.lock();
        let at = owners.iter().position(|(n, _)| *n == number);
        if let Some(Ok(_)) = at.map(|at| owners.remove(at)) {
            self.session.owners.put(number);
        }
    }
}

#[pinned_drop]
impl PinnedDrop for OpenFile {
    fn drop(self: Pin<&mut Self>) {
        if self.file.is_writable() {
            self.node.writers.fetch_sub(1, Relaxed);
        }
        let owners = core::mem::replace(&mut *self.owners.lock(), KVec::new());
        for (number, owner) in owners.iter() {
            lock::release_all(&self.file, owner);
            self.session.owners.put(*number);
        }
    }
}

/// The open files of a session.
#[pin_data]
pub(crate) struct Files {
    #[pin]
    inner: Mutex<Inner>,
}

/// The fields of [`Files`] protected by the lock.
struct Inner {
    by_id: RBTree<u64, Arc<OpenFile>>,
    count: usize,
    /// Ids are never used again.
    next: u64,
    /// The session has ended.
    closed: bool,
}

impl Files {
    /// No files.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(Inner {
                by_id: RBTree::new(),
                count: 0,
                next: 1,
                closed: false,
            }),
        })
    }

    /// Adds an open file.
    pub(crate) fn insert(&self, file: &Arc<OpenFile>) -> Result<FileId> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(ESTALE.into());
        }
        if inner.count >= MAX_FILES {
            return Err(Refusal::new(
                ENFILE,
                fmt!("the client has {MAX_FILES} files open"),
            ));
        }
        let id = inner.next;
        inner.next += 1;
        inner
            .by_id
            .try_create_and_insert(id, file.clone(), GFP_KERNEL)?;
        inner.count += 1;
        Ok(FileId(id))
    }

    /// The file with an id.
    ///
    /// Fails with [`EBADF`] when there is none.
    pub(crate) fn get(&self, id: FileId) -> Result<Arc<OpenFile>> {
        let inner = self.inner.lock();
        Ok(inner.by_id.get(&id.0).ok_or(EBADF)?.clone())
    }

    /// Takes a file out; dropping it closes it.
    pub(crate) fn remove(&self, id: FileId) -> Option<Arc<OpenFile>> {
        let mut inner = self.inner.lock();
        let file = inner.by_id.remove(&id.0)?;
        inner.count -= 1;
        Some(file)
    }

    /// Closes all; there will be no new ones.
    pub(crate) fn close(&self) {
        let files = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            inner.count = 0;
            core::mem::replace(&mut inner.by_id, RBTree::new())
        };
        // Closing may take long.
        drop(files);
    }
}
