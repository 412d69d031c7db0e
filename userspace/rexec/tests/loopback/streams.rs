// SPDX-License-Identifier: GPL-2.0

//! stdin, stdout and stderr: whole, apart from each other, in order, and ended when they end.

use crate::common::eventually;
use crate::common::run::run;
use crate::common::run::run_with;
use crate::common::Run;
use crate::common::Server;
use std::fs::OpenOptions;
use std::io::Read;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

/// Bytes of all values, in no simple order.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn all_bytes_pass_in_both_directions() {
    let server = Server::new();
    let bytes = noise(5_000_003);
    let ended = run_with(server.rexec().arg("cat"), &bytes);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stdout == bytes, "{} bytes", ended.stdout.len());
    server.is_idle();
}

#[test]
fn stdout_and_stderr_are_apart() {
    let server = Server::new();
    let ended = server.run("echo out; echo err >&2; echo out2; echo err2 >&2");
    assert_eq!(ended.text(), "out\nout2\n");
    assert_eq!(ended.stderr, "err\nerr2\n");
}

#[test]
fn both_may_be_the_same_pipe() {
    let server = Server::new();
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let mut reader = std::fs::File::from(reader);
    let mut command = server.sh("echo a; echo b >&2");
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().unwrap());
    let mut child = command.stderr(writer).spawn().unwrap();
    drop(command);
    assert!(child.wait().unwrap().success());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a", "b"]);
}

#[test]
fn each_stream_keeps_its_order_when_both_flood() {
    let server = Server::new();
    let ended = server.run("seq 1 60000 & seq 60001 120000 >&2; wait");
    let numbers = |from: u32, to: u32| {
        let lines: Vec<String> = (from..=to).map(|number| number.to_string()).collect();
        lines.join("\n") + "\n"
    };
    assert!(
        ended.text() == numbers(1, 60_000),
        "stdout has another order"
    );
    assert!(
        ended.stderr == numbers(60_001, 120_000),
        "stderr has another order"
    );
}

#[test]
fn a_flood_on_stderr_does_not_wait_for_a_reader_of_stdout() {
    let server = Server::new();
    let mut run = server.start("seq 1 400000; seq 1 400000 >&2; echo end >&2");
    // Nobody reads stdout yet, which is more than all buffers hold; stderr is read all the time.
    let mut first = [0; 2];
    let mut stdout = run.take_stdout();
    stdout.read_exact(&mut first).unwrap();
    let reader = std::thread::spawn(move || {
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).map(|_| rest.len())
    });
    let ended = run.end();
    assert!(ended.stderr.ends_with("400000\nend\n"));
    assert_eq!(reader.join().unwrap().unwrap() + 2, 2_688_895);
}

#[test]
fn a_slow_reader_gets_everything_and_slows_the_writer() {
    let server = Server::new();
    let file = server.file("progress");
    let script = format!(
        "i=0; while [ $i -lt 400 ]; do head -c 65536 /dev/zero; i=$((i+1)); echo $i >{}; done",
        file.display()
    );
    let mut run = server.start(&script);
    let progress = || -> u32 {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    // It stands still before the end, with no more than some MiB on the way.
    let mut last = 0;
    let mut same = 0;
    eventually("the writer waits for the reader", || {
        let now = progress();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        now > 0 && same > 100
    });
    assert!(last < 200, "{last} of 400 pieces are under way");
    let mut stdout = run.take_stdout();
    let mut total = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match stdout.read(&mut buffer).unwrap() {
            0 => break,
            read => total += read,
        }
    }
    assert_eq!(total, 400 * 65536);
    assert_eq!(run.end().code(), Some(0));
    server.is_idle();
}

#[test]
fn the_end_of_stdin_is_an_end_there() {
    let server = Server::new();
    assert_eq!(
        run_with(server.rexec().args(["wc", "-c"]), b"12345").ok(),
        "5\n"
    );
    assert_eq!(run_with(server.rexec().args(["wc", "-c"]), b"").ok(), "0\n");
}

#[test]
fn output_goes_on_after_the_end_of_stdin() {
    let server = Server::new();
    let mut run = server.start("read a; cat >/dev/null; echo ended; echo $a");
    run.write("first\nmore");
    run.close_stdin();
    assert_eq!(run.line(), "ended");
    assert_eq!(run.line(), "first");
    assert_eq!(run.end().code(), Some(0));
}

#[test]
fn input_goes_on_after_the_end_of_stdout() {
    let server = Server::new();
    let file = server.file("got");
    let mut run = server.start(&format!("exec >&-; cat >{}", file.display()));
    // stdout's end comes while the program runs.
    let mut rest = Vec::new();
    run.write("a");
    run.write("b");
    run.close_stdin();
    run.take_stdout().read_to_end(&mut rest).unwrap();
    assert_eq!(run.end().code(), Some(0));
    assert_eq!(std::fs::read(file).unwrap(), b"ab");
}

#[test]
fn a_program_that_ignores_stdin_does_not_wait_for_its_end() {
    let server = Server::new();
    // The pipe stays open for writing, and rexec ends nevertheless.
    let mut run = Run::start(server.rexec().arg("true"));
    let stdin = run.take_stdin();
    assert_eq!(run.end().code(), Some(0));
    drop(stdin);
}

#[test]
fn who_writes_to_a_program_that_has_closed_stdin_gets_epipe() {
    let server = Server::new();
    let mut run = server.start("exec <&-; echo closed; sleep 1000");
    assert_eq!(run.line(), "closed");
    let mut stdin = run.take_stdin();
    let mut failed = None;
    eventually("writing fails", || {
        failed = stdin.write_all(&[b'x'; 4096]).err();
        failed.is_some()
    });
    assert_eq!(failed.unwrap().kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn a_program_whose_reader_has_gone_gets_sigpipe() {
    let server = Server::new();
    let mut run = server.start("exec yes");
    assert_eq!(run.line(), "y");
    drop(run.take_stdout());
    assert_eq!(run.end().signal(), Some(nix::libc::SIGPIPE));
    server.is_idle();
}

#[test]
fn stderr_goes_on_when_the_reader_of_stdout_has_gone() {
    let server = Server::new();
    let mut run = server.start(
        "trap '' PIPE; echo a; read x; while echo b; do :; done 2>/dev/null; echo still >&2",
    );
    assert_eq!(run.line(), "a");
    drop(run.take_stdout());
    run.write("\n");
    let ended = run.end();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), "still\n"));
}

#[test]
fn streams_that_are_closed_are_no_obstacle() {
    let server = Server::new();
    let sh = |redirections: &str| {
        let script =
            format!("exec \"$0\" sh -c 'cat; echo out; echo err >&2; exit 3' {redirections}");
        let mut command = server.rexec();
        let program = command.get_program().to_owned();
        let environment: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        command = crate::common::run::command("sh");
        command.envs(environment).arg("-c").arg(script).arg(program);
        run(&mut command)
    };
    for (closed, stdout, stderr) in [
        ("<&-", "out\n", "err\n"),
        (">&-", "", "err\n"),
        ("2>&-", "out\n", ""),
        ("<&- >&- 2>&-", "", ""),
    ] {
        let ended = sh(closed);
        assert_eq!(
            (ended.code(), ended.text(), ended.stderr.as_str()),
            (Some(3), stdout, stderr),
            "{closed}"
        );
    }
}

#[test]
fn a_full_disk_is_said_and_the_program_hears_of_it() {
    let server = Server::new();
    let mut command = server.sh("exec yes");
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = command
        .stdout(full)
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("No space left on device"), "{text}");
    assert!(!output.status.success());
}

#[test]
fn the_tail_of_a_killed_program_is_whole() {
    let server = Server::new();
    let ended = server.run("head -c 900000 /dev/zero; kill -9 $$");
    assert_eq!(ended.signal(), Some(9));
    assert_eq!(ended.stdout.len(), 900_000);
}

#[test]
fn what_came_before_the_link_was_lost_is_delivered() {
    let mut server = Server::new();
    // Less than the window, and more than a pipe: the rest waits in rexec for its reader.
    let mut run = server.start("head -c 200000 /dev/zero; echo done >&2; exec sleep 1000");
    let mut stdout = run.take_stdout();
    let mut bytes = vec![0; 100_000];
    stdout.read_exact(&mut bytes).unwrap();
    let keeper = server.keepers();
    assert_eq!(keeper.len(), 1);
    let program = || {
        let below = crate::common::Process::below(keeper[0].pid);
        below.into_iter().find(|process| process.name == "sleep")
    };
    eventually("the program has written all", || program().is_some());
    let pipe = format!("/proc/{}/fd/1", program().unwrap().pid);
    let pipe = OpenOptions::new().write(true).open(pipe).unwrap();
    // What the server has read is on its way to its socket, where it is seen in one of many looks.
    eventually("rexec has all of it", || {
        (0..20).all(|_| {
            std::thread::sleep(Duration::from_millis(2));
            rustix::io::ioctl_fionread(&pipe).unwrap() == 0 && run_queue(&server) == 0
        })
    });
    drop(pipe);
    server.kill();
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 100_000);
    let ended = run.end();
    assert_eq!(ended.code(), Some(255), "{}", ended.stderr);
    assert!(ended.stderr.contains("connection lost"), "{}", ended.stderr);
}

/// Bytes that lie in sockets of this server's address, not yet sent or not yet read.
fn run_queue(server: &Server) -> u64 {
    let port: u16 = server.address.rsplit(':').next().unwrap().parse().unwrap();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let of_port = format!(":{port:04X}");
    let rows = table
        .lines()
        .skip(1)
        .map(|row| row.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| (row[1].ends_with(&of_port) || row[2].ends_with(&of_port)) && row[3] == "01")
        .flat_map(|row| {
            row[4]
                .split(':')
                .map(|size| u64::from_str_radix(size, 16).unwrap())
                .collect::<Vec<_>>()
        })
        .sum()
}
