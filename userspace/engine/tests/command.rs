// SPDX-License-Identifier: GPL-2.0

//! The program as a user meets it when something is wrong: one line and an exit status.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Output;

fn engine(args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_engine"))
        .args(args)
        .output()
        .expect("engine runs");
    let text = |bytes| String::from_utf8(bytes).expect("messages are UTF-8");
    (
        status.code().expect("engine is not killed"),
        text(stdout),
        text(stderr),
    )
}

fn policy(dir: &Path, text: &str) -> String {
    let file = dir.join("engine.toml");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Only root gets as far as the device.
fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn check_prints_what_would_be_exported() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().canonicalize().unwrap();
    let top = top.to_str().unwrap();
    let file = policy(
        dir.path(),
        &format!("[[export]]\npath='{top}'\nmode='rw'\n[[export]]\npath='{top}/..'\n"),
    );
    let (status, out, _) = engine(&["--check", "--config", &file]);
    let parent = Path::new(top).parent().unwrap().display();
    assert_eq!(
        (status, out),
        (0, format!("rw {top}\nro {parent} (written as {top}/..)\n"))
    );
}

#[test]
fn check_says_when_nothing_is_exported() {
    let dir = tempfile::tempdir().unwrap();
    let (status, out, err) = engine(&["--check", "--config", &policy(dir.path(), "")]);
    assert_eq!((status, out.as_str()), (0, ""));
    assert!(err.contains("exports nothing"), "{err}");
}

#[test]
fn a_missing_policy_is_explained_with_an_example() {
    let (status, _, err) = engine(&["--check", "--config", "/nonexistent/engine.toml"]);
    assert_eq!(status, 3);
    let mut lines = err.lines();
    assert!(lines
        .next()
        .unwrap()
        .starts_with("engine: there is no policy file \"/nonexistent/engine.toml\": "));
    assert!(
        err.contains("[[export]]\npath = \"/var/lib/docker\""),
        "{err}"
    );
}

#[test]
fn a_wrong_policy_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = policy(dir.path(), "[[export]]\npaht = '/'\n");
    for args in [&["--check", "--config", &file][..], &["--config", &file]] {
        if args.len() == 2 && !root() {
            continue;
        }
        let (status, _, err) = engine(args);
        assert_eq!(status, 4, "{err}");
        assert_eq!(
            err,
            format!(
                "engine: {file}:2:1: unknown key \"paht\" in [[export]]: did you mean \"path\"?\n"
            )
        );
    }
    let (status, _, err) = engine(&["--check", "--config", "/"]);
    assert_eq!(status, 4);
    assert!(err.starts_with("engine: /: cannot be read ("), "{err}");
}

#[test]
fn the_module_must_be_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let file = policy(dir.path(), "[[export]]\npath='/'\n");
    let (status, _, err) = engine(&["--config", &file, "--device", "/nonexistent/qtfs_server"]);
    if root() {
        assert_eq!(status, 6);
        assert!(
            err.contains("run \"insmod qtfs_server.ko qtfs_server_ip=ADDRESS\" first"),
            "{err}"
        );
    } else {
        assert_eq!(status, 5);
        assert!(err.contains("engine needs root"), "{err}");
    }
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn a_device_that_is_not_the_modules_is_refused() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = policy(dir.path(), "[[export]]\npath='/'\n");
    let (status, _, err) = engine(&["4096", "16", "--config", &file, "--device", "/dev/null"]);
    assert_eq!(status, 8, "{err}");
    assert!(err.contains("of different versions"), "{err}");
    assert!(
        err.contains("--threads 16 is used; the buffer size 4096 is obsolete"),
        "{err}"
    );
}

#[test]
fn a_wrong_command_line_has_status_2() {
    for args in [
        &["--treads", "3"][..],
        &["16"],
        &["--threads", "9", "--max-threads", "8"],
        &["--log", "loud"],
    ] {
        let (status, out, err) = engine(args);
        assert_eq!((status, out.as_str()), (2, ""), "{err}");
    }
}

#[test]
fn help_tells_the_exit_statuses() {
    let (status, out, _) = engine(&["--help"]);
    assert_eq!(status, 0);
    assert!(out.contains("6  qtfs_server.ko is not loaded"), "{out}");
    assert!(!out.contains("OLD") && !out.contains("--device"), "{out}");
}
