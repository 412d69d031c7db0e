// SPDX-License-Identifier: GPL-2.0

//! The device file by which engine enters; see `Documentation/engine-abi.md`.

use kernel::{
    ioctl::{
        _IOR,
        _IOW,
        _IOWR, //
    },
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};
use qtfs_vfs::{
    local::device::Service,
    unix, //
};

use crate::{
    channels::Descriptors,
    policy,
    server::Server,
    worker, //
};

/// Version of the interface.
const VERSION: u32 = 1;
/// Letter of the commands.
const MAGIC: u32 = 0x71;

const CONFIGURE: u32 = _IOW::<[u8; 16]>(MAGIC, 1);
const SERVE: u32 = _IOR::<[u8; 8]>(MAGIC, 2);
const WAIT: u32 = _IOR::<[u8; 16]>(MAGIC, 3);
const CHANNEL: u32 = _IOWR::<[u8; 64]>(MAGIC, 4);
const DIRECTORY: u32 = _IOR::<[u8; 4]>(MAGIC, 5);

impl Service for Server {
    type Module = crate::LocalModule;

    fn open(&self) -> Result {
        self.engine_comes()
            .inspect_err(|_| log_warn!("engine is running already\n"))?;
        self.start_aliases().inspect_err(|_| self.engine_goes())?;
        log_info!("engine is here\n");
        Ok(())
    }

    fn close(&self) {
        self.engine_goes();
        log_info!("engine is gone; requests wait until it is back\n");
    }

    fn command(&self, command: u32, argument: usize) -> Result<isize> {
        match command {
            CONFIGURE => configure(self, argument)?,
            SERVE => {
                let reason = worker::serve(self)?;
                write(argument, &[reason as u32, 0])?;
            }
            WAIT => {
                let demand = self.queue.wait_for_need()?;
                write(
                    argument,
                    &[demand.workers, demand.idle, demand.queued, demand.want],
                )?;
            }
            CHANNEL => channel(self, argument)?,
            DIRECTORY => write(argument, &[unix::directory()? as u32])?,
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}

/// CHANNEL: waits for a channel. `u64` address of and `u32` room for groups come in.
fn channel(server: &Server, argument: usize) -> Result {
    let mut request = [0; 12];
    UserSlice::new(UserPtr::from_addr(argument), request.len())
        .reader()
        .read_slice(&mut request)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = request;
    let address = usize::try_from(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))?;
    let room = usize::try_from(u32::from_ne_bytes([i, j, k, l]))?;
    let new = server.channels.next()?;
    let caller = new.caller.clone();
    let (uid, gid, groups) = caller.ids();
    let groups = groups.get(..room).unwrap_or(groups);
    let mut writer = UserSlice::new(UserPtr::from_addr(address), groups.len() * 4).writer();
    for group in groups {
        writer.write_slice(&group.to_ne_bytes())?;
    }
    let (purpose, kind) = (new.purpose as u32, new.kind as u32);
    let (session, token) = (new.session, new.token);
    let count = u32::try_from(groups.len())?;
    let Descriptors {
        end,
        object,
        passed,
    } = new.install()?;
    // Behind the address.
    let fields = [
        count,
        session,
        // The halves of a number as they lie in memory.
        u32::from_ne_bytes(half(token, 0)),
        u32::from_ne_bytes(half(token, 4)),
        purpose,
        kind,
        end as u32,
        object as u32,
        passed as u32,
        uid,
        gid,
        0,
        0,
        0,
    ];
    write(argument + 8, &fields)
}

/// Four bytes of a number from `at` on, as they lie in memory.
fn half(number: u64, at: usize) -> [u8; 4] {
    let bytes = number.to_ne_bytes();
    let half = bytes.get(at..at + 4).and_then(|half| half.try_into().ok());
    half.unwrap_or_default()
}

/// CONFIGURE: `u64` address, `u32` length, `u32` version.
fn configure(server: &Server, argument: usize) -> Result {
    let mut request = [0; 16];
    UserSlice::new(UserPtr::from_addr(argument), request.len())
        .reader()
        .read_slice(&mut request)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = request;
    let address = usize::try_from(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))?;
    let len = usize::try_from(u32::from_ne_bytes([i, j, k, l]))?;
    let version = u32::from_ne_bytes([m, n, o, p]);
    if version != VERSION {
        log_error!(
            "engine speaks version {version} of the device's interface, the module {VERSION}: \
             install both from one build\n"
        );
        return Err(EPROTONOSUPPORT);
    }
    if len > policy::MAX_BYTES {
        return Err(E2BIG);
    }
    let mut bytes = KVVec::from_elem(0, len, GFP_KERNEL)?;
    UserSlice::new(UserPtr::from_addr(address), len)
        .reader()
        .read_slice(&mut bytes)?;
    let policy = server.configure(&bytes).inspect_err(|e| {
        log_error!("the policy of engine is not valid: {e:?}\n");
    })?;
    log_info!("{} directories are exported: {policy}\n", policy.len());
    Ok(())
}

/// Writes the numbers of an answer.
fn write<const N: usize>(argument: usize, numbers: &[u32; N]) -> Result {
    let mut writer = UserSlice::new(UserPtr::from_addr(argument), N * 4).writer();
    for number in numbers {
        writer.write_slice(&number.to_ne_bytes())?;
    }
    Ok(())
}
