// SPDX-License-Identifier: GPL-2.0

//! Wrappers: scripts that stand in for programs of the other machine, in a root file system.
//!
//! They go where the caller looks for the program, such as `/usr/bin/runc`, and run it there with
//! the caller's arguments as they are.

use crate::config::Config;
use crate::config::Wrapper;
use crate::failure::Failure;
use clap::ValueEnum;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

/// What the second line of a wrapper begins with.
const MADE_BY: &[u8] = b"#!/bin/sh\n# Made by rexec-wrappers";
/// Permissions of a wrapper.
const MODE: u32 = 0o755;

/// The machine whose root file system gets wrappers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// containerd-shim-runc-v2, runc, modprobe and remote_kill, which run on HOST
    Dpu,
    /// dockerd, which runs on the DPU
    Host,
    /// Those of the configuration alone
    None,
}

impl Side {
    /// The wrappers that this side needs whatever the configuration says.
    fn usual(self) -> Vec<Wrapper> {
        let wrapper = |path: &str, program: &str| Wrapper {
            path: path.into(),
            program: Some(program.into()),
            arguments: Vec::new(),
            connect: None,
            detach: false,
            directory: None,
        };
        // For a caller whose directory the other machine does not have.
        let anywhere = |wrapper| Wrapper {
            directory: Some("/".into()),
            ..wrapper
        };
        match self {
            Self::Dpu => vec![
                Wrapper {
                    // "start" leaves the shim behind, and that is to stay.
                    detach: true,
                    ..wrapper(
                        "/usr/bin/containerd-shim-runc-v2",
                        "containerd-shim-runc-v2",
                    )
                },
                wrapper("/usr/bin/runc", "runc"),
                anywhere(wrapper("/usr/sbin/modprobe", "modprobe")),
                anywhere(wrapper("/usr/bin/remote_kill", "kill")),
            ],
            Self::Host => vec![wrapper("/usr/bin/dockerd", "dockerd")],
            Self::None => Vec::new(),
        }
    }
}

/// The wrappers for `side`: the usual ones, each replaced by that of the configuration for the
/// same path, and the others of the configuration.
pub fn list(config: &Config, side: Side) -> Vec<Wrapper> {
    let own = &config.wrapper;
    let mut list = side.usual();
    list.retain(|usual| own.iter().all(|wrapper| wrapper.path != usual.path));
    list.extend(own.iter().cloned());
    list
}

/// The text of a wrapper that calls the program `rexec`.
pub fn script(wrapper: &Wrapper, rexec: &Path) -> Vec<u8> {
    let name = wrapper.path.file_name().unwrap_or_default();
    let program = wrapper.program.as_deref();
    let program = program.map_or_else(|| name.as_bytes(), str::as_bytes);
    let mut words = vec![quote(rexec.as_os_str().as_bytes())];
    let mut option = |name: &[u8], value: Option<&[u8]>| {
        words.push(name.to_vec());
        words.extend(value.map(quote));
    };
    if let Some(address) = &wrapper.connect {
        option(b"--connect", Some(address.to_string().as_bytes()));
    }
    if wrapper.detach {
        option(b"--detach", None);
    }
    if let Some(directory) = &wrapper.directory {
        option(b"--directory", Some(directory.as_os_str().as_bytes()));
    }
    option(b"--", Some(program));
    words.extend(wrapper.arguments.iter().map(|text| quote(text.as_bytes())));
    let call = words.join(&b' ');
    let mut text = MADE_BY.to_vec();
    text.extend_from_slice(b" from rexec.toml: runs a program on the other machine.\nexec ");
    text.extend_from_slice(&call);
    text.extend_from_slice(b" \"$@\"\n");
    text
}

/// A word that a shell takes as it is, whatever bytes it has.
fn quote(word: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// Writes a wrapper below `root`, which no symbolic link leads out of. What is there and was not
/// made by this is only replaced with `force`.
pub fn install(root: &Path, wrapper: &Wrapper, rexec: &Path, force: bool) -> Result<(), Failure> {
    let shown = root.join(wrapper.path.strip_prefix("/").unwrap_or(&wrapper.path));
    let failed = |error: io::Error| {
        Failure::Usage(format!(
            "{}: {}",
            shown.display(),
            crate::failure::io_text(&error)
        ))
    };
    let directory = directory(root, &wrapper.path).map_err(failed)?;
    let name = Path::new(wrapper.path.file_name().unwrap_or_default());
    if !force && !may_replace(&directory, name).map_err(failed)? {
        return Err(Failure::Usage(format!(
            "{}: this is there and no wrapper: give --force to replace it",
            shown.display()
        )));
    }
    // Under another name first: whoever runs it meanwhile finds the old or the new one whole.
    let new = format!(".{}.new", name.display());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    let written = rustix::fs::openat(&directory, &new, flags, Mode::from_raw_mode(MODE))
        .map_err(io::Error::from)
        .and_then(|file| {
            // Whatever the umask is.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(MODE))?;
            File::from(file).write_all(&script(wrapper, rexec))
        })
        .and_then(|()| Ok(rustix::fs::renameat(&directory, &new, &directory, name)?));
    written.map_err(failed)
}

/// Opens the directory of `path` below `root`, and makes it where it is missing.
fn directory(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let below =
        |path: &Path| rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    let mut so_far = PathBuf::from("/");
    let mut directory = below(&so_far)?;
    for part in path.parent().into_iter().flat_map(Path::components) {
        let Component::Normal(name) = part else {
            continue;
        };
        so_far.push(name);
        directory = match below(&so_far) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(MODE))?;
                below(&so_far)?
            }
            opened => opened?,
        };
    }
    Ok(directory)
}

/// Whether nothing is there, or a wrapper.
fn may_replace(directory: &OwnedFd, name: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => return Ok(true),
        // A symbolic link.
        Err(rustix::io::Errno::LOOP) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut begin = Vec::new();
    // CAST: a length of some tens fits.
    let most = MADE_BY.len() as u64;
    Ok(File::from(file)
        .take(most)
        .read_to_end(&mut begin)
        .is_ok_and(|_| begin == MADE_BY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_whatever_they_hold() {
        for (word, quoted) in [
            (&b""[..], &b"''"[..]),
            (b"a b", b"'a b'"),
            (b"$x`y`\"\\", b"'$x`y`\"\\'"),
            (b"it's", b"'it'\\''s'"),
            (b"\n\xff", b"'\n\xff'"),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }

    #[test]
    fn the_configuration_replaces_what_is_usual() {
        let text = "[[wrapper]]\npath = '/usr/bin/runc'\nprogram = '/opt/runc'\n[[wrapper]]\npath = '/usr/bin/ps'\n";
        let config = Config::parse(Path::new("x"), text).unwrap();
        let list = list(&config, Side::Dpu);
        let names: Vec<_> = list.iter().map(|wrapper| wrapper.path.to_str()).collect();
        assert_eq!(
            names,
            [
                Some("/usr/bin/containerd-shim-runc-v2"),
                Some("/usr/sbin/modprobe"),
                Some("/usr/bin/remote_kill"),
                Some("/usr/bin/runc"),
                Some("/usr/bin/ps"),
            ]
        );
        let text = script(&list[3], Path::new("/usr/bin/rexec"));
        let call = "\nexec '/usr/bin/rexec' -- '/opt/runc' \"$@\"\n";
        assert!(String::from_utf8(text).unwrap().ends_with(call));
        let text = script(&list[4], Path::new("/usr/bin/rexec"));
        assert!(String::from_utf8(text)
            .unwrap()
            .ends_with(" -- 'ps' \"$@\"\n"));
    }
}
