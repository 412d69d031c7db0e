// SPDX-License-Identifier: GPL-2.0

//! Being told of what happens to files of this machine, as inotify(7) is.
//!
//! C header: [`include/linux/fsnotify_backend.h`](srctree/include/linux/fsnotify_backend.h)

use core::{
    ptr::NonNull,
    slice, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::Mutex,
    types::Opaque, //
};
use qtfs_bindings as bindings;
use qtfs_proto::NotifyMask;

use super::Path;

/// Something that happened.
pub struct Notice<'a> {
    /// Number of the object, or 0.
    pub watch: u64,
    /// Number of its directory, or 0.
    pub parent: u64,
    /// What.
    pub mask: NotifyMask,
    /// The same in the two halves of a move, else 0.
    pub cookie: u32,
    /// The entry, if it is about one.
    pub name: &'a [u8],
}

/// Who is told.
pub trait Listener: Send + Sync {
    /// Something happened. Called by whoever did it, often with locks of the file system held.
    fn happened(&self, notice: &Notice<'_>);
    /// [`Notifier::pump`] was called. Called by a thread of the kernel, never twice at the same time.
    fn pump(&self);
}

/// Listens to what happens to some objects, which have numbers.
///
/// # Invariants
///
/// The `qtfs_notifier` is initialised with [`event`] and [`pump`] for `L` and the address of
/// `listener`. Marks in `marks` were made by it, and not removed.
#[pin_data(PinnedDrop)]
pub struct Notifier<L: Listener> {
    #[pin]
    raw: Opaque<bindings::qtfs_notifier>,
    #[pin]
    marks: Mutex<Marks>,
    listener: Pin<KBox<L>>,
}

/// Marks by their numbers, and how many there are.
struct Marks {
    by_number: RBTree<u64, Mark>,
    count: usize,
}

/// A reference to a mark.
struct Mark(NonNull<bindings::qtfs_notify_mark>);

// SAFETY: Marks are counted and locked by themselves.
unsafe impl Send for Mark {}

// SAFETY: The C side may be used by any task, and so may `L`.
unsafe impl<L: Listener> Send for Notifier<L> {}
// SAFETY: As above.
unsafe impl<L: Listener> Sync for Notifier<L> {}

impl<L: Listener> Notifier<L> {
    /// Listens to nothing yet.
    pub fn new(listener: impl PinInit<L, Error>) -> Result<Pin<KBox<Self>>> {
        let listener = KBox::pin_init(listener, GFP_KERNEL)?;
        let context = (&raw const *listener).cast_mut().cast::<c_void>();
        // INVARIANT: Initialised with these; there are no marks.
        KBox::pin_init(
            try_pin_init!(Self {
                raw <- Opaque::try_ffi_init(|raw: *mut bindings::qtfs_notifier| {
                    // SAFETY: The place is ours and pinned; `drop` ends it before the listener goes.
                    to_result(unsafe {
                        bindings::qtfs_notifier_init(raw, Some(event::<L>), Some(pump::<L>), context)
                    })
                }),
                marks <- new_mutex!(Marks { by_number: RBTree::new(), count: 0 }),
                listener,
            }),
            GFP_KERNEL,
        )
    }

    /// Who is told.
    pub fn listener(&self) -> &L {
        &self.listener
    }

    /// Has [`Listener::pump`] called soon.
    pub fn pump(&self) {
        // SAFETY: The notifier is initialised.
        unsafe { bindings::qtfs_notifier_pump(self.raw.get()) };
    }

    /// Tells of what `mask` says of the object at `path`, by this number, from now on; with
    /// [`NotifyMask::MASK_ADD`] besides what it told of before. Of the entries of a directory it tells only
    /// while it is below `top` or is it, on the same file system.
    ///
    /// Fails with [`ENOSPC`] when there are `max` already.
    pub fn watch(
        &self,
        path: &Path,
        top: &Path,
        number: u64,
        mask: NotifyMask,
        max: usize,
    ) -> Result {
        let mut marks = self.marks.lock();
        if let Some(mark) = marks.by_number.get(&number) {
            let add = mask.has(NotifyMask::MASK_ADD);
            // SAFETY: By the type invariant.
            unsafe { bindings::qtfs_notify_change(mark.0.as_ptr(), mask.bits(), add) };
            return Ok(());
        }
        if marks.count >= max {
            return Err(ENOSPC);
        }
        // SAFETY: The notifier is initialised, and the inodes held by the paths.
        let mark = from_err_ptr(unsafe {
            bindings::qtfs_notify_add(
                self.raw.get(),
                path.inode(),
                top.inode(),
                number,
                mask.bits(),
            )
        })?;
        let mark = Mark(NonNull::new(mark).ok_or(ENOMEM)?);
        let raw = mark.0;
        // INVARIANT: Made by this notifier.
        marks
            .by_number
            .try_create_and_insert(number, mark, GFP_KERNEL)
            .inspect_err(|_| {
                // SAFETY: Nobody else removes it.
                unsafe { bindings::qtfs_notify_remove(self.raw.get(), raw.as_ptr()) };
            })?;
        marks.count += 1;
        Ok(())
    }

    /// Tells nothing by this number any more, once what is returned is dropped. With it the file may go, which
    /// takes long; so no lock is to be held that [`Listener::happened`] wants.
    #[must_use]
    pub fn forget(&self, number: u64) -> Option<Forgotten<'_, L>> {
        let mut marks = self.marks.lock();
        let mark = marks.by_number.remove(&number)?;
        marks.count -= 1;
        Some(Forgotten {
            notifier: self,
            mark,
        })
    }
}

/// A mark that is removed when this is dropped.
pub struct Forgotten<'a, L: Listener> {
    notifier: &'a Notifier<L>,
    mark: Mark,
}

impl<L: Listener> Drop for Forgotten<'_, L> {
    fn drop(&mut self) {
        // SAFETY: It was made by this notifier, whose table does not have it any more.
        unsafe { bindings::qtfs_notify_remove(self.notifier.raw.get(), self.mark.0.as_ptr()) };
    }
}

#[pinned_drop]
impl<L: Listener> PinnedDrop for Notifier<L> {
    fn drop(self: Pin<&mut Self>) {
        let marks = core::mem::replace(&mut self.marks.lock().by_number, RBTree::new());
        for (_, mark) in marks.iter() {
            // SAFETY: By the type invariant; they are removed here only.
            unsafe { bindings::qtfs_notify_remove(self.raw.get(), mark.0.as_ptr()) };
        }
        // SAFETY: Initialised, and without marks.
        unsafe { bindings::qtfs_notifier_end(self.raw.get()) };
    }
}

/// # Safety
///
/// `context` is an `L` that lives until the notifier is ended; `notice` is valid.
unsafe extern "C" fn event<L: Listener>(
    context: *mut c_void,
    notice: *const bindings::qtfs_notice,
) {
    // SAFETY: By this function's requirements.
    let (listener, notice) = unsafe { (&*context.cast::<L>(), &*notice) };
    let name = if notice.name.is_null() {
        &[]
    } else {
        // SAFETY: The name has so many bytes.
        unsafe { slice::from_raw_parts(notice.name, notice.len as usize) }
    };
    listener.happened(&Notice {
        watch: notice.watch,
        parent: notice.parent,
        mask: NotifyMask::from_bits(notice.mask).unwrap_or(NotifyMask::NONE),
        cookie: notice.cookie,
        name,
    });
}

/// # Safety
///
/// `context` is an `L` that lives until the notifier is ended.
unsafe extern "C" fn pump<L: Listener>(context: *mut c_void) {
    // SAFETY: By this function's requirements.
    unsafe { &*context.cast::<L>() }.pump();
}
