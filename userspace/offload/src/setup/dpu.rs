// SPDX-License-Identifier: GPL-2.0

//! The DPU: mounts, the programs that stand for HOST's, and the daemons.

use super::chroot;
use super::host;
use super::keeper::Part;
use super::keeper::Ready;
use super::machine;
use crate::config::Config;
use crate::failure::Failure;
use nix::errno::Errno;
use nix::mount::MntFlags;
use nix::mount::MsFlags;
use qtfs_control::mountinfo;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

/// Where programs are that come before those of the system, for the daemons.
const BIN: &str = "/usr/lib/qtfs/bin";
/// The database of dockerd's volumes is its own, and not HOST's, though it lies in a directory of HOST's.
const VOLUMES: &str = "/var/lib/docker/volumes";
const DATABASE: &str = "/var/lib/docker/qtfs-volumes.db";
/// Programs of HOST, and how rexec is called for them.
const WRAPPERS: [(&str, &str); 2] = [
    // "start" leaves the shim behind, which is to stay.
    (
        "containerd-shim-runc-v2",
        "--detach -- containerd-shim-runc-v2",
    ),
    ("ps", "--directory / -- ps"),
];

/// What of HOST kubelet measures, for the node is HOST.
const NODE: [&str; 6] = [
    "/sys",
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
];
/// Has containerd and dockerd take AppArmor for absent, as within a container (containerd `pkg/apparmor`): they would load their
/// profile into the DPU's kernel, and runc on HOST would not find it.
const NO_APPARMOR: (&str, &str) = ("container", "qtfs");
/// The last of the sockets that kubelet listens on.
const POD_RESOURCES: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

fn rexec_configuration(config: &Config) -> String {
    let address = SocketAddr::new(config.host, config.rexec_port);
    format!(
        "# Made by qtfs-offload up, which does not change it again. See rexec.md.\n\
         connect = \"tcp://{address}\"\nlink_timeout = {}\n\n[tls]\nshared_key = \"{}\"\n",
        host::LINK_TIMEOUT,
        host::KEY
    )
}

/// All that must be before the programs start.
pub(super) fn prepare(config: &Config) -> Result<(), Failure> {
    host::write_new(host::REXEC, &rexec_configuration(config), 0o644)?;
    machine::share_root()?;
    machine::load(config, "qtfs")?;
    chroot::prepare(config)?;
    let rexec = config.programs()?.join("rexec");
    let bin = config.below_root(Path::new(BIN));
    machine::make(std::slice::from_ref(&bin))?;
    for (name, words) in WRAPPERS {
        let path = bin.join(name);
        let text = format!(
            "#!/bin/sh\n# Made by qtfs-offload up: runs HOST's program.\nexec {} {words} \"$@\"\n",
            rexec.display()
        );
        let failed =
            |error| Failure::Unfit(format!("{} cannot be written: {error}", path.display()));
        std::fs::write(&path, text).map_err(failed)?;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).map_err(failed)?;
    }
    mount(config)
}

/// The mounts of this machine.
pub(super) fn table() -> Result<Vec<mountinfo::Mount>, Failure> {
    mountinfo::read().map_err(Failure::system("reading the table of mounts"))
}

/// The directories, and whether they are mounted.
pub(super) fn mounted(config: &Config) -> Result<Vec<(PathBuf, bool)>, Failure> {
    let mounts = table()?;
    let is = |path: PathBuf| {
        let point = config.below_root(&path);
        let there = mounts
            .iter()
            .any(|mount| mount.point == point && mount.is_qtfs());
        (path, there)
    };
    Ok(config.shared().into_iter().map(is).collect())
}

/// Why one of HOST's directories cannot be mounted.
pub(super) fn not_mounted(config: &Config, path: &Path, errno: Errno) -> Failure {
    let (path, what) = (path.display(), errno.desc());
    Failure::Unfit(match errno {
        Errno::EHOSTUNREACH
        | Errno::EHOSTDOWN
        | Errno::ENETUNREACH
        | Errno::ETIMEDOUT
        | Errno::ECONNREFUSED => format!(
            "HOST {}:{} is not reached: {what}. Is it up, does the link work, and has qtfs-offload up run there?",
            config.host, config.port
        ),
        _ => format!(
            "HOST's {path} cannot be mounted: {what}. Is it there, and in HOST's /etc/qtfs/engine.toml? \
             qtfs-offload check tells more"
        ),
    })
}

/// Mounts HOST's directories where they are not mounted.
fn mount(config: &Config) -> Result<(), Failure> {
    let none: Option<&Path> = None;
    for (path, is_mounted) in mounted(config)? {
        let point = config.below_root(&path);
        if is_mounted {
            continue;
        }
        machine::make(std::slice::from_ref(&point))?;
        let mounted = nix::mount::mount(Some(&path), &point, Some("qtfs"), MsFlags::empty(), none);
        mounted.map_err(|errno| not_mounted(config, &path, errno))?;
        println!("{:<16} {} is mounted", "mount", path.display());
    }
    if config.docker.start {
        own_database(config)?;
    }
    Ok(())
}

/// dockerd maps and locks its database of volumes, and HOST has no business with it.
fn own_database(config: &Config) -> Result<(), Failure> {
    let own = config.below_root(Path::new(DATABASE));
    let place = config.below_root(Path::new(VOLUMES)).join("metadata.db");
    if table()?.iter().any(|mount| mount.point == place) {
        return Ok(());
    }
    for file in [&own, &place] {
        let touched = std::fs::File::options()
            .append(true)
            .create(true)
            .open(file);
        touched.map_err(|error| Failure::Unfit(format!("{}: {error}", file.display())))?;
    }
    let none: Option<&Path> = None;
    nix::mount::mount(Some(&own), &place, none, MsFlags::MS_BIND, none)
        .map_err(Failure::errno("mounting the database of volumes"))
}

/// Unmounts them.
pub(super) fn unmount(config: &Config) -> Result<(), Failure> {
    let shared = config.shared();
    let tops: Vec<PathBuf> = shared.iter().map(|path| config.below_root(path)).collect();
    unmount_below(&tops)?;
    chroot::unmount(config)
}

/// Unmounts what is mounted on these places or below them; that first.
pub(super) fn unmount_below(tops: &[PathBuf]) -> Result<(), Failure> {
    let mounts = table()?;
    let ours = mounts
        .iter()
        .rev()
        .filter(|mount| tops.iter().any(|top| mount.point.starts_with(top)));
    for mount in ours {
        match nix::mount::umount2(&mount.point, MntFlags::UMOUNT_NOFOLLOW) {
            // What HOST had mounted below went with an earlier one.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => {
                return Err(Failure::Unfit(format!(
                    "{} cannot be unmounted: {}. fuser -vm {0} shows who uses it",
                    mount.point.display(),
                    errno.desc()
                )))
            }
        }
    }
    Ok(())
}

/// udsproxyd and the daemons.
pub(super) fn parts(config: &Config) -> Result<Vec<Part>, Failure> {
    let programs = config.programs()?;
    let mut parts = vec![Part {
        name: "udsproxyd",
        command: vec![programs.join("udsproxyd").into_os_string()],
        environment: Vec::new(),
        ready: Ready::Device("/dev/qtfs".into()),
    }];
    let supervised = |from_host: &[&str], words: &[&str], more: &[String]| {
        let mut command: Vec<OsString> = vec![programs.join("qtfs-offload").into(), "run".into()];
        let control = config.below_root(Path::new(qtfs_control::DIRECTORY));
        command.extend(["--root".into(), config.root.clone().into_os_string()]);
        command.extend(["--control".into(), control.into_os_string()]);
        command.extend(
            from_host
                .iter()
                .flat_map(|path| ["--from-host".into(), path.into()]),
        );
        command.extend(["--end-when-lost".into(), "--".into()]);
        command.extend(words.iter().map(OsString::from));
        command.extend(more.iter().map(OsString::from));
        command
    };
    let path = ("PATH", OsString::from(machine::path_with(BIN)));
    let no_apparmor = (NO_APPARMOR.0, OsString::from(NO_APPARMOR.1));
    if config.containerd.start {
        parts.push(Part {
            name: "containerd",
            command: supervised(&[], &["containerd"], &config.containerd.arguments),
            environment: vec![path.clone(), no_apparmor.clone()],
            ready: Ready::Socket(config.below_root(Path::new("/run/containerd/containerd.sock"))),
        });
    }
    if config.docker.start {
        let words = [
            "dockerd",
            "--containerd=/run/containerd/containerd.sock",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            // Containers go on when the DPU or dockerd does not.
            "--live-restore",
            // The other driver would ask systemd of the DPU for control groups of HOST.
            "--exec-opt=native.cgroupdriver=cgroupfs",
        ];
        parts.push(Part {
            name: "dockerd",
            // docker info tells it.
            command: supervised(&["/proc/meminfo"], &words, &config.docker.arguments),
            environment: vec![path.clone(), no_apparmor.clone()],
            ready: Ready::Socket(config.below_root(Path::new("/run/docker.sock"))),
        });
    }
    if config.kubelet.start {
        let program = config.kubelet.program.to_string_lossy();
        let words = [
            &*program,
            "--container-runtime-endpoint=unix:///run/containerd/containerd.sock",
        ];
        parts.push(Part {
            name: "kubelet",
            command: supervised(&NODE, &words, &config.kubelet.arguments),
            environment: vec![path],
            ready: Ready::Socket(config.below_root(Path::new(POD_RESOURCES))),
        });
    }
    Ok(parts)
}
