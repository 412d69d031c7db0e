// SPDX-License-Identifier: GPL-2.0

//! rexec-agent: keeps connections to the server for the rexecs of one user.

use qtfs_rexec::agent::Agent;
use qtfs_rexec::cli;
use qtfs_rexec::failure::io_text;
use qtfs_rexec::failure::Failure;
use qtfs_rexec::server::status;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::signal;
use tokio::signal::unix::SignalKind;

const NAME: &str = "rexec-agent";

fn main() -> ExitCode {
    cli::end(NAME, run(&cli::parse(NAME)))
}

fn run(args: &cli::Agent) -> Result<(), Failure> {
    let system = |doing| move |error| Failure::System(doing, error);
    let config = args.common.read()?;
    let route = args.common.route(&config, None, None)?;
    let socket = config.agent.ok_or_else(|| {
        Failure::Usage(format!(
            "no socket is named: write agent = \"/PATH\" to {}",
            args.common.configuration.path().display()
        ))
    })?;
    args.logging.start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("starting"))?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).map_err(system("catching signals"))?;
        let mut int = signal(SignalKind::interrupt()).map_err(system("catching signals"))?;
        let listener = status::bind(&socket).map_err(|error| {
            Failure::Usage(format!("{}: {}", socket.display(), io_text(&error)))
        })?;
        tracing::info!("keeps connections to {}", route.address);
        tokio::spawn(Arc::new(Agent::new(route)).serve(listener));
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        let _ = std::fs::remove_file(&socket);
        Ok(())
    })
}
