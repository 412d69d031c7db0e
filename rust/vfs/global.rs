// SPDX-License-Identifier: GPL-2.0

//! The one object of a kind that a module has, for functions of the VFS that are given none.

use core::{
    marker::PhantomData,
    ptr,
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
};

/// A place in a `static`.
pub struct Global<T: Send + Sync + 'static>(AtomicPtr<c_void>, PhantomData<T>);

impl<T: Send + Sync + 'static> Global<T> {
    /// Empty.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()), PhantomData)
    }

    /// Sets the object for as long as the guard lives: longer than anybody calls
    /// [`Global::get`], which is for functions of a file system that is registered meanwhile.
    pub fn set(&'static self, object: Arc<T>) -> Installed<T> {
        let raw = (&raw const *object).cast_mut().cast();
        self.0.store(raw, Ordering::Release);
        Installed {
            place: self,
            object,
        }
    }

    /// The object, once it is set.
    pub fn get(&self) -> Option<ArcBorrow<'static, T>> {
        let raw = self.0.load(Ordering::Acquire).cast_const().cast::<T>();
        if raw.is_null() {
            return None;
        }
        // SAFETY: It is in an `Arc`, which the guard holds for longer than anybody calls this.
        Some(unsafe { ArcBorrow::from_raw(raw) })
    }
}

impl<T: Send + Sync + 'static> Default for Global<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Keeps the object of a [`Global`].
pub struct Installed<T: Send + Sync + 'static> {
    place: &'static Global<T>,
    object: Arc<T>,
}

impl<T: Send + Sync + 'static> Installed<T> {
    /// The object.
    pub fn object(&self) -> &Arc<T> {
        &self.object
    }
}

impl<T: Send + Sync + 'static> Drop for Installed<T> {
    fn drop(&mut self) {
        self.place.0.store(ptr::null_mut(), Ordering::Release);
    }
}
