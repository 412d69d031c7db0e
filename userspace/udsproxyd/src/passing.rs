// SPDX-License-Identifier: GPL-2.0

//! Descriptors that programs of this machine pass, or are passed.

use crate::device::Device;
use crate::mounts;
use qtfs_proto::relay::Message;
use qtfs_proto::relay::Passed;
use qtfs_proto::relay::Purpose;
use qtfs_relay::channel::Channel;
use qtfs_relay::connection::relay;
use qtfs_relay::identity::Identity;
use qtfs_relay::local::Local;
use qtfs_relay::rights;
use qtfs_relay::rights::Boxed;
use qtfs_relay::rights::OwnedRight;
use qtfs_relay::rights::Passing;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::io::Seek;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct ByDevice(pub Arc<Device>);

/// Opens a channel beside another one, without blocking the runtime.
pub async fn beside(
    device: &Arc<Device>,
    channel: &Channel,
    purpose: Purpose,
    token: u64,
    file: Option<OwnedFd>,
) -> io::Result<Channel> {
    let (device, channel) = (Arc::clone(device), channel.as_fd().try_clone_to_owned()?);
    let open = move || device.beside(channel.as_fd(), purpose, token, file.as_ref());
    let opened = tokio::task::spawn_blocking(open).await;
    Channel::new(opened.map_err(io::Error::other)??)
}

/// Waits for what engine says first.
pub async fn opened(channel: &Channel) -> io::Result<()> {
    let bytes = channel.receive().await?;
    match Message::decode(&bytes) {
        Ok(Message::Opened { errno: 0, .. }) => Ok(()),
        Ok(Message::Opened { errno, .. }) => Err(io::Error::from_raw_os_error(errno as i32)),
        _ => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

/// Takes what engine has offered under a token.
pub async fn take(device: &Arc<Device>, channel: &Channel, token: u64) -> io::Result<Channel> {
    let taken = beside(device, channel, Purpose::Take, token, None).await?;
    opened(&taken).await?;
    Ok(taken)
}

/// A task of its own, whose type does not contain itself.
fn spawn_relay(local: Local, channel: Channel, passing: Arc<ByDevice>) {
    let task: Boxed<'static, ()> = Box::pin(relay(local, channel, passing));
    tokio::spawn(task);
}

impl ByDevice {
    async fn describe_soon(
        self: Arc<Self>,
        channel: &Channel,
        fd: OwnedFd,
    ) -> io::Result<OwnedRight> {
        let passed = rights::classify(&fd)?;
        let token = qtfs_relay::token()?;
        if passed == Passed::File {
            let flags = rights::open_flags(&fd)?;
            let mut file = File::from(fd.try_clone()?);
            let meta = file.metadata()?;
            let offset = if meta.is_file() {
                file.stream_position()?
            } else {
                0
            };
            let given = beside(&self.0, channel, Purpose::File, token, Some(fd)).await;
            given.map_err(|error| match error.raw_os_error() {
                Some(nix::libc::EBADF | nix::libc::EXDEV) => {
                    io::Error::other("a file that is not of the same mount cannot be passed")
                }
                _ => error,
            })?;
            return Ok(OwnedRight {
                flags,
                offset,
                ino: meta.ino(),
                ..OwnedRight::relayed(passed, token)
            });
        }
        let (kind, own) = rights::passing_side(passed, fd)?;
        let local = Local::new(own, kind, &Identity::default())?;
        let offered = beside(&self.0, channel, Purpose::Offer, token, None).await?;
        spawn_relay(local, offered, self);
        Ok(OwnedRight::relayed(passed, token))
    }

    async fn realize_soon(
        self: Arc<Self>,
        channel: &Channel,
        right: OwnedRight,
    ) -> io::Result<OwnedFd> {
        if right.passed == Passed::File {
            let path = mounts::here(Path::new(OsStr::from_bytes(&right.path)))?;
            let open = move || rights::open_again(&mounts::pin(&path)?, &right);
            let opened = tokio::task::spawn_blocking(open).await;
            return opened.map_err(io::Error::other)?;
        }
        let taken = take(&self.0, channel, right.token).await?;
        let (theirs, kind, ours) = rights::receiving_side(right.passed)?;
        let local = Local::new(ours, kind, &Identity::default())?;
        spawn_relay(local, taken, self);
        Ok(theirs)
    }
}

impl Passing for ByDevice {
    fn describe(
        self: Arc<Self>,
        channel: &Channel,
        fd: OwnedFd,
    ) -> Boxed<'_, io::Result<OwnedRight>> {
        Box::pin(self.describe_soon(channel, fd))
    }

    fn realize(
        self: Arc<Self>,
        channel: &Channel,
        right: OwnedRight,
    ) -> Boxed<'_, io::Result<OwnedFd>> {
        Box::pin(self.realize_soon(channel, right))
    }

    fn name_there(&self, name: Vec<u8>) -> Vec<u8> {
        mounts::name_there(name)
    }

    fn name_here(&self, name: Vec<u8>) -> Vec<u8> {
        mounts::name_here(name)
    }
}
