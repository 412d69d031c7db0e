// SPDX-License-Identifier: GPL-2.0

//! `config.json` of a bundle (the OCI runtime specification, config.md).

use super::SET_KEY;
use serde_json::Value;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

/// Options of runc before its command that are followed by a value.
const GLOBAL: [&str; 5] = ["--log", "--log-format", "--root", "--criu", "--rootless"];

/// The bundle of a `runc create` or `runc run`; None for everything else.
pub fn bundle_of(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter();
    loop {
        let word = rest.next()?;
        match word.to_str() {
            Some("create" | "run") => break,
            Some(text) if GLOBAL.contains(&text) => drop(rest.next()),
            Some(text) if text.starts_with('-') => {}
            _ => return None,
        }
    }
    let mut bundle = PathBuf::from(".");
    while let Some(word) = rest.next() {
        if word == "--bundle" || word == "-b" {
            bundle = rest.next()?.into();
        } else if let Some(value) = word.as_bytes().strip_prefix(b"--bundle=") {
            bundle = OsStr::from_bytes(value).into();
        }
    }
    Some(bundle)
}

/// Whether a hook is dockerd's: `/proc/PID/exe` with this name.
fn is_set_key(hook: &Value) -> bool {
    let path = hook.get("path").and_then(Value::as_str).unwrap_or_default();
    let of_process = path
        .strip_prefix("/proc/")
        .and_then(|p| p.strip_suffix("/exe"));
    let name = hook.get("args").and_then(|args| args.get(0));
    let name = name.and_then(Value::as_str);
    of_process.is_some_and(|pid| pid.parse::<u32>().is_ok()) && name == Some(SET_KEY)
}

/// Has the hooks of a bundle that are dockerd's call `helper` instead; whether there were any. The file is
/// replaced as a whole, with its owner and mode.
pub fn redirect(bundle: &Path, helper: &Path) -> io::Result<bool> {
    let path = bundle.join("config.json");
    let text = std::fs::read(&path)?;
    let mut config: Value = serde_json::from_slice(&text)?;
    let mut found = false;
    let kinds = config.get_mut("hooks").and_then(Value::as_object_mut);
    let lists = kinds.into_iter().flat_map(|kinds| kinds.values_mut());
    let hooks = lists.filter_map(Value::as_array_mut).flatten();
    for hook in hooks.filter(|hook| is_set_key(hook)) {
        if let Some(path) = hook.get_mut("path") {
            *path = Value::from(helper.to_string_lossy());
            found = true;
        }
    }
    if !found {
        return Ok(false);
    }
    let new = bundle.join(".config.json.qtfs");
    std::fs::write(&new, serde_json::to_vec(&config)?)?;
    let old = std::fs::metadata(&path)?;
    std::fs::set_permissions(&new, old.permissions())?;
    std::fs::rename(&new, &path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(line: &str) -> Option<PathBuf> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        bundle_of(&words)
    }

    #[test]
    fn the_bundle_is_found_behind_options() {
        let line = "--root /r --log /l/log.json --log-format json --systemd-cgroup create --bundle /b --pid-file p id";
        assert_eq!(bundle(line), Some("/b".into()));
        assert_eq!(bundle("run -b /b id"), Some("/b".into()));
        assert_eq!(bundle("create --bundle=/b id"), Some("/b".into()));
        assert_eq!(bundle("create id"), Some(".".into()));
        for other in [
            "--version",
            "features",
            "--root create state id",
            "exec create",
        ] {
            assert_eq!(bundle(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_hook_of_dockerd_is_changed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        let config = serde_json::json!({"ociVersion": "1.1.0", "big": 18446744073709551615u64, "hooks": {
            "prestart": [
                {"path": "/proc/33/exe", "args": [SET_KEY, "-exec-root=/run/docker", "id", "short"]},
                {"path": "/usr/bin/other", "args": [SET_KEY]},
                {"path": "/proc/33/exe", "args": ["other"]},
            ],
        }});
        std::fs::write(&file, config.to_string()).unwrap();
        assert!(redirect(directory.path(), Path::new("/usr/bin/qtfs-runc")).unwrap());
        let mut expected = config;
        expected["hooks"]["prestart"][0]["path"] = "/usr/bin/qtfs-runc".into();
        let text = std::fs::read(&file).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), expected);
        assert!(!redirect(directory.path(), Path::new("/x")).unwrap());
        std::fs::write(&file, "{}").unwrap();
        assert!(!redirect(directory.path(), Path::new("/x")).unwrap());
        std::fs::write(&file, "{").unwrap();
        assert!(redirect(directory.path(), Path::new("/x")).is_err());
    }
}
