// SPDX-License-Identifier: GPL-2.0

//! A device file whose users are served by one object.
//!
//! The kernel crate's [`MiscDevice`] makes an object for each open file and knows none for the
//! device; here it is the other way round, because what engine opens is the server itself.

use kernel::{
    container_of,
    fs::File,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*,
    sync::Arc,
    ModuleMetadata,
};

/// What a device file does.
pub trait Service: Send + Sync + 'static {
    /// The module that must not be unloaded while the file is open.
    type Module: ModuleMetadata;

    /// The file is opened.
    fn open(&self) -> Result;

    /// The last descriptor of an open file is closed.
    fn close(&self);

    /// A command with an argument that is an address in the current task's memory.
    fn command(&self, command: u32, argument: usize) -> Result<isize>;
}

/// A registered device file in `/dev`, accessible to root alone.
#[repr(C)]
#[pin_data]
pub struct Device<T: Service> {
    #[pin]
    inner: MiscDeviceRegistration<Handle<T>>,
    service: Arc<T>,
}

impl<T: Service> Device<T> {
    /// Makes the file.
    pub fn register(name: &'static CStr, service: Arc<T>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // The service is in its place before anybody can open the file.
            service: service,
            inner <- MiscDeviceRegistration::register(MiscDeviceOptions { name }),
        })
    }
}

/// An open file of a [`Device`].
struct Handle<T: Service>(Arc<T>);

#[vtable]
impl<T: Service> MiscDevice for Handle<T> {
    type Ptr = KBox<Self>;
    type OwnerModule = T::Module;

    fn open(_file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        // SAFETY: Only `Device::register` makes registrations of this type, as the field `inner`
        // of a pinned device whose `service` was initialized before.
        let service = unsafe { &(*container_of!(&raw const *misc, Device<T>, inner)).service };
        let handle = KBox::new(Self(service.clone()), GFP_KERNEL)?;
        service.open()?;
        Ok(handle)
    }

    fn release(handle: KBox<Self>, _file: &File) {
        handle.0.close();
    }

    fn ioctl(me: &Self, _file: &File, command: u32, argument: usize) -> Result<isize> {
        me.0.command(command, argument)
    }
}
