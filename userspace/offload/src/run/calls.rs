// SPDX-License-Identifier: GPL-2.0

//! System calls that are held: read, decided, and answered.

use super::decide;
use super::decide::Decision;
use super::host::Host;
use super::process;
use super::process::Started;
use super::schedule;
use super::sys;
use super::sys::About;
use super::sys::Answer;
use super::sys::Held;
use super::view::path_of;
use super::view::Place;
use super::view::View;
use super::view::PATH_MAX;
use crate::failure::Failure;
use nix::errno::Errno;
use nix::libc;
use nix::sched::CloneFlags;
use qtfs_control::message::Bytes;
use qtfs_control::message::Reply;
use qtfs_control::message::Request;
use qtfs_control::message::SIGINFO;
use qtfs_control::schedule::Need;
use rustix::mount::MoveMountFlags;
use rustix::mount::OpenTreeFlags;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// Longest `data` of mount(2): the kernel reads a page.
const DATA_MAX: usize = 4096;

/// Capabilities, by their numbers in `<linux/capability.h>`.
const CAP_KILL: u32 = 5;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_NICE: u32 = 23;
const CAP_SYS_RESOURCE: u32 = 24;

/// What answers the calls of one program.
#[derive(Debug)]
pub(super) struct Supervisor {
    listener: OwnedFd,
    view: View,
    /// The mount namespace that HOST's mounts are seen in.
    namespace: PathBuf,
    /// Process 1 of the program's pid namespace.
    init: u32,
    host: Arc<Host>,
    /// The log was told of the mount API of file descriptors.
    told: AtomicBool,
}

impl Supervisor {
    pub(super) fn new(started: &Started, host: Arc<Host>) -> Result<Self, Failure> {
        let failed = Failure::system("looking at the program");
        let clone = |fd: &OwnedFd| fd.try_clone().map_err(&failed);
        let view = View::new(clone(&started.procfs)?);
        // CAST: process ids are positive.
        let (init, program) = (
            started.init.as_raw() as u32,
            started.program.as_raw() as u32,
        );
        let looking = Failure::errno("looking at the program");
        Ok(Self {
            listener: clone(&started.listener)?,
            namespace: view.namespace(program).map_err(&looking)?,
            init,
            view,
            host,
            told: AtomicBool::new(false),
        })
    }

    /// Answers calls as long as there is anybody to make them. Each has a thread, since HOST may be slow, or
    /// away; there are no more of them than callers.
    pub(super) fn serve(self: Arc<Self>) {
        loop {
            let held = match sys::receive(&self.listener) {
                Ok(held) => held,
                Err(Errno::EINTR | Errno::ENOENT) => continue,
                Err(errno) => {
                    tracing::error!(
                        "system calls of the program are not received any more: {errno}"
                    );
                    return;
                }
            };
            let this = Arc::clone(&self);
            let thread = std::thread::Builder::new().name("offload/call".into());
            let spawned = thread.spawn(move || {
                let answer = this.handle(&held);
                sys::answer(&this.listener, held.id, answer);
            });
            if let Err(error) = spawned {
                tracing::error!("a system call of the program fails: no thread for it ({error})");
                sys::answer(&self.listener, held.id, Answer::Done(Err(Errno::EAGAIN)));
            }
        }
    }

    fn handle(&self, held: &Held) -> Answer {
        let decision = self.decide(held).unwrap_or_else(Decision::Fails);
        if !sys::is_valid(&self.listener, held.id) {
            return Answer::Done(Err(Errno::EINTR));
        }
        tracing::debug!("thread {}: {decision:?}", held.tid);
        self.execute(held, decision)
            .unwrap_or_else(|errno| Answer::Done(Err(errno)))
    }

    fn text(&self, held: &Held, argument: usize, most: usize) -> Result<Vec<u8>, Errno> {
        match held.arguments[argument] {
            0 => Ok(Vec::new()),
            address => self.view.text(held.tid, address, most),
        }
    }

    /// The `data` of mount(2): what the kernel would read, up to a page.
    fn data(&self, held: &Held) -> Result<Vec<u8>, Errno> {
        match self.text(held, 4, DATA_MAX) {
            Err(Errno::ENAMETOOLONG) => Err(Errno::EINVAL),
            read => read,
        }
    }

    fn decide(&self, held: &Held) -> Result<Decision, Errno> {
        match sys::about(held.number) {
            About::Nothing => self.about_mounts(held),
            // In a pid namespace of its own a program knows none of HOST's processes.
            _ if !self.view.has_pids_of(held.tid, self.init)? => Ok(Decision::Local),
            About::Signal {
                whom,
                signal,
                info,
                thread,
            } => {
                // CAST: the kernel takes ints.
                let (pid, signal) = (held.arguments[whom] as i32, held.arguments[signal] as i32);
                if !decide::is_of_host(pid) {
                    return Ok(Decision::Local);
                }
                if !self.view.can(held.tid, CAP_KILL)? {
                    return Ok(Decision::Fails(Errno::EPERM));
                }
                let info =
                    info.map(|info| self.view.bytes(held.tid, held.arguments[info], SIGINFO));
                Ok(Decision::Kill {
                    pid,
                    signal,
                    thread,
                    info: info.transpose()?.map(Bytes),
                })
            }
            // There is no descriptor of this machine for it. Go takes that for an older kernel, and uses kill(2).
            About::Descriptor => Ok(Decision::Fails(Errno::ENOSYS)),
            About::Schedule => {
                // Of a group or a user those of this machine.
                let Some((pid, call)) = schedule::read(&self.view, held)? else {
                    return Ok(Decision::Local);
                };
                let needed = match call.needs() {
                    Need::Nothing => None,
                    Need::Nice => Some(CAP_SYS_NICE),
                    Need::Resource => Some(CAP_SYS_RESOURCE),
                };
                Ok(match needed {
                    Some(needed) if !self.view.can(held.tid, needed)? => {
                        Decision::Fails(Errno::EPERM)
                    }
                    _ => Decision::Schedule { pid, call },
                })
            }
        }
    }

    fn about_mounts(&self, held: &Held) -> Result<Decision, Errno> {
        // The kernel refuses, or it is about what the program's own user namespace owns.
        if !self.view.can(held.tid, CAP_SYS_ADMIN)? {
            return Ok(Decision::Local);
        }
        // What a program mounts in a namespace of its own is seen by nobody else, and so not by HOST.
        if self.view.namespace(held.tid)? != self.namespace {
            return Ok(Decision::Local);
        }
        match held.number {
            libc::SYS_mount => {
                let call = decide::Mount {
                    source: self.text(held, 0, PATH_MAX)?,
                    target: self.text(held, 1, PATH_MAX)?,
                    kind: self.text(held, 2, PATH_MAX)?,
                    flags: decide::without_magic(held.arguments[3]),
                    data: self.data(held)?,
                };
                decide::mount(&self.view, held.tid, &call)
            }
            libc::SYS_umount2 => {
                let target = self.text(held, 0, PATH_MAX)?;
                let flags = held.arguments[1];
                Ok(decide::unmount(&self.view, held.tid, &target, flags))
            }
            // dockerd tries it on a mount of its own, and has it for mounts of HOST's runc (`-v …:ro`).
            libc::SYS_mount_setattr => {
                let path = self.text(held, 1, PATH_MAX)?;
                // CAST: the kernel takes ints.
                let (directory, flags) = (held.arguments[0] as i32, held.arguments[2] as i32);
                let place = self
                    .view
                    .place_at(held.tid, directory, path_of(&path), flags);
                match place {
                    Ok(Place::Host(_)) => Ok(self.no_descriptors()),
                    // What cannot be found is an error that this kernel tells best.
                    _ => Ok(Decision::Local),
                }
            }
            // A mount that is a descriptor of this machine cannot be moved to HOST. Programs take ENOSYS for
            // an older kernel, and use mount(2).
            _ => Ok(self.no_descriptors()),
        }
    }

    fn no_descriptors(&self) -> Decision {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::info!(
                "fsopen, fspick, open_tree, move_mount and, below HOST's directories, mount_setattr are ENOSYS for the \
                 program, so that it uses mount(2), which can be done on HOST"
            );
        }
        Decision::Fails(Errno::ENOSYS)
    }

    fn execute(&self, held: &Held, decision: Decision) -> Result<Answer, Errno> {
        let request = match decision {
            Decision::Local => return Ok(Answer::Continue),
            Decision::Fails(errno) => return Err(errno),
            Decision::Refused(errno, why) => {
                tracing::warn!("refused to the program: {why}");
                return Err(errno);
            }
            Decision::Network(target) => {
                stand_in(self.view.procfs(), &target)?;
                return Ok(Answer::Done(Ok(0)));
            }
            Decision::Schedule { pid, call } => {
                let request = Request::Schedule {
                    pid,
                    call: call.clone(),
                };
                let reply = self.ask(held, &request)?;
                // HOST may have taken long, and the thread's number may be another's by now.
                if !sys::is_valid(&self.listener, held.id) {
                    return Err(Errno::EINTR);
                }
                schedule::write(&self.view, held, &call, &reply)?;
                return Ok(Answer::Done(Ok(reply.value)));
            }
            Decision::Mount {
                kind,
                source,
                target,
                flags,
                parameters,
            } => Request::Mount {
                kind,
                source,
                before: Some(self.look(held, &target)?),
                target: target.as_path().into(),
                flags,
                parameters,
            },
            Decision::Bind {
                source,
                target,
                flags,
            } => Request::Bind {
                source: source.as_path().into(),
                before: Some(self.look(held, &target)?),
                target: target.as_path().into(),
                flags,
            },
            Decision::Change {
                target,
                flags,
                data,
            } => Request::Change {
                target: target.as_path().into(),
                flags,
                data,
            },
            Decision::Unmount { target, flags } => Request::Unmount {
                before: Some(self.look(held, &target)?),
                target: target.as_path().into(),
                flags,
            },
            Decision::Kill {
                pid,
                signal,
                thread,
                info,
            } => Request::Kill {
                pid,
                signal,
                thread,
                info,
            },
        };
        self.ask(held, &request)?;
        Ok(Answer::Done(Ok(0)))
    }

    /// Which mount is at a place of HOST.
    fn look(&self, held: &Held, target: &Path) -> Result<u64, Errno> {
        let target = Bytes::from(target);
        Ok(self.ask(held, &Request::Look { target })?.mount)
    }

    fn ask(&self, held: &Held, request: &Request) -> Result<Reply, Errno> {
        let wanted = || sys::is_valid(&self.listener, held.id);
        let reply = self.host.ask(request, &wanted)?;
        if let Some(why) = &reply.why {
            tracing::warn!("refused by HOST: {why}");
        }
        match Errno::from_raw(reply.errno) {
            _ if reply.errno == 0 => Ok(reply),
            errno => {
                tracing::debug!("HOST says {errno} to {request:?}");
                Err(errno)
            }
        }
    }
}

/// Mounts a new, empty network namespace of this machine on a file. A daemon that enters it finds a loopback
/// device, which is what it looks for; the container's own network is set up on HOST by runc.
fn stand_in(procfs: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    let errno = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
    let make = || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
        // By a link of procfs, so that it is the namespace itself that is opened.
        let namespace = process::open_path(procfs, "thread-self/ns/net")?;
        let how = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let mount = rustix::mount::open_tree(&namespace, c"", how).map_err(errno)?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&mount, c"", target, c"", flags).map_err(errno)
    };
    let done = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("offload/network".into());
        thread.spawn_scoped(scope, make).map(|t| t.join())
    });
    match done {
        Ok(Ok(done)) => done,
        Ok(Err(_)) | Err(_) => Err(Errno::EAGAIN),
    }
}
