// SPDX-License-Identifier: GPL-2.0

//! The configuration file of both programs, `/etc/qtfs/rexec.toml`.
//!
//! `Documentation/rexec.md` describes it. Flags win over the environment, and that over the file.

use crate::address::Address;
use crate::failure::Failure;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// Where the configuration is unless told otherwise.
pub const FILE: &str = "/etc/qtfs/rexec.toml";

/// The file as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where rexec finds its server.
    pub connect: Option<Address>,
    /// The socket of rexec-agent, which keeps connections to `connect`.
    pub agent: Option<PathBuf>,
    /// Where rexec_server listens.
    pub listen: Listen,
    /// TCP and vsock may go without TLS, in clear and without proof of who is there.
    pub insecure: bool,
    /// Seconds after which a silent link counts as lost.
    pub link_timeout: Option<u16>,
    /// Seconds that setting up a connection may take.
    pub connect_timeout: Option<u16>,
    /// Most programs that run at a time.
    pub max_sessions: Option<u32>,
    /// The keys.
    pub tls: Option<Tls>,
    /// Which variables pass.
    pub environment: Environment,
    /// The programs that may be run.
    pub allow: Vec<Allow>,
    /// What is known about those who connect.
    pub peer: Vec<Peer>,
    /// The programs for `rexec-wrappers`.
    pub wrapper: Vec<Wrapper>,
}

/// One address or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Listen {
    /// One.
    One(Address),
    /// Several.
    Many(Vec<Address>),
}

impl Default for Listen {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Listen {
    /// The addresses.
    pub fn addresses(&self) -> &[Address] {
        match self {
            Self::One(address) => std::slice::from_ref(address),
            Self::Many(addresses) => addresses,
        }
    }
}

/// `[tls]`: either certificates or one key that both sides know.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// This side's certificate chain, PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// The certificates of those who may vouch for the peer, PEM.
    pub authority: Option<PathBuf>,
    /// The name in the server's certificate, when it is not the host of the address.
    pub server_name: Option<String>,
    /// A file of at least 32 bytes that both sides have, instead of certificates.
    pub shared_key: Option<PathBuf>,
}

/// `[environment]`: which variables pass, applied by the caller and then by the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Environment {
    /// Names that pass; `*` at the end stands for anything.
    pub pass: Vec<String>,
    /// Names that do not, even if they are in `pass`.
    pub drop: Vec<String>,
    /// Variables that the server sets, whatever was passed.
    pub set: BTreeMap<String, String>,
}

impl Default for Environment {
    fn default() -> Self {
        // Where programs and libraries are, and who waits for which message, is each machine's
        // own business.
        let drop = [
            "PATH",
            "LD_*",
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "INVOCATION_ID",
            "JOURNAL_STREAM",
            "CMD_NET_ADDR",
            "REXEC_*",
        ];
        Self {
            pass: vec!["*".into()],
            drop: drop.map(Into::into).into(),
            set: BTreeMap::new(),
        }
    }
}

/// `[[allow]]`: a program that may be run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// Its absolute path; `*` at the end stands for anything.
    pub program: String,
    /// Names of the peers that may; all who are let in when it is left out.
    pub peers: Option<Vec<String>>,
}

/// `[[peer]]`: somebody who connects.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name: that in its certificate, `shared-key`, `vsock:CID`, `uid:NUMBER` or `insecure`.
    pub name: String,
    /// What it says about who its callers are is believed, root included.
    #[serde(default)]
    pub root: bool,
    /// Everything it runs is run as this user, `USER[:GROUP]`.
    pub user: Option<String>,
}

/// `[[wrapper]]`: a script that stands in for a program of the other machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrapper {
    /// Where it goes: an absolute path below the root that is given to `rexec-wrappers`.
    pub path: PathBuf,
    /// What it runs there; the last part of `path` when it is left out.
    pub program: Option<String>,
    /// Arguments before those of the caller.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Where its server is, when it is not `connect`.
    pub connect: Option<Address>,
    /// Descendants of the program live on.
    #[serde(default)]
    pub detach: bool,
    /// Working directory there; the caller's when it is left out.
    pub directory: Option<PathBuf>,
}

impl Config {
    /// Reads `file`, or the usual one, which need not exist.
    pub fn read(file: Option<&Path>) -> Result<Self, Failure> {
        let path = file.unwrap_or(Path::new(FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if file.is_none() && error.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(Failure::Usage(format!(
                "{}: cannot be read ({error}): it must be a text file that the caller can read",
                path.display()
            ))),
        }
    }

    /// Takes `text` for the contents of `file`.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Failure> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let place = error.span().map_or_else(String::new, |span| {
                let before = text.get(..span.start).unwrap_or(text);
                let line = before.matches('\n').count() + 1;
                format!("{line}: ")
            });
            let what = error.message().trim().replace('\n', ", ");
            Failure::Usage(format!("{}:{place}{what}", file.display()))
        })?;
        config
            .check()
            .map_err(|what| Failure::Usage(format!("{}: {what}", file.display())))?;
        Ok(config)
    }

    /// Says what makes no sense, in one line.
    pub fn check(&self) -> Result<(), String> {
        for allow in &self.allow {
            if allow.program != "*" && !allow.program.starts_with('/') {
                return Err(format!(
                    "[[allow]] program = {:?}: give an absolute path, or \"*\" for everything",
                    allow.program
                ));
            }
        }
        for peer in &self.peer {
            if peer.root && peer.user.is_some() {
                return Err(format!(
                    "[[peer]] {:?} has both root and user: with root, callers run as whom they say they are",
                    peer.name
                ));
            }
        }
        if let Some(tls) = &self.tls {
            let certificates = [&tls.certificate, &tls.key, &tls.authority];
            let given = certificates.iter().filter(|file| file.is_some()).count();
            match (given, &tls.shared_key) {
                (3, None) | (0, Some(_)) => {}
                (0, None) => {
                    return Err(
                        "[tls] has no keys: give certificate, key and authority, or shared_key"
                            .into(),
                    )
                }
                (_, Some(_)) => {
                    return Err("[tls] has shared_key and certificates: keep one of them".into())
                }
                (_, None) => return Err("[tls] needs all of certificate, key and authority".into()),
            }
        }
        for wrapper in &self.wrapper {
            if !wrapper.path.is_absolute() || wrapper.path.file_name().is_none() {
                return Err(format!(
                    "[[wrapper]] path = {:?}: give an absolute path",
                    wrapper.path
                ));
            }
        }
        for (what, seconds) in [
            ("link_timeout", self.link_timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if seconds.is_some_and(|seconds| !(1..=3600).contains(&seconds)) {
                return Err(format!("{what}: give 1 to 3600 seconds"));
            }
        }
        Ok(())
    }
}

impl Environment {
    /// Whether the variable `name` passes.
    pub fn passes(&self, name: &[u8]) -> bool {
        let listed = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        listed(&self.pass) && !listed(&self.drop)
    }
}

/// Whether `pattern`, where `*` at the end stands for anything, is a pattern of `name`.
pub fn matches(pattern: &str, name: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix.as_bytes()),
        None => name == pattern.as_bytes(),
    }
}
