// SPDX-License-Identifier: GPL-2.0

//! Processes as /proc shows them.

use std::fs;

/// A process, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) name: String,
    /// As in proc_pid_stat(5): `Z` for a zombie, `T` for one that is stopped.
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) threads: u32,
}

impl Process {
    /// Looks at a process; `None` when there is none.
    pub(crate) fn look(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (begin, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            name: begin.split_once('(')?.1.into(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
        })
    }

    /// All processes.
    pub(crate) fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").expect("/proc is mounted");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        names.filter_map(Self::look).collect()
    }

    /// The descendants of `top`, without itself.
    pub(crate) fn below(top: i32) -> Vec<Self> {
        let all = Self::all();
        let mut found = Vec::new();
        let mut parents = vec![top];
        while let Some(parent) = parents.pop() {
            for child in all.iter().filter(|process| process.parent == parent) {
                parents.push(child.pid);
                found.push(child.clone());
            }
        }
        found
    }
}

/// Those that run with `MARK=mark` in their environment, and are no zombies.
pub(crate) fn marked(mark: &str) -> Vec<Process> {
    let wanted = format!("MARK={mark}").into_bytes();
    let has_mark = |process: &Process| {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == wanted)
    };
    let mut all = Process::all();
    all.retain(|process| process.state != 'Z' && has_mark(process));
    all
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Sends a signal, also one without a name.
pub(crate) fn kill(pid: i32, signal: i32) {
    qtfs_rexec::process::sys::kill(pid, signal).expect("the process is there");
}
