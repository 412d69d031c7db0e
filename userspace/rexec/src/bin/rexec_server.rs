// SPDX-License-Identifier: GPL-2.0

//! rexec_server: runs programs for those who call rexec on the other machine.

use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use nix::sys::resource::Resource;
use qtfs_rexec::address::Address;
use qtfs_rexec::cli;
use qtfs_rexec::cli::Server;
use qtfs_rexec::config::Allow;
use qtfs_rexec::config::Config;
use qtfs_rexec::config::Listen;
use qtfs_rexec::failure::io_text;
use qtfs_rexec::failure::Failure;
use qtfs_rexec::link::Listener;
use qtfs_rexec::policy::Policy;
use qtfs_rexec::process::cgroup;
use qtfs_rexec::process::nursery::Nursery;
use qtfs_rexec::server;
use qtfs_rexec::server::status;
use qtfs_rexec::server::Shared;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::signal;
use tokio::signal::unix::SignalKind;

const NAME: &str = "rexec_server";

fn main() -> ExitCode {
    let args: Server = cli::parse(NAME);
    let result = match args.status {
        true => status::show(&args.status_socket, args.json).map(|text| cli::print(&text)),
        false => serve(args),
    };
    cli::end(NAME, result)
}

fn serve(args: Server) -> Result<(), Failure> {
    let system = |doing| move |error| Failure::System(doing, error);
    let config = configure(&args)?;
    // Before anything that could start a thread.
    let nursery = Nursery::start().map_err(system("starting the nursery"))?;
    args.logging.start();
    raise_limits();
    let groups = match cgroup::base() {
        Ok(base) => Some(base),
        Err(error) => {
            tracing::info!("sessions get no control groups of their own ({error}): their processes are found one by one");
            None
        }
    };
    let host = nix::unistd::gethostname().unwrap_or_default();
    warn(&config, &args);
    let addresses = config.listen.addresses().to_vec();
    let policy = Policy::new(
        config,
        args.common.configuration.path(),
        &host.to_string_lossy(),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("rexec_server")
        .build()
        .map_err(system("starting"))?;
    let result = runtime.block_on(async {
        let nursery = nursery.into_async().map_err(system("starting the nursery"))?;
        let shared = Arc::new(Shared::new(policy, nursery, groups)?);
        let mut term = signal(SignalKind::terminate()).map_err(system("catching signals"))?;
        let mut int = signal(SignalKind::interrupt()).map_err(system("catching signals"))?;
        for address in &addresses {
            let listener = Listener::bind(address)
                .await
                .map_err(|error| Failure::Usage(format!("cannot listen at {address}: {}", io_text(&error))))?;
            tracing::info!("listens at {address}");
            tokio::spawn(server::serve(shared.clone(), listener));
        }
        let mut sockets: Vec<PathBuf> = addresses.into_iter().filter_map(Address::into_path).collect();
        match status::bind(&args.status_socket) {
            Ok(listener) => {
                tokio::spawn(status::serve(listener, shared.registry().clone()));
                sockets.push(args.status_socket);
            }
            Err(error) => tracing::warn!(
                "{}: {}: rexec-ps will show nothing of this server",
                args.status_socket.display(),
                io_text(&error)
            ),
        }
        // systemd, if it is there, wants to know when connections are taken.
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = shared.nursery_gone() => {
                return Err(Failure::System("keeping programs", io::Error::other("the nursery was killed")));
            }
        }
        tracing::info!("ends, and with it all programs that were not detached");
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
        for socket in sockets {
            let _ = std::fs::remove_file(socket);
        }
        Ok(())
    });
    // Whatever a session waits for, it is not waited for.
    runtime.shutdown_background();
    result
}

fn configure(args: &Server) -> Result<Config, Failure> {
    let mut config = args.common.read()?;
    if !args.listen.is_empty() {
        config.listen = Listen::Many(args.listen.clone());
    }
    config.max_sessions = args.max_sessions.or(config.max_sessions);
    config.allow.extend(args.allow.iter().map(|program| Allow {
        program: program.clone(),
        peers: None,
    }));
    config.check().map_err(Failure::Usage)?;
    let file = args.common.configuration.path().display();
    if config.listen.addresses().is_empty() {
        return Err(Failure::Usage(format!(
            "no address to listen at: give --listen ADDRESS, set CMD_NET_ADDR, or write listen = \"ADDRESS\" to {file}"
        )));
    }
    let known_vsock = config
        .peer
        .iter()
        .any(|peer| peer.name.starts_with("vsock:"));
    let in_clear = config
        .listen
        .addresses()
        .iter()
        .find(|address| match address {
            Address::Vsock(..) => !known_vsock,
            address => !address.is_local(),
        });
    if let (Some(address), None, false) = (in_clear, &config.tls, config.insecure) {
        return Err(Failure::Usage(format!(
            "{address}: without keys, whoever can reach it could run programs here: give keys ([tls]) or, in a network \
             that only the two machines share, say insecure = true, in {file}"
        )));
    }
    Ok(config)
}

/// Says what is allowed to be unsafe or useless.
fn warn(config: &Config, args: &Server) {
    if config.allow.is_empty() {
        tracing::warn!(
            "{} allows no program: add [[allow]] program = \"/PATH\"",
            args.common.configuration.path().display()
        );
    }
    if config.tls.is_none() {
        for address in config
            .listen
            .addresses()
            .iter()
            .filter(|address| !address.is_local())
        {
            tracing::warn!("{address} is in clear and without keys (insecure = true): whoever can reach it can run programs here");
        }
    }
}

/// Each session takes five descriptors.
fn raise_limits() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("cannot raise the limit of descriptors: {error}");
    }
}
