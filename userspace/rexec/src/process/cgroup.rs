// SPDX-License-Identifier: GPL-2.0

//! A control group for each session (cgroups(7), version 2), so that its processes can be killed
//! at once, however many they are and whatever they did to hide.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// The directory below which sessions get their groups: this process's own group.
///
/// An error tells why there are none: no version 2, a kernel before 5.14, or no permission.
pub fn base() -> io::Result<PathBuf> {
    let base = own()?;
    let probe = Group::create(&base, &format!("rexec-probe-{}", std::process::id()))?;
    let killable = probe.kill();
    probe.remove();
    killable.map(|()| base)
}

/// The directory of this process's own group.
fn own() -> io::Result<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let root = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(path)
    });
    let (Some(own), Some(root)) = (own, root) else {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "no cgroup version 2 is mounted",
        ));
    };
    Ok(Path::new(root).join(own))
}

/// Kills what is left in the groups whose names begin with `prefix`, and removes them: those of a
/// keeper that was killed itself.
pub fn sweep(prefix: &str) {
    let entries = own().and_then(std::fs::read_dir);
    for entry in entries.into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let group = Group(entry.path());
            let _ = group.kill();
            group.remove();
        }
    }
}

/// The group of one session.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// Makes the group `name` below `base`.
    pub fn create(base: &Path, name: &str) -> io::Result<Self> {
        let path = base.join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Moves the calling process there.
    pub fn enter(&self) -> io::Result<()> {
        std::fs::write(self.0.join("cgroup.procs"), "0")
    }

    /// Kills all that are in it.
    pub fn kill(&self) -> io::Result<()> {
        // Without O_CREAT and O_TRUNC: the file is there, or the kernel cannot do it.
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .open(self.0.join("cgroup.kill"))?;
        io::Write::write_all(&mut file, b"1")
    }

    /// Removes the group. One that does not get empty is left, for the administrator to see.
    pub fn remove(self) {
        for _ in 0..50 {
            remove_below(&self.0);
            match std::fs::remove_dir(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                _ => return,
            }
        }
    }
}

/// Removes the groups that programs have made below theirs.
fn remove_below(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}
