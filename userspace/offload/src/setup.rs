// SPDX-License-Identifier: GPL-2.0

//! `qtfs-offload up|down|status|check`: both machines by one description.
//!
//! Which of the two this is is told by HOST's address: HOST has it. Every step looks first whether there is anything
//! to do, so `up` may be repeated, and goes on where an earlier one was stopped by a mistake.

mod check;
mod chroot;
mod dpu;
mod host;
mod keeper;
mod machine;
mod policy;

use crate::config::Config;
use crate::failure::Failure;
use keeper::Part;
use std::path::Path;

pub use keeper::keep;

/// One of the two machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Runs the containers.
    Host,
    /// Runs their management.
    Dpu,
}

impl Side {
    /// Which of the two this is.
    pub fn here(config: &Config) -> Result<Self, Failure> {
        let own = machine::addresses()?.contains(&config.host);
        Ok(if own { Self::Host } else { Self::Dpu })
    }

    /// The module that it has.
    fn module(self) -> &'static str {
        match self {
            Self::Host => "qtfs_server",
            Self::Dpu => "qtfs",
        }
    }

    fn parts(self, config: &Config) -> Result<Vec<Part>, Failure> {
        match self {
            Self::Host => host::parts(config),
            Self::Dpu => dpu::parts(config),
        }
    }
}

fn root() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::NotRoot)
}

/// Starts everything that is not running.
pub fn up(config: &Config, side: Side) -> Result<(), Failure> {
    root()?;
    let what = match side {
        Side::Host => format!("this is HOST, {}", config.host),
        Side::Dpu => format!("this is the DPU, of HOST {}", config.host),
    };
    println!("{:<16} {what}; --for tells otherwise", "machine");
    let wrong = check::local(config, side);
    if wrong.iter().any(check::Finding::is_fatal) {
        check::print(wrong.iter().filter(|finding| finding.is_wrong()));
        return Err(Failure::Unfit(
            "nothing was started: mend the above first".into(),
        ));
    }
    match side {
        Side::Host => host::prepare(config)?,
        Side::Dpu => dpu::prepare(config)?,
    }
    // What is not right yet and does not keep anything from starting.
    let left = check::local(config, side);
    check::print(left.iter().filter(|finding| finding.is_wrong()));
    for part in side.parts(config)? {
        part.start()?;
    }
    Ok(())
}

/// Stops everything, in the other order.
pub fn down(config: &Config, side: Side) -> Result<(), Failure> {
    root()?;
    for part in side.parts(config)?.iter().rev() {
        part.stop()?;
    }
    if side == Side::Dpu {
        dpu::unmount(config)?;
    }
    machine::unload(side.module())
}

/// Prints what runs; whether all does.
pub fn status(config: &Config, side: Side) -> Result<bool, Failure> {
    let mut all = true;
    let mut line = |name: &str, state: Result<String, String>| {
        all &= state.is_ok();
        let (mark, text) = match state {
            Ok(text) => ("up", text),
            Err(text) => ("DOWN", text),
        };
        println!("{mark:<5}{name:<16} {text}");
    };
    let module = side.module();
    let loaded = Path::new("/sys/module").join(module).is_dir();
    let text = format!("module {module}");
    line(
        module,
        if loaded {
            Ok(text)
        } else {
            Err(format!("{text} is not loaded"))
        },
    );
    for part in side.parts(config)? {
        line(part.name, part.state());
    }
    if side == Side::Dpu {
        for (path, mounted) in dpu::mounted(config)? {
            let text = path.display().to_string();
            line(
                "mount",
                if mounted {
                    Ok(text)
                } else {
                    Err(format!("{text} is not mounted"))
                },
            );
        }
    }
    Ok(all)
}

/// Prints what is wrong on this machine and, on the DPU, on HOST; whether nothing is.
pub fn check(config: &Config, side: Side) -> Result<bool, Failure> {
    root()?;
    let mut findings = check::local(config, side);
    if side == Side::Dpu {
        findings.extend(check::of_host(config));
    }
    check::print(&findings);
    Ok(findings.iter().all(|finding| !finding.is_wrong()))
}

/// Prints what the DPU wants to know of this machine, HOST, as JSON.
pub fn facts(config: &Config) -> Result<(), Failure> {
    let facts = check::Facts::gather(config);
    println!("{}", serde_json::to_string(&facts).unwrap_or_default());
    Ok(())
}
