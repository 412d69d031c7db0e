// SPDX-License-Identifier: GPL-2.0

//! qtinfo: shows what the mounts of qtfs did.

use qtfs_qtinfo::cli;
use qtfs_qtinfo::cli::Options;
use qtfs_qtinfo::failure::Failure;
use qtfs_qtinfo::files::Files;
use qtfs_qtinfo::json;
use qtfs_qtinfo::level;
use qtfs_qtinfo::mounts;
use qtfs_qtinfo::text;
use qtfs_qtinfo::watch::Watch;
use std::io;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "qtinfo: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let files = Files::new(&options.root);
    let mount_point = options.mount_point.as_deref();
    if let Some(level) = options.level {
        return print(&(level::set(&files, level)?.join("\n") + "\n"));
    }
    if let Some(interval) = options.watch {
        let watch = Watch {
            files: &files,
            mount_point,
            interval,
            json: options.json,
        };
        return watch.run();
    }
    let mounts = mounts::look(&files, mount_point)?;
    if options.json {
        let mut document = Vec::new();
        json::write(&mut document, &mounts, false).map_err(Failure::printing)?;
        return write(&document);
    }
    print(&text::all(&mounts))
}

fn print(text: &str) -> Result<(), Failure> {
    write(text.as_bytes())
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(Failure::printing)
}
