// SPDX-License-Identifier: GPL-2.0

//! Words, byte strings and errnos as they are written in scripts.

use anyhow::bail;
use anyhow::Context;
use anyhow::Result;
use nix::errno::Errno;

/// Splits a line into words. Words are separated by blanks; `"…"` and `'…'` keep blanks together,
/// also within a word; between double quotes and outside of quotes `\n`, `\t`, `\0`, `\xHH` and
/// `\` before any other character are escapes; `#` at the start of a word begins a comment.
pub fn words(line: &str) -> Result<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match (byte, quote) {
            (b'\'' | b'"', None) => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (_, Some(open)) if byte == open => quote = None,
            (b'\\', None | Some(b'"')) => word.get_or_insert_default().push(escape(&mut bytes)?),
            (b' ' | b'\t', None) => words.extend(word.take()),
            (b'#', None) if word.is_none() => break,
            _ => word.get_or_insert_default().push(byte),
        }
    }
    if quote.is_some() {
        bail!("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

fn escape(bytes: &mut impl Iterator<Item = u8>) -> Result<u8> {
    let mut next = || bytes.next().context("the line ends after \\");
    Ok(match next()? {
        b'n' => b'\n',
        b't' => b'\t',
        b'0' => 0,
        b'x' => {
            let digits = [next()?, next()?];
            unhex(&digits)?[0]
        }
        other => other,
    })
}

/// Bytes as they are printed and as [`words`] reads them between double quotes.
pub fn quote(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

/// Bytes of hexadecimal digits.
pub fn unhex(digits: &[u8]) -> Result<Vec<u8>> {
    if digits.len() % 2 != 0 {
        bail!("an odd number of hexadecimal digits");
    }
    let pair = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits
        .chunks(2)
        .map(pair)
        .collect::<Option<_>>()
        .context("no hexadecimal digits")
}

/// Hexadecimal digits of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .concat()
}

/// A number: decimal, `0x…`, `0o…`, or negative.
pub fn number(text: &str) -> Result<i128> {
    let (text, sign) = match text.strip_prefix('-') {
        Some(rest) => (rest, -1),
        None => (text, 1),
    };
    let value = if let Some(digits) = text.strip_prefix("0x") {
        i128::from_str_radix(digits, 16)
    } else if let Some(digits) = text.strip_prefix("0o") {
        i128::from_str_radix(digits, 8)
    } else {
        text.parse()
    };
    Ok(sign * value.with_context(|| format!("{text:?} is not a number"))?)
}

/// Bytes made of parts that are separated by commas: `u8:N`, `u16:N`, `u32:N`, `u64:N`, `hex:DIGITS`,
/// `str:TEXT` (with its length in front), `zero:COUNT`, `fill:COUNT` (bytes that count up),
/// `text:TEXT`. Anything without such a prefix is taken as it is.
pub fn bytes(spec: &[u8]) -> Result<Vec<u8>> {
    const PREFIXES: [&str; 9] = [
        "u8:", "u16:", "u32:", "u64:", "hex:", "str:", "zero:", "fill:", "text:",
    ];
    if !PREFIXES
        .iter()
        .any(|prefix| spec.starts_with(prefix.as_bytes()))
    {
        return Ok(spec.to_vec());
    }
    let mut out = Vec::new();
    for part in spec.split(|byte| *byte == b',') {
        let colon = part
            .iter()
            .position(|byte| *byte == b':')
            .context("a part without \":\"")?;
        let (kind, value) = (&part[..colon], &part[colon + 1..]);
        let count = || number(&String::from_utf8_lossy(value)).map(|n| n as u64);
        match kind {
            b"u8" => out.push(count()? as u8),
            b"u16" => out.extend((count()? as u16).to_le_bytes()),
            b"u32" => out.extend((count()? as u32).to_le_bytes()),
            b"u64" => out.extend(count()?.to_le_bytes()),
            b"hex" => out.extend(unhex(value)?),
            b"text" => out.extend(value),
            b"str" => {
                out.extend(u32::try_from(value.len())?.to_le_bytes());
                out.extend(value);
            }
            b"zero" => out.resize(out.len() + usize::try_from(count()?)?, 0),
            b"fill" => out.extend((0..count()?).map(|i| i as u8)),
            _ => bail!("{:?} is no kind of bytes", String::from_utf8_lossy(kind)),
        }
    }
    Ok(out)
}

/// The name of an errno, as `ENOENT`.
pub fn errno_name(errno: u32) -> String {
    match Errno::from_raw(errno as i32) {
        Errno::UnknownErrno => format!("E{errno}"),
        known => format!("{known:?}"),
    }
}

/// The number of an errno's name.
pub fn errno(name: &str) -> Option<u32> {
    // These are other names of the same numbers.
    let name = match name {
        "EWOULDBLOCK" => "EAGAIN",
        "ENOTSUP" => "EOPNOTSUPP",
        other => other,
    };
    (1..4096).find(|errno| errno_name(*errno) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        let words = words(line).unwrap();
        words
            .into_iter()
            .map(|w| String::from_utf8(w).unwrap())
            .collect()
    }

    #[test]
    fn splits_lines() {
        assert_eq!(
            split("  open  target=1/a\tflags=READ # why"),
            ["open", "target=1/a", "flags=READ"]
        );
        assert_eq!(
            split(r#"name="a b" 'c "d"' "" e#f"#),
            ["name=a b", "c \"d\"", "", "e#f"]
        );
        assert_eq!(words(r#""\x00\xff\n""#).unwrap(), [[0, 0xff, b'\n']]);
        assert_eq!(words(r"a\ b").unwrap(), [b"a b"]);
        assert!(split("# nothing").is_empty());
        for bad in ["\"", "'a", "\\", "\\x1", "\\xzz"] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_numbers() {
        assert_eq!(number("0x10").unwrap(), 16);
        assert_eq!(number("0o644").unwrap(), 0o644);
        assert_eq!(number("-1").unwrap() as u64, u64::MAX);
        assert!(number("").is_err() && number("x").is_err());
    }

    #[test]
    fn makes_bytes() {
        assert_eq!(bytes(b"plain,text").unwrap(), b"plain,text");
        assert_eq!(
            bytes(b"u16:1,str:ab,hex:ff").unwrap(),
            b"\x01\0\x02\0\0\0ab\xff"
        );
        assert_eq!(bytes(b"zero:2,fill:3,text:x").unwrap(), b"\0\0\0\x01\x02x");
        assert_eq!(bytes(b"u64:-1").unwrap(), [0xff; 8]);
        assert!(bytes(b"u8:").is_err() && bytes(b"hex:1").is_err() && bytes(b"u8:1,2").is_err());
        assert_eq!(unhex(hex(b"\x01\xab").as_bytes()).unwrap(), b"\x01\xab");
    }

    #[test]
    fn knows_errnos() {
        assert_eq!(errno_name(2), "ENOENT");
        assert_eq!(errno("ESTALE"), Some(116));
        assert_eq!(errno("ENOTSUP"), Some(95));
        assert_eq!(errno_name(4000), "E4000");
        assert_eq!(errno("EMADEUP"), None);
    }
}
