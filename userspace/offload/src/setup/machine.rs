// SPDX-License-Identifier: GPL-2.0

//! What there is on a machine: addresses, modules, programs, propagation of mounts.

use crate::config::below;
use crate::config::Config;
use crate::failure::Failure;
use crate::run::FIRST_PID;
use qtfs_control::mountinfo;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// The addresses of this machine.
pub(super) fn addresses() -> Result<Vec<IpAddr>, Failure> {
    let interfaces = nix::ifaddrs::getifaddrs()
        .map_err(Failure::errno("asking for this machine's addresses"))?;
    let of = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    Ok(interfaces.filter_map(of).collect())
}

/// Runs a program, whose failure is one.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::Program(program.into(), error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let line = arguments.join(" ");
    Err(Failure::Unfit(format!(
        "{program} {line} failed ({}): {said}",
        output.status
    )))
}

/// Where programs are.
const DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// A PATH with a directory of ours before the usual ones.
pub(super) fn path_with(first: &str) -> String {
    format!("{first}:{}", DIRECTORIES.join(":"))
}

/// Where a program is, in the usual directories below `root`.
pub(super) fn find(root: &Path, program: &str) -> Option<PathBuf> {
    DIRECTORIES
        .iter()
        // An absolute path stays what it is.
        .map(|directory| below(root, &Path::new(directory).join(program)))
        .find(|path| path.is_file())
}

/// Loads a module of qtfs, unless it is loaded.
pub(super) fn load(config: &Config, name: &str) -> Result<(), Failure> {
    let parameters = [
        ("qtfs_server_ip", config.host.to_string()),
        ("qtfs_server_port", config.port.to_string()),
    ];
    let loaded = Path::new("/sys/module").join(name);
    if loaded.is_dir() {
        for (parameter, wanted) in parameters {
            let is = std::fs::read_to_string(loaded.join("parameters").join(parameter));
            if let Ok(is) = is.map(|is| is.trim().to_owned()) {
                if is != wanted {
                    return Err(Failure::Unfit(format!(
                        "{name} is loaded with {parameter}={is}, and offload.toml says {wanted} now: qtfs-offload down, then up"
                    )));
                }
            }
        }
        return Ok(());
    }
    let [address, port] = parameters.map(|(parameter, value)| format!("{parameter}={value}"));
    match &config.modules {
        Some(directory) => {
            let file = directory.join(format!("{name}.ko"));
            run("insmod", &[&file.to_string_lossy(), &address, &port])?;
        }
        None => {
            run("modprobe", &[name, &address, &port])?;
        }
    }
    Ok(())
}

/// How long a module may be in use when nobody is left who uses it.
const IN_USE: Duration = Duration::from_secs(5);

/// Unloads it, if it is loaded.
pub(super) fn unload(name: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    while Path::new("/sys/module").join(name).is_dir() {
        match run("rmmod", &[name]) {
            // The kernel closes what programs had open a moment after they have ended.
            Err(_) if begun.elapsed() < IN_USE => std::thread::sleep(IN_USE / 50),
            Err(failure) => {
                return Err(Failure::Unfit(format!(
                    "{failure}; findmnt -t qtfs and fuser -v /dev/qtfs* show who uses it"
                )))
            }
            Ok(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Whether the root directory's mounts are propagated.
pub(super) fn root_is_shared() -> bool {
    let mounts = mountinfo::read().unwrap_or_default();
    mountinfo::containing(&mounts, Path::new("/")).is_some_and(|mount| mount.shared)
}

/// Makes them so, if they are not.
pub(super) fn share_root() -> Result<(), Failure> {
    if root_is_shared() {
        return Ok(());
    }
    use nix::mount::MsFlags;
    let none: Option<&Path> = None;
    nix::mount::mount(none, "/", none, MsFlags::MS_SHARED | MsFlags::MS_REC, none)
        .map_err(Failure::errno("making the mounts of / shared"))
}

/// Makes directories.
pub(super) fn make(paths: &[PathBuf]) -> Result<(), Failure> {
    for path in paths {
        std::fs::create_dir_all(path).map_err(|error| {
            Failure::Unfit(format!(
                "the directory {} cannot be made: {error}",
                path.display()
            ))
        })?;
    }
    Ok(())
}

/// The first line that says a version, such as 1.2, of a program that tells it.
pub(super) fn version(program: &str, option: &str) -> Option<String> {
    let text = run(find(Path::new("/"), program)?.to_str()?, &[option]).ok()?;
    version_in(&text)
}

fn version_in(text: &str) -> Option<String> {
    let says = |line: &&str| {
        let points = line.match_indices('.');
        let is_number = |at: usize| {
            let byte = |at: usize| line.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
            at > 0 && byte(at - 1) && byte(at + 1)
        };
        points.into_iter().any(|(at, _)| is_number(at))
    };
    Some(text.lines().find(says)?.trim().to_owned())
}

/// Pids of HOST are less than this, and those of programs that are offloaded are not.
// CAST: it is positive.
pub(super) const PIDS: u64 = FIRST_PID as u64;
const PID_MAX: &str = "/proc/sys/kernel/pid_max";

/// What all pids of this machine are less than.
pub(super) fn pid_max() -> u64 {
    let text = std::fs::read_to_string(PID_MAX).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Has all new processes of this machine have pids that offloaded programs have not.
pub(super) fn limit_pids() -> Result<(), Failure> {
    let old = pid_max();
    if old <= PIDS {
        return Ok(());
    }
    std::fs::write(PID_MAX, PIDS.to_string())
        .map_err(|error| Failure::Unfit(format!("{PID_MAX} cannot be set to {PIDS}: {error}")))?;
    println!("kernel.pid_max is {PIDS} now (was {old}), so that pids of the two machines differ");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_from_a_name_with_a_number() {
        let shim = "containerd-shim-runc-v2:\n  Version:  1.7.24~ds1\n  Revision: x\n";
        assert_eq!(version_in(shim).as_deref(), Some("Version:  1.7.24~ds1"));
        let runc = "runc version 1.1.15+ds1\ncommit: 1\n";
        assert_eq!(version_in(runc).as_deref(), Some("runc version 1.1.15+ds1"));
        assert_eq!(version_in("program 2."), None);
    }
}
