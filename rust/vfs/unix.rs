// SPDX-License-Identifier: GPL-2.0

//! Unix sockets of this machine, and second names for the inodes that they are bound to.
//!
//! `shim/alias.c` says how a process binds a socket to an inode that exists.

use core::{
    ptr,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    types::Opaque, //
};
use qtfs_proto::relay::SocketType;

use crate::{
    bindings,
    fs::FileSystem,
    inode::Inode,
    local::{
        File,
        Path, //
    },
};

/// The directory in which sockets are bound to inodes that exist, while this lives. A module has
/// one.
pub struct Aliases(());

impl Aliases {
    /// Makes it.
    pub fn start() -> Result<Self> {
        // SAFETY: `drop` stops what is started here.
        to_result(unsafe { bindings::qtfs_aliases_start() })?;
        Ok(Self(()))
    }
}

impl Drop for Aliases {
    fn drop(&mut self) {
        // SAFETY: Started in `start`.
        unsafe { bindings::qtfs_aliases_stop() };
    }
}

/// Gives the current task a descriptor of the directory of [`Aliases`].
pub fn directory() -> Result<i32> {
    // SAFETY: It acts on the current task's table.
    descriptor(unsafe { bindings::qtfs_aliases_directory() })
}

fn descriptor(fd: i32) -> Result<i32> {
    to_result(fd.min(0))?;
    Ok(fd)
}

/// Gives the current task a descriptor of `file`.
pub fn install(file: File) -> Result<i32> {
    // SAFETY: The reference goes to the descriptor, or is put.
    descriptor(unsafe { bindings::qtfs_install_file(file.into_raw()) })
}

/// Opens an inode as `O_PATH` does. Its super block stays until the file is closed.
///
/// Fails with [`ENXIO`] when there are no [`Aliases`], or when the super block goes away.
pub fn open_inode<F: FileSystem>(inode: &Inode<F>) -> Result<File> {
    // SAFETY: The inode is alive.
    take(unsafe { bindings::qtfs_alias_open(inode.as_raw()) })
}

/// Opens a path as `O_PATH` does.
pub fn open_path(path: &Path) -> Result<File> {
    // SAFETY: The path is held.
    take(unsafe { bindings::qtfs_path_open(path.as_raw()) })
}

fn take(file: *mut bindings::file) -> Result<File> {
    let file = NonNull::new(from_err_ptr(file)?).ok_or(ENXIO)?;
    // SAFETY: The reference is ours.
    Ok(unsafe { File::from_raw(file) })
}

/// Two ends of a connection that keeps messages apart, with room for `buffer` bytes of them in each
/// direction. Nobody waits for them.
pub fn channel_pair(buffer: usize) -> Result<(File, File)> {
    let (mut ours, mut theirs) = (ptr::null_mut(), ptr::null_mut());
    let buffer = c_int::try_from(buffer)?;
    // SAFETY: Both are places for a file.
    to_result(unsafe { bindings::qtfs_channel_pair(&mut ours, &mut theirs, buffer) })?;
    let (ours, theirs) = (take(ours), take(theirs));
    Ok((ours?, theirs?))
}

/// Whether the current task asks for write permission to a socket because it connects or sends to
/// it.
pub fn is_connecting() -> bool {
    // SAFETY: Looks at the current task only.
    unsafe { bindings::qtfs_is_connecting() }
}

/// Whether the current task, which is connecting, waits for room in the queue of the listener.
pub fn waits_for_connection() -> bool {
    // SAFETY: Looks at the current task only.
    unsafe { bindings::qtfs_waits_for_connection() }
}

/// Type of the socket with which the current task connects or sends, where the system call tells.
pub fn connecting_type() -> Option<SocketType> {
    // SAFETY: Looks at the current task only.
    socket_type(unsafe { bindings::qtfs_connecting_type() })
}

fn socket_type(number: c_uint) -> Option<SocketType> {
    // CAST: The numbers are those of `SOCK_*`.
    let of_number = |known: &SocketType| *known as c_uint == number;
    SocketType::ALL.iter().copied().find(of_number)
}

/// The socket that the current task binds.
pub struct Binding(NonNull<bindings::sock>);

impl Binding {
    /// None if the current task is not in `bind(2)`, or binds no unix socket.
    pub fn of_current() -> Option<Self> {
        // SAFETY: Looks at the current task only. The reference is ours.
        NonNull::new(unsafe { bindings::qtfs_binding_socket() }).map(Self)
    }

    /// Its type. None for those that there are none of.
    pub fn kind(&self) -> Option<SocketType> {
        // SAFETY: The socket is held.
        socket_type(unsafe { bindings::qtfs_socket_type(self.0.as_ptr()) })
    }

    fn into_raw(self) -> *mut bindings::sock {
        let raw = self.0.as_ptr();
        core::mem::forget(self);
        raw
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { bindings::qtfs_socket_put(self.0.as_ptr()) };
    }
}

/// Who is told that a socket was closed.
pub trait Closed: Send + Sync + 'static {
    /// May be called more than once, must not sleep.
    fn closed(&self);
}

/// A socket that a program has bound.
///
/// # Invariants
///
/// The `qtfs_bound` is started with [`told`] for `C` and the address of `closed`.
#[pin_data(PinnedDrop)]
pub struct BoundSocket<C: Closed> {
    #[pin]
    raw: Opaque<bindings::qtfs_bound>,
    closed: Pin<KBox<C>>,
}

// SAFETY: The socket is counted, and what is looked at is atomic.
unsafe impl<C: Closed> Send for BoundSocket<C> {}
// SAFETY: As above.
unsafe impl<C: Closed> Sync for BoundSocket<C> {}

impl<C: Closed> BoundSocket<C> {
    /// Has `closed` told when the socket is closed.
    pub fn new(binding: Binding, closed: C) -> Result<Pin<KBox<Self>>> {
        let closed = KBox::pin(closed, GFP_KERNEL)?;
        let context = (&raw const *closed).cast_mut().cast::<c_void>();
        // INVARIANT: Started with the one and the other.
        KBox::pin_init(
            pin_init!(Self {
                raw <- Opaque::ffi_init(move |raw: *mut bindings::qtfs_bound| {
                    // SAFETY: The place is ours and pinned, the reference goes there; `drop` ends
                    // it before `closed` goes.
                    unsafe {
                        let sk = binding.into_raw();
                        bindings::qtfs_bound_start(raw, sk, Some(told::<C>), context)
                    }
                }),
                closed,
            }),
            GFP_KERNEL,
        )
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        // SAFETY: It is started.
        unsafe { bindings::qtfs_bound_is_closed(self.raw.get()) }
    }
}

#[pinned_drop]
impl<C: Closed> PinnedDrop for BoundSocket<C> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: It is started, and nobody uses it any more.
        unsafe { bindings::qtfs_bound_end(self.raw.get()) };
    }
}

/// # Safety
///
/// `context` is a `C` that lives until the socket is not watched any more.
unsafe extern "C" fn told<C: Closed>(context: *mut c_void) {
    // SAFETY: By this function's requirements.
    unsafe { &*context.cast::<C>() }.closed();
}
