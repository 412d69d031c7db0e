// SPDX-License-Identifier: GPL-2.0

//! Waiting until a file is ready, without a task that waits.
//!
//! C header: [`include/linux/poll.h`](srctree/include/linux/poll.h)

use kernel::{
    error::to_result,
    new_mutex,
    prelude::*,
    sync::Mutex,
    types::Opaque, //
};
use qtfs_bindings as bindings;
use qtfs_proto::PollEvents;

use super::File;
use crate::poll::known;

/// Who is told.
pub trait Watcher: Send + Sync {
    /// A file is ready for what `events` says, or may be; the watch tells no more of these until it
    /// is asked to. Called by a thread of the kernel, never twice at the same time.
    fn ready(&self, events: PollEvents);
}

/// The C side of a watch.
///
/// # Invariants
///
/// The `qtfs_watch` is initialised with [`tell`] for `W` and the address of `watcher`.
#[pin_data(PinnedDrop)]
struct Watch<W: Watcher> {
    #[pin]
    raw: Opaque<bindings::qtfs_watch>,
    watcher: Pin<KBox<W>>,
}

// SAFETY: The watch is used by one task at a time, what its callbacks use is atomic, and `W` can be
// used by any task.
unsafe impl<W: Watcher> Send for Watch<W> {}

impl<W: Watcher> Watch<W> {
    fn new(watcher: W) -> Result<Pin<KBox<Self>>> {
        let watcher = KBox::pin(watcher, GFP_KERNEL)?;
        let context = (&raw const *watcher).cast_mut().cast::<c_void>();
        // INVARIANT: Initialised with the one and the other.
        KBox::pin_init(
            pin_init!(Self {
                raw <- Opaque::ffi_init(|raw: *mut bindings::qtfs_watch| {
                    // SAFETY: The place is ours and pinned; `drop` ends the watch before the
                    // watcher goes.
                    unsafe { bindings::qtfs_watch_init(raw, Some(tell::<W>), context) }
                }),
                watcher,
            }),
            GFP_KERNEL,
        )
    }
}

#[pinned_drop]
impl<W: Watcher> PinnedDrop for Watch<W> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The watch is initialised, and its file is still open.
        unsafe { bindings::qtfs_watch_end(self.raw.get()) };
    }
}

/// An open file that can be waited for.
#[pin_data]
pub struct WatchedFile<W: Watcher> {
    /// Once somebody waited for it. Ends before the file is closed: fields are dropped in order.
    #[pin]
    watch: Mutex<Option<Pin<KBox<Watch<W>>>>>,
    file: File,
}

impl<W: Watcher> WatchedFile<W> {
    /// Takes over a file that nobody waits for.
    pub fn new(file: File) -> impl PinInit<Self> {
        pin_init!(Self {
            watch <- new_mutex!(None),
            file,
        })
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What the file is ready for. The watcher, which `watcher` makes the first time and `prepare`
    /// is shown each time, is told of the first of each of `wake` from now on.
    ///
    /// Fails with [`E2BIG`] when the file waits for too many things at once.
    pub fn poll(
        &self,
        wake: PollEvents,
        watcher: impl FnOnce() -> Result<W>,
        prepare: impl FnOnce(&W),
    ) -> Result<PollEvents> {
        let mut place = self.watch.lock();
        if place.is_none() {
            *place = Some(Watch::new(watcher()?)?);
        }
        let watch = place.as_ref().ok_or(ENOMEM)?;
        prepare(&watch.watcher);
        let mut ready = 0;
        // SAFETY: The watch is initialised, and used with the lock held; its file is always this
        // one, which is open as long as the watch is.
        to_result(unsafe {
            bindings::qtfs_watch_poll(watch.raw.get(), self.file.as_ptr(), wake.bits(), &mut ready)
        })?;
        Ok(known(ready))
    }
}

/// # Safety
///
/// `context` is a `W` that lives until the watch is ended.
unsafe extern "C" fn tell<W: Watcher>(context: *mut c_void, events: c_uint) {
    // SAFETY: By this function's requirements.
    let watcher = unsafe { &*context.cast::<W>() };
    watcher.ready(known(events));
}
