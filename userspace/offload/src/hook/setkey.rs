// SPDX-License-Identifier: GPL-2.0

//! What dockerd's `libnetwork-setkey` does (libnetwork/sandbox_externalkey_unix.go): it tells dockerd where a
//! container's network namespace is, by the process that has it.

use serde::Deserialize;
use serde_json::json;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The longest answer.
const ANSWER: u64 = 64 << 10;

/// The container's state, as runc gives it to hooks.
#[derive(Deserialize)]
struct State {
    pid: u32,
}

/// Arguments: `[-exec-root=DIR] CONTAINER CONTROLLER`; `state` is what runc says of the container.
pub fn set_key(arguments: &[String], state: &mut impl Read) -> io::Result<()> {
    let mut root = "/run/docker";
    let mut names = Vec::new();
    for argument in arguments {
        match argument.strip_prefix("-exec-root=") {
            Some(directory) => root = directory,
            None => names.push(argument.as_str()),
        }
    }
    let [container, controller] = names.as_slice() else {
        let text = format!("needs the names of container and controller, not {arguments:?}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    let state: State = serde_json::from_reader(state)?;
    let socket = Path::new(root)
        .join("libnetwork")
        .join(format!("{controller}.sock"));
    let mut dockerd = UnixStream::connect(&socket).map_err(|error| {
        let socket = socket.display();
        io::Error::new(
            error.kind(),
            format!("dockerd's {socket} on the DPU is not reached: {error}"),
        )
    })?;
    let key = json!({"ContainerID": container, "Key": format!("/proc/{}/ns/net", state.pid)});
    dockerd.write_all(format!("{key}\n").as_bytes())?;
    dockerd.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    dockerd.take(ANSWER).read_to_string(&mut answer)?;
    if answer == "success" {
        return Ok(());
    }
    Err(io::Error::other(format!("dockerd answers: {answer}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn with_answer(answer: &'static str) -> (io::Result<()>, String) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("libnetwork")).unwrap();
        let listener = UnixListener::bind(root.path().join("libnetwork/c.sock")).unwrap();
        let dockerd = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut text = String::new();
            socket.read_to_string(&mut text).unwrap();
            socket.write_all(answer.as_bytes()).unwrap();
            text
        });
        let arguments = [
            format!("-exec-root={}", root.path().display()),
            "id".into(),
            "c".into(),
        ];
        let done = set_key(&arguments, &mut r#"{"ociVersion":"1","pid":77}"#.as_bytes());
        (done, dockerd.join().unwrap())
    }

    #[test]
    fn dockerd_is_told_by_which_process_to_find_the_namespace() {
        let (done, told) = with_answer("success");
        done.unwrap();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told, json!({"ContainerID": "id", "Key": "/proc/77/ns/net"}));
    }

    #[test]
    fn what_dockerd_refuses_is_an_error() {
        let (done, _) = with_answer("no such container");
        assert!(done.unwrap_err().to_string().contains("no such container"));
        assert!(set_key(&["id".into()], &mut "{}".as_bytes()).is_err());
    }
}
