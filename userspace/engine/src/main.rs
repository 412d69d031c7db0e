// SPDX-License-Identifier: GPL-2.0

//! engine: the daemon of qtfs on HOST.

#![deny(unsafe_op_in_unsafe_fn)]

use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use nix::sys::resource::Resource;
use nix::sys::resource::RLIM_INFINITY;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::stat::umask;
use nix::sys::stat::Mode;
use qtfs_engine::cli;
use qtfs_engine::cli::Options;
use qtfs_engine::device::Device;
use qtfs_engine::exports::Exports;
use qtfs_engine::failure::Failure;
use qtfs_engine::offload::Rules;
use qtfs_engine::offload::Server;
use qtfs_engine::policy::Error;
use qtfs_engine::policy::Source;
use qtfs_engine::pool::Limits;
use qtfs_engine::pool::Pool;
use qtfs_engine::sockets::Relays;
use qtfs_engine::sys;
use qtfs_engine::sys::Module;
use std::io;
use std::io::ErrorKind;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::mpsc::Sender;
use std::sync::Arc;

/// What the first qtfs had for a policy.
const WHITELIST: &str = "/etc/qtfs/whitelist";

/// What the main thread waits for.
enum Event {
    Reload,
    Stop(Signal),
    Failed(Failure),
}

fn main() -> ExitCode {
    let run = |options: Options| {
        qtfs_log::start_with(options.log, || Lenient(io::stderr()));
        if options.check {
            check(&options)
        } else {
            serve(options)
        }
    };
    match cli::parse().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "engine: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

/// `engine --check`.
fn check(options: &Options) -> Result<(), Failure> {
    let rules = load(&options.config)?;
    let exports = rules.exports();
    let mut out = io::stdout().lock();
    for export in exports.iter() {
        writeln!(out, "{export}").map_err(|e| Failure::System("printing", e))?;
    }
    if exports.is_empty() {
        let _ = writeln!(
            io::stderr(),
            "engine: {}: exports nothing",
            options.config.display()
        );
    }
    Ok(())
}

/// Reads and checks the policy.
fn load(file: &Path) -> Result<Rules, Failure> {
    let source = Source::read(file).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            if Path::new(WHITELIST).exists() {
                tracing::warn!("{WHITELIST} of the first qtfs is not read any more: each path of its [Mount] is an [[export]] now");
            }
            Failure::NoPolicy(file.into())
        }
        _ => Failure::Policy(Error {
            file: file.into(),
            place: None,
            text: format!("cannot be read ({error}): it must be a text file that root can read"),
        }),
    })?;
    if let Ok(meta) = std::fs::metadata(file) {
        if meta.mode() & 0o022 != 0 || meta.uid() != 0 {
            tracing::warn!(
                "{}: others than root can change it, and with it what is exported: chown root, chmod 644",
                file.display()
            );
        }
    }
    let exports = Exports::check(&source).map_err(Failure::Policy)?;
    let offload = source.offload().map_err(Failure::Policy)?;
    Ok(Rules::new(exports, offload))
}

/// Hands the policy to those who act by it and says what it is.
fn configure(
    module: &Module,
    server: &Server,
    options: &Options,
    rules: Rules,
) -> Result<(), Failure> {
    let exports = rules.exports();
    let result = module.configure(&exports.blob());
    result.map_err(|e| {
        Failure::from_ioctl(&options.device, "handing the policy to qtfs_server.ko", e)
    })?;
    for export in exports.iter() {
        tracing::info!("exports {export}");
    }
    if exports.is_empty() {
        tracing::warn!(
            "{}: exports nothing, so every mount is refused",
            options.config.display()
        );
    }
    server.set(rules);
    Ok(())
}

fn serve(mut options: Options) -> Result<(), Failure> {
    let system = |doing| move |error| Failure::System(doing, error);
    let signals = block_signals().map_err(system("blocking signals"))?;
    if let Some(hint) = &options.hint {
        tracing::warn!("{hint}");
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::NotRoot);
    }
    // The policy is read again after the change of directory.
    options.config =
        std::path::absolute(&options.config).map_err(system("finding the policy file"))?;
    let options = &options;
    let rules = load(&options.config)?;
    let module =
        Module::open(&options.device).map_err(|e| Failure::from_open(&options.device, e))?;
    let module = Arc::new(module);

    sys::prepare_interrupt().map_err(system("installing a signal handler"))?;
    // A mount that holds the current directory could not be unmounted.
    std::env::set_current_dir("/").map_err(system("changing to /"))?;
    // The client sends its callers' umask with each request.
    umask(Mode::empty());
    raise_limits();

    let server = Server::default();
    configure(&module, &server, options, rules)?;
    server
        .listen(Path::new(qtfs_control::DIRECTORY))
        .map_err(system("listening for qtfs-offload in /run/qtfs/offload"))?;
    let (events, next) = mpsc::channel();
    let failures = events.clone();
    let device = options.device.clone();
    let limits = Limits {
        base: options.threads as usize,
        max: options.max_threads as usize,
    };
    let relays = Relays::start(Arc::clone(&module))
        .map_err(|e| Failure::from_ioctl(&options.device, "starting to relay unix sockets", e))?;
    let pool = Pool::start(module, limits, move |doing, error| {
        // Nobody listens any more when the engine is about to end.
        let _ = failures.send(Event::Failed(Failure::from_ioctl(&device, doing, error)));
    })
    .map_err(system("starting worker threads"))?;
    watch_signals(signals, events).map_err(system("starting a thread"))?;
    tracing::info!(
        "serves with {} threads, {} at most",
        limits.base,
        limits.max
    );

    let result = loop {
        match next.recv() {
            Ok(Event::Reload) => {
                let again = load(&options.config)
                    .and_then(|rules| configure(pool.device(), &server, options, rules));
                match again {
                    Ok(()) => tracing::info!("the policy was read again"),
                    Err(failure) => tracing::error!("the old policy stays: {failure}"),
                }
            }
            Ok(Event::Stop(signal)) => {
                tracing::info!("ends on {signal}; requests wait for the next engine");
                break Ok(());
            }
            Ok(Event::Failed(failure)) => break Err(failure),
            // The sender of the failures lives in the pool.
            Err(mpsc::RecvError) => unreachable!("the pool holds a sender"),
        }
    };
    // Whoever is in a hurry signals a second time.
    std::thread::spawn(move || {
        while let Ok(event) = next.recv() {
            if let Event::Stop(signal) = event {
                tracing::warn!("ends at once on a second {signal}");
                std::process::exit(1);
            }
        }
    });
    drop(relays);
    pool.stop();
    result
}

/// Blocks the signals that [`watch_signals`] waits for, in this thread and those to come.
fn block_signals() -> io::Result<SigSet> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(set)
}

/// Turns signals into events, in a thread of its own that lives as long as the process.
fn watch_signals(signals: SigSet, events: Sender<Event>) -> io::Result<()> {
    std::thread::Builder::new()
        .name("engine/signals".into())
        .spawn(move || loop {
            let event = match signals.wait() {
                Ok(Signal::SIGHUP) => Event::Reload,
                Ok(signal) => Event::Stop(signal),
                Err(_) => continue,
            };
            if events.send(event).is_err() {
                return;
            }
        })?;
    Ok(())
}

/// Open files and file sizes are the callers' business, so engine's own limits must not bind.
fn raise_limits() {
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|s| s.trim().parse().ok());
    let most = most.unwrap_or(1 << 20);
    for (resource, want) in [
        (Resource::RLIMIT_NOFILE, most),
        (Resource::RLIMIT_FSIZE, RLIM_INFINITY),
    ] {
        // Without CAP_SYS_RESOURCE, as in some containers, up to the hard limit.
        let raised = setrlimit(resource, want, want)
            .or_else(|_| getrlimit(resource).and_then(|(_, hard)| setrlimit(resource, hard, hard)));
        if let Err(error) = raised {
            tracing::warn!("cannot raise {resource:?}: {error}");
        }
    }
}

/// Stderr that may be gone: a terminal that was closed must not end the engine.
struct Lenient(io::Stderr);

impl Write for Lenient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
