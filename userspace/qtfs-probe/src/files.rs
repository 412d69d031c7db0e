// SPDX-License-Identifier: GPL-2.0

//! Look at exported files as with `ls`, `stat` and `cat`.

use crate::args::Args;
use crate::conn::Server;
use crate::session::At;
use crate::session::Outcome;
use crate::session::Session;
use crate::text;
use anyhow::bail;
use anyhow::Result;
use qtfs_proto::dirent::entries;
use qtfs_proto::dirent::Entry;
use qtfs_proto::Op;
use std::io::Write;

/// An object below an export.
struct Object {
    session: Session,
    /// Words that name it as `target` of a request.
    target: String,
}

/// Attaches to `export` and walks down `path`, `/` between names.
fn find(server: Server, export: &str, path: &str) -> Result<Object> {
    let mut session = Session::open(server)?;
    let mut args = Args::default();
    args.default_value("path", export.as_bytes());
    let root = session
        .call(At::default(), Op::Attach, &args, &[])?
        .number("attr.node")?;
    let mut target = format!("target={root}");
    let mut dir = root;
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    for name in names {
        let mut args = Args::default();
        args.default_value("dir", dir.to_string().as_bytes());
        args.default_value("name", name.as_bytes());
        let node = session
            .call(At::default(), Op::Lookup, &args, &[])?
            .number("attr.node")?;
        target = format!(
            "target.dir={dir} target.node={node} target.name={}",
            text::quote(name.as_bytes())
        );
        dir = node;
    }
    Ok(Object { session, target })
}

/// Prints all attributes of a file.
pub fn stat(server: Server, export: &str, path: &str) -> Result<()> {
    let mut object = find(server, export, path)?;
    let outcome = object.session.ask(&format!("getattr {}", object.target))?;
    let Outcome::Ok(fields, _) = outcome else {
        bail!("{outcome}")
    };
    for (name, value) in fields {
        println!("{name}={value}");
    }
    Ok(())
}

/// Writes the contents of a file to stdout.
pub fn read(server: Server, export: &str, path: &str) -> Result<()> {
    let mut object = find(server, export, path)?;
    let file = object
        .session
        .ask(&format!("open {} flags=READ", object.target))?
        .number("file")?;
    let mut offset = 0;
    let mut out = std::io::stdout().lock();
    loop {
        let len = object.session.max_data.min(256 * 1024);
        let line = format!("read file={file} offset={offset} len={len}");
        let data = object.session.ask(&line)?.data()?;
        if data.is_empty() {
            break;
        }
        out.write_all(&data)?;
        offset += data.len();
    }
    object.session.ask(&format!("release files={file}"))?;
    Ok(())
}

/// Lists a directory.
pub fn list(server: Server, export: &str, path: &str) -> Result<()> {
    let mut object = find(server, export, path)?;
    let line = format!("open {} flags=READ|DIRECTORY", object.target);
    let file = object.session.ask(&line)?.number("file")?;
    let mut cookie = 0;
    loop {
        let line = format!("readdir file={file} cookie={cookie} want=65536 flags=PLUS");
        let reply = object.session.ask(&line)?;
        let eof = reply.number("eof")? != 0;
        let data = reply.data()?;
        let mut last = None;
        for entry in entries(&data) {
            match entry {
                Ok(entry) => {
                    println!("{}", entry_line(&entry));
                    last = Some(entry.next);
                }
                Err(error) => bail!("a bad entry: {error:?}"),
            }
        }
        match last {
            Some(next) if !eof => cookie = next,
            _ if eof => break,
            _ => bail!("neither entries nor the end"),
        }
    }
    object.session.ask(&format!("release files={file}"))?;
    Ok(())
}

/// One entry of a directory in one line.
pub fn entry_line(entry: &Entry<'_>) -> String {
    let mut line = format!(
        "{} ino={} kind={} next={}",
        text::quote(entry.name.bytes()),
        entry.ino,
        entry.kind,
        entry.next
    );
    if let Some(attr) = entry.attr {
        line += &format!(
            " node={} mode={:o} size={} uid={} gid={}",
            attr.node.0, attr.mode, attr.size, attr.uid, attr.gid
        );
    }
    line
}
