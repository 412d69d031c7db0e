// SPDX-License-Identifier: GPL-2.0

//! The probe against a server in a few lines, with and without faults.

mod server;

use qtfs_probe::conn::Server;
use qtfs_probe::hostile;
use qtfs_probe::load;
use qtfs_probe::load::Flood;
use qtfs_probe::script::Script;
use qtfs_proto::Op;
use server::Faults;
use std::process::Command;
use std::time::Duration;

fn server(faults: Faults) -> Server {
    Server {
        address: server::start(faults),
        timeout: Duration::from_millis(500),
    }
}

fn run(server: Server, script: &str) -> Result<(), String> {
    Script::new(server, true)
        .run(script)
        .map_err(|e| format!("{e:#}"))
}

#[test]
fn scripts_do_what_they_say() {
    let server = server(Faults::default());
    run(
        server,
        r#"
        # A session is made by itself.
        attach path=/srv -> root=attr.node ro=read_only
        assert $ro == 1
        expect ENOENT lookup dir=$root name="a name"
        mkdir dir=${root} name="a name" mode=0o755
        expect EEXIST|EACCES mkdir dir=$root name='a name'
        lookup dir=$root name="a\x20name" -> node=attr.node
        assert $node == $root
        ping @slot=3 @nowait
        mkdir dir=$root name=b @slot=4 @nowait
        wait @slot=4
        wait @slot=3
        drop
        resume
        mkdir dir=$root name=b @slot=4 @seq=1 @retransmit
        expect any getattr target=$root
        set x 5
        assert $x < 10
        alive
        hello slots=3 -> slots=slots
        assert $slots == 3
        raw op=4 seq=1
        expect ok receive
        raw op=4 seq=2 len=5
        expect closed receive
        "#,
    )
    .unwrap();
}

#[test]
fn scripts_stop_where_something_is_wrong() {
    let server = server(Faults::default());
    for (script, part) in [
        (
            "ping\nlookup dir=1 name=x",
            "line 2: lookup dir=1 name=x: expected ok, got ENOENT \"there is no such name\"",
        ),
        ("expect ENOENT ping", "expected ENOENT, got ok"),
        ("assert 10 < 9", "10 < 9 does not hold"),
        ("nonsense", "no command is called nonsense"),
        ("ping x=1", "no field \"x\""),
        ("open target=1 flags=READ|SIDEWAYS", "known are READ WRITE"),
        ("ping @slit=1", "@slit"),
        ("print $nothing", "no variable is called \"nothing\""),
        ("lookup dir=1 name=a/b", "not a valid name"),
        ("ping -> x=attr", "the reply has no field attr"),
        ("expect ok sleep 1", "no outcome"),
        ("raw op=200 seq=1\nexpect ok receive", "got closed"),
    ] {
        let error = run(server, script).unwrap_err();
        assert!(error.contains(part), "{script}: {error}");
    }
}

#[test]
fn the_example_has_every_message() {
    let example = include_str!("../examples/every-message.probe");
    let commands: Vec<String> = example
        .lines()
        .map(|line| {
            line.strip_prefix("expect ")
                .map_or(line, |rest| rest.split_once(' ').unwrap().1)
        })
        .filter_map(|line| Some(line.split(' ').next()?.to_uppercase()))
        .collect();
    for op in Op::ALL {
        assert!(
            commands.iter().any(|command| command == op.name()),
            "{} is missing",
            op.name()
        );
    }
}

#[test]
fn a_good_server_passes() {
    let server = server(Faults::default());
    hostile::garbage(server, 1, 30).unwrap();
    hostile::truncated(server, Some(Op::Lookup), 1).unwrap();
    hostile::oversized(server).unwrap();
    hostile::mutated(server, "/srv", 1, 50).unwrap();
    hostile::replay(server, "/srv").unwrap();
    hostile::slow(server, Duration::from_millis(1)).unwrap();
    load::hold(server, 20, false, Duration::ZERO).unwrap();
    load::hold(server, 20, true, Duration::ZERO).unwrap();
    let request = vec!["lookup".into(), "dir=$root".into(), "name=x".into()];
    let export = Some("/srv".into());
    load::flood(
        server,
        &Flood {
            sessions: 2,
            count: 200,
            slots: 8,
            export,
            file: None,
            request,
        },
    )
    .unwrap();
}

#[test]
fn faults_are_found() {
    let lenient = server(Faults {
        lenient: true,
        ..Faults::default()
    });
    assert!(hostile::oversized(lenient).is_err());
    let forgetful = server(Faults {
        forgetful: true,
        ..Faults::default()
    });
    assert!(hostile::replay(forgetful, "/srv").is_err());
}

#[test]
fn the_program_tells_by_its_status() {
    let server = server(Faults::default());
    let connect = format!("--connect={}", server.address);
    let status = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qtfs-probe"));
        let output = command
            .arg(&connect)
            .arg("--timeout=1")
            .args(args)
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    assert_eq!(status(&["call", "ping"]), (0, "ping: ok\n".into()));
    assert_eq!(status(&["alive"]), (0, "the server is alive\n".into()));
    let (code, out) = status(&["hello", "version_min=7", "version_max=9"]);
    assert!(code == 0 && out.contains(" version=0 "), "{out}");
    assert_eq!(status(&["call", "lookup", "dir=1", "name=x"]).0, 1);
    assert_eq!(status(&["attach", "/srv"]).0, 0);
    assert_eq!(status(&["nonsense"]).0, 2);
}
