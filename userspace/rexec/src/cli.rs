// SPDX-License-Identifier: GPL-2.0

//! The command lines of the programs.

use crate::address::Address;
use crate::client::connect::Route;
use crate::config::Config;
use crate::config::Tls;
use crate::config::FILE;
use crate::failure::Failure;
use crate::failure::EXIT_STATUS;
use crate::link;
use crate::wrappers::Side;
use clap::Args;
use clap::Parser;
use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The status for a wrong command line; 2, which is usual, is a status that many programs have.
pub(crate) const WRONG: u8 = 125;

/// Reads the command line of `name`. Ends the process when there is nothing to be done further:
/// after `--help` and the like, and after saying in one line what is wrong.
pub fn parse<T: Parser>(name: &str) -> T {
    T::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() {
            // Nobody reads any more: no failure.
            let _ = error.print();
            std::process::exit(0);
        }
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let what = first.strip_prefix("error: ").unwrap_or(first);
        // A list follows, such as that of missing arguments.
        let more = match what.ends_with(':') {
            true => text.lines().nth(1).unwrap_or_default(),
            false => "",
        };
        let _ = writeln!(io::stderr(), "{name}: {what}{more} (try {name} --help)");
        std::process::exit(WRONG.into())
    })
}

/// Prints what was asked for, and says nothing when nobody reads it.
pub fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// What a program makes of the end of its work: a line on stderr and an exit status.
pub fn end(name: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{name}: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

/// Where the configuration is.
#[derive(Args, Clone, Debug)]
pub struct ConfigFile {
    /// The configuration file [default: /etc/qtfs/rexec.toml, if it exists]
    #[arg(
        long,
        value_name = "FILE",
        env = "REXEC_CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    /// What it says.
    pub fn read(&self) -> Result<Config, Failure> {
        Config::read(self.config.as_deref())
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(FILE))
    }
}

/// What a program that stays in the foreground logs.
#[derive(Args, Clone, Debug)]
pub struct Logging {
    /// How much to log
    #[arg(long, value_name = "LEVEL", default_value = "info", ignore_case = true, value_parser = ["error", "warn", "info", "debug"])]
    pub log: String,
}

impl Logging {
    /// Has log lines go to stderr; the journal knows the time by itself.
    pub fn start(&self) {
        let level = self.log.parse();
        qtfs_log::start(level.unwrap_or(tracing::level_filters::LevelFilter::INFO));
    }
}

/// Options that both programs have.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Where the configuration is.
    #[command(flatten)]
    pub configuration: ConfigFile,

    /// A file of at least 32 bytes that both sides have: keys for TLS without certificates
    #[arg(long, value_name = "FILE")]
    pub shared_key: Option<PathBuf>,

    /// TCP and vsock go in clear: whoever can reach the server can run programs there
    #[arg(long)]
    pub insecure: bool,

    /// Seconds after which a silent link counts as lost [default: 15]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub link_timeout: Option<u16>,
}

impl Common {
    /// The configuration file, changed by these options.
    pub fn read(&self) -> Result<Config, Failure> {
        let mut config = self.configuration.read()?;
        if let Some(file) = &self.shared_key {
            config.tls = Some(Tls {
                shared_key: Some(file.clone()),
                ..Tls::default()
            });
        }
        if self.insecure {
            config.insecure = true;
        }
        config.link_timeout = self.link_timeout.or(config.link_timeout);
        Ok(config)
    }

    /// The way to the server: that of the options, or of the configuration.
    pub fn route(
        &self,
        config: &Config,
        connect: Option<Address>,
        timeout: Option<u16>,
    ) -> Result<Route, Failure> {
        let address = connect.or_else(|| config.connect.clone()).ok_or_else(|| {
            Failure::Usage(format!(
                "no server is named: give --connect ADDRESS, set CMD_NET_ADDR, or write connect = \"ADDRESS\" to {}",
                self.configuration.path().display()
            ))
        })?;
        let seconds = |seconds: u16| Duration::from_secs(seconds.into());
        let connect_timeout = timeout.or(config.connect_timeout);
        Ok(Route {
            address,
            tls: config.tls.clone().filter(|_| !self.insecure),
            insecure: config.insecure,
            connect_timeout: seconds(connect_timeout.unwrap_or(link::CONNECT_TIMEOUT)),
            link_timeout: seconds(config.link_timeout.unwrap_or(link::LINK_TIMEOUT)),
        })
    }
}

/// Runs CMD on the other machine as if it were here.
///
/// Arguments, environment, working directory, umask, user, limits, streams, signals and exit
/// status are CMD's as they would be here.
#[derive(Debug, Parser)]
#[command(name = "rexec", version, after_help = EXIT_STATUS)]
pub struct Rexec {
    /// Options that rexec_server has too.
    #[command(flatten)]
    pub common: Common,

    /// Where rexec_server is: tcp://HOST:PORT, unix:///PATH or vsock://CID:PORT
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "CMD_NET_ADDR",
        hide_env_values = true
    )]
    pub connect: Option<Address>,

    /// Give CMD a terminal, with this one's size
    #[arg(short = 't', long = "tty", overrides_with = "no_tty")]
    pub tty: bool,

    /// Give CMD no terminal, as without -t
    #[arg(short = 'T', long = "no-tty", overrides_with = "tty")]
    pub no_tty: bool,

    /// Let descendants of CMD live on when CMD has ended
    #[arg(long)]
    pub detach: bool,

    /// Start CMD in this directory, not in the one with the name of the current one
    #[arg(short = 'C', long, value_name = "DIR")]
    pub directory: Option<PathBuf>,

    /// Start CMD as USER[:GROUP], names or numbers there; only root may ask for others
    #[arg(short = 'u', long, value_name = "USER")]
    pub user: Option<String>,

    /// Set a variable for CMD, or with NAME alone pass this one in spite of the configuration
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    pub environment: Vec<OsString>,

    /// Write CMD's process id there to FILE
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,

    /// Seconds that connecting may take [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub connect_timeout: Option<u16>,

    /// The program and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

impl Rexec {
    /// The agent to ask: that of the configuration, when these options change nothing of the way
    /// to the server that it has its connections from.
    pub fn agent(&self, config: &Config) -> Option<PathBuf> {
        let same = self.connect.is_none() || self.connect == config.connect;
        let usual = same && !self.common.insecure && self.common.shared_key.is_none();
        config.agent.clone().filter(|_| usual)
    }
}

/// Runs programs for those who call rexec on the other machine.
///
/// Stays in the foreground and logs to stderr.
#[derive(Debug, Parser)]
#[command(name = "rexec_server", version)]
pub struct Server {
    /// Options that rexec has too.
    #[command(flatten)]
    pub common: Common,

    /// Where to listen: tcp://ADDRESS:PORT, unix:///PATH or vsock://any:PORT; may be repeated
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "CMD_NET_ADDR",
        hide_env_values = true
    )]
    pub listen: Vec<Address>,

    /// Allow a program besides those of the configuration; "*" for all
    #[arg(long, value_name = "PROGRAM")]
    pub allow: Vec<String>,

    /// Most programs that run at a time [default: 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_sessions: Option<u32>,

    /// Show the sessions that a running server has, and end
    #[arg(long)]
    pub status: bool,

    /// With --status: print JSON, whose form Documentation/rexec.md describes
    #[arg(long, requires = "status")]
    pub json: bool,

    /// The socket on which the sessions are told
    #[arg(long, value_name = "PATH", default_value = crate::server::status::SOCKET)]
    pub status_socket: PathBuf,

    /// What goes to the log.
    #[command(flatten)]
    pub logging: Logging,
}

/// Keeps connections to the server, so that a rexec that comes need not make its own.
///
/// Serves its own user alone, at the socket that the configuration has as agent. Stays in the
/// foreground and logs to stderr.
#[derive(Debug, Parser)]
#[command(name = "rexec-agent", version)]
pub struct Agent {
    /// Options that rexec has too.
    #[command(flatten)]
    pub common: Common,

    /// What goes to the log.
    #[command(flatten)]
    pub logging: Logging,
}

/// Shows the sessions of the rexec_server on this machine.
#[derive(Debug, Parser)]
#[command(name = "rexec-ps", version)]
pub struct Ps {
    /// Print JSON, whose form Documentation/rexec.md describes
    #[arg(long)]
    pub json: bool,

    /// The socket on which the server tells them
    #[arg(long, value_name = "PATH", default_value = crate::server::status::SOCKET)]
    pub status_socket: PathBuf,
}

/// Puts scripts into a root file system that stand in for programs of the other machine.
///
/// They are the usual ones of its side and those of [[wrapper]] in the configuration. Each runs
/// its program with rexec, with the arguments as they are, and prints where it was put.
#[derive(Debug, Parser)]
#[command(name = "rexec-wrappers", version)]
pub struct Wrappers {
    /// The root file system that gets them
    #[arg(value_name = "ROOT")]
    pub root: PathBuf,

    /// Whose root file system that is
    #[arg(long = "for", value_name = "SIDE", value_enum, default_value = "dpu")]
    pub side: Side,

    /// Where the configuration is.
    #[command(flatten)]
    pub configuration: ConfigFile,

    /// Where rexec is in that root file system
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/rexec")]
    pub rexec: PathBuf,

    /// Replace programs that are there
    #[arg(long)]
    pub force: bool,

    /// Print the scripts, and install nothing
    #[arg(long)]
    pub print: bool,
}
