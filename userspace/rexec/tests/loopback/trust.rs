// SPDX-License-Identifier: GPL-2.0

//! TLS with certificates and with a shared key: who fits gets in, and nobody else.

use crate::common::run::run;
use crate::common::run::run_with;
use crate::common::run::set_mode;
use crate::common::run::write_key;
use crate::common::server::ALL;
use crate::common::Server;
use rcgen::BasicConstraints;
use rcgen::Certificate;
use rcgen::CertificateParams;
use rcgen::IsCa;
use rcgen::KeyPair;
use std::path::Path;
use tempfile::TempDir;

struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            certificate: params.self_signed(&key).unwrap(),
            key,
        }
    }

    /// Writes the files of somebody whom this authority vouches for, and the `[tls]` with them.
    fn issue(&self, dir: &Path, name: &str, names: &[&str]) -> String {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params
            .signed_by(&key, &self.certificate, &self.key)
            .unwrap();
        let write = |end: &str, text: String| {
            let path = dir.join(format!("{name}.{end}"));
            write_key(&path, text);
            path.display().to_string()
        };
        format!(
            "[tls]\ncertificate = '{}'\nkey = '{}'\nauthority = '{}'\n",
            write("pem", certificate.pem()),
            write("key", key.serialize_pem()),
            write("ca", self.certificate.pem())
        )
    }
}

const ROOT: &str = "[[peer]]\nname = 'dpu1'\nroot = true\n";

/// A server with certificates, and the `[tls]` of a caller that it knows as dpu1.
fn certified(policy: &str) -> (Authority, Server, String) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let tls = authority.issue(dir.path(), "server", &["127.0.0.1", "host1"]);
    let caller = authority.issue(dir.path(), "dpu1", &["dpu1"]);
    let server = in_(dir, &format!("{tls}{policy}"));
    (authority, server, caller)
}

fn in_(dir: TempDir, config: &str) -> Server {
    Server::made_in(dir, &crate::common::server::free_address(), config)
}

fn configure(server: &Server, text: &str) {
    std::fs::write(server.file("client.toml"), text).unwrap();
}

#[test]
fn certificates_of_one_authority_fit() {
    let (_, server, caller) = certified(&format!("{ROOT}{ALL}"));
    configure(&server, &caller);
    let bytes = vec![b'x'; 2_000_000];
    let ended = run_with(
        server.rexec().args(["sh", "-c", "cat; echo e >&2; exit 9"]),
        &bytes,
    );
    assert_eq!(
        (ended.code(), ended.stdout.len(), ended.stderr.as_str()),
        (Some(9), bytes.len(), "e\n")
    );
    let mut runs = server.start("echo $$; read x");
    runs.line();
    assert_eq!(server.sessions()[0].peer, "dpu1");
    drop(runs);
    server.is_idle();
}

#[test]
fn a_link_that_is_cut_under_tls_ends_the_program() {
    let (_, server, caller) = certified(&format!("{ROOT}{ALL}"));
    configure(&server, &caller);
    let mut run = server.start_marked("tls", &[], "echo ready; exec sleep 1000");
    assert_eq!(run.line(), "ready");
    run.kill(nix::libc::SIGKILL);
    run.end();
    crate::common::eventually("nothing is left", || {
        crate::common::marked("tls").is_empty()
    });
    server.is_idle();
}

#[test]
fn other_authorities_do_not_fit() {
    let (_, server, _) = certified(&format!("{ROOT}{ALL}"));
    let other = Authority::new();
    let caller = other.issue(server.dir(), "other", &["dpu1"]);
    configure(&server, &caller);
    run(server.rexec().arg("true")).fails(253, &["the keys do not fit", "[tls]"]);
    // The caller trusts the right authority, but is not vouched for by it.
    let right = server.file("dpu1.ca");
    let wrong = server.file("other.ca");
    configure(
        &server,
        &caller.replace(wrong.to_str().unwrap(), right.to_str().unwrap()),
    );
    run(server.rexec().arg("true")).fails(253, &["the keys do not fit"]);
    server.is_idle();
}

#[test]
fn a_server_of_another_name_does_not_fit() {
    let (_, server, caller) = certified(&format!("{ROOT}{ALL}"));
    configure(&server, &format!("{caller}server_name = 'host2'\n"));
    run(server.rexec().arg("true")).fails(253, &["the keys do not fit"]);
    configure(&server, &format!("{caller}server_name = 'host1'\n"));
    run(server.rexec().arg("true")).ok();
}

#[test]
fn a_peer_that_nobody_knows_may_do_nothing() {
    let (authority, server, _) = certified(&format!("{ROOT}{ALL}"));
    configure(&server, &authority.issue(server.dir(), "dpu2", &["dpu2"]));
    run(server.rexec().arg("true")).fails(126, &["peer dpu2", "not allowed by", "[[peer]]"]);
    configure(&server, &authority.issue(server.dir(), "nameless", &[]));
    assert_ne!(run(server.rexec().arg("true")).code(), Some(0));
    server.logs("no DNS name");
}

#[test]
fn programs_are_allowed_by_peer() {
    let policy = "[[peer]]\nname = 'dpu1'\nroot = true\n[[peer]]\nname = 'dpu2'\nroot = true\n\
        [[allow]]\nprogram = '/usr/bin/env'\npeers = ['dpu1']\n[[allow]]\nprogram = '/usr/bin/true'\npeers = ['dpu2']\n";
    let (authority, server, dpu1) = certified(policy);
    configure(&server, &dpu1);
    run(server.rexec().args(["env", "-i"])).ok();
    run(server.rexec().arg("true")).fails(126, &["not allowed by", "peer dpu1"]);
    configure(&server, &authority.issue(server.dir(), "dpu2", &["dpu2"]));
    run(server.rexec().arg("true")).ok();
    run(server.rexec().args(["env", "-i"])).fails(126, &["not allowed by", "peer dpu2"]);
}

/// A server with a shared key, and the `[tls]` of a caller that has it too.
fn keyed(key: &[u8]) -> (Server, String) {
    let dir = tempfile::tempdir().unwrap();
    write_key(&dir.path().join("key"), key);
    let tls = format!(
        "[tls]\nshared_key = '{}'\n",
        dir.path().join("key").display()
    );
    let server = in_(
        dir,
        &format!("{tls}[[peer]]\nname = 'shared-key'\nroot = true\n{ALL}"),
    );
    (server, tls)
}

#[test]
fn a_shared_key_fits_and_another_does_not() {
    let (server, tls) = keyed(&[1; 32]);
    configure(&server, &tls);
    assert_eq!(server.run("echo a").ok(), "a\n");
    configure(&server, "");
    let mut command = server.rexec();
    run(command
        .arg("--shared-key")
        .arg(server.file("key"))
        .arg("true"))
    .ok();
    for (name, key, status, part) in [
        ("other", vec![2; 32], 253, "the keys do not fit"),
        ("longer", vec![1; 33], 253, "the keys do not fit"),
        ("short", vec![1; 31], 125, "it has 31 bytes"),
    ] {
        let file = server.file(name);
        write_key(&file, key);
        let mut command = server.rexec();
        run(command.arg("--shared-key").arg(&file).arg("true")).fails(status, &[part]);
    }
    server.is_idle();
}

#[test]
fn a_key_that_everybody_can_read_is_refused() {
    let (server, tls) = keyed(&[1; 32]);
    configure(&server, &tls);
    for mode in [0o604, 0o644, 0o666] {
        set_mode(&server.file("key"), mode);
        run(server.rexec().arg("true")).fails(125, &["everybody", "chmod 600"]);
    }
    set_mode(&server.file("key"), 0o640);
    run(server.rexec().arg("true")).ok();
    let (_, server, tls) = certified(&format!("{ROOT}{ALL}"));
    configure(&server, &tls);
    run(server.rexec().arg("true")).ok();
    let key = tls.split('\'').find(|part| part.ends_with(".key")).unwrap();
    set_mode(Path::new(key), 0o644);
    run(server.rexec().arg("true")).fails(125, &[key, "everybody", "chmod 600"]);
}

#[test]
fn a_shared_key_does_not_fit_certificates() {
    let (_, server, _) = certified(&format!("{ROOT}{ALL}"));
    let file = server.file("key");
    write_key(&file, [1; 32]);
    let mut command = server.rexec();
    let ended = run(command.arg("--shared-key").arg(&file).arg("true"));
    assert!(matches!(ended.code(), Some(249 | 253)), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1);
}

#[test]
fn who_wants_no_tls_is_told_that_the_server_does() {
    let (server, tls) = keyed(&[1; 32]);
    run(server.rexec().arg("true")).fails(249, &["without TLS", "[tls]"]);
    let long = "x".repeat(100_000);
    run(server.rexec().arg("true").args(vec![&long; 10])).fails(249, &["without TLS"]);
    configure(&server, &tls);
    let mut command = server.rexec();
    run(command.args(["--insecure", "true"])).fails(249, &["without TLS"]);
    server.is_idle();
}

#[test]
fn who_wants_tls_is_told_that_the_server_has_none() {
    let (keys, tls) = keyed(&[1; 32]);
    let server = Server::new();
    configure(&server, &tls);
    run(server.rexec().arg("true")).fails(249, &["does not speak TLS", "[tls]"]);
    drop(keys);
    server.is_idle();
}

#[test]
fn what_is_said_under_tls_cannot_be_read_on_the_way() {
    use std::io::Read;
    use std::io::Write;
    let (server, tls) = keyed(&[1; 32]);
    // A relay that remembers everything.
    let relay = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", relay.local_addr().unwrap());
    let target = server.address.strip_prefix("tcp://").unwrap().to_owned();
    let seen = std::thread::spawn(move || {
        let (here, _) = relay.accept().unwrap();
        let there = std::net::TcpStream::connect(target).unwrap();
        let pass = |mut from: std::net::TcpStream, mut to: std::net::TcpStream| {
            std::thread::spawn(move || {
                let mut all: Vec<u8> = Vec::new();
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = from.read(&mut buffer) {
                    all.extend(&buffer[..read]);
                    if to.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Write);
                all
            })
        };
        let up = pass(here.try_clone().unwrap(), there.try_clone().unwrap());
        let down = pass(there, here);
        [up.join().unwrap(), down.join().unwrap()].concat()
    });
    configure(&server, &tls);
    let mut command = server.rexec();
    command.env("CMD_NET_ADDR", address).args(["cat"]);
    let ended = run_with(&mut command, b"a very secret sentence");
    assert_eq!(ended.ok(), "a very secret sentence");
    let seen = seen.join().unwrap();
    assert!(seen.len() > 500);
    let holds = |text: &[u8]| seen.windows(text.len()).any(|window| window == text);
    assert!(!holds(b"very secret") && !holds(b"cat"));
}
