// SPDX-License-Identifier: GPL-2.0

//! qtfs-probe: a client of the qtfs protocol for tests.

use anyhow::bail;
use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use clap::Subcommand;
use qtfs_probe::conn::Server;
use qtfs_probe::files;
use qtfs_probe::hostile;
use qtfs_probe::liar;
use qtfs_probe::load;
use qtfs_probe::mangle;
use qtfs_probe::mangle::Mangle;
use qtfs_probe::mangle::Side;
use qtfs_probe::script;
use qtfs_probe::script::Script;
use qtfs_probe::table;
use qtfs_proto::Op;
use std::io::Read;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Speaks the protocol of qtfs from userspace, for tests with odd and hostile clients.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit status: 0 all went as expected, 1 something did not, 2 wrong command line."
)]
struct Args {
    /// The server
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:12345",
        global = true
    )]
    connect: String,

    /// How long to wait for anything
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, global = true)]
    timeout: f64,

    /// Print less
    #[arg(short, long, global = true)]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// HELLO with fields as given, for example: hello version_min=2 version_max=3
    Hello {
        /// Fields of the message
        fields: Vec<String>,
    },
    /// ATTACH to an exported directory
    Attach {
        /// The directory
        path: String,
    },
    /// One request in a new session: call OP KEY=VALUE... (see the help of run)
    Call {
        /// Name of the message and its fields
        words: Vec<String>,
    },
    /// Run a script from a file or stdin
    #[command(after_long_help = script::HELP)]
    Run {
        /// The script
        file: Option<PathBuf>,
    },
    /// Print the attributes of a file
    Stat {
        /// The exported directory
        export: String,
        /// The file in it
        #[arg(default_value = "")]
        path: String,
    },
    /// List a directory
    List {
        /// The exported directory
        export: String,
        /// The directory in it
        #[arg(default_value = "")]
        path: String,
    },
    /// Write the contents of a file to stdout
    Read {
        /// The exported directory
        export: String,
        /// The file in it
        path: String,
    },
    /// Random bytes instead of HELLO, after it, and behind good headers
    Garbage {
        /// The same seed gives the same bytes
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many inputs
        #[arg(long, default_value_t = 100)]
        count: usize,
    },
    /// Every request cut at every length, and frames whose end does not come
    Truncated {
        /// Only this message
        #[arg(long)]
        op: Option<String>,
        /// Only every Nth length
        #[arg(long, value_name = "N", default_value_t = 1)]
        step: usize,
    },
    /// Headers whose lengths are wrong
    Oversized,
    /// Good requests with a few bits changed, each message in turn; may do anything below EXPORT
    Mutated {
        /// A directory with nothing worth keeping
        export: String,
        /// The same seed gives the same requests
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many inputs
        #[arg(long, default_value_t = 100)]
        count: usize,
    },
    /// Requests that come again after a reconnect, and numbers that are out of order
    Replay {
        /// A directory that can be written
        export: String,
    },
    /// A client that sends byte by byte
    Slow {
        /// Milliseconds between bytes
        #[arg(long, default_value_t = 20)]
        pause: u64,
    },
    /// All slots of many sessions at once: flood [OPTIONS] OP KEY=VALUE...
    Flood {
        /// Sessions at the same time
        #[arg(long, default_value_t = 4)]
        sessions: usize,
        /// Requests of each session
        #[arg(long, default_value_t = 1000)]
        count: usize,
        /// Slots of each session
        #[arg(long, default_value_t = 64)]
        slots: u16,
        /// Directory to attach to; $root in the request stands for its node
        #[arg(long)]
        export: Option<String>,
        /// File in it to open or create; $file stands for it
        #[arg(long)]
        file: Option<String>,
        /// The request
        #[arg(default_value = "ping")]
        request: Vec<String>,
    },
    /// Connections that do nothing
    Hold {
        /// How many
        #[arg(long, default_value_t = 1000)]
        count: usize,
        /// Each makes a session
        #[arg(long)]
        hello: bool,
        /// For how many seconds
        #[arg(long, default_value_t = 1)]
        seconds: u64,
    },
    /// Stand between clients and the server and change what they say; prints each changed frame
    Mangle {
        /// Where clients connect to
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:12300")]
        listen: String,
        /// Whose frames
        #[arg(long, value_enum, default_value_t = Side::Server)]
        side: Side,
        /// One of so many, by chance
        #[arg(long, value_name = "N", default_value_t = 20)]
        every: usize,
        /// The same seed makes the same choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only this message
        #[arg(long)]
        op: Option<String>,
        /// The first frames of each connection stay as they are
        #[arg(long, value_name = "N", default_value_t = 0)]
        skip: u64,
    },
    /// A server with a few files that tells the lie NAME once a client has looked up lie:NAME
    Lie {
        /// Where clients connect to
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:12300")]
        listen: String,
    },
    /// Whether a new client is served
    Alive,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("qtfs-probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A message by its name.
fn message(name: &str) -> Result<Op> {
    table::op(name).with_context(|| format!("no message is called {name}"))
}

fn run(args: Args) -> Result<()> {
    let mut addresses = args
        .connect
        .to_socket_addrs()
        .with_context(|| args.connect.clone())?;
    let address = addresses.next().context("the address leads to nothing")?;
    if !(args.timeout > 0.0 && args.timeout < 1e6) {
        bail!("--timeout {}: not a sensible time", args.timeout);
    }
    let server = Server {
        address,
        timeout: Duration::from_secs_f64(args.timeout),
    };
    let line = |words: &[String]| {
        let quoted = words
            .iter()
            .map(|word| qtfs_probe::text::quote(word.as_bytes()));
        Script::new(server, args.quiet).line(&quoted.collect::<Vec<_>>().join(" "))
    };
    match args.command {
        Command::Hello { fields } => line(&[vec!["hello".into()], fields].concat()),
        Command::Attach { path } => line(&["attach".into(), format!("path={path}")]),
        Command::Call { words } => line(&words),
        Command::Run { file } => {
            let text = match file {
                Some(file) => {
                    std::fs::read_to_string(&file).with_context(|| file.display().to_string())?
                }
                None => {
                    let mut text = String::new();
                    std::io::stdin().read_to_string(&mut text)?;
                    text
                }
            };
            Script::new(server, args.quiet).run(&text)
        }
        Command::Stat { export, path } => files::stat(server, &export, &path),
        Command::List { export, path } => files::list(server, &export, &path),
        Command::Read { export, path } => files::read(server, &export, &path),
        Command::Garbage { seed, count } => hostile::garbage(server, seed, count),
        Command::Truncated { op, step } => {
            let only = op.map(|name| message(&name)).transpose()?;
            hostile::truncated(server, only, step)
        }
        Command::Oversized => hostile::oversized(server),
        Command::Mutated {
            export,
            seed,
            count,
        } => hostile::mutated(server, &export, seed, count),
        Command::Replay { export } => hostile::replay(server, &export),
        Command::Slow { pause } => hostile::slow(server, Duration::from_millis(pause)),
        Command::Flood {
            sessions,
            count,
            slots,
            export,
            file,
            request,
        } => load::flood(
            server,
            &load::Flood {
                sessions,
                count,
                slots,
                export,
                file,
                request,
            },
        ),
        Command::Hold {
            count,
            hello,
            seconds,
        } => load::hold(server, count, hello, Duration::from_secs(seconds)),
        Command::Mangle {
            listen,
            side,
            every,
            seed,
            op,
            skip,
        } => mangle::mangle(
            server,
            &Mangle {
                listen,
                side,
                every,
                seed,
                op: op.map(|name| message(&name)).transpose()?,
                skip,
            },
        ),
        Command::Lie { listen } => liar::lie(&listen),
        Command::Alive => hostile::alive(server),
    }
}
