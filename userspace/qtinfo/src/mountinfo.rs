// SPDX-License-Identifier: GPL-2.0

//! Where what is mounted, as `/proc/self/mountinfo` has it.

use qtfs_control::mountinfo::unescape;

/// One mount of qtfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The kernel's number of the mount.
    pub id: u64,
    /// Where it is mounted.
    pub mount_point: Vec<u8>,
    /// What is in force: options of the mount, then those of the file system.
    pub options: Vec<String>,
}

/// The mounts of qtfs in the text of mountinfo.
pub fn parse(text: &[u8]) -> Vec<Line> {
    text.split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Line> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    // Between the options and the dash there is any number of other words.
    let dash = words.iter().skip(6).position(|word| *word == b"-")? + 6;
    if words.get(dash + 1) != Some(&&b"qtfs"[..]) {
        return None;
    }
    let text = |place: usize| Some(String::from_utf8_lossy(words.get(place)?).into_owned());
    Some(Line {
        id: text(0)?.parse().ok()?,
        mount_point: unescape(words.get(4)?),
        options: merge(&text(5)?, &text(dash + 3)?),
    })
}

/// What holds when both the mount and the file system have options.
fn merge(mount: &str, file_system: &str) -> Vec<String> {
    let of_file_system: Vec<&str> = file_system.split(',').collect();
    let read_only = of_file_system.contains(&"ro");
    let mut options: Vec<String> = Vec::new();
    for option in mount.split(',').chain(of_file_system) {
        let option = if option == "rw" && read_only {
            "ro"
        } else {
            option
        };
        // "rw" of the file system says nothing where the mount is read-only.
        let known = options.iter().any(|other| other == option);
        let overruled = option == "rw" && !options.is_empty();
        if !known && !overruled {
            options.push(option.into());
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_qtfs_among_others() {
        let text = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            41 22 0:40 / /mnt/a\\040b rw,nosuid,relatime shared:9 master:2 - qtfs /srv/share rw,server=10.0.0.1,port=12345,nconnect=2,hard\n\
            garbage\n\n";
        let lines = parse(text);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].id, 41);
        assert_eq!(lines[0].mount_point, b"/mnt/a b");
        assert_eq!(
            lines[0].options.join(","),
            "rw,nosuid,relatime,server=10.0.0.1,port=12345,nconnect=2,hard"
        );
    }

    #[test]
    fn read_only_is_what_either_says() {
        assert_eq!(
            merge("ro,relatime", "rw,hard").join(","),
            "ro,relatime,hard"
        );
        assert_eq!(
            merge("rw,relatime", "ro,hard").join(","),
            "ro,relatime,hard"
        );
        assert_eq!(merge("ro", "ro").join(","), "ro");
    }
}
