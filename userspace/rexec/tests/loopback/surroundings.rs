// SPDX-License-Identifier: GPL-2.0

//! The program finds itself in its caller's surroundings.

use crate::common::run::run;
use crate::common::run::write_key;
use crate::common::run::write_program;
use crate::common::run::Ended;
use crate::common::Server;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// `server`'s rexec, started by another program with these arguments.
fn by(server: &Server, program: &[&str], rest: &[&str]) -> Ended {
    let rexec = server.rexec();
    let mut command = crate::common::run::command(program[0]);
    command
        .envs(
            rexec
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .args(&program[1..])
        .arg(rexec.get_program())
        .args(rest);
    run(&mut command)
}

#[test]
fn arguments_are_bytes() {
    let server = Server::new();
    let strange = [
        &b""[..],
        b" ",
        b"a b",
        b"\xff\xfe",
        b"*",
        b"$HOME",
        b"'",
        b"\"",
        b"\n",
        b"-x",
        b"--help",
        b"--",
        "\u{e4}\u{6f22}".as_bytes(),
    ];
    let mut command = server.rexec();
    command.args(["printf", "%s\\0"]);
    command.args(strange.iter().map(|text| OsStr::from_bytes(text)));
    let ended = run(&mut command);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let got: Vec<&[u8]> = ended
        .stdout
        .strip_suffix(b"\0")
        .unwrap()
        .split(|byte| *byte == 0)
        .collect();
    assert_eq!(got, strange);
}

#[test]
fn long_command_lines_pass_and_too_long_ones_are_refused() {
    let server = Server::new();
    let long = "x".repeat(100_000);
    let mut command = server.rexec();
    command.args(["sh", "-c", "echo $#"]).args(vec![&long; 15]);
    assert_eq!(run(&mut command).ok(), "14\n");
    // One argument more than MAX_ARG_STRLEN on this side fails before rexec runs; in sum, the
    // server's kernel says it.
    let mut command = server.rexec();
    command.args(["-e", &format!("A={long}"), "true"]);
    assert_eq!(run(&mut command).ok(), "");
}

#[test]
fn the_environment_passes_by_the_rules() {
    let server = Server::with(
        "[environment]\ndrop = ['SECRET*', 'PATH']\nset = { FIXED = 'there' }\n[[allow]]\nprogram = '*'\n",
    );
    let mut command = server.rexec();
    command
        .env("PLAIN", "a=b c")
        .env(OsStr::from_bytes(b"B\xff"), OsStr::from_bytes(b"\xfe"))
        .env("SECRET_KEY", "1")
        .env("FIXED", "here")
        .env("LD_PRELOAD_X", "dropped by the caller")
        .env("NOTIFY_SOCKET", "/dropped")
        .args(["-e", "ADDED=1", "-e", "PLAIN=changed"])
        .args(["env", "-0"]);
    let ended = run(&mut command);
    let mut got: Vec<&[u8]> = ended
        .stdout
        .split(|byte| *byte == 0)
        .filter(|text| !text.is_empty())
        .collect();
    got.sort_unstable();
    assert_eq!(
        got,
        [
            &b"ADDED=1"[..],
            b"B\xff=\xfe",
            b"FIXED=there",
            b"LANG=C",
            b"PATH=/usr/bin:/bin",
            b"PLAIN=changed",
        ]
    );
}

#[test]
fn path_is_looked_up_there() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("only-there");
    write_program(&program, b"#!/bin/sh\necho $0\n");
    let path = dir.path().display();
    let server = Server::with(&format!(
        "[environment.set]\nPATH = '{path}:/usr/bin:/bin'\n[[allow]]\nprogram = '*'\n"
    ));
    let mut command = server.rexec();
    command.env("PATH", "/no/such/place");
    let ended = run(command.arg("only-there"));
    assert_eq!(
        ended.ok().trim_end(),
        program.canonicalize().unwrap().to_str().unwrap()
    );
    assert_eq!(
        run(server.rexec().args(["sh", "-c", "echo $PATH"])).ok(),
        format!("{path}:/usr/bin:/bin\n")
    );
}

#[test]
fn the_directory_is_the_callers() {
    let server = Server::new();
    let dir = server.file("a b\u{e4}");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("script"), "echo here; pwd -P").unwrap();
    let mut command = server.rexec();
    command.current_dir(&dir).args(["sh", "./script"]);
    let wanted = format!("here\n{}\n", dir.canonicalize().unwrap().display());
    assert_eq!(run(&mut command).ok(), wanted);
    let mut command = server.rexec();
    command
        .current_dir(server.dir())
        .args(["-C", "a b\u{e4}", "sh", "script"]);
    assert_eq!(run(&mut command).ok(), wanted);
}

/// The nice value of the tests themselves.
fn nice() -> i32 {
    rustix::process::getpriority_process(None).unwrap()
}

#[test]
fn umask_nice_and_limits_are_the_callers() {
    let server = Server::new();
    let script = "umask; ulimit -n; ulimit -Hn; ulimit -c; nice";
    let ended = by(
        &server,
        &[
            "sh",
            "-c",
            "umask 027; ulimit -Sn 123; ulimit -Hn 234; ulimit -c 7; exec nice -n 5 \"$@\"",
            "-",
        ],
        &["sh", "-c", script],
    );
    assert_eq!(
        ended.ok(),
        format!("0027\n123\n234\n7\n{}\n", 19.min(nice() + 5))
    );
}

/// Whether this process may become another user: not where only its own is mapped.
fn has_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let ids: Vec<u64> = map
        .split_ascii_whitespace()
        .map(|id| id.parse().unwrap())
        .collect();
    nix::unistd::geteuid().is_root()
        && ids.first() == Some(&0)
        && ids.get(2).is_some_and(|count| *count > 65534)
}

const WHO: &str = "id -u; id -g; id -G";

#[test]
fn root_may_become_others_and_only_where_there_are_some() {
    let server = Server::new();
    let ended = run(server.rexec().args(["-u", "65534:65534", "sh", "-c", WHO]));
    if has_users() {
        assert_eq!(ended.ok(), "65534\n65534\n65534\n");
        let ended = run(server.rexec().args(["-u", "1234:4321", "sh", "-c", WHO]));
        assert_eq!(ended.ok(), "1234\n4321\n4321\n");
    } else {
        ended.fails(126, &["cannot become"]);
    }
    run(server.rexec().args(["-u", "no-such-user", "true"])).fails(126, &["no-such-user"]);
}

/// rexec as another user, for tests that can have one.
fn as_user(server: &Server, uid: u32) -> Command {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(server.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // The build directory may be closed to others, so rexec is copied to where it is not.
    let copy = server.file("rexec");
    let rexec = server.rexec();
    if !copy.exists() {
        write_program(&copy, &std::fs::read(rexec.get_program()).unwrap());
    }
    let mut command = crate::common::run::command(copy);
    command
        .envs(
            rexec
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir("/")
        .uid(uid)
        .gid(uid);
    command
}

#[test]
fn other_callers_are_themselves_and_nobody_else() {
    if !has_users() {
        // The only user there is is served, and is itself.
        let own = nix::unistd::geteuid().to_string();
        assert_eq!(
            run(Server::new().rexec().args(["id", "-u"])).ok().trim(),
            own
        );
        return;
    }
    let server = Server::new();
    let ended = run(as_user(&server, 65534).args(["sh", "-c", WHO]));
    assert_eq!(ended.ok(), "65534\n65534\n65534\n");
    run(as_user(&server, 65534).args(["-u", "root", "id"])).fails(
        126,
        &[
            "user root",
            "not allowed by",
            "only root may ask for others",
        ],
    );
    // Its own name is no request for another.
    assert_eq!(
        run(as_user(&server, 65534).args(["-u", "65534", "id", "-u"])).ok(),
        "65534\n"
    );
}

#[test]
fn who_is_not_believed_gets_no_more_than_its_user_may_have() {
    let key = "[tls]\nshared_key = 'DIR/key'\n";
    let user = if has_users() { "1234:1234" } else { "0:0" };
    let dir = tempfile::tempdir().unwrap();
    write_key(&dir.path().join("key"), [7; 32]);
    let config =
        format!("{key}[[peer]]\nname = 'shared-key'\nuser = '{user}'\n[[allow]]\nprogram = '*'\n");
    let server = Server::made_in(dir, &crate::common::server::free_address(), &config);
    let place = server.dir().to_str().unwrap();
    std::fs::write(server.file("client.toml"), key.replace("DIR", place)).unwrap();
    // Lower values than the caller's are taken, higher ones only as far as the user may go.
    let script = "id -u; ulimit -n; nice";
    let lower = by(
        &server,
        &["sh", "-c", "ulimit -n 77; exec nice -n 3 \"$@\"", "-"],
        &["sh", "-c", script],
    );
    let uid = user.split(':').next().unwrap();
    assert_eq!(lower.ok(), format!("{uid}\n77\n{}\n", nice() + 3));
    if has_users() {
        let higher = by(&server, &["nice", "-n", "-5"], &["sh", "-c", script]);
        // The server's own, which is that of the tests.
        assert!(
            higher.ok().ends_with(&format!("\n{}\n", nice())),
            "{higher:?}"
        );
        let server = Server::new();
        let root = by(&server, &["nice", "-n", "-5"], &["nice"]);
        assert_eq!(root.ok(), format!("{}\n", nice() - 5));
    }
}

#[test]
fn the_program_has_no_descriptors_but_its_streams() {
    let server = Server::new();
    let ended = server.run("exec ls -l /proc/self/fd");
    let names: Vec<&str> = ended
        .ok()
        .lines()
        .filter(|line| line.contains("->"))
        .collect();
    // The fourth is the directory that ls reads.
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn the_program_blocks_no_signal_and_leads_its_group() {
    let server = Server::new();
    let ended = server.run("grep SigBlk /proc/self/status; ps -o pid=,pgid= $$");
    let text = ended.ok();
    assert!(text.starts_with("SigBlk:\t0000000000000000\n"), "{text}");
    let ids: Vec<&str> = text
        .lines()
        .nth(1)
        .unwrap()
        .split_ascii_whitespace()
        .collect();
    assert_eq!(ids[0], ids[1]);
}
