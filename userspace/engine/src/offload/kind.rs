// SPDX-License-Identifier: GPL-2.0

//! What the policy calls a mount that is there: the type of its file system, or `bind`.

use super::rules::Pinned;
use super::rules::Refusal;
use nix::errno::Errno;
use qtfs_control::mountinfo;
use qtfs_control::mountinfo::Mount;
use rustix::fs::AtFlags;
use rustix::fs::StatxAttributes;
use rustix::fs::StatxFlags;
use std::path::Path;

/// Whether a mount is one more look at a file system, or at a part of it, which stays mounted without it. The table has
/// older mounts first (`mnt_find_id_at` in the kernel's `fs/namespace.c`).
fn is_bind(table: &[Mount], mount: &Mount) -> bool {
    let whole = Path::new("/");
    let older = table.iter().take_while(|other| other.id != mount.id);
    let same = |other: &Mount| other.device == mount.device && other.root == whole;
    mount.root != whole || older.into_iter().any(same)
}

/// Of the mount that a file is the top of; EINVAL if it is not one, as mount(2) and umount2(2) say.
pub(super) fn of(place: &Pinned) -> Result<String, Refusal> {
    let stat = rustix::fs::statx(&place.fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(Errno::EINVAL.into());
    }
    let table = mountinfo::parse(&std::fs::read_to_string("/proc/thread-self/mountinfo")?);
    let mount = table.iter().find(|mount| mount.id == stat.stx_mnt_id);
    let mount = mount.ok_or(Errno::EINVAL)?;
    Ok(match is_bind(&table, mount) {
        true => "bind".into(),
        false => mount.kind.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mount_of_a_file_system_is_no_bind_mount() {
        let table = mountinfo::parse(
            "\
30 1 254:1 / / rw shared:1 - ext4 /dev/root rw
40 30 254:2 / /data rw shared:2 - ext4 /dev/vdb rw
41 30 254:1 /var/x /var/y rw shared:1 - ext4 /dev/root rw
39 30 254:2 / /srv rw shared:2 - ext4 /dev/vdb rw
43 30 0:50 / /m rw shared:3 - overlay overlay rw
",
        );
        let binds = table.iter().filter(|mount| is_bind(&table, mount));
        let points: Vec<&Path> = binds.map(|mount| mount.point.as_path()).collect();
        assert_eq!(points, [Path::new("/var/y"), Path::new("/srv")]);
    }
}
