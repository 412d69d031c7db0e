// SPDX-License-Identifier: GPL-2.0

//! The socket that `qtfs-offload` connects to, and its connections.

use super::kill;
use super::mounts;
use super::rules::Refusal;
use super::rules::Rules;
use super::schedule;
use nix::errno::Errno;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use qtfs_control::message;
use qtfs_control::message::Bytes;
use qtfs_control::message::Reply;
use qtfs_control::message::Request;
use std::fs::DirBuilder;
use std::fs::Permissions;
use std::io;
use std::io::BufReader;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;

/// Connections at a time. A supervised program has one or a few.
const MOST: usize = 256;

/// Serves offloaded programs as long as the process lives.
#[derive(Clone, Debug, Default)]
pub struct Server {
    rules: Arc<RwLock<Arc<Rules>>>,
    connections: Arc<AtomicUsize>,
}

/// One connection, counted.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    /// The policy was read, again perhaps.
    pub fn set(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Listens in a directory, which is made if it is missing. What an engine that was killed has left
    /// there is replaced; there is one engine at a time.
    pub fn listen(&self, directory: &Path) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let path = directory.join(qtfs_control::SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let this = self.clone();
        let thread = std::thread::Builder::new().name("engine/offload".into());
        thread.spawn(move || this.accept(&listener))?;
        Ok(())
    }

    fn accept(&self, listener: &UnixListener) {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::error!("a connection of qtfs-offload is not taken: {error}");
                    std::thread::sleep(std::time::Duration::from_millis(100));
                    continue;
                }
            };
            let before = self.connections.fetch_add(1, Ordering::Relaxed);
            let counted = Counted(Arc::clone(&self.connections));
            if before >= MOST {
                tracing::warn!("qtfs-offload is refused: there are {MOST} connections already");
                continue;
            }
            let this = self.clone();
            let thread = std::thread::Builder::new().name("engine/offload".into());
            let spawned = thread.spawn(move || {
                if let Err(error) = this.serve(&stream) {
                    tracing::debug!("a connection of qtfs-offload ends: {error}");
                }
                drop(counted);
            });
            if let Err(error) = spawned {
                tracing::error!("a connection of qtfs-offload is not served: {error}");
            }
        }
    }

    fn serve(&self, mut stream: &UnixStream) -> io::Result<()> {
        let who = getsockopt(&stream, PeerCredentials)?;
        if who.uid() != 0 {
            tracing::warn!("qtfs-offload of uid {} is refused: only root", who.uid());
            return Err(Errno::EPERM.into());
        }
        let mut lines = BufReader::new(stream);
        while let Some(request) = message::receive::<Request>(&mut lines)? {
            let reply = answer(&self.rules(), &request);
            if let Some(why) = &reply.why {
                tracing::warn!("refused to an offloaded program: {why}");
            }
            tracing::debug!("offloaded: {request:?}: {reply:?}");
            message::send(&mut stream, &reply)?;
        }
        Ok(())
    }
}

/// The kernel's name for this boot (`random(4)`).
fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// What a request asks for, for the logs.
fn subject(request: &Request) -> String {
    let path = |path: &Bytes| path.path().display().to_string();
    match request {
        Request::Boot => "the boot".into(),
        Request::Look { target } => format!("a look at {}", path(target)),
        Request::Mount { kind, target, .. } => format!("a mount of {kind} on {}", path(target)),
        Request::Bind { source, target, .. } => {
            format!("a bind mount of {} on {}", path(source), path(target))
        }
        Request::Change { target, .. } => format!("a change of the mount {}", path(target)),
        Request::Unmount { target, .. } => format!("umount of {}", path(target)),
        Request::Kill { pid, signal, .. } => format!("signal {signal} to process {pid}"),
        Request::Schedule { pid, .. } => format!("scheduling of process {pid}"),
    }
}

fn answer(rules: &Rules, request: &Request) -> Reply {
    let done = match request {
        Request::Boot => {
            return Reply {
                boot: boot(),
                ..Reply::default()
            }
        }
        Request::Look { target } => match mounts::look(rules, &target.path()) {
            Ok(mount) => {
                return Reply {
                    mount,
                    ..Reply::default()
                }
            }
            Err(refusal) => Err(refusal),
        },
        Request::Mount {
            kind,
            source,
            target,
            flags,
            parameters,
            before,
        } => {
            let new = mounts::New {
                kind,
                source,
                flags: *flags,
                parameters,
            };
            mounts::mount(rules, &new, &target.path(), *before)
        }
        Request::Bind {
            source,
            target,
            flags,
            before,
        } => mounts::bind(rules, &source.path(), *flags, &target.path(), *before),
        Request::Change {
            target,
            flags,
            data,
        } => mounts::change(rules, &target.path(), *flags, data),
        Request::Unmount {
            target,
            flags,
            before,
        } => mounts::unmount(rules, &target.path(), *flags, *before),
        Request::Kill {
            pid,
            signal,
            thread,
            info,
        } => kill::kill(rules, *pid, *signal, *thread, info.as_ref()),
        Request::Schedule { pid, call } => match schedule::schedule(rules, *pid, call) {
            Ok(reply) => return reply,
            Err(refusal) => Err(refusal),
        },
    };
    match done {
        Ok(()) => Reply::default(),
        Err(Refusal { errno, why }) => Reply {
            errno: errno as i32,
            why: why.map(|why| format!("{}: {why}", subject(request))),
            ..Reply::default()
        },
    }
}
