// SPDX-License-Identifier: GPL-2.0

//! mount(2) and umount2(2) on HOST.
//!
//! Every path is opened first and checked then, and what was opened is used: a link that is changed
//! meanwhile leads nowhere else. That is why new file systems are made by the mount API of file
//! descriptors (fsopen(2)), which takes the layers of an overlay as descriptors too.

use super::kind;
use super::rules::forbidden;
use super::rules::Pinned;
use super::rules::Refusal;
use super::rules::Rules;
use crate::policy::Mode;
use nix::errno::Errno;
use nix::libc;
use nix::mount::MntFlags;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use qtfs_control::message::Bytes;
use qtfs_control::message::Parameter;
use rustix::fs::StatxFlags;
use rustix::mount::FsMountFlags;
use rustix::mount::FsOpenFlags;
use rustix::mount::MountAttrFlags;
use rustix::mount::MoveMountFlags;
use rustix::mount::OpenTreeFlags;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

/// `STATX_MNT_ID_UNIQUE` (linux/stat.h): ids are not used again.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
/// Options that are paths on this machine, and whether they are written to.
const PATHS: [(&str, Mode); 4] = [
    ("lowerdir+", Mode::Ro),
    ("datadir+", Mode::Ro),
    ("upperdir", Mode::Rw),
    ("workdir", Mode::Rw),
];
/// Types whose options name no files, devices or other machines but those of [`PATHS`].
const KNOWN: [&str; 3] = ["overlay", "tmpfs", "ramfs"];

/// Which mount a file is in.
pub(super) fn mount_of(fd: impl AsFd) -> Result<u64, Refusal> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    let stat = rustix::fs::statx(fd, c"", flags, MNT_ID_UNIQUE)?;
    Ok(stat.stx_mnt_id)
}

/// The mount that is at a path, for one that is sent along with the request to change it.
pub(super) fn look(rules: &Rules, target: &Path) -> Result<u64, Refusal> {
    mount_of(&rules.pin(target, 0, Mode::Ro)?.fd)
}

/// What there is to do to a target.
enum Target {
    /// It is as the DPU has seen it.
    AsBefore(Pinned),
    /// Another mount is there: an earlier request, whose reply was lost, has done it.
    Done,
}

fn target(rules: &Rules, path: &Path, before: Option<u64>) -> Result<Target, Refusal> {
    let pinned = rules.pin(path, 0, Mode::Rw)?;
    rules.holds_no_export(&pinned)?;
    let now = mount_of(&pinned.fd)?;
    if before.is_some_and(|before| before != now) {
        return Ok(Target::Done);
    }
    Ok(Target::AsBefore(pinned))
}

/// The attributes of a mount that the flags of mount(2) ask for.
fn attributes(flags: MsFlags) -> MountAttrFlags {
    let mut attributes = MountAttrFlags::empty();
    for (flag, attribute) in [
        (MsFlags::MS_RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MsFlags::MS_NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MsFlags::MS_NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MsFlags::MS_NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (MsFlags::MS_NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
        (
            MsFlags::MS_STRICTATIME,
            MountAttrFlags::MOUNT_ATTR_STRICTATIME,
        ),
        (
            MsFlags::MS_NODIRATIME,
            MountAttrFlags::MOUNT_ATTR_NODIRATIME,
        ),
    ] {
        if flags.contains(flag) {
            attributes |= attribute;
        }
    }
    attributes
}

/// The options of a file system that the flags of mount(2) ask for.
const SUPERBLOCK: [(MsFlags, &str); 4] = [
    (MsFlags::MS_RDONLY, "ro"),
    (MsFlags::MS_SYNCHRONOUS, "sync"),
    (MsFlags::MS_DIRSYNC, "dirsync"),
    (MsFlags::MS_MANDLOCK, "mand"),
];

/// A new file system.
#[derive(Debug)]
pub(super) struct New<'a> {
    pub(super) kind: &'a str,
    pub(super) source: &'a Bytes,
    pub(super) flags: u64,
    pub(super) parameters: &'a [Parameter],
}

fn flags_of(flags: u64) -> MsFlags {
    MsFlags::from_bits_retain(flags as libc::c_ulong)
}

/// Moves a mount that nobody sees yet to its place.
fn attach(mount: &OwnedFd, to: &Pinned) -> Result<(), Refusal> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", &to.fd, c"", flags)?)
}

/// mount(2) of a new file system.
pub(super) fn mount(
    rules: &Rules,
    new: &New<'_>,
    path: &Path,
    before: Option<u64>,
) -> Result<(), Refusal> {
    rules.may_mount(new.kind)?;
    rules.may_have(new.flags)?;
    if !KNOWN.contains(&new.kind) {
        // What its options and its source would lead to is not known here.
        return Err(forbidden(format!(
            "only overlay, tmpfs, ramfs and bind mounts can be made from the DPU, not {:?}",
            new.kind
        )));
    }
    let flags = flags_of(new.flags);
    let Target::AsBefore(place) = target(rules, path, before)? else {
        return Ok(());
    };
    let context = rustix::mount::fsopen(new.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    create(rules, &context, new, flags).map_err(|refusal| match refusal.why {
        Some(_) => refusal,
        None => Refusal {
            why: said(&context),
            ..refusal
        },
    })?;
    let cloexec = FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = rustix::mount::fsmount(&context, cloexec, attributes(flags))?;
    attach(&mount, &place)
}

/// Makes the file system of a context.
fn create(rules: &Rules, context: &OwnedFd, new: &New<'_>, flags: MsFlags) -> Result<(), Refusal> {
    if !new.source.0.is_empty() {
        rustix::mount::fsconfig_set_string(context, "source", new.source.0.as_slice())?;
    }
    let asked = SUPERBLOCK.iter().filter(|(flag, _)| flags.contains(*flag));
    for (_, option) in asked {
        rustix::mount::fsconfig_set_flag(context, *option)?;
    }
    for parameter in new.parameters {
        configure(rules, context, parameter)?;
    }
    Ok(rustix::mount::fsconfig_create(context)?)
}

/// What the kernel has said of a context: one message at each read(2), such as `e overlay: …` (fsopen(2)).
fn said(context: &OwnedFd) -> Option<String> {
    let mut text = [0; 1024];
    let mut lines = Vec::new();
    while let Ok(len) = rustix::io::read(context, &mut text) {
        let line = String::from_utf8_lossy(text.get(..len)?).trim().to_owned();
        lines.push(line.strip_prefix("e ").unwrap_or(&line).to_owned());
    }
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// Sets one option of a file system that is being made.
fn configure(rules: &Rules, context: &OwnedFd, parameter: &Parameter) -> Result<(), Refusal> {
    let key = parameter.key.as_str();
    let Some(value) = &parameter.value else {
        return Ok(rustix::mount::fsconfig_set_flag(context, key)?);
    };
    let Some((_, need)) = PATHS.iter().find(|(name, _)| *name == key) else {
        // The other spelling of layers would go past the check.
        if key == "lowerdir" || key == "datadir" {
            return Err(Errno::EINVAL.into());
        }
        return Ok(rustix::mount::fsconfig_set_string(
            context,
            key,
            value.0.as_slice(),
        )?);
    };
    let layer = rules.pin(&value.path(), libc::O_DIRECTORY, *need)?;
    if *need == Mode::Rw {
        rules.holds_no_export(&layer)?;
    }
    Ok(rustix::mount::fsconfig_set_fd(context, key, &layer.fd)?)
}

/// mount(2) with MS_BIND.
pub(super) fn bind(
    rules: &Rules,
    source: &Path,
    flags: u64,
    path: &Path,
    before: Option<u64>,
) -> Result<(), Refusal> {
    rules.may_mount("bind")?;
    rules.may_have(flags)?;
    let source = rules.pin(source, 0, Mode::Rw)?;
    rules.holds_no_export(&source)?;
    let Target::AsBefore(place) = target(rules, path, before)? else {
        return Ok(());
    };
    let mut how = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if flags_of(flags).contains(MsFlags::MS_REC) {
        how |= OpenTreeFlags::AT_RECURSIVE;
    }
    let mount = rustix::mount::open_tree(&source.fd, c"", how)?;
    attach(&mount, &place)
}

/// mount(2) that changes a mount: its flags and options, or how it is propagated.
pub(super) fn change(rules: &Rules, path: &Path, flags: u64, data: &Bytes) -> Result<(), Refusal> {
    let place = rules.pin(path, 0, Mode::Rw)?;
    let kind = kind::of(&place)?;
    rules.may_mount(&kind)?;
    rules.may_have(flags)?;
    if !data.0.is_empty() && kind != "tmpfs" {
        return Err(forbidden(format!(
            "options of {} are not changed from the DPU, only flags",
            place.path.display()
        )));
    }
    let flags = flags_of(flags);
    let of_system = flags.contains(MsFlags::MS_REMOUNT) && !flags.contains(MsFlags::MS_BIND);
    if of_system && kind == "bind" {
        return Err(forbidden(format!(
            "{} is a part of a file system that HOST uses too, which is not changed from the DPU; its \
             mount alone can be, with MS_BIND",
            place.path.display()
        )));
    }
    let by_fd = format!("/proc/self/fd/{}", place.fd.as_raw_fd());
    let data = (!data.0.is_empty()).then_some(data.0.as_slice());
    let none: Option<&Path> = None;
    nix::mount::mount(none, by_fd.as_str(), none, flags, data)?;
    Ok(())
}

/// umount2(2). A mount that is held cannot be unmounted, so its parent directory is held instead.
pub(super) fn unmount(
    rules: &Rules,
    path: &Path,
    flags: u64,
    before: Option<u64>,
) -> Result<(), Refusal> {
    let flags = i32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    let flags = MntFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let (parent, name, mount) = {
        let Target::AsBefore(place) = target(rules, path, before)? else {
            return Ok(());
        };
        rules.may_mount(&kind::of(&place)?)?;
        let name = place.path.file_name().ok_or(Errno::EINVAL)?.to_owned();
        let parent = place.path.parent().ok_or(Errno::EINVAL)?;
        // With the directory of the mount point itself exported, what is above it may not be.
        let parent = rules.pin(parent, libc::O_DIRECTORY, Mode::Rw)?;
        let mount = mount_of(&place.fd)?;
        (parent, name, mount)
    };
    in_directory(&parent.fd, &name, flags, mount)
}

/// How long a file that a program of the DPU has closed may stay open here: `close(2)` of what was
/// only read is told to HOST without anybody waiting for it.
const CLOSING: Duration = Duration::from_millis(200);

/// Unmounts `name`, the mount point of `mount`, in a directory that is held, in a thread with a current directory of its own.
fn in_directory(
    parent: &OwnedFd,
    name: &OsStr,
    flags: MntFlags,
    mount: u64,
) -> Result<(), Refusal> {
    let unmount = || {
        nix::sched::unshare(CloneFlags::CLONE_FS)?;
        nix::unistd::fchdir(parent)?;
        let begun = Instant::now();
        loop {
            let done = nix::mount::umount2(name, flags | MntFlags::UMOUNT_NOFOLLOW);
            if done != Err(Errno::EBUSY) || begun.elapsed() >= CLOSING {
                return done;
            }
            std::thread::sleep(CLOSING / 20);
            // Only that one is allowed.
            let now = rustix::fs::open(
                name,
                rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW,
                rustix::fs::Mode::empty(),
            );
            if now.ok().and_then(|now| mount_of(&now).ok()) != Some(mount) {
                return done;
            }
        }
    };
    let done = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("engine/unmount".into());
        thread.spawn_scoped(scope, unmount).map(|t| t.join())
    })?;
    Ok(done.unwrap_or(Err(Errno::EIO))?)
}
