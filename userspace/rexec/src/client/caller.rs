// SPDX-License-Identifier: GPL-2.0

//! What a program inherits from its caller, other than its streams.

use crate::config::Environment;
use crate::process::sys;
use crate::start::Identity;
use crate::start::Limit;
use crate::start::Start;
use bytes::Bytes;
use nix::sys::stat::SFlag;
use nix::unistd::getegid;
use nix::unistd::geteuid;
use nix::unistd::getgroups;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;

/// Kinds of resource limits that Linux has.
const LIMITS: u8 = 16;
/// The device number of `/dev/null`.
const NULL: (u64, u64) = (1, 3);

/// What this process would pass on to a child, for the program `arguments`.
pub fn inherit(arguments: Vec<OsString>, rules: &Environment) -> io::Result<Start> {
    let groups = getgroups().map_err(io::Error::from)?;
    let umask = {
        // There is no way to look at it without changing it; there is no other thread yet.
        let mask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        nix::sys::stat::umask(mask);
        mask.bits()
    };
    Ok(Start {
        null_stdin: stdin_is_null(),
        umask,
        nice: rustix::process::getpriority_process(None)?,
        ignored: sys::ignored_signals(),
        caller: Identity {
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            groups: groups.into_iter().map(|group| group.as_raw()).collect(),
        },
        limits: (0..LIMITS).filter_map(limit).collect(),
        directory: std::env::current_dir()?.into_os_string().into_vec().into(),
        arguments: arguments
            .into_iter()
            .map(|argument| argument.into_vec().into())
            .collect(),
        environment: std::env::vars_os()
            .filter(|(name, _)| rules.passes(name.as_bytes()))
            .map(|(name, value)| variable(name, &value))
            .collect(),
        ..Start::default()
    })
}

/// A variable as a program gets it.
pub fn variable(name: OsString, value: &OsString) -> Bytes {
    let mut text = name.into_vec();
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.into()
}

fn limit(resource: u8) -> Option<Limit> {
    let (soft, hard) = sys::limit(resource, None).ok()?;
    Some(Limit {
        resource,
        soft,
        hard,
    })
}

/// Whether stdin is `/dev/null`, or was closed, which the Rust runtime makes the same.
fn stdin_is_null() -> bool {
    nix::sys::stat::fstat(std::io::stdin()).is_ok_and(|stat| {
        let number = (
            nix::sys::stat::major(stat.st_rdev),
            nix::sys::stat::minor(stat.st_rdev),
        );
        SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR && number == NULL
    })
}
