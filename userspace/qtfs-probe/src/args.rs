// SPDX-License-Identifier: GPL-2.0

//! `key=value` arguments, turned into the types of the protocol.

use crate::text;
use anyhow::anyhow;
use anyhow::bail;
use anyhow::Context;
use anyhow::Result;
use qtfs_proto::relay::Purpose;
use qtfs_proto::relay::SocketType;
use qtfs_proto::types::Fixed;
use qtfs_proto::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// The arguments of one command.
#[derive(Debug, Default)]
pub struct Args {
    values: BTreeMap<String, Vec<u8>>,
    /// Keys that were asked for; the others are mistakes.
    used: RefCell<BTreeSet<String>>,
    /// Keys that nobody asks for are none.
    lenient: bool,
}

impl Args {
    /// Takes words of the form `key=value`.
    pub fn new(words: &[Vec<u8>]) -> Result<Self> {
        let mut args = Self::default();
        for word in words {
            let equals = word.iter().position(|byte| *byte == b'=');
            let shown = String::from_utf8_lossy(word);
            let equals =
                equals.with_context(|| format!("{shown:?} is not of the form key=value"))?;
            let key = std::str::from_utf8(&word[..equals])?.to_owned();
            if args
                .values
                .insert(key, word[equals + 1..].to_vec())
                .is_some()
            {
                bail!("{shown:?}: the key is given twice");
            }
        }
        Ok(args)
    }

    /// Values for any message, of which each takes those that it has.
    pub fn lenient(pairs: &[(&str, &str)]) -> Self {
        let values = pairs
            .iter()
            .map(|(key, value)| ((*key).into(), value.as_bytes().to_vec()));
        Self {
            values: values.collect(),
            lenient: true,
            ..Self::default()
        }
    }

    /// Adds a value, unless there is one.
    pub fn default_value(&mut self, key: &str, value: &[u8]) {
        self.values
            .entry(key.into())
            .or_insert_with(|| value.to_vec());
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.used.borrow_mut().insert(key.into());
        self.values.get(key).map(Vec::as_slice)
    }

    /// The value of `key` as text; empty when there is none.
    pub fn text(&self, key: &str) -> Result<&str> {
        let value = self.get(key).unwrap_or_default();
        std::str::from_utf8(value).with_context(|| format!("{key} is not UTF-8"))
    }

    /// The value of `key` as a number that fits; 0 when there is none.
    pub fn number<T: TryFrom<i128> + TryFrom<u64>>(&self, key: &str) -> Result<T> {
        let text = self.text(key)?;
        let value = if text.is_empty() {
            0
        } else {
            text::number(text).context(key.to_owned())?
        };
        // Negative numbers are a way to write large ones.
        let bits = T::try_from(value)
            .ok()
            .or_else(|| T::try_from(value as i64 as u64).ok());
        bits.with_context(|| format!("{key}={text} is out of range"))
    }

    /// The value of `key` as bytes, see [`text::bytes`].
    pub fn bytes(&self, key: &str) -> Result<Vec<u8>> {
        text::bytes(self.get(key).unwrap_or_default()).context(key.to_owned())
    }

    /// The value of `key` as a type of the protocol.
    pub fn field<'a, T: FromArgs<'a>>(&'a self, key: &str) -> Result<T> {
        T::from_args(self, key)
    }

    /// Fails when there are keys that nobody asked for.
    pub fn finish(&self) -> Result<()> {
        let used = self.used.borrow();
        match self.values.keys().find(|key| !used.contains(*key)) {
            None => Ok(()),
            Some(_) if self.lenient => Ok(()),
            Some(key) => {
                let known: Vec<&str> = used.iter().map(String::as_str).collect();
                Err(anyhow!(
                    "no field {key:?} here; there are: {}",
                    known.join(" ")
                ))
            }
        }
    }
}

/// A type of the protocol that can be written as arguments.
pub trait FromArgs<'a>: Sized {
    /// Makes it of the value of `key`, or of those that begin with `key.`.
    fn from_args(args: &'a Args, key: &str) -> Result<Self>;
}

/// How the protocol says that a value breaks its rules.
pub fn invalid(error: Error) -> anyhow::Error {
    match error {
        Error::Invalid(what) => anyhow!("not a valid {what} (to send it all the same, use raw)"),
        other => anyhow!("{other:?}"),
    }
}

macro_rules! integers {
    ($($ty:ty)*) => { $(
        impl FromArgs<'_> for $ty {
            fn from_args(args: &Args, key: &str) -> Result<Self> {
                args.number(key)
            }
        }
    )* };
}

integers!(u8 u16 u32 u64);

impl<const N: usize> FromArgs<'_> for [u8; N] {
    fn from_args(args: &Args, key: &str) -> Result<Self> {
        match args.get(key) {
            None => Ok([0; N]),
            Some(digits) => text::unhex(digits)?
                .try_into()
                .map_err(|_| anyhow!("{key}: {N} bytes in hexadecimal digits are needed")),
        }
    }
}

impl FromArgs<'_> for NodeId {
    fn from_args(args: &Args, key: &str) -> Result<Self> {
        args.number(key).map(Self)
    }
}

impl FromArgs<'_> for FileId {
    fn from_args(args: &Args, key: &str) -> Result<Self> {
        args.number(key).map(Self)
    }
}

macro_rules! byte_strings {
    ($($ty:ident)*) => { $(
        impl<'a> FromArgs<'a> for $ty<'a> {
            fn from_args(args: &'a Args, key: &str) -> Result<Self> {
                Self::new(args.get(key).unwrap_or_default()).map_err(invalid).context(key.to_owned())
            }
        }
    )* };
}

byte_strings!(Name OptName Path XattrName);

impl<'a> FromArgs<'a> for Bytes<'a> {
    fn from_args(args: &'a Args, key: &str) -> Result<Self> {
        // Never freed: a script has few of these.
        Self::new(args.bytes(key)?.leak()).map_err(invalid)
    }
}

impl<'a> FromArgs<'a> for Target<'a> {
    fn from_args(args: &'a Args, key: &str) -> Result<Self> {
        let part = |name: &str| format!("{key}.{name}");
        match args.get(key) {
            Some(value) => match value.iter().position(|byte| *byte == b'/') {
                Some(slash) => Ok(Self {
                    node: args.number(&part("node")).map(NodeId)?,
                    dir: NodeId(number(&value[..slash])?),
                    name: OptName::new(&value[slash + 1..]).map_err(invalid)?,
                }),
                None => Ok(Self::node(NodeId(number(value)?))),
            },
            None => Ok(Self {
                node: args.field(&part("node"))?,
                dir: args.field(&part("dir"))?,
                name: args.field(&part("name"))?,
            }),
        }
    }
}

fn number(text: &[u8]) -> Result<u64> {
    Ok(text::number(std::str::from_utf8(text)?)? as u64)
}

/// Items of a list are separated by commas.
fn list<'a, T: Fixed>(
    args: &'a Args,
    key: &str,
    item: impl Fn(&[u8]) -> Result<T>,
) -> Result<List<'a, T>> {
    let value = args.get(key).unwrap_or_default();
    let parts = value
        .split(|byte| *byte == b',')
        .filter(|part| !part.is_empty());
    let items: Vec<T> = parts
        .map(item)
        .collect::<Result<_>>()
        .context(key.to_owned())?;
    // Never freed: a script has few of these.
    let buf = vec![0; items.len() * T::LEN].leak();
    List::pack(items, buf).map_err(invalid)
}

impl<'a> FromArgs<'a> for List<'a, u32> {
    fn from_args(args: &'a Args, key: &str) -> Result<Self> {
        list(args, key, |part| Ok(u32::try_from(number(part)?)?))
    }
}

impl<'a> FromArgs<'a> for List<'a, FileId> {
    fn from_args(args: &'a Args, key: &str) -> Result<Self> {
        list(args, key, |part| Ok(FileId(number(part)?)))
    }
}

impl<'a> FromArgs<'a> for List<'a, Forget> {
    fn from_args(args: &'a Args, key: &str) -> Result<Self> {
        list(args, key, |part| {
            let colon = part
                .iter()
                .position(|byte| *byte == b':')
                .context("NODE:STAMP is needed")?;
            Ok(Forget {
                node: NodeId(number(&part[..colon])?),
                stamp: number(&part[colon + 1..])?,
            })
        })
    }
}

impl FromArgs<'_> for LockType {
    fn from_args(args: &Args, key: &str) -> Result<Self> {
        Ok(match args.text(key)?.to_ascii_lowercase().as_str() {
            "" | "read" | "0" => Self::Read,
            "write" | "1" => Self::Write,
            "unlock" | "2" => Self::Unlock,
            other => bail!("{key}={other}: use read, write or unlock"),
        })
    }
}

impl FromArgs<'_> for Purpose {
    fn from_args(args: &Args, key: &str) -> Result<Self> {
        Ok(match args.text(key)?.to_ascii_lowercase().as_str() {
            "" | "connect" => Self::Connect,
            "listen" => Self::Listen,
            "take" => Self::Take,
            "offer" => Self::Offer,
            "file" => Self::File,
            "connectnow" => Self::ConnectNow,
            other => {
                bail!("{key}={other}: use connect, listen, take, offer, file or connectnow")
            }
        })
    }
}

impl FromArgs<'_> for SocketType {
    fn from_args(args: &Args, key: &str) -> Result<Self> {
        Ok(match args.text(key)?.to_ascii_lowercase().as_str() {
            "" | "stream" => Self::Stream,
            "datagram" => Self::Datagram,
            "seqpacket" => Self::Seqpacket,
            other => bail!("{key}={other}: use stream, datagram or seqpacket"),
        })
    }
}

impl FromArgs<'_> for Time {
    fn from_args(args: &Args, key: &str) -> Result<Self> {
        let text = args.text(key)?;
        let (sec, nsec) = text.split_once('.').unwrap_or((text, ""));
        let sec = if sec.is_empty() {
            0
        } else {
            sec.parse().context(key.to_owned())?
        };
        let nsec = format!("{nsec:0<9}").parse().context(key.to_owned())?;
        Ok(Self { sec, nsec })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(&text::words(line).unwrap()).unwrap()
    }

    #[test]
    fn targets_are_written_in_three_ways() {
        let name = |text| Name::new(text).unwrap();
        let a = args("target=7");
        assert_eq!(
            a.field::<Target>("target").unwrap(),
            Target::node(NodeId(7))
        );
        let a = args("target=7/x target.node=9");
        let expected = Target::entry(NodeId(7), name(b"x"), NodeId(9));
        assert_eq!(a.field::<Target>("target").unwrap(), expected);
        let a = args("target.dir=7 target.name=x target.node=9");
        assert_eq!(a.field::<Target>("target").unwrap(), expected);
        assert!(args("target=7/a/b").field::<Target>("target").is_err());
    }

    #[test]
    fn lists_times_and_numbers() {
        let a = args("nodes=1:2,3:4 t=-5.25 n=-1");
        let nodes: Vec<Forget> = a
            .field::<List<'_, Forget>>("nodes")
            .unwrap()
            .iter()
            .collect();
        assert_eq!(
            nodes[1],
            Forget {
                node: NodeId(3),
                stamp: 4
            }
        );
        assert_eq!(
            a.field::<Time>("t").unwrap(),
            Time {
                sec: -5,
                nsec: 250_000_000
            }
        );
        assert_eq!(a.number::<u64>("n").unwrap(), u64::MAX);
        assert!(a.number::<u32>("nodes").is_err());
        assert!(args("n=256").number::<u8>("n").is_err());
        a.finish().unwrap();
    }

    #[test]
    fn mistakes_are_named() {
        let a = args("name=x nmae=y");
        a.field::<Name>("name").unwrap();
        assert_eq!(
            a.finish().unwrap_err().to_string(),
            "no field \"nmae\" here; there are: name"
        );
        assert!(Args::new(&[b"x".to_vec()]).is_err());
        assert!(Args::new(&[b"x=1".to_vec(), b"x=2".to_vec()]).is_err());
        assert!(args("name=a/b").field::<Name>("name").is_err());
    }
}
