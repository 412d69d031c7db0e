// SPDX-License-Identifier: GPL-2.0

//! The program as a user meets it, with files that a kernel once said.

use nix::pty::openpty;
use nix::pty::Winsize;
use nix::sys::signal::kill;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use tempfile::TempDir;

const MOUNTSTATS: &str = include_str!("mountstats");
const MOUNTINFO: &str = include_str!("mountinfo");

/// A directory with `proc` and `sys` in it, as on a DPU with two mounts.
fn dpu() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "proc/self/mountstats", MOUNTSTATS);
    write(dir.path(), "proc/self/mountinfo", MOUNTINFO);
    module(dir.path(), "qtfs", "WARN\n");
    dir
}

fn write(root: &Path, file: &str, text: &str) {
    let file = root.join(file);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

fn module(root: &Path, name: &str, level: &str) {
    let file = format!("sys/module/{name}/parameters/qtfs_log_level");
    write(root, &file, level);
}

fn command(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qtinfo"));
    command.arg("--root").arg(root).args(args);
    command
}

fn qtinfo(root: &Path, args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(root, args).output().expect("qtinfo runs");
    let text = |bytes| String::from_utf8(bytes).expect("what it says is UTF-8");
    (
        status.code().expect("qtinfo is not killed"),
        text(stdout),
        text(stderr),
    )
}

fn json(root: &Path, args: &[&str]) -> Value {
    let (status, out, err) = qtinfo(root, args);
    assert_eq!((status, err.as_str()), (0, ""));
    serde_json::from_str(&out).expect("it is JSON")
}

#[test]
fn shows_a_table_for_each_mount() {
    let dpu = dpu();
    let (status, out, err) = qtinfo(dpu.path(), &[]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(out, include_str!("shown"));
}

#[test]
fn a_mount_point_limits_it_to_one_mount() {
    let dpu = dpu();
    for name in ["/mnt/with space", "/mnt/with space/", "/mnt/./with space"] {
        let (status, out, _) = qtinfo(dpu.path(), &[name]);
        assert_eq!(status, 0);
        assert!(
            out.starts_with("/mnt/with space: /srv/a b on fd00::1 port 4242\n"),
            "{out}"
        );
        assert!(!out.contains("/srv/share"), "{out}");
    }
    let (status, out, err) = qtinfo(dpu.path(), &["/proc"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "qtinfo: nothing of qtfs is mounted on /proc: \
         qtinfo without arguments shows what is mounted where\n"
    );
}

#[test]
fn json_has_every_number() {
    let dpu = dpu();
    let found = json(dpu.path(), &["--json"]);
    assert_eq!(found["version"], 1);
    let mounts = found["mounts"].as_array().unwrap();
    assert_eq!(mounts.len(), 2);
    let first = &mounts[0];
    for (key, value) in [
        ("id", Value::from(60)),
        ("mount_point", "/mnt/share".into()),
        ("source", "/srv/share".into()),
        ("server", "10.0.0.1".into()),
        ("port", 12345.into()),
        ("mode", "files".into()),
        ("in_flight", 3.into()),
        ("reconnects", 2.into()),
    ] {
        assert_eq!(first[key], value, "{key}");
    }
    assert_eq!(
        first["options"],
        serde_json::json!([
            "rw",
            "relatime",
            "server=10.0.0.1",
            "port=12345",
            "nconnect=2",
            "hard"
        ])
    );
    let read = &first["operations"]["READ"];
    for (key, value) in [
        ("requests", 101),
        ("waits", 90),
        ("retransmits", 1),
        ("bytes_sent", 8080),
        ("bytes_received", 10_485_760),
        ("errors", 2),
        ("finished", 100),
        ("total_us", 250_000),
        ("p50_below_us", 1024),
        ("p99_below_us", 65_536),
    ] {
        assert_eq!(read[key], Value::from(value), "{key}");
    }
    assert_eq!(read["mean_us"], Value::from(2500.0));
    let latency = read["latency"].as_array().unwrap();
    assert_eq!(latency.len(), 27);
    assert_eq!(latency[0], serde_json::json!({"below_us": 2, "count": 0}));
    assert_eq!(
        latency[26],
        serde_json::json!({"below_us": null, "count": 0})
    );
    // What never happened is there as well.
    let write = &first["operations"]["WRITE"];
    assert_eq!(write["requests"], 0);
    assert_eq!(write["mean_us"], Value::Null);
    assert_eq!(write["p99_below_us"], Value::Null);
    assert_eq!(write["latency"].as_array().unwrap().len(), 27);
    // Longer than the histogram can tell.
    let lock = &mounts[1]["operations"]["LOCK"];
    assert_eq!(lock["finished"], 1);
    assert_eq!(lock["p50_below_us"], Value::Null);
    assert_eq!(mounts[1]["mode"], "proc");
}

#[test]
fn a_module_without_histograms_is_understood() {
    let dpu = dpu();
    let lines = MOUNTSTATS.lines().filter(|line| !line.contains("latency"));
    let text = lines.collect::<Vec<_>>().join("\n");
    write(dpu.path(), "proc/self/mountstats", &text);
    let found = json(dpu.path(), &["--json", "/mnt/share"]);
    let read = &found["mounts"][0]["operations"]["READ"];
    assert_eq!(read["requests"], 101);
    assert_eq!(read["latency"], serde_json::json!([]));
    let (status, out, _) = qtinfo(dpu.path(), &["/mnt/share"]);
    assert_eq!(status, 0);
    let row = out.lines().find(|line| line.contains("READ ")).unwrap();
    assert!(row.ends_with("-    -    -"), "{out}");
}

#[test]
fn nothing_mounted_and_nothing_loaded_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(
        root,
        "proc/self/mountstats",
        "device proc mounted on /proc with fstype proc\n",
    );
    write(root, "proc/self/mountinfo", "");
    for args in [&[][..], &["--json"], &["--watch"], &["/mnt"]] {
        let (status, out, err) = qtinfo(root, args);
        assert_eq!((status, out.as_str()), (1, ""), "{args:?}");
        assert_eq!(
            err,
            "qtinfo: qtfs.ko is not loaded: run \"insmod qtfs.ko qtfs_server_ip=ADDRESS\" first\n"
        );
    }
    module(root, "qtfs_server", "INFO\n");
    let (status, _, err) = qtinfo(root, &[]);
    assert_eq!(status, 1);
    assert!(err.contains("this is HOST"), "{err}");
    module(root, "qtfs", "INFO\n");
    assert_eq!(
        qtinfo(root, &[]),
        (0, "nothing of qtfs is mounted\n".into(), String::new())
    );
    assert_eq!(
        json(root, &["--json"]),
        serde_json::json!({"version": 1, "mounts": []})
    );
}

#[test]
fn the_log_level_is_set_and_what_it_was_is_told() {
    let dpu = dpu();
    let root = dpu.path();
    let level = |name| {
        let file = format!("sys/module/{name}/parameters/qtfs_log_level");
        fs::read_to_string(root.join(file)).unwrap()
    };
    assert_eq!(
        qtinfo(root, &["-l", "debug"]),
        (
            0,
            "qtfs: the log level was WARN and is DEBUG now\n".into(),
            String::new()
        )
    );
    assert_eq!(level("qtfs"), "DEBUG\n");
    module(root, "qtfs_server", "INFO\n");
    let (status, out, _) = qtinfo(root, &["--log-level", "ERROR"]);
    assert_eq!(status, 0);
    assert_eq!(
        out,
        "qtfs: the log level was DEBUG and is ERROR now\n\
         qtfs_server: the log level was INFO and is ERROR now\n"
    );
    assert_eq!(level("qtfs_server"), "ERROR\n");
    let (status, out, err) = qtinfo(root, &["-l", "LOUD"]);
    assert_eq!((status, out.as_str()), (2, ""));
    assert_eq!(
        err,
        "qtinfo: \"LOUD\" is no log level: give ERROR, WARN, INFO or DEBUG\n"
    );
    assert_eq!(level("qtfs"), "ERROR\n");

    let (status, _, err) = qtinfo(&root.join("proc"), &["-l", "INFO"]);
    assert_eq!(status, 1);
    assert_eq!(
        err,
        "qtinfo: neither qtfs.ko nor qtfs_server.ko is loaded: load one with insmod first\n"
    );
}

#[test]
fn the_log_level_needs_root() {
    // Root may write whatever the mode says.
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let dpu = dpu();
    let file = dpu.path().join("sys/module/qtfs/parameters/qtfs_log_level");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    let (status, out, err) = qtinfo(dpu.path(), &["-l", "INFO"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "qtinfo: changing the log level needs root: run it with sudo\n"
    );
}

/// A qtinfo whose looks the test decides on: `mountstats` is a pipe.
fn watched(args: &[&str], stdout: Stdio) -> (TempDir, Child) {
    let dpu = dpu();
    fresh_pipe(dpu.path());
    let child = command(dpu.path(), args).stdout(stdout).spawn().unwrap();
    (dpu, child)
}

fn fresh_pipe(root: &Path) {
    let (pipe, next) = (mountstats(root), root.join("next"));
    nix::unistd::mkfifo(&next, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::rename(next, pipe).unwrap();
}

fn mountstats(root: &Path) -> PathBuf {
    root.join("proc/self/mountstats")
}

/// Waits for a look, and lets it see `text`.
fn let_see(root: &Path, text: &str) {
    let mut pipe = File::options().write(true).open(mountstats(root)).unwrap();
    // The next look has a pipe of its own, so that it cannot come too early.
    fresh_pipe(root);
    pipe.write_all(text.as_bytes()).unwrap();
}

fn later() -> String {
    MOUNTSTATS.replace(
        "READ: 101 90 1 8080 10485760 2 250000",
        "READ: 111 95 1 9080 20971520 2 251000",
    )
}

#[test]
fn a_live_view_without_a_terminal_prints_blocks() {
    let (dpu, mut child) = watched(&["--watch", "0.2", "/mnt/share"], Stdio::piped());
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut block = || {
        let mut text = String::new();
        while !text.ends_with("\n\n") {
            assert_ne!(out.read_line(&mut text).unwrap(), 0, "{text}");
        }
        text
    };
    let_see(dpu.path(), MOUNTSTATS);
    let_see(dpu.path(), &later());
    let text = block();
    assert!(text.starts_with("/mnt/share: /srv/share on "), "{text}");
    assert!(
        text.contains("\n  operation  requests/s  waits/s"),
        "{text}"
    );
    let rows: Vec<&str> = text
        .lines()
        .skip(4)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(rows.len(), 1, "{text}");
    let cells: Vec<&str> = rows[0].split_whitespace().collect();
    assert_eq!(cells[0], "READ");
    // Ten requests in a little more than 0.2 seconds.
    let rate: f64 = cells[1].parse().unwrap();
    assert!(rate > 0.0 && rate <= 50.0, "{text}");
    assert!(!text.contains('\x1b'), "{text}");

    let_see(dpu.path(), &later());
    assert!(block().contains("  nothing was asked for\n"));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
}

#[test]
fn a_live_view_for_programs_has_one_line_for_each_look() {
    let (dpu, mut child) = watched(&["--json", "--watch", "0.1"], Stdio::piped());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let_see(dpu.path(), MOUNTSTATS);
    for _ in 0..2 {
        let_see(dpu.path(), &later());
        let found: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(found["mounts"][0]["operations"]["READ"]["requests"], 111);
    }
    // Nobody reads any more, which is no failure.
    drop(lines);
    let_see(dpu.path(), MOUNTSTATS);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_live_view_on_a_terminal_gives_the_screen_back() {
    let size = Winsize {
        ws_row: 6,
        ws_col: 30,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(Some(&size), None).unwrap();
    let (dpu, mut child) = watched(&["--watch=0.1"], pty.slave.into());
    let_see(dpu.path(), MOUNTSTATS);
    let_see(dpu.path(), &later());
    let_see(dpu.path(), &later());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    // It may look once more before it sees the signal.
    let root = dpu.path().to_owned();
    std::thread::spawn(move || let_see(&root, MOUNTSTATS));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut said = Vec::new();
    // EIO when the other side is closed.
    let _ = File::from(pty.master).read_to_end(&mut said);
    let said = String::from_utf8(said).unwrap();
    assert!(said.starts_with("\x1b[?1049h\x1b[?25l\x1b[H"), "{said:?}");
    assert!(said.ends_with("\x1b[?25h\x1b[?1049l"), "{said:?}");
    assert!(said.matches("\x1b[H").count() >= 2, "{said:?}");
    // As many lines as there is room for, and no newline that would move them.
    let frame = said.split("\x1b[H").nth(1).unwrap();
    assert_eq!(frame.matches('\n').count(), 5, "{frame:?}");
    for line in frame.split("\r\n") {
        let shown = line.split('\x1b').next().unwrap();
        assert!(shown.len() <= 30, "{frame:?}");
    }
}

#[test]
fn a_wrong_command_line_has_status_2() {
    for args in [
        &["--jsno"][..],
        &["/a", "/b"],
        &["--watch", "soon"],
        &["-l"],
        &["-l", "INFO", "--json"],
    ] {
        let (status, out, err) = qtinfo(Path::new("/"), args);
        assert_eq!((status, out.as_str()), (2, ""), "{err}");
    }
}

#[test]
fn help_tells_everything() {
    let (status, out, _) = qtinfo(Path::new("/"), &["--help"]);
    assert_eq!(status, 0);
    for word in [
        "[MOUNTPOINT]",
        "--json",
        "--watch [<SECONDS>]",
        "-l, --log-level <LEVEL>",
        "Exit status:",
        "ERROR, WARN, INFO or DEBUG",
    ] {
        assert!(out.contains(word), "{word} in {out}");
    }
    assert!(!out.contains("--root"), "{out}");
}
