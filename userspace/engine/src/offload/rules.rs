// SPDX-License-Identifier: GPL-2.0

//! What the policy allows.

use crate::exports::Exports;
use crate::policy::Mode;
use crate::policy::Offload;
use nix::errno::Errno;
use nix::mount::MsFlags;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

/// Why something is not done: for the caller, and for the logs.
#[derive(Debug)]
pub(super) struct Refusal {
    /// What the caller's system call fails with.
    pub(super) errno: Errno,
    /// What was refused, and why.
    pub(super) why: Option<String>,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, why: None }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32)).into()
    }
}

impl From<rustix::io::Errno> for Refusal {
    fn from(errno: rustix::io::Errno) -> Self {
        Errno::from_raw(errno.raw_os_error()).into()
    }
}

/// Refuses something that the policy does not allow.
pub(super) fn forbidden(why: String) -> Refusal {
    Refusal {
        errno: Errno::EPERM,
        why: Some(why),
    }
}

/// The policy as far as offloaded programs go.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    exports: Exports,
    offload: Offload,
}

/// A file that is held while something is done with it.
#[derive(Debug)]
pub(super) struct Pinned {
    /// By O_PATH.
    pub(super) fd: OwnedFd,
    /// Where it is.
    pub(super) path: PathBuf,
}

impl Rules {
    /// The rules of a policy that was checked.
    pub fn new(exports: Exports, offload: Offload) -> Self {
        Self { exports, offload }
    }

    /// The directories that are exported.
    pub fn exports(&self) -> &Exports {
        &self.exports
    }

    /// Whether anything is allowed at all.
    pub fn is_empty(&self) -> bool {
        self.offload == Offload::default()
    }

    /// Whether file systems of this type may be mounted.
    pub(super) fn may_mount(&self, kind: &str) -> Result<(), Refusal> {
        if self.offload.mount.iter().any(|allowed| allowed == kind) {
            return Ok(());
        }
        Err(forbidden(format!(
            "mounts of the type {kind:?} are not in mount = [...] of [offload] in HOST's policy"
        )))
    }

    /// Whether mounts may be made or changed with these flags of mount(2).
    pub(super) fn may_have(&self, flags: u64) -> Result<(), Refusal> {
        let Some(allowed) = &self.offload.flags else {
            return Ok(());
        };
        // What a bind mount is called among the types, and what changes no mount.
        let mut known = MsFlags::MS_BIND | MsFlags::MS_SILENT;
        known.extend(allowed.iter().map(|flag| flag.bits()));
        // CAST: flags of mount(2) are unsigned longs.
        let more = MsFlags::from_bits_retain(flags as nix::libc::c_ulong).difference(known);
        if more.is_empty() {
            return Ok(());
        }
        Err(forbidden(format!(
            "the mount flags {more:?} are not in flags = [...] of [offload] in HOST's policy"
        )))
    }

    /// Whether processes of this control group may be signalled.
    pub(super) fn may_signal(&self, group: &str) -> Result<(), Refusal> {
        let fits = |allowed: &String| match allowed.strip_suffix('*') {
            Some(begin) => group.starts_with(begin),
            None => group == allowed,
        };
        if self.offload.kill.iter().any(fits) {
            return Ok(());
        }
        Err(forbidden(format!(
            "the control group {group:?} is not in kill = [...] of [offload] in HOST's policy"
        )))
    }

    /// Opens a file of HOST and checks that it lies in an export of this kind: the file that was
    /// opened, wherever links have led.
    pub(super) fn pin(&self, path: &Path, flags: i32, need: Mode) -> Result<Pinned, Refusal> {
        use std::os::unix::fs::OpenOptionsExt;
        if !path.is_absolute() {
            return Err(Errno::EINVAL.into());
        }
        let file = File::options()
            .read(true)
            .custom_flags(nix::libc::O_PATH | flags)
            .open(path)?;
        let fd = OwnedFd::from(file);
        let real = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        self.check(&real, need)?;
        Ok(Pinned { fd, path: real })
    }

    /// Fails if an export lies below a file: who could mount on it, or see it at another place, would
    /// change what the policy says of that one.
    pub(super) fn holds_no_export(&self, file: &Pinned) -> Result<(), Refusal> {
        let below = |path: &Path| path != file.path && path.starts_with(&file.path);
        match self.exports.iter().find(|export| below(&export.path)) {
            None => Ok(()),
            Some(export) => Err(forbidden(format!(
                "{} has {} in it, which HOST's policy exports by itself",
                file.path.display(),
                export.path.display()
            ))),
        }
    }

    /// The longest export that a path lies below decides, as it does in the module.
    pub(super) fn check(&self, real: &Path, need: Mode) -> Result<(), Refusal> {
        let below = self.exports.iter().filter(|e| real.starts_with(&e.path));
        let decides = below.max_by_key(|export| export.path.as_os_str().len());
        match decides.map(|export| export.mode) {
            Some(Mode::Rw) => Ok(()),
            Some(Mode::Ro) if need == Mode::Ro => Ok(()),
            Some(Mode::Ro) => Err(Refusal {
                errno: Errno::EROFS,
                why: Some(format!("{} is exported read-only", real.display())),
            }),
            None => Err(forbidden(format!(
                "{} is in no export of HOST's policy",
                real.display()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Source;
    use std::os::unix::fs::symlink;

    fn rules(text: &str) -> Rules {
        let source = Source::new(Path::new("p"), text);
        Rules::new(Exports::check(&source).unwrap(), source.offload().unwrap())
    }

    #[test]
    fn nothing_is_allowed_unless_the_policy_says_so() {
        let rules = rules("");
        assert!(rules.is_empty());
        assert_eq!(rules.may_mount("overlay").unwrap_err().errno, Errno::EPERM);
        assert!(rules.may_signal("/docker/x").is_err());
        assert!(rules.check(Path::new("/"), Mode::Ro).is_err());
    }

    #[test]
    fn types_and_groups_are_those_of_the_policy() {
        let rules = rules("[offload]\nmount = ['overlay']\nkill = ['/docker/*', '/one']\n");
        assert!(rules.may_mount("overlay").is_ok());
        assert!(rules.may_mount("tmpfs").is_err());
        for (group, allowed) in [
            ("/docker/x", true),
            ("/one", true),
            ("/one/more", false),
            ("/", false),
            ("/docker", false),
        ] {
            assert_eq!(rules.may_signal(group).is_ok(), allowed, "{group}");
        }
    }

    #[test]
    fn flags_are_those_of_the_policy_if_it_names_any() {
        let all = rules("[offload]\nmount = ['tmpfs']\n");
        assert!(all.may_have(u64::MAX).is_ok());
        let some = rules("[offload]\nflags = ['nosuid', 'nodev', 'remount']\n");
        let (nosuid, remount) = (MsFlags::MS_NOSUID, MsFlags::MS_REMOUNT);
        for (flags, allowed) in [
            (MsFlags::empty(), true),
            (nosuid | remount | MsFlags::MS_BIND, true),
            (nosuid | MsFlags::MS_NOEXEC, false),
            (MsFlags::MS_SHARED, false),
            (MsFlags::from_bits_retain(1 << 40), false),
        ] {
            let answer = some.may_have(flags.bits()).map_err(|refusal| refusal.errno);
            let expected = if allowed { Ok(()) } else { Err(Errno::EPERM) };
            assert_eq!(answer, expected, "{flags:?}");
        }
    }

    #[test]
    fn what_a_link_leads_to_decides() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        for name in ["in/ro", "out"] {
            std::fs::create_dir_all(top.join(name)).unwrap();
        }
        symlink(top.join("out"), top.join("in/away")).unwrap();
        symlink("ro", top.join("in/here")).unwrap();
        let text = format!(
            "[[export]]\npath = {:?}\nmode = 'rw'\n[[export]]\npath = {:?}\n",
            top.join("in"),
            top.join("in/ro")
        );
        let rules = rules(&text);
        let pin = |name: &str, need| {
            let pinned = rules.pin(&top.join(name), 0, need);
            pinned
                .map(|pinned| pinned.path)
                .map_err(|refusal| refusal.errno)
        };
        assert_eq!(pin("in", Mode::Rw), Ok(top.join("in")));
        assert_eq!(pin("in/away", Mode::Ro), Err(Errno::EPERM));
        assert_eq!(pin("in/../out", Mode::Ro), Err(Errno::EPERM));
        assert_eq!(pin("in/here", Mode::Rw), Err(Errno::EROFS));
        assert_eq!(pin("in/here", Mode::Ro), Ok(top.join("in/ro")));
        assert_eq!(pin("in/none", Mode::Ro), Err(Errno::ENOENT));
    }
}
