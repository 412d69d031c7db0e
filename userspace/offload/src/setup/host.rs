// SPDX-License-Identifier: GPL-2.0

//! HOST: directories, policy, the runc that comes first, engine and rexec_server.

use super::keeper::Part;
use super::keeper::Ready;
use super::machine;
use crate::config::Config;
use crate::failure::Failure;
use std::fmt::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

/// Where programs are that come before those of the system, for what rexec_server runs.
pub(super) const BIN: &str = "/usr/lib/qtfs/host-bin";
pub(super) const ENGINE: &str = "/etc/qtfs/engine.toml";
pub(super) const REXEC: &str = "/etc/qtfs/rexec.toml";
pub(super) const KEY: &str = "/etc/qtfs/rexec.key";
/// How long rexec waits for a silent link, seconds: as long as HOST keeps a silent client's files (protocol.md).
pub(super) const LINK_TIMEOUT: u16 = 60;

/// The policy that the daemons need, where there is none yet.
pub(super) fn policy(config: &Config) -> String {
    let mut text = String::from(
        "# Made by qtfs-offload up, which does not change it again.\n\
         # What the DPU may do on this machine: see policy.md.\n",
    );
    for path in config.shared() {
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "\n[[export]]\npath = {:?}\nmode = \"rw\"\noptional = true\n",
            path.to_string_lossy()
        );
    }
    text.push_str(
        "\n[[export]]\npath = \"/proc\"\nmode = \"rw\"\n\n[[export]]\npath = \"/sys\"\nmode = \"rw\"\n\
         \n[offload]\nmount = [\"overlay\", \"tmpfs\", \"bind\"]\nkill = [\"/docker/*\", \"/default/*\", \"/k8s.io/*\", \"/kubepods*\"]\n",
    );
    text
}

/// What rexec needs, where there is no configuration yet.
fn rexec(config: &Config) -> String {
    let address = SocketAddr::new(config.host, config.rexec_port);
    format!(
        "# Made by qtfs-offload up, which does not change it again. See rexec.md.\n\
         listen = \"tcp://{address}\"\nlink_timeout = {LINK_TIMEOUT}\n\n\
         [tls]\nshared_key = \"{KEY}\"\n\n\
         [[peer]]\nname = \"shared-key\"\nroot = true\n\n\
         [environment]\nset = {{ PATH = \"{}\" }}\n\n\
         [[allow]]\nprogram = \"/usr/bin/containerd-shim-runc-v2\"\n\
         [[allow]]\nprogram = \"/usr/bin/ps\"\n\
         [[allow]]\nprogram = \"{BIN}/*\"\n",
        machine::path_with(BIN)
    )
}

/// Writes a file that is not there yet.
pub(super) fn write_new(path: &str, text: &str, mode: u32) -> Result<(), Failure> {
    let failed = |error| Failure::Unfit(format!("{path} cannot be written: {error}"));
    if let Some(directory) = Path::new(path).parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let mut options = std::fs::File::options();
    let opened = options.write(true).create_new(true).mode(mode).open(path);
    match opened {
        Ok(mut file) => {
            println!("{path} is new: look at it");
            std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Puts a link to a program of qtfs into the directory that comes first.
fn link(name: &str, program: &Path) -> Result<(), Failure> {
    let path = Path::new(BIN).join(name);
    let failed = |error| Failure::Unfit(format!("{} cannot be made: {error}", path.display()));
    if std::fs::read_link(&path).is_ok_and(|to| to == program) {
        return Ok(());
    }
    let new = Path::new(BIN).join(format!(".{name}.new"));
    let _ = std::fs::remove_file(&new);
    std::os::unix::fs::symlink(program, &new).map_err(failed)?;
    std::fs::rename(&new, &path).map_err(failed)
}

/// All that must be before the programs start.
pub(super) fn prepare(config: &Config) -> Result<(), Failure> {
    let programs = config.programs()?;
    machine::make(&config.shared())?;
    machine::make(&[PathBuf::from(BIN)])?;
    machine::share_root()?;
    machine::limit_pids()?;
    write_new(ENGINE, &policy(config), 0o644)?;
    write_new(REXEC, &rexec(config), 0o644)?;
    link("runc", &programs.join("qtfs-runc"))?;
    link("qtfs-offload", &programs.join("qtfs-offload"))?;
    // The shims mount overlays; the kernel would load it by itself only if it may run modprobe.
    machine::run("modprobe", &["overlay"])?;
    machine::load(config, "qtfs_server")
}

/// engine and rexec_server.
pub(super) fn parts(config: &Config) -> Result<Vec<Part>, Failure> {
    let programs = config.programs()?;
    let part = |name, ready| Part {
        name,
        command: vec![programs.join(name).into_os_string()],
        environment: Vec::new(),
        ready,
    };
    let socket = Path::new(qtfs_control::DIRECTORY).join(qtfs_control::SOCKET);
    let address = SocketAddr::new(config.host, config.rexec_port);
    Ok(vec![
        part("engine", Ready::Socket(socket)),
        part("rexec_server", Ready::Port(address)),
    ])
}
