// SPDX-License-Identifier: GPL-2.0

//! rexec-wrappers: puts scripts that stand in for programs of the other machine into a root file
//! system.

use qtfs_rexec::cli;
use qtfs_rexec::cli::Wrappers;
use qtfs_rexec::failure::Failure;
use qtfs_rexec::wrappers;
use std::process::ExitCode;

const NAME: &str = "rexec-wrappers";

fn main() -> ExitCode {
    cli::end(NAME, run(&cli::parse(NAME)))
}

fn run(args: &Wrappers) -> Result<(), Failure> {
    let config = args.configuration.read()?;
    let list = wrappers::list(&config, args.side);
    if list.is_empty() {
        return Err(Failure::Usage(
            "the configuration has no [[wrapper]], so there is nothing to install".into(),
        ));
    }
    for wrapper in &list {
        if args.print {
            let text = wrappers::script(wrapper, &args.rexec);
            let name = wrapper.path.display();
            cli::print(&format!("# {name}\n{}", String::from_utf8_lossy(&text)));
        } else {
            wrappers::install(&args.root, wrapper, &args.rexec, args.force)?;
            cli::print(&format!("{}\n", wrapper.path.display()));
        }
    }
    Ok(())
}
