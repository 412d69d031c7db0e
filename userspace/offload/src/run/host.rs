// SPDX-License-Identifier: GPL-2.0

//! Requests to engine on HOST.

use crate::failure::Failure;
use nix::errno::Errno;
use nix::mount::MsFlags;
use qtfs_control::message;
use qtfs_control::message::Reply;
use qtfs_control::message::Request;
use qtfs_control::mountinfo;
use std::io;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

/// Between two attempts to reach engine, at first and at most.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(1);
/// How often the log is told that engine is not reached.
const TELL: Duration = Duration::from_secs(10);

/// Mounts the directory of engine's socket, unless it is mounted.
pub(super) fn mount(control: &Path) -> Result<(), Failure> {
    let mounts = mountinfo::read().map_err(Failure::system("reading the table of mounts"))?;
    if mountinfo::containing(&mounts, control).is_some_and(mountinfo::Mount::is_qtfs) {
        return Ok(());
    }
    std::fs::create_dir_all(control).map_err(Failure::system("making engine's directory"))?;
    let none: Option<&Path> = None;
    let what = Path::new(qtfs_control::DIRECTORY);
    let mounted = nix::mount::mount(Some(what), control, Some("qtfs"), MsFlags::empty(), none);
    mounted.map_err(|errno| {
        let (what, here) = (what.display(), control.display());
        let todo = match errno {
            Errno::ENODEV => "qtfs.ko is not loaded: insmod qtfs.ko qtfs_server_ip=ADDRESS".to_owned(),
            Errno::EACCES => format!(
                "HOST's policy does not export it: add [[export]] path = \"{what}\", mode = \"rw\" to \
                 /etc/qtfs/engine.toml there, and pkill -HUP -x engine"
            ),
            errno => format!("{}: see dmesg here and engine's log on HOST", errno.desc()),
        };
        Failure::Unfit(format!("HOST's {what} cannot be mounted on {here}: {todo}"))
    })
}

type Connection = BufReader<UnixStream>;

/// Engine, by as many connections as there are requests at a time.
#[derive(Debug)]
pub(super) struct Host {
    socket: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

fn ask_once(connection: &mut Connection, request: &Request) -> io::Result<Reply> {
    message::send(connection.get_mut(), request)?;
    message::receive(connection)?.ok_or_else(|| io::ErrorKind::ConnectionReset.into())
}

impl Host {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            idle: Mutex::default(),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which boot of HOST it is; waits until engine answers.
    pub(super) fn boot(&self) -> String {
        let reply = self.ask(&Request::Boot, &|| true);
        reply.ok().and_then(|reply| reply.boot).unwrap_or_default()
    }

    /// Returns when HOST has been booted anew, and engine is there again. Costs nothing meanwhile: a
    /// connection to engine ends with it.
    pub(super) fn other_boot(&self, boot: &str) -> String {
        loop {
            if let Ok(mut stream) = UnixStream::connect(&self.socket) {
                // Engine says nothing that was not asked for.
                let _ = io::Read::read(&mut stream, &mut [0]);
            }
            std::thread::sleep(RETRY_MOST);
            let now = self.boot();
            if now != boot {
                return now;
            }
        }
    }

    /// Asks engine, until it answers or nobody waits any more (`wanted`), which is EINTR.
    pub(super) fn ask(&self, request: &Request, wanted: &dyn Fn() -> bool) -> Result<Reply, Errno> {
        let (mut pause, mut told) = (RETRY, Instant::now());
        // What is sent again once it may have arrived.
        let first = request.first();
        let mut sent = false;
        loop {
            let known = self.idle().pop();
            let was_known = known.is_some();
            let connection = match known {
                Some(connection) => Ok(connection),
                None => UnixStream::connect(&self.socket).map(BufReader::new),
            };
            let asked = connection.and_then(|mut connection| {
                let request = if sent { request } else { &first };
                sent = true;
                let reply = ask_once(&mut connection, request)?;
                Ok((connection, reply))
            });
            match asked {
                Ok((connection, reply)) => {
                    self.idle().push(connection);
                    return Ok(reply);
                }
                Err(_) if !wanted() => return Err(Errno::EINTR),
                // Engine was started anew since the connection was used.
                Err(_) if was_known => continue,
                Err(error) => {
                    if told.elapsed() > TELL {
                        tracing::warn!(
                            "a mount or signal waits, since engine on HOST is not reached at {} ({error}): \
                             is it running, and is udsproxyd running here?",
                            self.socket.display()
                        );
                        told = Instant::now();
                    }
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_MOST);
        }
    }
}
