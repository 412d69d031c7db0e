// SPDX-License-Identifier: GPL-2.0

//! Many commands, one after another and at a time.

use crate::common::run::run;
use crate::common::run::run_with;
use crate::common::Run;
use crate::common::Server;

/// How many; `REXEC_TEST_AMOUNT` times as many in the long form.
fn amount(few: usize) -> usize {
    let factor =
        std::env::var("REXEC_TEST_AMOUNT").map_or(1, |text| text.parse().expect("a number"));
    few * factor
}

#[test]
fn short_commands_in_a_row_each_have_their_output_and_status() {
    let server = Server::new();
    for number in 0..amount(200) {
        let status = i32::try_from(number % 251).unwrap();
        let ended = server.run(&format!("echo {number}; echo e{number} >&2; exit {status}"));
        assert_eq!(
            (ended.code(), ended.text(), ended.stderr.as_str()),
            (
                Some(status),
                &*format!("{number}\n"),
                &*format!("e{number}\n")
            )
        );
    }
    server.is_idle();
}

#[test]
fn commands_at_a_time_do_not_mix() {
    let server = Server::new();
    let server = &server;
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for number in 0..amount(8) {
                    let text = format!("{thread}-{number}-").repeat(5000);
                    let ended = run_with(server.rexec().arg("cat"), text.as_bytes());
                    assert!(
                        ended.text() == text,
                        "thread {thread} got what is another's"
                    );
                }
            });
        }
    });
    server.is_idle();
}

#[test]
fn sessions_at_a_time_are_as_many_as_allowed() {
    let server = Server::with(&format!(
        "max_sessions = 20\n{}",
        crate::common::server::ALL
    ));
    let mut runs: Vec<Run> = (0..20)
        .map(|_| server.start("echo ready; read x; exit 7"))
        .collect();
    for run in &mut runs {
        assert_eq!(run.line(), "ready");
    }
    assert_eq!(server.sessions().len(), 20);
    run(server.rexec().arg("true"))
        .fails(251, &["runs as many programs as it may", "max_sessions"]);
    for run in runs {
        assert_eq!(run.end().code(), Some(7));
    }
    crate::common::eventually("there is room again", || {
        run(server.rexec().arg("true")).code() == Some(0)
    });
    server.is_idle();
}
