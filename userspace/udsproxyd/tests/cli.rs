// SPDX-License-Identifier: GPL-2.0

//! Command lines.

use qtfs_udsproxyd::cli::parse_from;
use tracing::level_filters::LevelFilter;

#[test]
fn without_arguments_it_runs() {
    let options = parse_from(["udsproxyd"]).unwrap();
    assert_eq!(options.threads, 1);
    assert_eq!(options.log, LevelFilter::INFO);
    assert_eq!(options.hint, None);
}

#[test]
fn the_command_line_of_the_first_qtfs_is_accepted_with_a_hint() {
    let old = "udsproxyd 1 192.168.10.11 12121 192.168.10.10 12121";
    let options = parse_from(old.split(' ')).unwrap();
    assert!(options.hint.is_some());
}

#[test]
fn what_makes_no_sense_is_refused() {
    for wrong in [
        "udsproxyd 1",
        "udsproxyd a b c d e",
        "udsproxyd --threads 0",
    ] {
        let failure = parse_from(wrong.split(' ')).unwrap_err();
        assert_eq!(failure.status(), 2, "{wrong}");
    }
}
