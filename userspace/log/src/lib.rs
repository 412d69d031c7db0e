// SPDX-License-Identifier: GPL-2.0

//! How the daemons of qtfs log: lines on stderr.

use std::io;
use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Has lines of this level and above go to stderr.
pub fn start(level: LevelFilter) {
    start_with(level, io::stderr);
}

/// The same, by another way to stderr. The journal knows the time by itself.
pub fn start_with<W>(level: LevelFilter, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(writer);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().init();
    } else {
        builder.init();
    }
}
