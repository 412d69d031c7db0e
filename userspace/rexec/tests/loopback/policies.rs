// SPDX-License-Identifier: GPL-2.0

//! What may be run, by path and by peer.

use crate::common::run::run;
use crate::common::Server;

#[test]
fn what_is_not_allowed_is_126_and_says_where_to_allow_it() {
    let server =
        Server::with("[[allow]]\nprogram = '/usr/bin/env'\n[[allow]]\nprogram = '/opt/*'\n");
    run(server.rexec().args(["env", "-i"])).ok();
    run(server.rexec().args(["/usr/bin/env", "-i"])).ok();
    run(server.rexec().args(["/bin/env", "-i"])).ok();
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let file = server.file("server.toml");
    let wanted = format!("not allowed by {} on {host}", file.display());
    for program in [
        "true",
        "/usr/bin/true",
        "/bin/sh",
        "/usr/bin/../bin/sh",
        "/opt/../usr/bin/true",
        "/no/such/file",
    ] {
        run(server.rexec().arg(program)).fails(126, &[&wanted, "[[allow]]"]);
    }
    // A link is the name it has, not what it leads to.
    let link = server.file("link");
    std::os::unix::fs::symlink("/usr/bin/env", &link).unwrap();
    run(server.rexec().arg(&link)).fails(126, &[&wanted]);
    server.logs("not allowed by");
    server.is_idle();
}

#[test]
fn nothing_is_allowed_unless_it_is_said() {
    let server = Server::with("");
    assert!(server.log().contains("allows no program"));
    run(server.rexec().arg("true")).fails(126, &["not allowed by"]);
}

#[test]
fn a_directory_that_has_gone_allows_nothing() {
    let server = Server::with(
        "[[allow]]\nprogram = 'DIR/bin/*'\n"
            .replace("DIR", "/nowhere")
            .as_str(),
    );
    for program in ["/nowhere/bin/../../usr/bin/true", "/nowhere/bin/x"] {
        run(server.rexec().arg(program)).fails(126, &["not allowed by"]);
    }
}

#[test]
fn peers_have_their_own_programs() {
    let own = nix::unistd::geteuid();
    let server = Server::with(&format!(
        "[[allow]]\nprogram = '/usr/bin/env'\npeers = ['uid:{own}']\n[[allow]]\nprogram = '/usr/bin/true'\npeers = ['uid:4294967294']\n"
    ));
    run(server.rexec().args(["env", "-i"])).ok();
    run(server.rexec().arg("true")).fails(126, &["not allowed by", &format!("peer uid:{own}")]);
}

#[test]
fn the_command_line_allows_too() {
    let dir = tempfile::tempdir().unwrap();
    let address = crate::common::server::free_address();
    let mut command = crate::common::server::server(dir.path(), &address, "");
    let _server = crate::common::Run::start(command.args(["--allow", "/usr/bin/true"]));
    crate::common::eventually("it listens", || {
        run(crate::common::server::client(dir.path(), &address).arg("true")).code() == Some(0)
    });
    run(crate::common::server::client(dir.path(), &address).arg("sh"))
        .fails(126, &["not allowed by"]);
}
