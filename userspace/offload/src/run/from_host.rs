// SPDX-License-Identifier: GPL-2.0

//! Directories and files of HOST in the place of this machine's, in the program's mount namespace.
//!
//! What manages a machine also looks at it: kubelet measures memory, processors and control groups.

use crate::config::below;
use nix::mount::MntFlags;
use nix::mount::MsFlags;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Where the directory of a file is mounted, for a moment.
const SCRATCH: &str = "/run/qtfs/from-host";

/// Mounts HOST's `paths` at the same places below `root`, in the mount namespace of the caller.
pub(super) fn mount(root: &Path, paths: &[impl AsRef<Path>]) -> io::Result<()> {
    for path in paths {
        let path = path.as_ref();
        let place = below(root, path);
        let mounted = place.metadata().and_then(|meta| match meta.is_dir() {
            true => mount_qtfs(path, &place),
            false => mount_file(path, &place),
        });
        mounted.map_err(|error| {
            io::Error::other(format!(
                "HOST's {} cannot take the place of {}: {error}. Is it there on both machines, and in HOST's /etc/qtfs/engine.toml?",
                path.display(),
                place.display()
            ))
        })?;
    }
    Ok(())
}

fn mount_qtfs(path: &Path, place: &Path) -> io::Result<()> {
    let none: Option<&Path> = None;
    nix::mount::mount(Some(path), place, Some("qtfs"), MsFlags::empty(), none)?;
    Ok(())
}

/// A file cannot be mounted without its directory.
fn mount_file(path: &Path, place: &Path) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let scratch = Path::new(SCRATCH);
    std::fs::create_dir_all(scratch)?;
    std::fs::set_permissions(scratch, Permissions::from_mode(0o700))?;
    mount_qtfs(directory, scratch)?;
    let none: Option<&Path> = None;
    let bound = nix::mount::mount(
        Some(&scratch.join(name)),
        place,
        none,
        MsFlags::MS_BIND,
        none,
    );
    nix::mount::umount2(scratch, MntFlags::MNT_DETACH)?;
    bound?;
    Ok(())
}
