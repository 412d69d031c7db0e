// SPDX-License-Identifier: GPL-2.0

//! Wrappers, man pages and completions, as they are installed.

use crate::common::run::command;
use crate::common::run::run;
use crate::common::run::run_with;
use crate::common::run::Ended;
use crate::common::Server;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn install(root: &Path, config: &str, options: &[&str]) -> Ended {
    let file = root.join("rexec.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = command(env!("CARGO_BIN_EXE_rexec-wrappers"));
    command.arg(root).arg("--config").arg(file);
    run(command
        .args(["--rexec", env!("CARGO_BIN_EXE_rexec")])
        .args(options))
}

#[test]
fn a_wrapper_passes_arguments_streams_and_status_as_they_are() {
    let server = Server::new();
    let root = tempfile::tempdir().unwrap();
    let config = format!(
        "[[wrapper]]\npath = '/opt/it''s a/show'\nprogram = 'sh'\narguments = ['-c', 'cat; printf \"%s|\" \"$@\"; exit 3', \"it's\"]\nconnect = '{}'\n",
        server.address
    )
    .replace("'/opt/it''s a/show'", "\"/opt/it's a/show\"");
    assert_eq!(
        install(root.path(), &config, &["--for", "none"]).ok(),
        "/opt/it's a/show\n"
    );
    let mut wrapper = command(root.path().join("opt/it's a/show"));
    wrapper
        .args(["", "a b", "$HOME", "*", "-x", "--", "it's", "\n"])
        .arg(OsStr::from_bytes(b"\xff"));
    let ended = run_with(&mut wrapper, b"in:");
    assert_eq!(ended.code(), Some(3), "{}", ended.stderr);
    assert_eq!(ended.stdout, b"in:|a b|$HOME|*|-x|--|it's|\n|\xff|");
}

#[test]
fn each_side_has_its_usual_wrappers() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(
        install(root.path(), "", &[]).ok(),
        "/usr/bin/containerd-shim-runc-v2\n/usr/bin/runc\n/usr/sbin/modprobe\n/usr/bin/remote_kill\n"
    );
    let shim =
        std::fs::read_to_string(root.path().join("usr/bin/containerd-shim-runc-v2")).unwrap();
    assert!(
        shim.contains(" --detach -- 'containerd-shim-runc-v2' \"$@\"\n"),
        "{shim}"
    );
    assert_eq!(
        install(root.path(), "", &["--for", "host"]).ok(),
        "/usr/bin/dockerd\n"
    );
    // Again, over its own ones.
    install(root.path(), "", &[]).ok();
    let printed = install(root.path(), "", &["--print"]);
    assert!(printed.ok().contains("# /usr/bin/remote_kill\n#!/bin/sh\n"));
}

#[test]
fn remote_kill_kills_there() {
    let server = Server::new();
    let root = tempfile::tempdir().unwrap();
    install(root.path(), "", &[]).ok();
    let mut victim = server.start("echo $$; exec sleep 1000");
    let pid = victim.line();
    let rexec = server.rexec();
    let mut remote_kill = command(root.path().join("usr/bin/remote_kill"));
    remote_kill.envs(
        rexec
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    run(remote_kill.args(["-USR1", &pid])).ok();
    assert_eq!(victim.end().signal(), Some(nix::libc::SIGUSR1));
}

#[test]
fn what_is_no_wrapper_stays_unless_forced() {
    let root = tempfile::tempdir().unwrap();
    let runc = root.path().join("usr/bin/runc");
    std::fs::create_dir_all(runc.parent().unwrap()).unwrap();
    std::fs::write(&runc, "the real one").unwrap();
    install(root.path(), "", &[]).fails(125, &["usr/bin/runc", "no wrapper", "--force"]);
    assert_eq!(std::fs::read(&runc).unwrap(), b"the real one");
    install(root.path(), "", &["--force"]).ok();
    assert!(std::fs::read_to_string(&runc)
        .unwrap()
        .starts_with("#!/bin/sh\n"));
}

#[test]
fn no_link_leads_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    // As in a root whose links are absolute.
    std::os::unix::fs::symlink("/real", root.path().join("usr")).unwrap();
    std::fs::create_dir(root.path().join("real")).unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("opt")).unwrap();
    install(root.path(), "", &[]).ok();
    assert!(root.path().join("real/bin/runc").exists());
    let ended = install(
        root.path(),
        "[[wrapper]]\npath = '/opt/x'\n",
        &["--for", "none"],
    );
    assert_ne!(ended.code(), Some(0));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn nothing_to_install_is_said() {
    let root = tempfile::tempdir().unwrap();
    install(root.path(), "", &["--for", "none"]).fails(125, &["no [[wrapper]]"]);
}

#[test]
fn man_pages_and_completions_are_made_of_the_command_lines() {
    let dir = tempfile::tempdir().unwrap();
    run(command(env!("CARGO_BIN_EXE_rexec-manual")).arg(dir.path())).ok();
    for page in [
        "man1/rexec.1",
        "man1/rexec-ps.1",
        "man8/rexec_server.8",
        "man8/rexec-wrappers.8",
    ] {
        let text = std::fs::read_to_string(dir.path().join("man").join(page)).unwrap();
        assert!(text.contains(".SH OPTIONS"), "{page}");
    }
    let rexec = std::fs::read_to_string(dir.path().join("man/man1/rexec.1")).unwrap();
    assert!(rexec.contains("pid\\-file") && rexec.contains("the connection was lost"));
    let bash = dir.path().join("completions/rexec.bash");
    assert!(std::fs::read_to_string(&bash)
        .unwrap()
        .contains("--pid-file"));
    // The shell understands it.
    run(command("bash").arg("-n").arg(bash)).ok();
    assert!(dir.path().join("completions/_rexec_server").exists());
}
