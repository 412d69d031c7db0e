// SPDX-License-Identifier: GPL-2.0

//! The socket on which a server tells which sessions it has: JSON, one array, then the end.
//!
//! Only root, or the server's own user, can open it.

use super::registry::Registry;
use super::registry::Session;
use crate::failure::Failure;
use std::fmt::Write;
use std::io;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

/// Where the socket is unless told otherwise.
pub const SOCKET: &str = "/run/qtfs/rexec-status.sock";
/// How long one who asks may take to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes a socket for the own user alone, in place of one that a server left behind that is gone.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if StdUnixStream::connect(path).is_ok() {
        return Err(io::Error::other(
            "another process answers there: end it, or name another socket",
        ));
    }
    // Under another name until nobody else can open it any more.
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

/// Answers for ever.
pub async fn serve(listener: UnixListener, registry: Arc<Registry>) {
    loop {
        match listener.accept().await {
            Ok((mut stream, _)) => {
                let sessions = registry.list();
                tokio::spawn(async move {
                    let Ok(text) = serde_json::to_vec(&sessions) else {
                        return;
                    };
                    let _ = tokio::time::timeout(PATIENCE, stream.write_all(&text)).await;
                });
            }
            Err(error) => {
                tracing::error!("cannot tell the sessions: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Asks the server whose socket this is.
pub fn ask(path: &Path) -> io::Result<Vec<Session>> {
    let mut text = Vec::new();
    StdUnixStream::connect(path)?.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// What the server whose socket this is tells, as a table or as JSON.
pub fn show(path: &Path, json: bool) -> Result<String, Failure> {
    let sessions = ask(path).map_err(|error| {
        Failure::Connect(format!(
            "{}: {}: is rexec_server running, and is this its user or root?",
            path.display(),
            crate::failure::io_text(&error)
        ))
    })?;
    if json {
        let text = serde_json::to_string_pretty(&sessions);
        return text
            .map(|text| text + "\n")
            .map_err(|error| Failure::System("printing", error.into()));
    }
    Ok(table(&sessions))
}

/// The sessions as a table, one line each.
pub fn table(sessions: &[Session]) -> String {
    let mut text = format!(
        "{:>7} {:>7} {:<9} {:>6} {:<16} {}\n",
        "SESSION", "PID", "STATE", "UID", "PEER", "COMMAND"
    );
    for session in sessions {
        let command = session.arguments.join(" ").replace(char::is_control, "?");
        let _ = writeln!(
            text,
            "{:>7} {:>7} {:<9} {:>6} {:<16} {command}",
            session.session, session.pid, session.state, session.uid, session.peer
        );
    }
    text
}
