// SPDX-License-Identifier: GPL-2.0

//! Who may run what, and as whom. All decisions of the server are here, and none elsewhere.

use crate::config::matches;
use crate::config::Config;
use crate::failure::errno_text;
use crate::message::Reason;
use crate::message::Refusal;
use crate::start::Identity;
use crate::start::Start;
use nix::unistd::Group;
use nix::unistd::User;
use std::ffi::CString;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

/// Where programs are looked for when nothing says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who is at the other end of a connection, as far as it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine, by its socket: user and group id.
    Local(u32, u32),
    /// The holder of a certificate with this name.
    Certificate(String),
    /// The holder of the key that both sides have.
    SharedKey,
    /// The virtual machine with this context id.
    Vsock(u32),
    /// Anybody.
    Insecure,
}

impl fmt::Display for Peer {
    /// The name that the configuration has for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(uid, _) => write!(f, "uid:{uid}"),
            Self::Certificate(name) => f.write_str(name),
            Self::SharedKey => f.write_str("shared-key"),
            Self::Vsock(cid) => write!(f, "vsock:{cid}"),
            Self::Insecure => f.write_str("insecure"),
        }
    }
}

/// What was decided about a START.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The program's file.
    pub program: PathBuf,
    /// The identity to take; `None` for the server's own, which then is the caller's.
    pub identity: Option<Identity>,
    /// Whether the peer's word counts for limits and nice value beyond what the user may have.
    pub trusted: bool,
    /// The environment, `NAME=VALUE` each.
    pub environment: Vec<Vec<u8>>,
}

/// The server's policy.
#[derive(Debug)]
pub struct Policy {
    config: Config,
    file: PathBuf,
    host: String,
    path: String,
    own_uid: u32,
}

impl Policy {
    /// The policy of `config`, which was read from `file`, on the machine `host`.
    pub fn new(config: Config, file: &Path, host: &str) -> Self {
        let path = config.environment.set.get("PATH").cloned();
        Self {
            path: path
                .or_else(|| std::env::var("PATH").ok())
                .unwrap_or_else(|| PATH.into()),
            config,
            file: file.into(),
            host: host.into(),
            own_uid: nix::unistd::geteuid().as_raw(),
        }
    }

    /// The host's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether `peer` may talk to this server at all.
    pub fn admits(&self, peer: &Peer) -> Result<(), Refusal> {
        let refuse = |text: String| Err(Refusal::new(Reason::Authentication, text));
        match peer {
            // A server that is not root runs everything as itself, so only for itself.
            Peer::Local(uid, _) if self.own_uid != 0 && *uid != 0 && *uid != self.own_uid => refuse(format!(
                "the server on {} runs as user {} and serves no other: ask as that user, or let root run it",
                self.host, self.own_uid
            )),
            Peer::Vsock(_) if !self.config.insecure && self.known(peer).is_none() => refuse(format!(
                "{peer} is not known to {} on {}: add [[peer]] name = \"{peer}\" there",
                self.file.display(),
                self.host
            )),
            _ => Ok(()),
        }
    }

    fn known(&self, peer: &Peer) -> Option<&crate::config::Peer> {
        let name = peer.to_string();
        self.config.peer.iter().find(|known| known.name == name)
    }

    /// Decides about a START of `peer`.
    pub fn decide(&self, peer: &Peer, start: &Start) -> Result<Decision, Refusal> {
        let trusted = self.trusts(peer);
        let identity = self.identity(peer, start, trusted)?;
        Ok(Decision {
            program: self.find(peer, start)?,
            identity,
            trusted,
            environment: self.environment(start),
        })
    }

    /// The environment that the program gets.
    fn environment(&self, start: &Start) -> Vec<Vec<u8>> {
        let rules = &self.config.environment;
        let name = |variable: &[u8]| {
            variable
                .split(|byte| *byte == b'=')
                .next()
                .map(<[u8]>::to_vec)
        };
        let passed = start.environment.iter().filter(|variable| {
            name(variable).is_some_and(|name| {
                rules.passes(&name) && !rules.set.keys().any(|set| set.as_bytes() == name)
            })
        });
        let mut environment: Vec<Vec<u8>> = passed.map(|variable| variable.to_vec()).collect();
        environment.extend(
            rules
                .set
                .iter()
                .map(|(name, value)| format!("{name}={value}").into_bytes()),
        );
        let has_path = environment
            .iter()
            .any(|variable| variable.starts_with(b"PATH="));
        if !has_path {
            environment.push(format!("PATH={}", self.path).into_bytes());
        }
        environment
    }

    /// The file that a shell here would run for the first argument, if the peer may run it.
    fn find(&self, peer: &Peer, start: &Start) -> Result<PathBuf, Refusal> {
        let name = &start.arguments[0];
        let as_path = Path::new(OsStr::from_bytes(name));
        let candidates: Vec<PathBuf> = if name.contains(&b'/') {
            let directory = Path::new(OsStr::from_bytes(&start.directory));
            let program = resolve_parent(&directory.join(as_path));
            // First, so that nobody learns which files there are besides.
            self.allow(peer, &program)?;
            vec![program]
        } else {
            let directories = self.path.split(':').filter(|entry| entry.starts_with('/'));
            directories
                .map(|entry| resolve_parent(&Path::new(entry).join(as_path)))
                .collect()
        };
        let mut unusable = None;
        for candidate in candidates {
            match executable(&candidate) {
                Ok(()) => {
                    self.allow(peer, &candidate)?;
                    return Ok(candidate);
                }
                Err(nix::libc::ENOENT | nix::libc::ENOTDIR) => {}
                Err(number) => unusable = unusable.or(Some(number)),
            }
        }
        let shown = String::from_utf8_lossy(name);
        let (reason, number) = match unusable {
            Some(number) => (Reason::CannotRun, number),
            None => (Reason::NotFound, nix::libc::ENOENT),
        };
        let text = match unusable {
            None if !name.contains(&b'/') => format!(
                "{shown}: command not found on {} in {}",
                self.host, self.path
            ),
            _ => format!("{shown}: {} on {}", errno_text(number), self.host),
        };
        Err(Refusal::new(reason, text))
    }

    fn allow(&self, peer: &Peer, program: &Path) -> Result<(), Refusal> {
        let name = peer.to_string();
        let allowed = self.config.allow.iter().any(|allow| {
            let peers = allow.peers.as_ref();
            peers.is_none_or(|peers| peers.contains(&name)) && permits(&allow.program, program)
        });
        if allowed {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::NotAllowed,
            format!(
                "{}: not allowed by {} on {} for peer {name}: add it there as [[allow]] program",
                program.display(),
                self.file.display(),
                self.host
            ),
        ))
    }

    /// Whether what the peer says of its callers is believed.
    fn trusts(&self, peer: &Peer) -> bool {
        let known = self.known(peer);
        match peer {
            Peer::Local(uid, _) => *uid == 0,
            Peer::Insecure => known.is_none_or(|known| known.user.is_none()),
            Peer::Vsock(_) => known.map_or(self.config.insecure, |known| known.root),
            _ => known.is_some_and(|known| known.root),
        }
    }

    /// Whom the program runs as.
    fn identity(
        &self,
        peer: &Peer,
        start: &Start,
        trusted: bool,
    ) -> Result<Option<Identity>, Refusal> {
        let wanted = self.wanted(peer, start, trusted)?;
        if self.own_uid != 0 {
            // Nothing can be changed, so it must be right as it is.
            return match wanted.uid {
                uid if uid == self.own_uid || start.user.is_empty() => Ok(None),
                _ => Err(Refusal::new(
                    Reason::CannotRun,
                    format!(
                        "the server on {} is not root and cannot become user {}",
                        self.host, wanted.uid
                    ),
                )),
            };
        }
        Ok(Some(wanted))
    }

    fn wanted(&self, peer: &Peer, start: &Start, trusted: bool) -> Result<Identity, Refusal> {
        let asked = String::from_utf8_lossy(&start.user);
        let known = self.known(peer);
        if trusted {
            if asked.is_empty() {
                return Ok(start.caller.clone());
            }
            // Only root may become somebody else, also where its word is taken for who it is.
            if start.caller.uid == 0 {
                return self.look_up(&asked);
            }
        }
        let own = match (peer, known.and_then(|known| known.user.as_deref())) {
            (_, Some(user)) => self.look_up(user)?,
            (Peer::Local(uid, gid), None) => match self.look_up(&uid.to_string()) {
                Ok(user) => Identity { gid: *gid, ..user },
                Err(_) => Identity {
                    uid: *uid,
                    gid: *gid,
                    groups: Vec::new(),
                },
            },
            _ if trusted => start.caller.clone(),
            (_, None) => {
                return Err(Refusal::new(
                    Reason::NotAllowed,
                    format!(
                        "peer {peer}: not allowed by {} on {}: add [[peer]] name = \"{peer}\" with user = \"NAME\", or root = true",
                        self.file.display(),
                        self.host
                    ),
                ));
            }
        };
        if asked.is_empty()
            || self
                .look_up(&asked)
                .is_ok_and(|other| other.uid == own.uid && other.gid == own.gid)
        {
            return Ok(own);
        }
        Err(Refusal::new(
            Reason::NotAllowed,
            format!("user {asked}: not allowed by {} on {} for peer {peer}: only root may ask for others", self.file.display(), self.host),
        ))
    }

    /// The identity of `USER[:GROUP]`, names or numbers.
    fn look_up(&self, text: &str) -> Result<Identity, Refusal> {
        let missing = |what: &str, name: &str| {
            Refusal::new(
                Reason::CannotRun,
                format!("there is no {what} {name:?} on {}", self.host),
            )
        };
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let entry = match user.parse::<u32>() {
            Ok(uid) => User::from_uid(uid.into()),
            Err(_) => User::from_name(user),
        };
        let entry = entry.ok().flatten();
        let (uid, mut gid) = match (&entry, user.parse::<u32>()) {
            (Some(entry), _) => (entry.uid.as_raw(), entry.gid.as_raw()),
            // A number without a name is a user as well, when its group is said.
            (None, Ok(uid)) if group.is_some() => (uid, 0),
            (None, _) => return Err(missing("user", user)),
        };
        if let Some(group) = group {
            gid = match group.parse::<u32>() {
                Ok(gid) => gid,
                Err(_) => match Group::from_name(group) {
                    Ok(Some(group)) => group.gid.as_raw(),
                    _ => return Err(missing("group", group)),
                },
            };
        }
        let groups = entry
            .and_then(|entry| CString::new(entry.name).ok())
            .and_then(|name| nix::unistd::getgrouplist(&name, gid.into()).ok())
            .map(|groups| groups.into_iter().map(nix::unistd::Gid::as_raw).collect());
        Ok(Identity {
            uid,
            gid,
            groups: groups.unwrap_or_default(),
        })
    }
}

/// The path with its directory's symbolic links and dots resolved, but not its own link: what is
/// allowed is the name under which a program is called. Relative when there is no such file name
/// or directory; that is neither found nor allowed.
fn resolve_parent(path: &Path) -> PathBuf {
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        (_, Some(name)) => name.into(),
        // A directory, by "/" or by dots.
        (_, None) => path.canonicalize().unwrap_or_default(),
    }
}

/// Whether `pattern` of an `[[allow]]` is for `program`.
fn permits(pattern: &str, program: &Path) -> bool {
    let bytes = program.as_os_str().as_bytes();
    match pattern.strip_suffix('*') {
        Some(_) => matches(pattern, bytes),
        None => resolve_parent(Path::new(pattern)) == program && program.is_absolute(),
    }
}

/// Whether a file can be executed at all; the errno if not.
fn executable(path: &Path) -> Result<(), i32> {
    if !path.is_absolute() {
        return Err(nix::libc::ENOENT);
    }
    let meta =
        std::fs::metadata(path).map_err(|error| error.raw_os_error().unwrap_or(nix::libc::EIO))?;
    match (meta.is_file(), meta.permissions().mode() & 0o111) {
        (true, 0) => Err(nix::libc::EACCES),
        (true, _) => Ok(()),
        (false, _) if meta.is_dir() => Err(nix::libc::EISDIR),
        (false, _) => Err(nix::libc::EACCES),
    }
}
