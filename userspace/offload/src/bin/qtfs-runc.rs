// SPDX-License-Identifier: GPL-2.0

//! qtfs-runc: stands before runc on HOST, see [`qtfs_offload::hook`].

use qtfs_offload::hook;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;

/// Where the real one is, unless the environment says otherwise.
const RUNC: [&str; 3] = ["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc"];
const VARIABLE: &str = "QTFS_RUNC";
const HELP: &str = "\
Usage: qtfs-runc ARGUMENTS OF RUNC
       libnetwork-setkey [-exec-root=DIR] CONTAINER CONTROLLER < STATE

Runs runc. Before `create` and `run` the bundle's hook that is dockerd on the DPU is replaced by this program,
which tells dockerd what the hook would have. Install it on HOST under the name of runc, in a directory that
comes first in the PATH of rexec_server. QTFS_RUNC names the real runc if it is none of /usr/sbin/runc,
/usr/bin/runc and /usr/local/sbin/runc.";

fn main() -> ExitCode {
    let mut words = env::args_os();
    let name = words.next().unwrap_or_default();
    let arguments: Vec<OsString> = words.collect();
    if Path::new(&name)
        .file_name()
        .is_some_and(|name| name == hook::SET_KEY)
    {
        let texts = arguments
            .iter()
            .map(|word| word.to_string_lossy().into_owned());
        let texts: Vec<String> = texts.collect();
        return end(hook::set_key(&texts, &mut io::stdin().lock())
            .map_err(|e| format!("{}: {e}", hook::SET_KEY)));
    }
    if arguments.first().is_some_and(|word| word == "--qtfs-help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    end(runc(&arguments))
}

fn end(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("qtfs-runc: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes runc.
fn runc(arguments: &[OsString]) -> Result<(), String> {
    let own = env::current_exe().map_err(|e| format!("finding itself: {e}"))?;
    if let Some(bundle) = hook::bundle_of(arguments) {
        let changed = hook::redirect(&bundle, &own);
        changed.map_err(|e| format!("{}/config.json: {e}", bundle.display()))?;
    }
    let real = real(&own)?;
    let error = Command::new(&real).args(arguments).exec();
    Err(format!("{}: {error}", real.display()))
}

/// The real runc: not this program under another name.
fn real(own: &Path) -> Result<PathBuf, String> {
    if let Some(named) = env::var_os(VARIABLE) {
        return Ok(named.into());
    }
    let other = |path: &Path| path.canonicalize().is_ok_and(|real| real != own);
    let found = RUNC.iter().find(|path| other(Path::new(path)));
    let missing = || {
        format!(
            "runc is not on HOST (looked for {}): apt install runc",
            RUNC.join(", ")
        )
    };
    found.map(PathBuf::from).ok_or_else(missing)
}
