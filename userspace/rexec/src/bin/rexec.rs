// SPDX-License-Identifier: GPL-2.0

//! rexec: runs a program on the other machine.

use qtfs_rexec::cli;
use qtfs_rexec::cli::Rexec;
use qtfs_rexec::client::caller;
use qtfs_rexec::client::session;
use qtfs_rexec::client::session::End;
use qtfs_rexec::client::session::Job;
use qtfs_rexec::failure::Failure;
use qtfs_rexec::message::Outcome;
use qtfs_rexec::process::sys;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

const NAME: &str = "rexec";

fn main() -> ExitCode {
    match run(cli::parse(NAME)) {
        Ok(End::Program(Outcome::Exited(status))) => ExitCode::from(status),
        Ok(End::Program(Outcome::Killed(signal)) | End::Signal(signal)) => {
            sys::die_by(signal.into())
        }
        Err(failure) => cli::end(NAME, Err(failure)),
    }
}

fn run(args: Rexec) -> Result<End, Failure> {
    let job = prepare(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::System("starting", error))?;
    let end = runtime.block_on(session::run(job));
    // A thread may wait for stdin for ever.
    runtime.shutdown_background();
    end
}

fn prepare(args: Rexec) -> Result<Job, Failure> {
    let config = args.common.read()?;
    let route = args
        .common
        .route(&config, args.connect.clone(), args.connect_timeout)?;
    let agent = args.agent(&config);
    let mut start = caller::inherit(args.command, &config.environment)
        .map_err(|error| Failure::System("looking at what CMD inherits", error))?;
    start.detach = args.detach;
    start.user = args.user.unwrap_or_default().into();
    if let Some(directory) = args.directory {
        let directory = std::path::absolute(directory)
            .map_err(|error| Failure::System("finding the directory", error))?;
        start.directory = directory.into_os_string().into_vec().into();
    }
    for variable in args.environment {
        let text = variable.as_bytes();
        let name = text
            .split(|byte| *byte == b'=')
            .next()
            .unwrap_or_default()
            .to_vec();
        let whole = match text.len() == name.len() {
            false => variable.into_vec().into(),
            true => {
                let name = OsString::from_vec(name.clone());
                let Some(value) = std::env::var_os(&name) else {
                    continue;
                };
                caller::variable(name, &value)
            }
        };
        start
            .environment
            .retain(|other| !(other.starts_with(&name) && other.get(name.len()) == Some(&b'=')));
        start.environment.push(whole);
    }
    let pid_file = match args.pid_file {
        Some(path) => Some(std::fs::File::create(&path).map_err(|error| {
            Failure::Usage(format!(
                "--pid-file {}: {error}: give a file that can be written",
                path.display()
            ))
        })?),
        None => None,
    };
    Ok(Job {
        route,
        agent,
        start,
        terminal: args.tty,
        pid_file,
    })
}
