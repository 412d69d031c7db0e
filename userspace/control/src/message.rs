// SPDX-License-Identifier: GPL-2.0

//! Requests and replies: one JSON object each, on a line of its own. A connection has one request
//! at a time.
//!
//! Paths are HOST's, absolute. A request that was lost with its connection may be sent again: then what
//! a mount or unmount finds at its target (`before`, see [`Request::Look`]) tells whether it was
//! done already. The first time another mount there is somebody else's.

use crate::schedule::Schedule;
use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde::Serialize;
use std::ffi::OsString;
use std::io;
use std::io::BufRead;
use std::io::Read;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;

/// Longest message, bytes. 500 layers of an overlay are about a quarter of it.
pub const MAX: u64 = 1 << 20;

/// Size of `siginfo_t` (`SI_MAX_SIZE` of `<asm-generic/siginfo.h>`), bytes.
pub const SIGINFO: usize = 128;

/// A path or text as its bytes, which need not be UTF-8.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(from = "Text", into = "Text")]
pub struct Bytes(pub Vec<u8>);

/// How [`Bytes`] travel: readable where that is possible.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Text {
    Utf8(String),
    Other(Vec<u8>),
}

impl From<Text> for Bytes {
    fn from(text: Text) -> Self {
        match text {
            Text::Utf8(text) => Self(text.into_bytes()),
            Text::Other(bytes) => Self(bytes),
        }
    }
}

impl From<Bytes> for Text {
    fn from(bytes: Bytes) -> Self {
        String::from_utf8(bytes.0).map_or_else(|e| Self::Other(e.into_bytes()), Self::Utf8)
    }
}

impl From<&Path> for Bytes {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().to_owned().into_vec())
    }
}

impl Bytes {
    /// As a path.
    pub fn path(&self) -> PathBuf {
        OsString::from_vec(self.0.clone()).into()
    }
}

/// An option of a file system, as in the `data` of mount(2).
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// Its name. `lowerdir+` is one layer, in the order of an overlay's layers.
    pub key: String,
    /// What it is set to.
    pub value: Option<Bytes>,
}

/// What engine is asked to do.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Which mount is at `target`? [`Reply::mount`] tells.
    Look {
        /// A file or directory.
        target: Bytes,
    },
    /// Which boot of HOST it is.
    Boot,
    /// mount(2) of a new file system.
    Mount {
        /// Type, such as `overlay`.
        kind: String,
        /// What is mounted, as mount tables show it.
        source: Bytes,
        /// Where to.
        target: Bytes,
        /// `MS_*`.
        flags: u64,
        /// The options.
        parameters: Vec<Parameter>,
        /// The mount that was at the target before, if the request was sent before.
        before: Option<u64>,
    },
    /// mount(2) with `MS_BIND`.
    Bind {
        /// What is to be seen at the target.
        source: Bytes,
        /// Where to.
        target: Bytes,
        /// `MS_*`.
        flags: u64,
        /// The mount that was at the target before, if the request was sent before.
        before: Option<u64>,
    },
    /// mount(2) with `MS_REMOUNT`, or one of `MS_SHARED`, `MS_PRIVATE`, `MS_SLAVE`, `MS_UNBINDABLE`.
    Change {
        /// The mount.
        target: Bytes,
        /// `MS_*`.
        flags: u64,
        /// The `data` of a remount.
        data: Bytes,
    },
    /// umount2(2).
    Unmount {
        /// The mount.
        target: Bytes,
        /// `MNT_*` and `UMOUNT_NOFOLLOW`.
        flags: u64,
        /// The mount that was at the target before, if the request was sent before.
        before: Option<u64>,
    },
    /// kill(2) of one process, or tkill(2) of a thread, or what sends more than the number of the signal.
    Kill {
        /// Its id on HOST.
        pid: i32,
        /// The signal; 0 only asks whether it could be sent.
        signal: i32,
        /// It is for the thread of this id alone.
        #[serde(default)]
        thread: bool,
        /// The `siginfo_t` of rt_sigqueueinfo(2), [`SIGINFO`] bytes.
        #[serde(default)]
        info: Option<Bytes>,
    },
    /// How a process or thread is scheduled.
    Schedule {
        /// Its id on HOST.
        pid: i32,
        /// What is asked or changed; [`Reply::value`] and [`Reply::bytes`] are what the kernel says.
        call: Schedule,
    },
}

impl Request {
    /// The request as it is sent the first time.
    pub fn first(&self) -> Self {
        let mut first = self.clone();
        match &mut first {
            Self::Mount { before, .. }
            | Self::Bind { before, .. }
            | Self::Unmount { before, .. } => {
                *before = None;
            }
            Self::Boot
            | Self::Look { .. }
            | Self::Change { .. }
            | Self::Kill { .. }
            | Self::Schedule { .. } => {}
        }
        first
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// 0, or an errno of x86's and arm64's common numbers.
    pub errno: i32,
    /// Unique id of the mount (`STATX_MNT_ID_UNIQUE`), for [`Request::Look`].
    pub mount: u64,
    /// For [`Request::Boot`].
    pub boot: Option<String>,
    /// What a system call returned, for [`Request::Schedule`].
    #[serde(default)]
    pub value: i64,
    /// What the kernel wrote, likewise.
    #[serde(default)]
    pub bytes: Bytes,
    /// Why it was refused, for the log of the DPU.
    pub why: Option<String>,
}

/// Writes one message.
pub fn send<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads one message; None at the end.
pub fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let len = from.by_ref().take(MAX).read_until(b'\n', &mut line)?;
    if len == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        // Either too long, or the connection was lost in the middle of it.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were() {
        let odd = Bytes(b"/a\xff\nb".to_vec());
        let requests = [
            Request::Look {
                target: odd.clone(),
            },
            Request::Mount {
                kind: "overlay".into(),
                source: Bytes(b"overlay".to_vec()),
                target: odd,
                flags: 6,
                parameters: vec![Parameter {
                    key: "lowerdir+".into(),
                    value: Some(Bytes(b"/l".to_vec())),
                }],
                before: Some(u64::MAX),
            },
            Request::Kill {
                pid: 7,
                signal: 9,
                thread: false,
                info: Some(Bytes(vec![0xff; SIGINFO])),
            },
            Request::Schedule {
                pid: 8,
                call: Schedule::SetAffinity(Bytes(vec![0xff, 0, 1])),
            },
        ];
        let mut wire = Vec::new();
        for request in &requests {
            send(&mut wire, request).unwrap();
        }
        let mut wire = wire.as_slice();
        for request in requests {
            assert_eq!(receive(&mut wire).unwrap(), Some(request));
        }
        assert_eq!(receive::<Request>(&mut wire).unwrap(), None);
    }

    #[test]
    fn half_a_message_and_nonsense_are_errors() {
        for wire in ["{\"kill\":{\"pid\":1", "no\n", "{\"dance\":{}}\n"] {
            assert!(receive::<Request>(&mut wire.as_bytes()).is_err(), "{wire}");
        }
        let long = vec![b' '; MAX as usize + 1];
        assert!(receive::<Request>(&mut long.as_slice()).is_err());
    }
}
