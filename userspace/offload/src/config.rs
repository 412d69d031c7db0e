// SPDX-License-Identifier: GPL-2.0

//! `/etc/qtfs/offload.toml`: one description of both machines, the same file on both.

use crate::failure::Failure;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;

/// Where it is.
pub const FILE: &str = "/etc/qtfs/offload.toml";

fn file_port() -> u16 {
    12345
}

fn rexec_port() -> u16 {
    7777
}

fn root() -> PathBuf {
    "/".into()
}

fn yes() -> bool {
    true
}

fn kubelet() -> PathBuf {
    "kubelet".into()
}

/// A daemon that runs on the DPU.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Daemon {
    /// Whether it is started.
    #[serde(default = "yes")]
    pub start: bool,
    /// Arguments beside those that it needs.
    #[serde(default)]
    pub arguments: Vec<String>,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            start: true,
            arguments: Vec::new(),
        }
    }
}

/// kubelet of the DPU; Debian has none. It is started when the description has a section for it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Kubelet {
    /// Whether it is started.
    #[serde(default = "yes")]
    pub start: bool,
    /// The program, below the root directory of the daemons.
    #[serde(default = "kubelet")]
    pub program: PathBuf,
    /// Arguments beside those that it needs.
    #[serde(default)]
    pub arguments: Vec<String>,
}

impl Default for Kubelet {
    fn default() -> Self {
        Self {
            start: false,
            program: kubelet(),
            arguments: Vec::new(),
        }
    }
}

/// The description.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of HOST, on which it listens.
    pub host: IpAddr,
    /// Port of `qtfs_server.ko`.
    #[serde(default = "file_port")]
    pub port: u16,
    /// Port of HOST's `rexec_server`.
    #[serde(default = "rexec_port")]
    pub rexec_port: u16,
    /// Root directory of the daemons on the DPU.
    #[serde(default = "root")]
    pub root: PathBuf,
    /// Directory of `qtfs.ko` and `qtfs_server.ko`; without it they are those of `modprobe`.
    pub modules: Option<PathBuf>,
    /// Directory of the programs of qtfs; that of this program if left out.
    pub programs: Option<PathBuf>,
    /// Directories of HOST beside those of the daemons, by their absolute paths.
    #[serde(default)]
    pub directories: Vec<PathBuf>,
    /// containerd
    #[serde(default)]
    pub containerd: Daemon,
    /// dockerd
    #[serde(default)]
    pub docker: Daemon,
    /// kubelet
    #[serde(default)]
    pub kubelet: Kubelet,
}

/// Directories that containerd shares with its shims.
const CONTAINERD: [&str; 4] = [
    "/run/containerd",
    "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
    "/var/lib/containerd/io.containerd.runtime.v2.task",
    // Files of pods: hosts, resolv.conf.
    "/var/lib/containerd/io.containerd.grpc.v1.cri",
];
/// Directories that dockerd shares with shims, runc and its hooks.
const DOCKER: [&str; 6] = [
    "/var/lib/docker/overlay2",
    "/var/lib/docker/containers",
    "/var/lib/docker/volumes",
    // Which layers containers have. dockerd does not sync it, and containers outlive a power cut of the DPU.
    "/var/lib/docker/image/overlay2/layerdb/mounts",
    "/run/docker/containerd",
    "/run/docker/libnetwork",
];
// Not more of its directory: kubelet looks for the disk that the rest is on.
const KUBELET: [&str; 2] = ["/var/lib/kubelet/pods", "/var/log/pods"];

/// Where an absolute path leads to whoever has this root directory.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

impl Config {
    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::Usage(format!(
                "{} cannot be read ({error}): it needs at least the line host = \"ADDRESS OF HOST\"",
                file.display()
            ))
        })?;
        Self::parse(&text).map_err(|text| Failure::Usage(format!("{}: {text}", file.display())))
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        let paths = config.directories.iter().chain([&config.root]);
        for path in paths {
            let plain = path
                .components()
                .all(|part| !matches!(part, std::path::Component::ParentDir));
            if !path.is_absolute() || !plain {
                return Err(format!("{} is no absolute path without ..", path.display()));
            }
        }
        Ok(config)
    }

    /// All directories of HOST that are mounted on the DPU, in the order of mounting.
    pub fn shared(&self) -> Vec<PathBuf> {
        let mut shared = vec![PathBuf::from(qtfs_control::DIRECTORY)];
        if self.containerd.start {
            shared.extend(CONTAINERD.map(PathBuf::from));
        }
        if self.docker.start {
            shared.extend(DOCKER.map(PathBuf::from));
        }
        if self.kubelet.start {
            shared.extend(KUBELET.map(PathBuf::from));
        }
        shared.extend(self.directories.iter().cloned());
        shared
    }

    /// Where something is that the daemons call `path`.
    pub fn below_root(&self, path: &Path) -> PathBuf {
        below(&self.root, path)
    }

    /// The directory of the programs.
    pub fn programs(&self) -> Result<PathBuf, Failure> {
        if let Some(programs) = &self.programs {
            return Ok(programs.clone());
        }
        let own = std::env::current_exe().map_err(Failure::system("finding itself"))?;
        Ok(own.parent().map(Path::to_owned).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_enough() {
        let config = Config::parse("host = '10.0.0.1'").unwrap();
        assert_eq!((config.port, config.rexec_port), (12345, 7777));
        assert_eq!(config.below_root(Path::new("/run/x")), Path::new("/run/x"));
        let shared = config.shared();
        assert_eq!(shared[0], Path::new("/run/qtfs/offload"));
        assert_eq!(shared.len(), 11);
    }

    #[test]
    fn what_is_not_offloaded_is_not_shared() {
        let text = "host = '::1'\nroot = '/r'\ndirectories = ['/srv/x']\n[docker]\nstart = false\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.shared().len(), 6);
        assert_eq!(config.shared()[5], Path::new("/srv/x"));
        assert_eq!(config.below_root(Path::new("/a")), Path::new("/r/a"));
    }

    #[test]
    fn kubelet_is_started_on_demand() {
        let text = "host = '::1'\n[kubelet]\nprogram = '/opt/kubelet'\narguments = ['--v=2']\n";
        let kubelet = Config::parse(text).unwrap().kubelet;
        assert_eq!((kubelet.start, kubelet.arguments.len()), (true, 1));
        assert_eq!(kubelet.program, Path::new("/opt/kubelet"));
        let config = Config::parse("host = '::1'\n[kubelet]").unwrap();
        assert!(config.kubelet.start);
        assert_eq!(config.shared().len(), 13);
        assert!(!Config::parse("host = '::1'").unwrap().kubelet.start);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, part) in [
            ("", "missing field `host`"),
            ("host = 'here'", "invalid IP address"),
            ("host = '::1'\nprot = 3", "unknown field `prot`"),
            ("host = '::1'\nroot = 'r'", "r is no absolute path"),
            ("host = '::1'\ndirectories = ['/a/../b']", "without .."),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
