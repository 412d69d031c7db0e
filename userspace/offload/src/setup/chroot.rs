// SPDX-License-Identifier: GPL-2.0

//! The root file system of the daemons on the DPU, where that is not this machine's own: what they need in
//! it besides a distribution with their programs.

use super::dpu;
use super::host;
use super::machine;
use crate::config::Config;
use crate::failure::Failure;
use nix::mount::MntFlags;
use nix::mount::MsFlags;
use qtfs_control::mountinfo::Mount;
use std::path::Path;
use std::path::PathBuf;

/// A mount below the root directory.
struct Place {
    name: &'static str,
    source: &'static str,
    kind: &'static str,
    data: Option<&'static str>,
}

/// `local_proc` is this machine's, to which `self` in HOST's /proc leads.
const PLACES: [Place; 4] = [
    Place {
        name: "local_proc",
        source: "proc",
        kind: "proc",
        data: None,
    },
    Place {
        name: "dev",
        source: "devtmpfs",
        kind: "devtmpfs",
        data: None,
    },
    Place {
        name: "proc",
        source: "/proc",
        kind: "qtfs",
        data: Some("proc"),
    },
    Place {
        name: "sys",
        source: "/sys",
        kind: "qtfs",
        data: Some("sys"),
    },
];

/// Whether the daemons have another root directory.
fn is_used(config: &Config) -> bool {
    config.root != Path::new("/")
}

/// The mount whose top is the root directory.
fn top<'a>(mounts: &'a [Mount], root: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == root)
}

/// Mounts what is not mounted, and copies what runs HOST's programs.
pub(super) fn prepare(config: &Config) -> Result<(), Failure> {
    if !is_used(config) {
        return Ok(());
    }
    let root = &config.root;
    let none: Option<&Path> = None;
    if top(&dpu::table()?, root).is_none() {
        // Programs change the propagation of what they take for /.
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        nix::mount::mount(Some(root), root, none, flags, none).map_err(|errno| {
            let (path, what) = (root.display(), errno.desc());
            Failure::Unfit(format!(
                "{path} (root = in offload.toml) is not usable: {what}"
            ))
        })?;
    }
    let mounts = dpu::table()?;
    for place in PLACES {
        let point = root.join(place.name);
        if top(&mounts, &point).is_some_and(|mount| mount.kind == place.kind) {
            continue;
        }
        machine::make(std::slice::from_ref(&point))?;
        let (source, kind, data) = (place.source, place.kind, place.data);
        nix::mount::mount(Some(source), &point, Some(kind), MsFlags::empty(), data)
            .map_err(|errno| dpu::not_mounted(config, Path::new(source), errno))?;
        println!("{:<16} {source} is mounted on {}", "mount", point.display());
    }
    let rexec = config.programs()?.join("rexec");
    for path in [&rexec, Path::new(host::REXEC), Path::new(host::KEY)] {
        copy(path, &config.below_root(path))?;
    }
    Ok(())
}

/// Copies a file with its mode; a program that runs goes on with the old one.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    if let Some(directory) = to.parent() {
        machine::make(&[directory.to_owned()])?;
    }
    let mut name = to.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let copied = std::fs::copy(from, &new).and_then(|_| std::fs::rename(&new, to));
    copied.map_err(|error| {
        let (from, to) = (from.display(), to.display());
        Failure::Unfit(format!("{from} cannot be copied to {to}: {error}"))
    })
}

/// Unmounts all that [`prepare`] has mounted.
pub(super) fn unmount(config: &Config) -> Result<(), Failure> {
    if !is_used(config) {
        return Ok(());
    }
    let points: Vec<PathBuf> = PLACES
        .iter()
        .map(|place| config.root.join(place.name))
        .collect();
    dpu::unmount_below(&points)?;
    let mounts = dpu::table()?;
    // A file system of its own was there before.
    if top(&mounts, &config.root).is_none_or(|mount| mount.root == Path::new("/")) {
        return Ok(());
    }
    // With it goes what was bound below, which stays where it is: what happens here is not to happen there.
    let none: Option<&Path> = None;
    let flags = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    let gone = nix::mount::mount(none, &config.root, none, flags, none)
        .and_then(|()| nix::mount::umount2(&config.root, MntFlags::MNT_DETACH));
    gone.map_err(|errno| {
        let (path, what) = (config.root.display(), errno.desc());
        Failure::Unfit(format!("{path} cannot be unmounted: {what}"))
    })
}
