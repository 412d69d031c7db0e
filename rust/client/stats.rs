// SPDX-License-Identifier: GPL-2.0

//! Counters of one mount, shown in `/proc/self/mountstats` and, as sums, in sysfs.

use core::sync::atomic::{
    AtomicU64,
    Ordering, //
};
use kernel::{
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    str::CString, //
};
use qtfs_proto::Op;

use crate::{
    options::Text,
    session::Config, //
};

/// Number of times that are told apart, each twice as long as the one before: the first is below
/// 2 µs, the last one that has an end below 2^26 µs, which is 67 s, and the last has none.
const BUCKETS: usize = 27;

/// Counters of one operation.
#[derive(Default)]
struct Counters {
    /// Requests that were made.
    requests: AtomicU64,
    /// Requests for whose reply a program waited: round trips.
    waits: AtomicU64,
    /// Requests that were sent again after a reconnect.
    retransmits: AtomicU64,
    /// Bytes sent, with headers.
    sent: AtomicU64,
    /// Bytes received, with headers.
    received: AtomicU64,
    /// Requests that failed, for whatever reason.
    errors: AtomicU64,
    /// Microseconds from making the request to its end, of all requests.
    us: AtomicU64,
    /// How many requests took how long, see [`bucket`].
    latency: [AtomicU64; BUCKETS],
}

/// Counters of one mount.
pub(crate) struct Stats {
    operations: KVVec<Counters>,
    reconnects: AtomicU64,
}

/// The files of a mount in sysfs, see [`Stats::file`].
pub(crate) const FILES: &[&CStr] = &[
    c"server",
    c"path",
    c"in_flight",
    c"reconnects",
    c"requests",
    c"waits",
    c"retransmits",
    c"bytes_sent",
    c"bytes_received",
    c"errors",
];

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

/// Which part of the histogram a time belongs to: below 2, 4, 8, … microseconds.
fn bucket(us: u64) -> usize {
    let doublings = us.checked_ilog2().unwrap_or(0) as usize;
    doublings.min(BUCKETS - 1)
}

impl Stats {
    /// All 0.
    pub(crate) fn new() -> Result<Self> {
        // Too large for the stack.
        let last = Op::ALL.last().map_or(0, |op| *op as u8);
        let count = usize::from(last) + 1;
        let mut operations = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            operations.push(Counters::default(), GFP_KERNEL)?;
        }
        Ok(Self {
            operations,
            reconnects: AtomicU64::new(0),
        })
    }

    fn of(&self, op: Op) -> Option<&Counters> {
        self.operations.get(usize::from(op as u8))
    }

    /// A program waits for the reply.
    pub(crate) fn waits(&self, op: Op) {
        if let Some(c) = self.of(op) {
            add(&c.waits, 1);
        }
    }

    /// A request of `len` bytes was sent.
    pub(crate) fn sent(&self, op: Op, len: usize, again: bool) {
        if let Some(c) = self.of(op) {
            add(if again { &c.retransmits } else { &c.requests }, 1);
            add(&c.sent, len as u64);
        }
    }

    /// A reply of `len` bytes was received.
    pub(crate) fn received(&self, op: Op, len: usize) {
        if let Some(c) = self.of(op) {
            add(&c.received, len as u64);
        }
    }

    /// A request ended.
    pub(crate) fn ended(&self, op: Op, us: u64, failed: bool) {
        if let Some(c) = self.of(op) {
            add(&c.us, us);
            if let Some(count) = c.latency.get(bucket(us)) {
                add(count, 1);
            }
            add(&c.errors, failed.into());
        }
    }

    /// A caller gave up.
    pub(crate) fn failed(&self, op: Op) {
        if let Some(c) = self.of(op) {
            add(&c.errors, 1);
        }
    }

    /// A lane lost its connection.
    pub(crate) fn reconnected(&self) {
        add(&self.reconnects, 1);
    }

    /// What the file with a number in [`FILES`] says. Counters are sums over all operations.
    pub(crate) fn file(&self, number: usize, config: &Config, in_flight: usize) -> Result<CString> {
        let sum = |counter: fn(&Counters) -> &AtomicU64| {
            let each = |c| counter(c).load(Ordering::Relaxed);
            self.operations.iter().map(each).sum::<u64>()
        };
        let value = match number {
            0 => return CString::try_from_fmt(fmt!("{}\n", config.server)),
            1 => return CString::try_from_fmt(fmt!("{}\n", Text(&config.path))),
            2 => in_flight as u64,
            3 => self.reconnects.load(Ordering::Relaxed),
            4 => sum(|c| &c.requests),
            5 => sum(|c| &c.waits),
            6 => sum(|c| &c.retransmits),
            7 => sum(|c| &c.sent),
            8 => sum(|c| &c.received),
            9 => sum(|c| &c.errors),
            _ => return Err(EINVAL),
        };
        CString::try_from_fmt(fmt!("{value}\n"))
    }

    /// Shows the counters.
    pub(crate) fn show(&self, seq: &SeqFile, in_flight: usize) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        seq_print!(seq, " statvers=1.0\n");
        seq_print!(
            seq,
            "\tsession: in_flight={} reconnects={}\n",
            in_flight,
            get(&self.reconnects)
        );
        let columns = "requests waits retransmits bytes_sent bytes_received errors total_us";
        seq_print!(seq, "\tper-op statistics ({})\n", columns);
        for &op in Op::ALL {
            let Some(c) = self.of(op) else { continue };
            seq_print!(
                seq,
                "\t{:>12}: {} {} {} {} {} {} {}\n",
                op.name(),
                get(&c.requests),
                get(&c.waits),
                get(&c.retransmits),
                get(&c.sent),
                get(&c.received),
                get(&c.errors),
                get(&c.us)
            );
        }
        self.show_latency(seq);
    }

    /// Shows how long requests took, for the operations that there were.
    ///
    /// The lines have a word before the colon so that nobody takes them for counters of an
    /// operation.
    fn show_latency(&self, seq: &SeqFile) {
        seq_print!(seq, "\tlatency statistics (requests that took less than");
        for doublings in 1..BUCKETS {
            seq_print!(seq, " {}", 1u64 << doublings);
        }
        seq_print!(seq, " us, or longer)\n");
        for &op in Op::ALL {
            let Some(c) = self.of(op) else { continue };
            let counts = c.latency.iter().map(|count| count.load(Ordering::Relaxed));
            if counts.clone().all(|count| count == 0) {
                continue;
            }
            seq_print!(seq, "\t{:>12} latency:", op.name());
            for count in counts {
                seq_print!(seq, " {}", count);
            }
            seq_print!(seq, "\n");
        }
    }
}
