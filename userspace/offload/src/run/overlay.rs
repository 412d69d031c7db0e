// SPDX-License-Identifier: GPL-2.0

//! The `data` of mount(2): options of file systems, and the layers of an overlay among them.
//!
//! Source: fs/overlayfs/params.c (`ovl_next_opt`, `ovl_parse_param_split_lowerdirs`).

use nix::errno::Errno;
use qtfs_control::message::Bytes;
use qtfs_control::message::Parameter;
use std::path::Path;
use std::path::PathBuf;

/// Splits at a byte that no backslash precedes.
fn split(text: &[u8], at: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut escaped = false;
    for &byte in text {
        if byte == at && !escaped {
            parts.push(Vec::new());
            continue;
        }
        escaped = byte == b'\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(byte);
        }
    }
    parts
}

/// Takes the backslashes away that protect the byte behind them.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => plain.extend(bytes.next()),
            byte => plain.push(byte),
        }
    }
    plain
}

/// The options of a file system that is no overlay.
pub(super) fn options(data: &[u8]) -> Result<Vec<Parameter>, Errno> {
    let parts = data.split(|byte| *byte == b',');
    let given = parts.filter(|part| !part.is_empty());
    given.map(option).collect()
}

fn option(part: &[u8]) -> Result<Parameter, Errno> {
    let at = part.iter().position(|byte| *byte == b'=');
    let (key, value) = match at {
        Some(at) => (&part[..at], part.get(at + 1..)),
        None => (part, None),
    };
    let key = std::str::from_utf8(key).map_err(|_| Errno::EINVAL)?;
    Ok(Parameter {
        key: key.to_owned(),
        value: value.map(|value| Bytes(value.to_vec())),
    })
}

/// What the layers of an overlay are on HOST.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Layers {
    /// All of them are HOST's; these are the options.
    Host(Vec<Parameter>),
    /// None is.
    Local,
    /// Some are, and this one is not.
    Mixed(PathBuf),
}

/// The options of an overlay, with the names that `name` gives the layers.
pub(super) fn layers(
    data: &[u8],
    mut name: impl FnMut(&Path) -> Result<Option<PathBuf>, Errno>,
) -> Result<Layers, Errno> {
    let mut parameters = Vec::new();
    let mut local = None;
    let mut hosts = 0;
    for part in split(data, b',') {
        if part.is_empty() {
            continue;
        }
        let Parameter { key, value } = option(&part)?;
        let value = value.unwrap_or_default();
        let paths: Vec<(&str, Vec<u8>)> = match key.as_str() {
            "lowerdir" => {
                let mut key = "lowerdir+";
                let mut paths = Vec::new();
                for layer in split(&value.0, b':') {
                    // An empty one between two colons: what follows are layers of data.
                    if layer.is_empty() {
                        key = "datadir+";
                        continue;
                    }
                    paths.push((key, unescaped(&layer)));
                }
                paths
            }
            "lowerdir+" | "datadir+" => return Err(Errno::EINVAL),
            "upperdir" => vec![("upperdir", unescaped(&value.0))],
            "workdir" => vec![("workdir", unescaped(&value.0))],
            _ => {
                parameters.push(option(&part)?);
                continue;
            }
        };
        for (key, path) in paths {
            let path = super::view::path_of(&path);
            match name(path)? {
                Some(host) => {
                    hosts += 1;
                    parameters.push(Parameter {
                        key: key.to_owned(),
                        value: Some(host.as_path().into()),
                    });
                }
                None => local = Some(path.to_owned()),
            }
        }
    }
    match local {
        None => Ok(Layers::Host(parameters)),
        Some(_) if hosts == 0 => Ok(Layers::Local),
        Some(path) => Ok(Layers::Mixed(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(key: &str, value: Option<&str>) -> Parameter {
        Parameter {
            key: key.into(),
            value: value.map(|value| Bytes(value.as_bytes().to_vec())),
        }
    }

    #[allow(clippy::unnecessary_wraps)]
    fn to_host(path: &Path) -> Result<Option<PathBuf>, Errno> {
        Ok(path
            .strip_prefix("/d")
            .ok()
            .map(|p| Path::new("/h").join(p)))
    }

    #[test]
    fn every_layer_gets_its_name_on_host() {
        let data = b"index=off,lowerdir=/d/l/A:/d/l/B,upperdir=/d/u,workdir=/d/w,userxattr";
        let expected = vec![
            parameter("index", Some("off")),
            parameter("lowerdir+", Some("/h/l/A")),
            parameter("lowerdir+", Some("/h/l/B")),
            parameter("upperdir", Some("/h/u")),
            parameter("workdir", Some("/h/w")),
            parameter("userxattr", None),
        ];
        assert_eq!(layers(data, to_host), Ok(Layers::Host(expected)));
    }

    #[test]
    fn names_may_hold_what_separates_them() {
        let data = br"lowerdir=/d/a\:b:/d/c\,d::/d/e\\";
        let expected = vec![
            parameter("lowerdir+", Some("/h/a:b")),
            parameter("lowerdir+", Some("/h/c,d")),
            parameter("datadir+", Some("/h/e\\")),
        ];
        assert_eq!(layers(data, to_host), Ok(Layers::Host(expected)));
    }

    #[test]
    fn layers_of_both_machines_are_told() {
        assert_eq!(layers(b"lowerdir=/x:/y", to_host), Ok(Layers::Local));
        assert_eq!(
            layers(b"lowerdir=/d/x:/y", to_host),
            Ok(Layers::Mixed("/y".into()))
        );
        assert_eq!(layers(b"lowerdir+=/d/x", to_host), Err(Errno::EINVAL));
    }

    #[test]
    fn other_options_stay_as_they_are() {
        let expected = vec![parameter("size", Some("64m")), parameter("noswap", None)];
        assert_eq!(options(b"size=64m,,noswap"), Ok(expected));
        assert_eq!(options(b""), Ok(Vec::new()));
    }
}
