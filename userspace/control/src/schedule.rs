// SPDX-License-Identifier: GPL-2.0

//! Calls about how a process of HOST is scheduled: the arguments that they have besides the process.
//!
//! Structures are the kernel's own (`<linux/sched/types.h>`, `<linux/resource.h>`), which are alike on
//! all 64-bit machines with the least byte first.

use crate::message::Bytes;
use serde::Deserialize;
use serde::Serialize;

/// Bytes of a `struct sched_param`.
pub const PARAM: usize = 4;
/// Least and most bytes of a `struct sched_attr`.
pub const ATTR: std::ops::RangeInclusive<usize> = 48..=4096;
/// Most bytes of a set of processors: 8,192 of them, Linux's `NR_CPUS` at most.
pub const MASK: usize = 1024;
/// Bytes of a `struct rlimit64`.
pub const LIMIT: usize = 16;

/// A call.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// sched_getaffinity(2), with room for so many bytes.
    GetAffinity(u32),
    /// sched_setaffinity(2).
    SetAffinity(Bytes),
    /// sched_getscheduler(2).
    GetScheduler,
    /// sched_setscheduler(2).
    SetScheduler {
        /// `SCHED_*`.
        policy: i32,
        /// [`PARAM`] bytes.
        param: Bytes,
    },
    /// sched_getparam(2).
    GetParam,
    /// sched_setparam(2).
    SetParam(Bytes),
    /// sched_getattr(2).
    GetAttr {
        /// Room, in bytes.
        size: u32,
        /// None are known.
        flags: u32,
    },
    /// sched_setattr(2).
    SetAttr {
        /// As many bytes as it says itself.
        attr: Bytes,
        /// None are known.
        flags: u32,
    },
    /// getpriority(2) of one process, as the system call returns it: 20 less the nice value.
    GetPriority,
    /// setpriority(2) of one process.
    SetPriority(i32),
    /// ioprio_get(2) of one process.
    GetIoPriority,
    /// ioprio_set(2) of one process.
    SetIoPriority(i32),
    /// prlimit(2); returns the limit that there was.
    Limit {
        /// `RLIMIT_*`.
        resource: u32,
        /// [`LIMIT`] bytes, to set one.
        new: Option<Bytes>,
    },
}

impl Schedule {
    /// How many bytes the kernel may write, or None if an argument has a length that it cannot have.
    pub fn room(&self) -> Option<usize> {
        let fixed = |bytes: &Bytes, len: usize| (bytes.0.len() == len).then_some(0);
        match self {
            // CAST: a u32 fits.
            Self::GetAffinity(room) => Some(*room as usize).filter(|room| *room <= MASK),
            Self::SetAffinity(mask) => (mask.0.len() <= MASK).then_some(0),
            Self::GetScheduler
            | Self::GetPriority
            | Self::SetPriority(_)
            | Self::GetIoPriority
            | Self::SetIoPriority(_) => Some(0),
            Self::SetScheduler { param, .. } | Self::SetParam(param) => fixed(param, PARAM),
            Self::GetParam => Some(PARAM),
            // CAST: a u32 fits.
            Self::GetAttr { size, .. } => Some(*size as usize).filter(|size| ATTR.contains(size)),
            Self::SetAttr { attr, .. } => {
                let said = attr.0.first_chunk().map(|size| u32::from_ne_bytes(*size));
                // The kernel takes 0 for the least.
                let said = said.map(|said| (said as usize).max(*ATTR.start()));
                (said == Some(attr.0.len()) && ATTR.contains(&attr.0.len())).then_some(0)
            }
            Self::Limit { new, .. } => match new {
                Some(new) => fixed(new, LIMIT).map(|_| LIMIT),
                None => Some(LIMIT),
            },
        }
    }

    /// Whether it changes something, or tells what not everybody may know.
    pub fn needs(&self) -> Need {
        match self {
            Self::GetAffinity(_)
            | Self::GetScheduler
            | Self::GetParam
            | Self::GetAttr { .. }
            | Self::GetPriority
            | Self::GetIoPriority => Need::Nothing,
            Self::SetAffinity(_)
            | Self::SetScheduler { .. }
            | Self::SetParam(_)
            | Self::SetAttr { .. }
            | Self::SetPriority(_)
            | Self::SetIoPriority(_) => Need::Nice,
            Self::Limit { .. } => Need::Resource,
        }
    }
}

/// What a program must be able to do so that it may do so to another's process (`capabilities(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// `CAP_SYS_NICE`.
    Nice,
    /// `CAP_SYS_RESOURCE`.
    Resource,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_lengths_that_the_kernel_takes() {
        let bytes = |len: usize| Bytes(vec![0; len]);
        let attr = |said: u32, len: usize| {
            let mut attr = vec![0; len];
            attr[..4].copy_from_slice(&said.to_ne_bytes());
            Schedule::SetAttr {
                attr: Bytes(attr),
                flags: 0,
            }
        };
        for (call, room) in [
            (Schedule::GetAffinity(128), Some(128)),
            (Schedule::GetAffinity(u32::MAX), None),
            (Schedule::SetAffinity(bytes(MASK + 1)), None),
            (Schedule::SetParam(bytes(4)), Some(0)),
            (Schedule::SetParam(bytes(3)), None),
            (Schedule::GetAttr { size: 47, flags: 0 }, None),
            (Schedule::GetAttr { size: 56, flags: 0 }, Some(56)),
            (attr(56, 56), Some(0)),
            (attr(0, 48), Some(0)),
            (attr(4096, 48), None),
            (attr(8192, 8192), None),
        ] {
            assert_eq!(call.room(), room, "{call:?}");
        }
        let limit = |new| Schedule::Limit { resource: 7, new };
        assert_eq!(limit(None).room(), Some(LIMIT));
        assert_eq!(limit(Some(bytes(16))).room(), Some(LIMIT));
        assert_eq!(limit(Some(bytes(8))).room(), None);
    }
}
