// SPDX-License-Identifier: GPL-2.0

//! HOST's two configuration files, which `up` writes once and never changes: whether they still are what
//! the description needs.

use super::host;
use crate::config::Config;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

/// What matters here of `engine.toml`; engine looks at all of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Engine {
    export: Vec<Export>,
    offload: Offload,
}

#[derive(Deserialize)]
struct Export {
    path: PathBuf,
    #[serde(default)]
    mode: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Offload {
    mount: Vec<String>,
}

/// What matters here of `rexec.toml`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Rexec {
    environment: Environment,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    set: BTreeMap<String, String>,
}

/// What `engine.toml` does not let the DPU do, one remedy each.
fn missing_in_engine(config: &Config, engine: &Engine) -> Vec<String> {
    let exported = |path: &PathBuf| {
        let above = engine
            .export
            .iter()
            .filter(|export| path.starts_with(&export.path));
        let decides = above.max_by_key(|export| export.path.as_os_str().len());
        decides.is_some_and(|export| export.mode == "rw")
    };
    let directories = config.shared().into_iter().filter(|path| !exported(path));
    let mut missing: Vec<String> = directories
        .map(|path| format!("[[export]] path = {path:?}, mode = \"rw\", optional = true"))
        .collect();
    let kinds = ["overlay", "tmpfs", "bind"];
    let kinds = kinds
        .iter()
        .filter(|kind| !engine.offload.mount.iter().any(|m| m == *kind));
    missing.extend(kinds.map(|kind| format!("{kind:?} in mount = […] of [offload]")));
    missing
}

/// The runc that a PATH leads to.
fn runc(path: &str) -> Option<PathBuf> {
    let candidates = path
        .split(':')
        .map(|directory| Path::new(directory).join("runc"));
    candidates.into_iter().find(|file| file.exists())
}

/// What is not as it must be in HOST's configuration, with what to do; on HOST.
pub(super) fn gaps(config: &Config) -> Vec<String> {
    let mut gaps = Vec::new();
    // Where there is none, engine and rexec_server say so.
    if let Ok(text) = std::fs::read_to_string(host::ENGINE) {
        match toml::from_str(&text) {
            Ok(engine) => {
                let missing = missing_in_engine(config, &engine);
                let missing = missing.into_iter().map(|entry| {
                    format!(
                        "{} lacks {entry}: add it, and pkill -HUP -x engine",
                        host::ENGINE
                    )
                });
                gaps.extend(missing);
            }
            Err(error) => gaps.push(format!("{}: {}", host::ENGINE, error.message())),
        }
    }
    if let Ok(text) = std::fs::read_to_string(host::REXEC) {
        match toml::from_str::<Rexec>(&text) {
            Ok(rexec) => {
                let path = rexec.environment.set.get("PATH").map(String::as_str);
                let first = path
                    .and_then(runc)
                    .and_then(|file| file.canonicalize().ok());
                if !first.is_some_and(|file| file.ends_with("qtfs-runc")) {
                    gaps.push(format!(
                        "the first runc of PATH in [environment] set of {} is not qtfs-runc: let PATH begin with {}, and \
                         start rexec_server anew",
                        host::REXEC,
                        host::BIN
                    ));
                }
            }
            Err(error) => gaps.push(format!("{}: {}", host::REXEC, error.message())),
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_policy_lacks_is_told() {
        let config: Config =
            toml::from_str("host = \"10.0.0.1\"\ndirectories = [\"/data\"]\n").unwrap();
        let whole: Engine = toml::from_str(&host::policy(&config)).unwrap();
        assert_eq!(missing_in_engine(&config, &whole), Vec::<String>::new());
        let mut less: Engine = toml::from_str(&host::policy(&config)).unwrap();
        less.export
            .retain(|export| export.path != Path::new("/data"));
        less.offload.mount.retain(|kind| kind != "bind");
        let missing = missing_in_engine(&config, &less);
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(missing[0].contains("/data") && missing[1].contains("bind"));
        let read_only = Export {
            path: "/data".into(),
            mode: "ro".into(),
        };
        less.export.push(read_only);
        assert_eq!(missing_in_engine(&config, &less).len(), 2);
    }
}
