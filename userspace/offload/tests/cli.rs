// SPDX-License-Identifier: GPL-2.0

//! Command lines.

use qtfs_offload::cli::parse_from;
use qtfs_offload::cli::Action;
use qtfs_offload::cli::Whole;
use qtfs_offload::setup::Side;

#[test]
fn what_follows_run_is_the_program_with_its_own_options() {
    let line = "qtfs-offload run --root /r -- dockerd --root x";
    let (action, _) = parse_from(line.split(' ')).unwrap();
    let Action::Run(options) = action else {
        panic!("{action:?}");
    };
    assert_eq!(options.command, ["dockerd", "--root", "x"]);
    assert_eq!(options.root.to_str(), Some("/r"));
    assert_eq!(options.control.to_str(), Some("/run/qtfs/offload"));
}

#[test]
fn what_the_program_sees_of_host_can_be_said_several_times() {
    let line = "qtfs-offload run --from-host /sys --from-host /proc/meminfo -- kubelet";
    let (action, _) = parse_from(line.split(' ')).unwrap();
    let Action::Run(options) = action else {
        panic!("{action:?}");
    };
    let paths = ["/sys", "/proc/meminfo"].map(std::path::PathBuf::from);
    assert_eq!(options.from_host, paths);
}

#[test]
fn the_machine_can_be_named() {
    let (action, _) = parse_from(["qtfs-offload", "--for", "DPU", "up", "--config", "x"]).unwrap();
    let Action::Whole(what, file, side) = action else {
        panic!("{action:?}");
    };
    assert_eq!((what, side), (Whole::Up, Some(Side::Dpu)));
    assert_eq!(file.to_str(), Some("x"));
}

#[test]
fn a_description_that_is_named_tells_the_root_directory() {
    let file = std::env::temp_dir().join(format!("offload-{}.toml", std::process::id()));
    std::fs::write(&file, "host = \"10.0.0.1\"\nroot = \"/r\"\n").unwrap();
    let name = file.to_str().unwrap();
    let options = |more: &[&str]| {
        let words = ["qtfs-offload", "run", "--config", name];
        let words = words.iter().chain(more).chain(&["--", "x"]);
        let (action, _) = parse_from(words).unwrap();
        let Action::Run(options) = action else {
            panic!("{action:?}");
        };
        (options.root, options.control)
    };
    let paths = |root: &str, control: &str| (root.into(), control.into());
    assert_eq!(options(&[]), paths("/r", "/r/run/qtfs/offload"));
    assert_eq!(
        options(&["--root", "/s"]),
        paths("/s", "/r/run/qtfs/offload")
    );
    std::fs::remove_file(&file).unwrap();
    let gone = ["qtfs-offload", "run", "--config", name, "--", "x"];
    assert!(parse_from(gone).is_err());
}

#[test]
fn what_makes_no_sense_is_refused() {
    for wrong in [
        "",
        "run",
        "run --root r -- x",
        "run --from-host s -- x",
        "up down",
        "--for third up",
    ] {
        let words = ["qtfs-offload"].into_iter().chain(wrong.split_whitespace());
        let failure = parse_from(words).unwrap_err();
        assert_eq!(failure.status(), 122, "{wrong}");
    }
}
