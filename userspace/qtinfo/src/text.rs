// SPDX-License-Identifier: GPL-2.0

//! The view for people: a paragraph and a table for each mount.

use crate::mounts::Mount;
use crate::mountstats::Bound;
use crate::mountstats::Counters;
use crate::mountstats::Operation;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// What is shown of each operation.
const COLUMNS: [&str; 10] = [
    "operation",
    "requests",
    "waits",
    "resent",
    "sent",
    "received",
    "errors",
    "mean",
    "p50",
    "p99",
];
/// Columns that count, which a live view shows per second.
const COUNTS: std::ops::RangeInclusive<usize> = 1..=6;

/// What is shown when there is nothing.
pub const NOTHING: &str = "nothing of qtfs is mounted\n";

/// All mounts with what was counted since they were made.
pub fn all(mounts: &[Mount]) -> String {
    if mounts.is_empty() {
        return NOTHING.into();
    }
    let views: Vec<String> = mounts.iter().map(totals).collect();
    views.join("\n")
}

/// One mount with what was counted since it was made.
fn totals(mount: &Mount) -> String {
    let mut text = head(mount, &mount.counters);
    table(&mut text, &mount.counters, None);
    text
}

/// One mount with what was counted in the last `time`.
pub fn rates(mount: &Mount, recent: &Counters, time: Duration) -> String {
    let mut text = head(mount, recent);
    table(&mut text, recent, Some(time.as_secs_f64()));
    text
}

fn head(mount: &Mount, counters: &Counters) -> String {
    let mut text = format!("{}: {}", shown(&mount.mount_point), shown(&mount.source));
    if let Some(server) = mount.server() {
        let _ = write!(text, " on {server}");
    }
    if let Some(port) = mount.port() {
        let _ = write!(text, " port {port}");
    }
    let mode = mount.mode();
    let options = mount.options.join(",");
    let (in_flight, reconnects) = (counters.in_flight, counters.reconnects);
    let _ = writeln!(text, "\n  mode: {mode}, options: {options}");
    let _ = writeln!(
        text,
        "  session: {in_flight} in flight, {reconnects} reconnects"
    );
    text
}

/// Appends the table of the operations that there were; per second if `seconds` is given.
fn table(text: &mut String, counters: &Counters, seconds: Option<f64>) {
    let busy = counters.operations.iter().filter(|o| !o.is_idle());
    let mut rows: Vec<Vec<String>> = busy.map(|operation| row(operation, seconds)).collect();
    if rows.is_empty() {
        text.push_str("  nothing was asked for\n");
        return;
    }
    let names = COLUMNS.iter().enumerate().map(|(place, name)| {
        let per_second = seconds.is_some() && COUNTS.contains(&place);
        format!("{name}{}", if per_second { "/s" } else { "" })
    });
    rows.insert(0, names.collect());
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let mut line = format!("  {:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        let _ = writeln!(text, "{line}");
    }
}

fn row(operation: &Operation, seconds: Option<f64>) -> Vec<String> {
    let count = |number: u64| match seconds {
        Some(seconds) => rate(number as f64 / seconds),
        None => number.to_string(),
    };
    let bytes = |number: u64| size(number as f64 / seconds.unwrap_or(1.0));
    let bound = |percent| match operation.latency.percentile(percent) {
        Bound::Nothing => "-".into(),
        Bound::Below(us) => format!("<{}", time(us as f64)),
        Bound::From(us) => format!(">={}", time(us as f64)),
    };
    vec![
        operation.name.clone(),
        count(operation.requests),
        count(operation.waits),
        count(operation.retransmits),
        bytes(operation.bytes_sent),
        bytes(operation.bytes_received),
        count(operation.errors),
        operation.mean_us().map_or("-".into(), time),
        bound(50),
        bound(99),
    ]
}

/// A number per second.
fn rate(number: f64) -> String {
    if number == 0.0 {
        "0".into()
    } else if number < 9.95 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    }
}

/// A number of bytes, in units of 1024.
fn size(bytes: f64) -> String {
    let mut number = bytes;
    let mut unit = "";
    for next in ["K", "M", "G", "T", "P"] {
        // What would be printed as 1000 or more.
        if number < 999.5 {
            break;
        }
        number /= 1024.0;
        unit = next;
    }
    if unit.is_empty() || number >= 9.95 {
        format!("{number:.0}{unit}")
    } else {
        format!("{number:.1}{unit}")
    }
}

/// A time of so many microseconds.
fn time(us: f64) -> String {
    let (number, unit) = if us < 999.5 {
        (us, "us")
    } else if us < 999_500.0 {
        (us / 1e3, "ms")
    } else {
        (us / 1e6, "s")
    };
    if unit == "us" || number >= 9.95 {
        format!("{number:.0}{unit}")
    } else {
        format!("{number:.1}{unit}")
    }
}

/// A path as it is, but for what would confuse a terminal.
pub fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(text, "\\{byte:03o}");
                }
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\{byte:03o}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn numbers_are_short() {
        let sizes = [0.0, 999.0, 1000.0, 1024.0, 10.0 * 1024.0, 1.5e6, 3e9].map(size);
        assert_eq!(sizes, ["0", "999", "1.0K", "1.0K", "10K", "1.4M", "2.8G"]);
        let times = [
            2.0,
            999.0,
            999.9,
            1500.0,
            65_536.0,
            1_048_576.0,
            67_108_864.0,
        ]
        .map(time);
        assert_eq!(
            times,
            ["2us", "999us", "1.0ms", "1.5ms", "66ms", "1.0s", "67s"]
        );
        assert_eq!([0.0, 0.5, 12.3].map(rate), ["0", "0.5", "12"]);
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        let path = Path::new(OsStr::from_bytes("/a b\n\x1b[2J\u{9b}é".as_bytes()));
        assert_eq!(shown(path), "/a b\\012\\033[2J\\302\\233é");
        assert_eq!(shown(Path::new(OsStr::from_bytes(b"/\xff"))), "/\\377");
    }
}
