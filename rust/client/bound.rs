// SPDX-License-Identifier: GPL-2.0

//! Sockets that programs of this machine have bound in a shared directory.
//!
//! One exists for each, from `bind(2)` until the daemon knows that the socket is closed; without
//! a daemon until the next one comes, or the module goes. While the socket lives it holds its
//! inode, and that the super block; later neither is held.

use core::sync::atomic::{
    AtomicBool,
    AtomicU64,
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
use qtfs_proto::{
    message::Channel as OpenChannel,
    relay::{
        Purpose,
        SocketType, //
    },
    FileId,
    PollEvents,
    Target, //
};
use qtfs_vfs::{
    inode::{
        Inode,
        WeakInode, //
    },
    local::{
        cred::Cred,
        File, //
    },
    unix::{
        self,
        Binding,
        BoundSocket,
        Closed, //
    },
};

use crate::{
    channel::Channel,
    fs::Qtfs,
    sockets::Events, //
};

/// Tells the daemon that a socket is closed.
struct Bell(Arc<Events>);

impl Closed for Bell {
    fn closed(&self) {
        self.0.queue.wake(PollEvents::NONE);
    }
}

/// See the module.
#[pin_data]
pub(crate) struct Bound {
    pub(crate) id: u64,
    pub(crate) kind: SocketType,
    /// The daemon knows of it.
    told: AtomicBool,
    /// Who waits until HOST's programs can connect; 0 for nobody.
    waiter: AtomicU64,
    /// The inode, until it leaves memory.
    #[pin]
    inode: Mutex<Option<WeakInode<Qtfs>>>,
    /// The program that has bound it, whom HOST's programs are to see.
    owner: Cred,
    socket: Pin<KBox<BoundSocket<Bell>>>,
}

impl Bound {
    /// `binding` is being bound to `inode`.
    pub(crate) fn new(
        id: u64,
        inode: &Inode<Qtfs>,
        binding: Binding,
        kind: SocketType,
        events: &Arc<Events>,
    ) -> Result<Arc<Self>> {
        let socket = BoundSocket::new(binding, Bell(events.clone()))?;
        let owner = Cred::current()?;
        Arc::pin_init(
            pin_init!(Self {
                id,
                kind,
                told: AtomicBool::new(false),
                waiter: AtomicU64::new(0),
                inode <- new_mutex!(Some(inode.weak())),
                owner,
                socket,
            }),
            GFP_KERNEL,
        )
    }

    /// Whether the program has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        self.socket.is_closed()
    }

    /// The inode leaves memory.
    pub(crate) fn forget_inode(&self) {
        *self.inode.lock() = None;
    }

    /// Whether the daemon is to be told something.
    pub(crate) fn has_news(&self) -> bool {
        self.is_closed() || !self.was_told()
    }

    pub(crate) fn was_told(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }

    /// The daemon is told that it is there.
    pub(crate) fn tell(&self) {
        self.told.store(true, Ordering::Release);
    }

    /// A new daemon is to be told.
    pub(crate) fn tell_again(&self) {
        self.told.store(false, Ordering::Release);
        self.waiter.store(0, Ordering::Release);
    }

    pub(crate) fn set_waiter(&self, id: u64) {
        self.waiter.store(id, Ordering::Release);
    }

    pub(crate) fn waiter(&self) -> u64 {
        self.waiter.load(Ordering::Acquire)
    }

    /// Opens the inode as `O_PATH` does. None when it is not in memory any more.
    pub(crate) fn open(&self) -> Option<Result<File>> {
        // Whoever gives back the last reference frees the inode, which takes the lock.
        let held = {
            let inode = self.inode.lock();
            inode.as_ref()?.grab()?
        };
        Some(unix::open_inode(&held))
    }

    /// Opens a channel by which HOST's programs connect to the socket, as its owner.
    pub(crate) fn listen(&self, kind: SocketType) -> Result<Arc<Channel>> {
        // Holds inode and super block until the channel is open.
        let _held = self.open().ok_or(ENOENT)??;
        let inode = {
            let inode = self.inode.lock();
            inode.as_ref().and_then(WeakInode::grab).ok_or(ENOENT)?
        };
        let mount = inode.mount();
        let node = mount.id(&inode)?;
        let _owner = self.owner.enter();
        Channel::open(mount, node, || {
            Ok(OpenChannel {
                target: Target::node(mount.id(&inode)?),
                purpose: Purpose::Listen,
                kind,
                token: 0,
                file: FileId::NONE,
            })
        })
    }
}
