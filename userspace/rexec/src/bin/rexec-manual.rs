// SPDX-License-Identifier: GPL-2.0

//! rexec-manual: writes the man pages and the shell completions of rexec's programs, which are
//! made of their command lines.

use clap::CommandFactory;
use clap::Parser;
use clap_complete::aot::generate_to;
use clap_complete::Shell;
use clap_mangen::Man;
use qtfs_rexec::cli;
use qtfs_rexec::failure::Failure;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

const NAME: &str = "rexec-manual";

/// Writes the man pages and shell completions of rexec's programs.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Manual {
    /// Where man/ and completions/ are made
    directory: PathBuf,
}

fn main() -> ExitCode {
    let args: Manual = cli::parse(NAME);
    cli::end(NAME, run(&args.directory))
}

fn run(directory: &Path) -> Result<(), Failure> {
    for (command, section) in [
        (cli::Rexec::command(), "1"),
        (cli::Ps::command(), "1"),
        (cli::Server::command(), "8"),
        (cli::Agent::command(), "8"),
        (cli::Wrappers::command(), "8"),
    ] {
        write(directory, command, section)
            .map_err(|error| Failure::System("writing the manual", error))?;
    }
    Ok(())
}

fn write(directory: &Path, mut command: clap::Command, section: &str) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let pages = directory.join(format!("man/man{section}"));
    let completions = directory.join("completions");
    for directory in [&pages, &completions] {
        std::fs::create_dir_all(directory)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, &name, &completions)?;
    }
    let mut page = Vec::new();
    Man::new(command).section(section).render(&mut page)?;
    std::fs::write(pages.join(format!("{name}.{section}")), page)
}
