// SPDX-License-Identifier: GPL-2.0

//! The view for programs. `Documentation/qtinfo.md` describes it; what is there stays, and more
//! may be added.

use crate::mounts::Mount;
use crate::mountstats::Bound;
use crate::mountstats::Operation;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::io::Write;
use std::path::Path;

/// Raised when something that was there changes its meaning.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    mounts: Vec<MountView<'a>>,
}

#[derive(Serialize)]
struct MountView<'a> {
    id: Option<u64>,
    mount_point: String,
    source: String,
    server: Option<&'a str>,
    port: Option<u16>,
    mode: &'static str,
    options: &'a [String],
    in_flight: u64,
    reconnects: u64,
    operations: BTreeMap<&'a str, OperationView>,
}

#[derive(Serialize)]
struct OperationView {
    requests: u64,
    waits: u64,
    retransmits: u64,
    bytes_sent: u64,
    bytes_received: u64,
    errors: u64,
    finished: u64,
    total_us: u64,
    mean_us: Option<f64>,
    p50_below_us: Option<u64>,
    p99_below_us: Option<u64>,
    latency: Vec<Part>,
}

#[derive(Serialize)]
struct Part {
    below_us: Option<u64>,
    count: u64,
}

/// JSON knows no other names than those in UTF-8.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn view(operation: &Operation) -> OperationView {
    let below = |percent| match operation.latency.percentile(percent) {
        Bound::Below(us) => Some(us),
        Bound::Nothing | Bound::From(_) => None,
    };
    let parts = operation.latency.parts.iter();
    OperationView {
        requests: operation.requests,
        waits: operation.waits,
        retransmits: operation.retransmits,
        bytes_sent: operation.bytes_sent,
        bytes_received: operation.bytes_received,
        errors: operation.errors,
        finished: operation.latency.count(),
        total_us: operation.total_us,
        mean_us: operation.mean_us(),
        p50_below_us: below(50),
        p99_below_us: below(99),
        latency: parts
            .map(|&(below_us, count)| Part { below_us, count })
            .collect(),
    }
}

/// Writes the mounts, on one line if `compact`.
pub fn write(out: &mut impl Write, mounts: &[Mount], compact: bool) -> io::Result<()> {
    let mounts = mounts.iter().map(|mount| MountView {
        id: mount.id,
        mount_point: text(&mount.mount_point),
        source: text(&mount.source),
        server: mount.server(),
        port: mount.port(),
        mode: mount.mode(),
        options: &mount.options,
        in_flight: mount.counters.in_flight,
        reconnects: mount.counters.reconnects,
        operations: mount
            .counters
            .operations
            .iter()
            .map(|operation| (operation.name.as_str(), view(operation)))
            .collect(),
    });
    let document = Document {
        version: VERSION,
        mounts: mounts.collect(),
    };
    if compact {
        serde_json::to_writer(&mut *out, &document)?;
    } else {
        serde_json::to_writer_pretty(&mut *out, &document)?;
    }
    writeln!(out)
}
