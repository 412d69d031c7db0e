// SPDX-License-Identifier: GPL-2.0

//! The mounts of qtfs, with what is known of each.

use crate::failure::Failure;
use crate::files::Files;
use crate::files::Module;
use crate::mountinfo;
use crate::mountstats;
use crate::mountstats::Counters;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number of the mount; `None` if it went away while it was looked at.
    pub id: Option<u64>,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The directory on HOST.
    pub source: PathBuf,
    /// What is in force.
    pub options: Vec<String>,
    /// What was counted.
    pub counters: Counters,
}

impl Mount {
    /// The value of an option such as `port=12345`.
    fn option(&self, name: &str) -> Option<&str> {
        self.options
            .iter()
            .filter_map(|option| option.split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The address of HOST.
    pub fn server(&self) -> Option<&str> {
        self.option("server")
    }

    /// The port there.
    pub fn port(&self) -> Option<u16> {
        self.option("port")?.parse().ok()
    }

    /// What is shown: `files`, or HOST's `proc` or `sys`.
    pub fn mode(&self) -> &'static str {
        ["proc", "sys"]
            .into_iter()
            .find(|mode| self.options.iter().any(|option| option == mode))
            .unwrap_or("files")
    }
}

/// Looks at all mounts, or at those on `mount_point`.
pub fn look(files: &Files, mount_point: Option<&Path>) -> Result<Vec<Mount>, Failure> {
    if !files.loaded(Module::Client) {
        return Err(Failure::NoClient(files.loaded(Module::Server)));
    }
    let stats = files.mountstats()?;
    let mut mounts = join(
        mountstats::parse(&stats),
        mountinfo::parse(&files.mountinfo()?),
    );
    if let Some(wanted) = mount_point {
        let wanted = find(&mounts, wanted).ok_or_else(|| Failure::NotMounted(wanted.into()))?;
        mounts.retain(|mount| mount.mount_point == wanted);
    }
    Ok(mounts)
}

/// Both files list mounts in the same order, and one mount point may be in them several times.
fn join(sections: Vec<mountstats::Section>, mut lines: Vec<mountinfo::Line>) -> Vec<Mount> {
    let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
    let mounts = sections.into_iter().map(|section| {
        let place = lines
            .iter()
            .position(|line| line.mount_point == section.mount_point);
        let line = place.map(|place| lines.remove(place));
        let (id, options) = line.map(|line| (line.id, line.options)).unzip();
        Mount {
            id,
            mount_point: path(section.mount_point),
            source: path(section.source),
            options: options.unwrap_or_default(),
            counters: section.counters,
        }
    });
    mounts.collect()
}

/// The mount point that `wanted` means. It is not looked at itself: HOST might not answer.
fn find(mounts: &[Mount], wanted: &Path) -> Option<PathBuf> {
    let is_there = |path: &PathBuf| mounts.iter().any(|mount| mount.mount_point == *path);
    // Without a slash at the end, and without "." in it.
    let plain: PathBuf = std::path::absolute(wanted).ok()?.components().collect();
    if is_there(&plain) {
        return Some(plain);
    }
    let name = plain.file_name()?;
    let real = plain.parent()?.canonicalize().ok()?.join(name);
    if is_there(&real) {
        return Some(real);
    }
    // A symlink to a mount point.
    let target = real.read_link().ok()?;
    let target: PathBuf = real.parent()?.join(target).components().collect();
    is_there(&target).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(path: &str) -> Mount {
        Mount {
            id: None,
            mount_point: path.into(),
            source: "/srv".into(),
            options: Vec::new(),
            counters: Counters::default(),
        }
    }

    #[test]
    fn a_mount_point_may_be_written_in_several_ways() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let there = top.join("mnt");
        std::os::unix::fs::symlink("mnt", top.join("link")).unwrap();
        std::fs::create_dir(top.join("sub")).unwrap();
        let mounts = [mount("/elsewhere"), mount(there.to_str().unwrap())];
        for name in ["mnt", "mnt/", "./mnt/.", "sub/../mnt", "link"] {
            assert_eq!(
                find(&mounts, &top.join(name)),
                Some(there.clone()),
                "{name}"
            );
        }
        for name in ["sub", "mnt/f", "nothing"] {
            assert_eq!(find(&mounts, &top.join(name)), None, "{name}");
        }
        assert_eq!(find(&mounts, Path::new("/")), None);
    }

    #[test]
    fn mounts_on_one_mount_point_get_their_own_lines() {
        let section = |source: &[u8]| mountstats::Section {
            source: source.into(),
            mount_point: b"/mnt".into(),
            counters: Counters::default(),
        };
        let line = |id| mountinfo::Line {
            id,
            mount_point: b"/mnt".into(),
            options: vec!["rw".into()],
        };
        let mounts = join(
            vec![section(b"/a"), section(b"/b"), section(b"/c")],
            vec![line(7), line(8)],
        );
        let ids: Vec<_> = mounts.iter().map(|mount| mount.id).collect();
        assert_eq!(ids, [Some(7), Some(8), None]);
    }

    #[test]
    fn the_mode_and_the_server_are_options() {
        let mut mount = mount("/mnt");
        assert_eq!(
            (mount.mode(), mount.server(), mount.port()),
            ("files", None, None)
        );
        mount.options = ["rw", "proc", "server=fd00::1", "port=4242"]
            .map(String::from)
            .into();
        assert_eq!(mount.mode(), "proc");
        assert_eq!(
            (mount.server(), mount.port()),
            (Some("fd00::1"), Some(4242))
        );
    }
}
