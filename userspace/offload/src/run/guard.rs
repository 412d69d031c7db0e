// SPDX-License-Identifier: GPL-2.0

//! A program that is started again whenever it ends is ended when something of HOST is lost that it
//! would take for gone: a connection ([`qtfs_control::guard`]), or all, with HOST's power.

use super::host::Host;
use super::process::receive_with_fd;
use super::process::Started;
use crate::failure::Failure;
use nix::sys::signal::kill;
use nix::sys::signal::Signal;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Pid;
use qtfs_control::guard;
use std::io;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

/// Where to listen, by the supervisor's own procfs: `/proc` is the program's.
fn path(started: &Started) -> io::Result<PathBuf> {
    let name = format!("{}/ns/pid", started.init);
    let namespace = nix::fcntl::readlinkat(&started.procfs, name.as_str())?;
    Ok(guard::path_of(Path::new(&namespace)))
}

/// Guards the program's connections and waits until HOST is there, which the program could take for
/// gone too. Returns what is to be removed after the program's end.
pub(super) fn begin(started: &Started, host: &Arc<Host>) -> Result<PathBuf, Failure> {
    let failed = Failure::system("guarding the program's connections");
    let path = path(started).map_err(&failed)?;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(guard::DIRECTORY).map_err(&failed)?;
    // Left by one whose pid namespace had this number before.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(&failed)?;
    let program = started.program;
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let thread = std::thread::Builder::new().name(name.into());
        thread.spawn(body).map_err(&failed)
    };
    spawn(
        "offload/guard",
        Box::new(move || accept(&listener, program)),
    )?;
    let (host, boot) = (Arc::clone(host), host.boot());
    let watch = move || {
        let new = host.other_boot(&boot);
        tracing::warn!("HOST was booted anew ({new}): the program is ended, to be started again");
        end(program);
    };
    spawn("offload/boot", Box::new(watch))?;
    Ok(path)
}

fn end(program: Pid) {
    // It may have ended by itself.
    let _ = kill(program, Signal::SIGKILL);
}

fn accept(listener: &UnixListener, program: Pid) {
    for stream in listener.incoming() {
        let served = stream.and_then(|stream| {
            let thread = std::thread::Builder::new().name("offload/held".into());
            thread.spawn(move || hold(stream, program))
        });
        if let Err(error) = served {
            tracing::error!("a connection of the program is not guarded: {error}");
        }
    }
}

/// Holds one connection until it ends in order, or the program with it.
fn hold(mut stream: UnixStream, program: Pid) {
    let held = match receive(&stream) {
        Ok(held) => held,
        Err(error) => {
            tracing::error!("a connection of the program is not guarded: {error}");
            return;
        }
    };
    let mut word = [0];
    if matches!(stream.read(&mut word), Ok(1)) && word == [guard::DONE] {
        return;
    }
    tracing::warn!("a connection to HOST is lost: the program is ended, to be started again");
    end(program);
    // The last of it is closed with this process, when nobody is there to see it.
    std::mem::forget(held);
}

fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    if getsockopt(stream, PeerCredentials)?.uid() != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (_, fd) = receive_with_fd(stream, &mut [0])?;
    fd.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
