// SPDX-License-Identifier: GPL-2.0

//! Mistakes that others have made, and how to mend them.

use super::host;
use super::keeper;
use super::machine;
use super::policy;
use super::Side;
use crate::config::Config;
use serde::Deserialize;
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// More than this between the two clocks is told: files would seem to come from the future.
const CLOCK: u64 = 2;
/// Of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What was looked at.
#[derive(Debug)]
pub(super) struct Finding {
    what: String,
    /// What to do; None if it is right.
    remedy: Option<String>,
    fatal: bool,
}

impl Finding {
    pub(super) fn is_wrong(&self) -> bool {
        self.remedy.is_some()
    }

    /// Whether nothing would work.
    pub(super) fn is_fatal(&self) -> bool {
        self.fatal && self.is_wrong()
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    /// HOST is to have none of the daemons that these are.
    fn no_daemons(&mut self, running: &[String]) {
        let remedy = format!(
            "{} is to run on the DPU: systemctl disable --now {}",
            running.join(" and "),
            running.join(" ")
        );
        self.look(
            "no containerd, dockerd or kubelet on HOST",
            running.is_empty(),
            remedy,
        );
    }

    /// Neither machine is to start other daemons when it boots: the unit of qtfs-offload conflicts with
    /// theirs, and systemd starts one of the two.
    fn no_units(&mut self, enabled: &[String], place: &str) {
        let remedy = format!(
            "{place}systemctl disable --now {}; at the next boot systemd would start that in the place of qtfs-offload",
            enabled.join(" ")
        );
        let what = match place {
            "" => "no units of other daemons",
            _ => "no units of other daemons on HOST",
        };
        self.look(what, enabled.is_empty(), remedy);
    }

    /// What HOST's configuration lacks.
    fn gaps(&mut self, gaps: &[String], place: &str) {
        if gaps.is_empty() {
            self.look("HOST's configuration", true, "");
        }
        for gap in gaps {
            self.look("HOST's configuration", false, format!("{place}{gap}"));
        }
    }

    /// HOST is to have no pids that programs of the DPU have.
    fn pids(&mut self, most: u64, place: &str) {
        let remedy = format!(
            "{place}sysctl kernel.pid_max={}, so that pids of the two machines differ",
            machine::PIDS
        );
        self.look("pids of HOST", most <= machine::PIDS, remedy);
    }

    fn look(&mut self, what: impl Into<String>, right: bool, remedy: impl Into<String>) {
        self.add(what, right, remedy, false);
    }

    fn must(&mut self, what: impl Into<String>, right: bool, remedy: impl Into<String>) {
        self.add(what, right, remedy, true);
    }

    fn add(
        &mut self,
        what: impl Into<String>,
        right: bool,
        remedy: impl Into<String>,
        fatal: bool,
    ) {
        self.0.push(Finding {
            what: what.into(),
            remedy: (!right).then(|| remedy.into()),
            fatal,
        });
    }
}

/// What one machine tells the other.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Facts {
    /// Seconds since 1970.
    time: u64,
    /// Of this program.
    version: String,
    runc: Option<String>,
    shim: Option<String>,
    /// Mounts of / are propagated.
    shared: bool,
    /// Directories that are not there.
    missing: Vec<String>,
    /// Daemons that should not run there.
    daemons: Vec<String>,
    /// Units that should not be enabled there.
    units: Vec<String>,
    /// All pids are less.
    pid_max: u64,
    /// The directories of its own description.
    shared_directories: Vec<String>,
    /// What its configuration lacks, with remedies.
    gaps: Vec<String>,
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    let names = paths.iter().map(|path| path.display().to_string());
    names.collect()
}

/// The names of all processes.
fn processes() -> Vec<String> {
    let directories = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let names =
        directories.filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).collect()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Daemons that are to run on the DPU, and run on this machine.
fn daemons() -> Vec<String> {
    let names = processes();
    let daemons = ["containerd", "dockerd", "kubelet"].map(String::from);
    let running = daemons.into_iter().filter(|daemon| names.contains(daemon));
    running.collect()
}

/// Where `systemctl enable` notes what the machine starts (systemd.unit(5)).
const ENABLED: &str = "/etc/systemd/system";
/// Units of Debian's packages, with what wants them.
const UNITS: [&str; 3] = [
    "multi-user.target.wants/containerd.service",
    "multi-user.target.wants/docker.service",
    "sockets.target.wants/docker.socket",
];

/// Units of the same daemons that are enabled below a directory, and not those of ours.
fn units(enabled: &Path) -> Vec<String> {
    let is_enabled = |unit: &&str| std::fs::symlink_metadata(enabled.join(unit)).is_ok();
    let name = |unit: &str| unit.rsplit('/').next().unwrap_or(unit).to_owned();
    UNITS.into_iter().filter(is_enabled).map(name).collect()
}

/// Those of this machine, if systemd runs it (`sd_booted(3)`).
fn units_of_others() -> Vec<String> {
    match Path::new("/run/systemd/system").is_dir() {
        true => units(Path::new(ENABLED)),
        false => Vec::new(),
    }
}

impl Facts {
    /// Those of HOST.
    pub(super) fn gather(config: &Config) -> Self {
        let missing = config.shared().into_iter().filter(|path| !path.is_dir());
        Self {
            time: now(),
            version: VERSION.into(),
            runc: runc(),
            shim: shim(),
            shared: machine::root_is_shared(),
            missing: names(&missing.collect::<Vec<_>>()),
            daemons: daemons(),
            units: units_of_others(),
            pid_max: machine::pid_max(),
            shared_directories: names(&config.shared()),
            gaps: policy::gaps(config),
        }
    }
}

/// The version of runc on this machine.
fn runc() -> Option<String> {
    machine::version("runc", "--version")
}

/// The version of containerd's shim on this machine.
fn shim() -> Option<String> {
    machine::version("containerd-shim-runc-v2", "-v")
}

/// What can be looked at on this machine.
pub(super) fn local(config: &Config, side: Side) -> Vec<Finding> {
    let mut found = Findings::default();
    let programs = config.programs().unwrap_or_default();
    let ours: &[&str] = match side {
        Side::Host => &["engine", "rexec_server", "qtfs-runc", "qtfs-offload"],
        Side::Dpu => &["udsproxyd", "rexec", "qtfs-offload"],
    };
    for name in ours {
        let path = programs.join(name);
        let remedy = "install it there, or set programs = \"DIRECTORY\" in offload.toml";
        found.must(
            format!("program {}", path.display()),
            path.is_file(),
            remedy,
        );
    }
    let kubelet = config.kubelet.program.to_string_lossy();
    let mut programs: Vec<(&str, &str)> = Vec::new();
    match side {
        Side::Host => {
            programs.extend([
                ("containerd-shim-runc-v2", "apt install containerd"),
                ("runc", "apt install runc"),
            ]);
        }
        Side::Dpu => {
            if config.containerd.start {
                programs.push(("containerd", "apt install containerd"));
            }
            if config.docker.start {
                programs.extend([
                    ("dockerd", "apt install docker.io"),
                    ("runc", "apt install runc"),
                ]);
            }
            if config.kubelet.start {
                programs.push((
                    &kubelet,
                    "install it, or name it in offload.toml: [kubelet] program = \"PATH\"",
                ));
            }
        }
    }
    for (name, remedy) in programs {
        let root = match side {
            Side::Host => Path::new("/"),
            Side::Dpu => &config.root,
        };
        let there = machine::find(root, name).is_some();
        let place = match root == Path::new("/") {
            true => String::new(),
            false => format!(" in {} (root = of offload.toml)", root.display()),
        };
        found.must(format!("program {name}{place}"), there, remedy);
    }
    let key = std::fs::metadata(host::KEY);
    found.must(
        format!("key {}", host::KEY),
        key.is_ok(),
        format!(
            "make one and copy it to the other machine: (umask 077; head -c 32 /dev/urandom > {})",
            host::KEY
        ),
    );
    if let Ok(key) = key {
        let remedy = format!("chmod 600 {}", host::KEY);
        found.must(
            "only root can read the key",
            key.mode() & 0o077 == 0,
            remedy,
        );
    }
    let remedy = "mount --make-rshared / (qtfs-offload up does); otherwise dockerd hides what is mounted in /var/lib/docker";
    found.look(
        "mounts of / are propagated",
        machine::root_is_shared(),
        remedy,
    );
    let cgroup = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let remedy = "cgroup v2 is needed: mount -t cgroup2 cgroup2 /sys/fs/cgroup";
    found.must("control groups v2", cgroup, remedy);
    if let Some(directory) = &config.modules {
        let name = match side {
            Side::Host => "qtfs_server.ko",
            Side::Dpu => "qtfs.ko",
        };
        let path = directory.join(name);
        let remedy = "build it with make, or correct modules = in offload.toml";
        found.must(format!("module {}", path.display()), path.is_file(), remedy);
    }
    found.no_units(&units_of_others(), "");
    match side {
        Side::Host => {
            found.no_daemons(&daemons());
            found.pids(machine::pid_max(), "");
            found.gaps(&policy::gaps(config), "");
        }
        Side::Dpu => {
            let others = daemons()
                .into_iter()
                .filter(|name| keeper::keeper(name).is_none());
            let others: Vec<String> = others.collect();
            let remedy = format!(
                "{0} runs here, and qtfs-offload has not started it: systemctl disable --now {0}, or stop it as it was started",
                others.join(" ")
            );
            found.look("no other daemons", others.is_empty(), remedy);
        }
    }
    found.0
}

/// What HOST says of itself, by rexec.
fn ask(config: &Config) -> Result<Facts, String> {
    let rexec = config.programs().map_err(|e| e.to_string())?.join("rexec");
    let asked = Command::new(rexec)
        .args(["--directory", "/", "--", "qtfs-offload", "facts"])
        .stdin(Stdio::null())
        .output();
    let output = asked.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

/// How far a clock is off, in seconds, that was looked at between two times.
fn apart(time: u64, asked: u64, answered: u64) -> u64 {
    asked
        .saturating_sub(time)
        .max(time.saturating_sub(answered))
}

/// What can be found out of HOST from the DPU.
pub(super) fn of_host(config: &Config) -> Vec<Finding> {
    let mut found = Findings::default();
    let asked = now();
    let facts = match ask(config) {
        Ok(facts) => facts,
        Err(error) => {
            let remedy = format!("{error}. On HOST: qtfs-offload up");
            found.look("HOST answers", false, remedy);
            return found.0;
        }
    };
    found.look("HOST answers", true, "");
    let apart = apart(facts.time, asked, now());
    let remedy = format!("they are {apart} s apart: run an NTP client on both machines");
    found.look("clocks", apart <= CLOCK, remedy);
    let own = runc();
    let remedy = format!(
        "HOST has qtfs {}, this machine {}: install the same",
        facts.version, VERSION
    );
    found.look("versions of qtfs", facts.version == VERSION, remedy);
    let has = |version: &Option<String>| version.as_deref().unwrap_or("none").to_owned();
    let remedy = format!(
        "HOST has {:?}, this machine {:?}: install the same",
        has(&facts.runc),
        has(&own)
    );
    found.look(
        "versions of runc",
        facts.runc.is_some() && (own.is_none() || facts.runc == own),
        remedy,
    );
    let shim = shim();
    let remedy = format!(
        "HOST has {:?}, this machine {:?}: install the same containerd on both",
        has(&facts.shim),
        has(&shim)
    );
    found.look(
        "versions of containerd-shim-runc-v2",
        facts.shim.is_some() && (shim.is_none() || facts.shim == shim),
        remedy,
    );
    let own = names(&config.shared());
    let differ = own
        .iter()
        .filter(|path| !facts.shared_directories.contains(path));
    let differ: Vec<&str> = differ.map(String::as_str).collect();
    let remedy = format!(
        "HOST's has not {}: /etc/qtfs/offload.toml is to be the same on both machines",
        differ.join(" ")
    );
    found.look("descriptions of both machines", differ.is_empty(), remedy);
    found.gaps(&facts.gaps, "on HOST: ");
    found.look(
        "HOST's mounts are propagated",
        facts.shared,
        "on HOST: mount --make-rshared /",
    );
    let remedy = format!(
        "missing: {}. On HOST: qtfs-offload up",
        facts.missing.join(" ")
    );
    found.look("HOST's directories", facts.missing.is_empty(), remedy);
    found.pids(facts.pid_max, "on HOST: ");
    found.no_daemons(&facts.daemons);
    found.no_units(&facts.units, "on HOST: ");
    found.0
}

/// Prints what was found.
pub(super) fn print<'a>(findings: impl IntoIterator<Item = &'a Finding>) {
    for Finding { what, remedy, .. } in findings {
        match remedy {
            None => println!("ok     {what}"),
            Some(remedy) => println!("WRONG  {what}: {remedy}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_other_daemons_are_found_where_they_are_enabled() {
        let directory = std::env::temp_dir().join(format!("units-{}", std::process::id()));
        let wants = directory.join("multi-user.target.wants");
        std::fs::create_dir_all(&wants).unwrap();
        std::os::unix::fs::symlink("/none", wants.join("docker.service")).unwrap();
        std::os::unix::fs::symlink("/none", wants.join("qtfs-offload.service")).unwrap();
        assert_eq!(units(&directory), ["docker.service"]);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_clock_is_not_off_because_the_answer_took_long() {
        for (time, off) in [(90, 10), (100, 0), (110, 0), (120, 0), (123, 3)] {
            assert_eq!(apart(time, 100, 120), off, "{time}");
        }
    }
}
