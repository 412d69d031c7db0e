// SPDX-License-Identifier: GPL-2.0

//! What the kernel counted, as `/proc/self/mountstats` has it.
//!
//! The columns of the counters and the limits of the histogram are named in the text itself, so
//! a module that counts more does not confuse this program.

use qtfs_control::mountinfo::unescape;
use std::collections::HashMap;

/// How many requests took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Parts by time: requests that took less than so many microseconds, and not less than the
    /// limit before; `None` has no limit.
    pub parts: Vec<(Option<u64>, u64)>,
}

/// A time that a share of the requests stayed below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// There was no request.
    Nothing,
    /// Less than so many microseconds.
    Below(u64),
    /// This many microseconds or longer.
    From(u64),
}

impl Histogram {
    /// Number of requests.
    pub fn count(&self) -> u64 {
        self.parts.iter().map(|(_, count)| count).sum()
    }

    /// The smallest limit that `percent` of the requests stayed below.
    pub fn percentile(&self, percent: u64) -> Bound {
        let all = self.count();
        if all == 0 {
            return Bound::Nothing;
        }
        let wanted = (u128::from(all) * u128::from(percent)).div_ceil(100);
        let mut seen = 0;
        let mut last = 0;
        for &(limit, count) in &self.parts {
            seen += u128::from(count);
            match limit {
                Some(limit) if seen >= wanted => return Bound::Below(limit),
                Some(limit) => last = limit,
                None => {}
            }
        }
        Bound::From(last)
    }

    /// What came since `earlier`.
    fn since(&self, earlier: &Self) -> Self {
        let parts = self.parts.iter().enumerate().map(|(i, &(limit, count))| {
            let before = earlier.parts.get(i).map_or(0, |(_, count)| *count);
            (limit, count.saturating_sub(before))
        });
        Self {
            parts: parts.collect(),
        }
    }
}

/// What was counted of one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Its name in the protocol.
    pub name: String,
    /// Requests that were made.
    pub requests: u64,
    /// Requests for whose reply a program waited.
    pub waits: u64,
    /// Requests that were sent again after a reconnect.
    pub retransmits: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Requests that failed, for whatever reason.
    pub errors: u64,
    /// Sum of their times in microseconds.
    pub total_us: u64,
    /// Their times.
    pub latency: Histogram,
}

impl Operation {
    fn new(name: &str, columns: &[&str], numbers: &[u64]) -> Self {
        let get = |column| {
            let place = columns.iter().position(|name| *name == column);
            place
                .and_then(|place| numbers.get(place))
                .copied()
                .unwrap_or(0)
        };
        Self {
            name: name.into(),
            requests: get("requests"),
            waits: get("waits"),
            retransmits: get("retransmits"),
            bytes_sent: get("bytes_sent"),
            bytes_received: get("bytes_received"),
            errors: get("errors"),
            total_us: get("total_us"),
            latency: Histogram::default(),
        }
    }

    fn numbers(&self) -> [u64; 7] {
        [
            self.requests,
            self.waits,
            self.retransmits,
            self.bytes_sent,
            self.bytes_received,
            self.errors,
            self.total_us,
        ]
    }

    /// Whether nothing was counted.
    pub fn is_idle(&self) -> bool {
        self.numbers().iter().all(|number| *number == 0) && self.latency.count() == 0
    }

    /// Microseconds that a request took on average.
    pub fn mean_us(&self) -> Option<f64> {
        // Of those that ended; others are still on their way.
        let count = self.latency.count();
        (count > 0).then(|| self.total_us as f64 / count as f64)
    }

    /// What came since `earlier`.
    fn since(&self, earlier: &Self) -> Self {
        Self {
            name: self.name.clone(),
            requests: self.requests.saturating_sub(earlier.requests),
            waits: self.waits.saturating_sub(earlier.waits),
            retransmits: self.retransmits.saturating_sub(earlier.retransmits),
            bytes_sent: self.bytes_sent.saturating_sub(earlier.bytes_sent),
            bytes_received: self.bytes_received.saturating_sub(earlier.bytes_received),
            errors: self.errors.saturating_sub(earlier.errors),
            total_us: self.total_us.saturating_sub(earlier.total_us),
            latency: self.latency.since(&earlier.latency),
        }
    }
}

/// What was counted of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that are on their way.
    pub in_flight: u64,
    /// How often a connection was lost.
    pub reconnects: u64,
    /// The operations, in the kernel's order.
    pub operations: Vec<Operation>,
}

impl Counters {
    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let before: HashMap<&str, &Operation> = earlier
            .operations
            .iter()
            .map(|operation| (operation.name.as_str(), operation))
            .collect();
        let none = Operation::default();
        let operations = self.operations.iter().map(|operation| {
            operation.since(before.get(operation.name.as_str()).unwrap_or(&&none))
        });
        Self {
            in_flight: self.in_flight,
            reconnects: self.reconnects.saturating_sub(earlier.reconnects),
            operations: operations.collect(),
        }
    }
}

/// One mount of qtfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The directory on HOST.
    pub source: Vec<u8>,
    /// Where it is mounted.
    pub mount_point: Vec<u8>,
    /// What was counted.
    pub counters: Counters,
}

/// The mounts of qtfs in the text of mountstats.
pub fn parse(text: &[u8]) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut body: Vec<&str> = Vec::new();
    let mut current: Option<Section> = None;
    let mut end = |current: &mut Option<Section>, body: &mut Vec<&str>| {
        if let Some(mut section) = current.take() {
            // Mount points of HOST are counted with the mount that they are in.
            if body.iter().any(|line| !line.trim().is_empty()) {
                section.counters = counters(body);
                sections.push(section);
            }
        }
        body.clear();
    };
    for line in text.split(|byte| *byte == b'\n') {
        if line.starts_with(b"device ") || line.starts_with(b"no device ") {
            end(&mut current, &mut body);
            current = header(line);
        } else if let Ok(line) = std::str::from_utf8(line) {
            body.push(line);
        }
    }
    end(&mut current, &mut body);
    sections
}

/// What the first line of a section tells, if it is about qtfs. Names have no spaces in them.
fn header(line: &[u8]) -> Option<Section> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    match words.as_slice() {
        [b"device", source, b"mounted", b"on", mount_point, b"with", b"fstype", b"qtfs", ..] => {
            Some(Section {
                source: unescape(source),
                mount_point: unescape(mount_point),
                counters: Counters::default(),
            })
        }
        _ => None,
    }
}

fn counters(lines: &[&str]) -> Counters {
    let mut found = Counters::default();
    let mut columns: Vec<&str> = Vec::new();
    let mut limits: Vec<u64> = Vec::new();
    for line in lines {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("session:") {
            for word in rest.split_whitespace() {
                match word.split_once('=') {
                    Some(("in_flight", number)) => found.in_flight = number.parse().unwrap_or(0),
                    Some(("reconnects", number)) => found.reconnects = number.parse().unwrap_or(0),
                    _ => {}
                }
            }
        } else if let Some(rest) = line.strip_prefix("per-op statistics") {
            let named = rest.trim().trim_start_matches('(').trim_end_matches(')');
            columns = named.split_whitespace().collect();
        } else if let Some(rest) = line.strip_prefix("latency statistics") {
            let words = rest.split_whitespace();
            limits = words.filter_map(|word| word.parse().ok()).collect();
        } else if let Some((name, numbers)) = line.split_once(':') {
            let numbers: Result<Vec<u64>, _> =
                numbers.split_whitespace().map(str::parse::<u64>).collect();
            let Ok(numbers) = numbers else { continue };
            if let Some(name) = name.strip_suffix(" latency") {
                let mut operations = found.operations.iter_mut();
                if let Some(operation) = operations.find(|operation| operation.name == name) {
                    let limits = limits.iter().copied().map(Some).chain([None]);
                    operation.latency.parts = limits.zip(numbers).collect();
                }
            } else if !columns.is_empty() && !name.contains(' ') {
                let operation = Operation::new(name, &columns, &numbers);
                found.operations.push(operation);
            }
        }
    }
    // What never happened has no line.
    for operation in &mut found.operations {
        if operation.latency.parts.is_empty() && !limits.is_empty() {
            let limits = limits.iter().copied().map(Some).chain([None]);
            operation.latency.parts = limits.map(|limit| (limit, 0)).collect();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: [u64; 4]) -> Histogram {
        let limits = [Some(2), Some(4), Some(8), None];
        Histogram {
            parts: limits.into_iter().zip(counts).collect(),
        }
    }

    #[test]
    fn percentiles_are_limits_that_enough_requests_stayed_below() {
        for (counts, p50, p99) in [
            ([0, 0, 0, 0], Bound::Nothing, Bound::Nothing),
            ([1, 0, 0, 0], Bound::Below(2), Bound::Below(2)),
            ([1, 1, 0, 0], Bound::Below(2), Bound::Below(4)),
            ([49, 50, 1, 0], Bound::Below(4), Bound::Below(4)),
            ([98, 0, 2, 0], Bound::Below(2), Bound::Below(8)),
            ([98, 0, 0, 2], Bound::Below(2), Bound::From(8)),
            ([0, 0, 0, 1], Bound::From(8), Bound::From(8)),
        ] {
            let histogram = histogram(counts);
            assert_eq!(histogram.percentile(50), p50, "{counts:?}");
            assert_eq!(histogram.percentile(99), p99, "{counts:?}");
        }
        assert_eq!(Histogram::default().percentile(50), Bound::Nothing);
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let text = b"device /a mounted on /b with fstype qtfs statvers=1.0\n\
            \tsession: reconnects=4 in_flight=1 later=9\n\
            \tper-op statistics (errors more requests)\n\
            \tREAD: 1 2 3\n\
            \tlatency statistics (requests that took less than 10 100 us, or longer)\n\
            \tREAD latency: 5 6 7\n\
            \tWRITE latency: 5 6 7\n\
            \tfuture line: with words\n";
        let sections = parse(text);
        assert_eq!(sections.len(), 1);
        let counters = &sections[0].counters;
        assert_eq!((counters.in_flight, counters.reconnects), (1, 4));
        assert_eq!(counters.operations.len(), 1);
        let read = &counters.operations[0];
        assert_eq!((read.errors, read.requests, read.waits), (1, 3, 0));
        assert_eq!(
            read.latency.parts,
            [(Some(10), 5), (Some(100), 6), (None, 7)]
        );
    }

    #[test]
    fn other_file_systems_are_left_out() {
        let text = b"device proc mounted on /proc with fstype proc\n\
            device h:/e mounted on /n with fstype nfs4 statvers=1.1\n\
            \tper-op statistics\n\
            \tREAD: 1 2 3\n\
            no device mounted on /x with fstype qtfsish\n";
        assert_eq!(parse(text), []);
        assert_eq!(parse(b""), []);
        assert_eq!(parse(b"\xff\xfe\n\n"), []);
    }

    #[test]
    fn mount_points_of_the_host_are_left_out() {
        let text = b"device /a mounted on /b with fstype qtfs statvers=1.0\n\
            \tsession: reconnects=0 in_flight=1\n\
            device /a/c mounted on /b/c with fstype qtfs\n\
            device /d mounted on /e with fstype ext4\n";
        let sections = parse(text);
        assert_eq!(sections.len(), 1);
        assert_eq!(sections[0].mount_point, b"/b");
    }

    #[test]
    fn a_difference_never_runs_below_zero() {
        let operation = |requests, counts| Operation {
            name: "READ".into(),
            requests,
            latency: histogram(counts),
            ..Operation::default()
        };
        let counters = |operation| Counters {
            in_flight: 2,
            reconnects: 0,
            operations: vec![operation],
        };
        let before = counters(operation(10, [4, 4, 0, 0]));
        let after = counters(operation(12, [5, 3, 1, 0]));
        let recent = after.since(&before);
        assert_eq!(recent.operations[0], operation(2, [1, 0, 1, 0]));
        assert_eq!(recent.in_flight, 2);
        assert!(before.since(&before).operations[0].is_idle());
        // An operation that was not known before.
        assert_eq!(after.since(&Counters::default()), after);
    }
}
