// SPDX-License-Identifier: GPL-2.0

//! Which directories clients may use.
//!
//! Engine reads the policy file and hands the list over as a whole; requests that are being
//! executed go on with the list that they began with.

use kernel::{
    fmt, new_mutex,
    prelude::*,
    str::BStr,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Most exported directories.
const MAX_EXPORTS: usize = 256;
/// Longest list that engine may pass, in bytes.
pub(crate) const MAX_BYTES: usize = MAX_EXPORTS * (8 + qtfs_proto::PATH_MAX);

/// One exported directory.
struct Export {
    /// Absolute and canonical.
    path: KVec<u8>,
    read_only: bool,
}

impl Export {
    /// Whether `path` is the directory or below it.
    fn covers(&self, path: &[u8]) -> bool {
        let root = self.path.strip_suffix(b"/").unwrap_or(&self.path);
        match path.strip_prefix(root) {
            Some([]) => true,
            Some(rest) => rest.first() == Some(&b'/'),
            None => false,
        }
    }
}

/// What may be done somewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Nothing may be changed.
    pub(crate) read_only: bool,
}

/// The list of exported directories.
pub(crate) struct Policy {
    exports: KVec<Export>,
    /// Differs between any two policies.
    number: u64,
}

/// The policy that holds now.
#[pin_data]
pub(crate) struct Current {
    #[pin]
    policy: Mutex<Arc<Policy>>,
}

impl Current {
    /// Nothing is exported.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let policy = Arc::new(Policy::empty(), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                policy <- new_mutex!(policy),
            }),
            GFP_KERNEL,
        )
    }

    /// The policy.
    pub(crate) fn get(&self) -> Arc<Policy> {
        self.policy.lock().clone()
    }

    /// Sets another policy.
    pub(crate) fn set(&self, policy: &Arc<Policy>) {
        let old = core::mem::replace(&mut *self.policy.lock(), policy.clone());
        drop(old);
    }
}

impl Policy {
    /// Nothing is exported.
    pub(crate) fn empty() -> Self {
        Self {
            exports: KVec::new(),
            number: 0,
        }
    }

    /// Reads what engine passes to CONFIGURE: for each directory `u32` flags (1: read-only),
    /// `u32` length of the path, the path.
    pub(crate) fn parse(mut bytes: &[u8], number: u64) -> Result<Self> {
        let mut exports = KVec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_first_chunk::<8>().ok_or(EINVAL)?;
            let [a, b, c, d, e, f, g, h] = *head;
            let flags = u32::from_ne_bytes([a, b, c, d]);
            let len = usize::try_from(u32::from_ne_bytes([e, f, g, h]))?;
            let (path, rest) = rest.split_at_checked(len).ok_or(EINVAL)?;
            if flags > 1 || !is_canonical(path) || exports.len() >= MAX_EXPORTS {
                return Err(EINVAL);
            }
            let mut copy = KVec::with_capacity(len, GFP_KERNEL)?;
            copy.extend_from_slice(path, GFP_KERNEL)?;
            let export = Export {
                path: copy,
                read_only: flags == 1,
            };
            exports.push(export, GFP_KERNEL)?;
            bytes = rest;
        }
        Ok(Self { exports, number })
    }

    /// Whether an exported directory lies below `path`, so that it would move with it.
    pub(crate) fn has_below(&self, path: &[u8]) -> bool {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let is_below = |export: &Export| {
            let rest = export.path.strip_prefix(path);
            rest.is_some_and(|rest| rest.len() > 1 && rest.first() == Some(&b'/'))
        };
        self.exports.iter().any(is_below)
    }

    /// Whether `path` is an exported directory itself.
    pub(crate) fn has_at(&self, path: &[u8]) -> bool {
        self.exports.iter().any(|export| *export.path == *path)
    }

    /// The exported directory that covers `path`; the topmost if several do.
    pub(crate) fn top(&self, path: &[u8]) -> Option<&[u8]> {
        let covering = self.exports.iter().filter(|export| export.covers(path));
        let top = covering.min_by_key(|export| export.path.len())?;
        Some(&top.path)
    }

    /// Which policy it is.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// How many directories are exported.
    pub(crate) fn len(&self) -> usize {
        self.exports.len()
    }

    /// What may be done with `path`: as the longest exported directory says that covers it;
    /// nothing when there is none.
    pub(crate) fn rule(&self, path: &[u8]) -> Option<Rule> {
        let best = self
            .exports
            .iter()
            .filter(|export| export.covers(path))
            .max_by_key(|export| export.path.len())?;
        Some(Rule {
            read_only: best.read_only,
        })
    }
}

/// The exported directories as text for people, cut short when there are many.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exports.is_empty() {
            return f.write_str("nothing");
        }
        for (i, export) in self.exports.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if i == 8 {
                return f.write_fmt(fmt!("and {} more", self.exports.len() - i));
            }
            f.write_fmt(fmt!("{}", BStr::from_bytes(&export.path)))?;
        }
        Ok(())
    }
}

/// Whether a path is absolute, without empty components, `.` and `..`, and not too long.
pub(crate) fn is_canonical(path: &[u8]) -> bool {
    match path {
        b"/" => true,
        [b'/', rest @ ..] => {
            path.len() <= qtfs_proto::PATH_MAX
                && !path.contains(&0)
                && rest
                    .split(|&b| b == b'/')
                    .all(|name| !name.is_empty() && name != b"." && name != b"..")
        }
        _ => false,
    }
}
