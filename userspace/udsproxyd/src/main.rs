// SPDX-License-Identifier: GPL-2.0

//! udsproxyd: the daemon of qtfs on the DPU, for unix sockets in HOST's directories.

use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use nix::sys::resource::Resource;
use qtfs_udsproxyd::bound;
use qtfs_udsproxyd::cli;
use qtfs_udsproxyd::cli::Options;
use qtfs_udsproxyd::daemon;
use qtfs_udsproxyd::device::Device;
use qtfs_udsproxyd::failure::Failure;
use qtfs_udsproxyd::proxies::Proxies;
use std::io;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::signal;
use tokio::signal::unix::SignalKind;

/// Threads that wait for HOST, or connect as somebody, at most. All HOSTs share them, and a HOST that
/// does not answer has each of its sockets take some: there are as many again for the others. They are
/// started when they are needed.
const BLOCKING: usize = 2 * bound::LISTENS;

fn main() -> ExitCode {
    let run = |options: Options| {
        qtfs_log::start(options.log);
        serve(&options)
    };
    match cli::parse().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "udsproxyd: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn serve(options: &Options) -> Result<(), Failure> {
    let system = |doing| move |error| Failure::System(doing, error);
    if let Some(hint) = options.hint {
        tracing::warn!("{hint}");
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::NotRoot);
    }
    let device = Device::open(&options.device).map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ENOTTY) => Failure::Mismatch(options.device.clone()),
        _ => Failure::from_open(&options.device, error),
    })?;
    // A mount that holds the current directory could not be unmounted.
    std::env::set_current_dir("/").map_err(system("changing to /"))?;
    raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .max_blocking_threads(BLOCKING)
        .thread_name("udsproxyd/relay")
        .enable_all()
        .build()
        .map_err(system("starting threads"))?;
    let (handle, device) = (runtime.handle().clone(), Arc::new(device));
    let proxies = Proxies::new(Arc::clone(&device)).map_err(|error| {
        Failure::from_ioctl(&options.device, "opening the directory of sockets", error)
    })?;
    let (failed, failure) = tokio::sync::oneshot::channel();
    // It waits in the module until the process ends.
    std::thread::Builder::new()
        .name("udsproxyd/event".into())
        .spawn(move || {
            let error = daemon::run(&device, &proxies, &handle);
            // Nobody listens any more when the process is about to end.
            let _ = failed.send(error);
        })
        .map_err(system("starting a thread"))?;
    tracing::info!("relays unix sockets");
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    let result = runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).map_err(system("waiting for signals"))?;
        let mut int = signal(SignalKind::interrupt()).map_err(system("waiting for signals"))?;
        tokio::select! {
            _ = term.recv() => Ok(()),
            _ = int.recv() => Ok(()),
            error = failure => {
                let error = error.unwrap_or_else(io::Error::other);
                Err(Failure::from_ioctl(&options.device, "waiting for what qtfs.ko tells", error))
            }
        }
    });
    if result.is_ok() {
        tracing::info!("ends; connections are closed");
    }
    runtime.shutdown_background();
    result
}

/// Each connection takes two descriptors.
fn raise_limit() {
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|s| s.trim().parse().ok());
    let most = most.unwrap_or(1 << 20);
    let resource = Resource::RLIMIT_NOFILE;
    // Without CAP_SYS_RESOURCE, as in some containers, up to the hard limit.
    let raised = setrlimit(resource, most, most)
        .or_else(|_| getrlimit(resource).and_then(|(_, hard)| setrlimit(resource, hard, hard)));
    if let Err(error) = raised {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}
