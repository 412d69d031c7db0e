// SPDX-License-Identifier: GPL-2.0

//! The files of /proc and /sys that everything comes from.

use crate::failure::Failure;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// A module of qtfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// `qtfs.ko`
    Client,
    /// `qtfs_server.ko`
    Server,
}

impl Module {
    /// All modules.
    pub const ALL: [Self; 2] = [Self::Client, Self::Server];

    /// The name that the kernel knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "qtfs",
            Self::Server => "qtfs_server",
        }
    }
}

/// The directory that `proc` and `sys` are in.
#[derive(Clone, Debug)]
pub struct Files(PathBuf);

impl Files {
    /// As they are in `root`.
    pub fn new(root: &Path) -> Self {
        Self(root.into())
    }

    /// The directory of a module in /sys.
    fn module(&self, module: Module) -> PathBuf {
        self.0.join("sys/module").join(module.name())
    }

    /// Whether a module is loaded.
    pub fn loaded(&self, module: Module) -> bool {
        self.module(module).is_dir()
    }

    /// The file that shows and sets the log level of a module.
    pub fn log_level(&self, module: Module) -> PathBuf {
        self.module(module).join("parameters/qtfs_log_level")
    }

    /// What `/proc/self/mountstats` says.
    pub fn mountstats(&self) -> Result<Vec<u8>, Failure> {
        read(&self.0.join("proc/self/mountstats"))
    }

    /// What `/proc/self/mountinfo` says.
    pub fn mountinfo(&self) -> Result<Vec<u8>, Failure> {
        read(&self.0.join("proc/self/mountinfo"))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| system("reading", path, e))
}

/// A failure with the file that it is about.
pub fn system(doing: &str, path: &Path, error: io::Error) -> Failure {
    Failure::System(format!("{doing} {}", path.display()), error)
}
