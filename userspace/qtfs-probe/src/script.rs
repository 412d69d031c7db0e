// SPDX-License-Identifier: GPL-2.0

//! The language of scripts.

use crate::args::Args;
use crate::conn::Server;
use crate::session::At;
use crate::session::Outcome;
use crate::session::Session;
use crate::table;
use crate::text;
use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use qtfs_proto::dirent::entries;
use qtfs_proto::frame::RawHeader;
use qtfs_proto::frame::HEADER_LEN;
use qtfs_proto::Op;
use std::collections::BTreeMap;
use std::time::Duration;

/// The manual.
pub const HELP: &str = r#"A script has one command per line. It ends at the first line that does not go as expected.

  OP KEY=VALUE...         a request and its reply, for example: lookup dir=$root name=etc
                          Fields have the names that rust/proto/message.rs gives them; what is not
                          given is 0 or empty. Flags: READ|WRITE. Objects: target=NODE or
                          target=DIR/NAME [target.node=NODE]. Lists: files=1,2 nodes=NODE:STAMP.
                          data=BYTES is the data section.
  hello [KEY=VALUE...]    new session, with fields of HELLO as given (done by itself when needed)
  resume [KEY=VALUE...]   connect lane 0 again and resume the session
  join N [KEY=VALUE...]   connect lane N
  drop [N]                end the connection of lane N (default 0) without a word
  wait                    take the reply to a request that was sent with @nowait
  cancel                  the caller of the last request in @slot gave up
  raw KEY=VALUE...        a frame of any header: kind op flags slot credits seq cred status ack,
                          body=BYTES data=BYTES, and len, data_len when they are to be wrong
  bytes BYTES             bytes as they are
  receive                 take whatever comes on the lane
  alive                   check that the server still serves a new client
  sleep MILLISECONDS
  set NAME VALUE          a variable; $NAME or ${NAME} in any word stands for its value
  print WORD...
  assert A OP B           OP is == != < <= > >= (numbers where both are numbers)

In front of a command: expect OUTCOME, which is ok, the name of an errno (or several: ENOENT|ESTALE),
closed, silent or any; without it ok is expected.
Behind a request: @slot=N @seq=N @lane=N @cred=N @ack=N @retransmit @nowait.
At the end: -> NAME=FIELD, which puts a field of the reply into a variable: -> root=attr.node.
The fields data (as text) and data.len are there too.
BYTES: text, or parts with commas between: u8:N u16:N u32:N u64:N hex:DIGITS str:TEXT (with its
length) text:TEXT zero:COUNT fill:COUNT."#;

/// A script that runs.
pub struct Script {
    server: Server,
    session: Option<Session>,
    variables: BTreeMap<String, Vec<u8>>,
    quiet: bool,
}

/// The parts of a line.
struct Line {
    expect: Option<String>,
    command: String,
    words: Vec<Vec<u8>>,
    at: At,
    nowait: bool,
    keep: Vec<(String, String)>,
}

impl Script {
    /// A script that has not connected yet; `quiet` prints nothing but what `print` says.
    pub fn new(server: Server, quiet: bool) -> Self {
        Self {
            server,
            session: None,
            variables: BTreeMap::new(),
            quiet,
        }
    }

    /// Runs all lines of `text`.
    pub fn run(&mut self, text: &str) -> Result<()> {
        for (number, line) in text.lines().enumerate() {
            self.line(line)
                .with_context(|| format!("line {}: {}", number + 1, line.trim()))?;
        }
        Ok(())
    }

    /// Runs one line.
    pub fn line(&mut self, line: &str) -> Result<()> {
        let words: Vec<Vec<u8>> = text::words(line)?
            .into_iter()
            .map(|word| self.expand(&word))
            .collect::<Result<_>>()?;
        if words.is_empty() {
            return Ok(());
        }
        let line = Line::parse(words)?;
        let Some(outcome) = self.execute(&line)? else {
            ensure!(
                line.expect.is_none() && line.keep.is_empty(),
                "this command has no outcome"
            );
            return Ok(());
        };
        if !self.quiet {
            println!("{}: {outcome}", line.command);
            if line.command == "readdir" {
                self.print_entries(&outcome);
            }
        }
        let word = outcome.word();
        let expect = line.expect.as_deref().unwrap_or("ok");
        let met = expect == "any" || expect.split('|').any(|one| one == word);
        ensure!(met, "expected {expect}, got {outcome}");
        for (name, field) in line.keep {
            let value = match (field.as_str(), &outcome) {
                ("data", Outcome::Ok(_, data)) => data.clone(),
                ("data.len", Outcome::Ok(_, data)) => data.len().to_string().into(),
                (field, _) => {
                    let value = outcome.field(field);
                    value
                        .with_context(|| format!("the reply has no field {field}"))?
                        .into()
                }
            };
            self.variables.insert(name, value);
        }
        Ok(())
    }

    fn execute(&mut self, line: &Line) -> Result<Option<Outcome>> {
        let words = &line.words;
        match line.command.as_str() {
            "hello" => {
                let session = self.session.insert(Session::new(self.server));
                return session.hello(0, Args::new(words)?).map(Some);
            }
            "resume" => return self.session()?.hello(0, Args::new(words)?).map(Some),
            "join" => {
                let (lane, words) = words.split_first().context("join needs a lane")?;
                let lane = number(lane)?;
                return self.session()?.hello(lane, Args::new(words)?).map(Some);
            }
            "drop" => {
                let lane = words.first().map_or(Ok(0), |lane| number(lane))?;
                self.session()?.drop_lane(lane);
            }
            "wait" => return Ok(Some(self.session()?.wait(line.at))),
            "cancel" => self.session()?.cancel(line.at)?,
            "raw" => {
                let bytes = raw(&Args::new(words)?, line.at)?;
                self.session()?.lane(line.at.lane)?.send_bytes(&bytes)?;
            }
            "bytes" => {
                let bytes = text::bytes(&words.concat())?;
                self.session()?.lane(line.at.lane)?.send_bytes(&bytes)?;
            }
            "receive" => {
                let session = self.session()?;
                return Ok(Some(match session.lane(line.at.lane)?.receive() {
                    crate::conn::Received::Frame(frame) => {
                        let fields = vec![("header".into(), format!("{:?}", frame.header))];
                        Outcome::Ok(fields, frame.data)
                    }
                    crate::conn::Received::Closed => Outcome::Closed,
                    crate::conn::Received::Silent => Outcome::Silent,
                    crate::conn::Received::Bad(error) => Outcome::Bad(format!("{error:?}")),
                }));
            }
            "alive" => return Session::open(self.server)?.ask("ping").map(Some),
            "sleep" => {
                let time = words.first().map_or(Ok(0), |time| number(time))?;
                std::thread::sleep(Duration::from_millis(time));
            }
            "set" => {
                let [name, value] = &words[..] else {
                    bail!("set needs a name and a value")
                };
                self.variables
                    .insert(String::from_utf8(name.clone())?, value.clone());
            }
            "print" => println!("{}", String::from_utf8_lossy(&words.join(&b' '))),
            "assert" => assert(words)?,
            name => {
                let op = table::op(name).with_context(|| format!("no command is called {name}"))?;
                return self.request(op, line);
            }
        }
        Ok(None)
    }

    fn request(&mut self, op: Op, line: &Line) -> Result<Option<Outcome>> {
        let is_data = |word: &&Vec<u8>| word.starts_with(b"data=");
        let data = line
            .words
            .iter()
            .find(is_data)
            .map(|word| text::bytes(&word[5..]));
        let data = data.transpose()?.unwrap_or_default();
        let words: Vec<_> = line
            .words
            .iter()
            .filter(|word| !is_data(word))
            .cloned()
            .collect();
        let body = table::request(op, &Args::new(&words)?)?;
        let session = self.session()?;
        if line.nowait {
            session.send(line.at, op as u8, &body, &data)?;
            return Ok(None);
        }
        session.call_body(line.at, op as u8, &body, &data).map(Some)
    }

    fn session(&mut self) -> Result<&mut Session> {
        if self.session.is_none() {
            self.session = Some(Session::open(self.server)?);
        }
        self.session.as_mut().context("there is a session")
    }

    /// Replaces `$name` and `${name}`.
    fn expand(&self, word: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut rest = word;
        while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
            out.extend(&rest[..at]);
            rest = &rest[at + 1..];
            let (name, after) = match rest.strip_prefix(b"{") {
                Some(inner) => {
                    let end = inner
                        .iter()
                        .position(|byte| *byte == b'}')
                        .context("${ without }")?;
                    (&inner[..end], &inner[end + 1..])
                }
                None => {
                    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                    let end = rest
                        .iter()
                        .position(|byte| !is_name(byte))
                        .unwrap_or(rest.len());
                    rest.split_at(end)
                }
            };
            let name = String::from_utf8_lossy(name);
            let value = self.variables.get(&*name);
            out.extend(value.with_context(|| format!("no variable is called {name:?}"))?);
            rest = after;
        }
        out.extend(rest);
        Ok(out)
    }

    fn print_entries(&self, outcome: &Outcome) {
        let Outcome::Ok(_, data) = outcome else {
            return;
        };
        for entry in entries(data) {
            match entry {
                Ok(entry) => println!("  {}", crate::files::entry_line(&entry)),
                Err(error) => println!("  a bad entry: {error:?}"),
            }
        }
    }
}

impl Line {
    fn parse(words: Vec<Vec<u8>>) -> Result<Self> {
        let mut line = Self {
            expect: None,
            command: String::new(),
            words: Vec::new(),
            at: At::default(),
            nowait: false,
            keep: Vec::new(),
        };
        let mut words = words.into_iter();
        let mut first = words.next().unwrap_or_default();
        if first == b"expect" {
            line.expect = Some(String::from_utf8(words.next().context("expect what?")?)?);
            first = words.next().context("expect needs a command behind it")?;
        }
        line.command = String::from_utf8(first)?.to_lowercase();
        let mut keeping = false;
        for word in words {
            if word == b"->" {
                keeping = true;
            } else if keeping {
                let text = String::from_utf8(word)?;
                let (name, field) = text.split_once('=').context("-> needs NAME=FIELD")?;
                line.keep.push((name.into(), field.into()));
            } else if word.starts_with(b"@") {
                line.modify(std::str::from_utf8(&word[1..])?)?;
            } else {
                line.words.push(word);
            }
        }
        Ok(line)
    }

    fn modify(&mut self, modifier: &str) -> Result<()> {
        let (key, value) = modifier.split_once('=').unwrap_or((modifier, ""));
        let value = value.as_bytes();
        match key {
            "slot" => self.at.slot = number(value)?,
            "seq" => self.at.seq = Some(number(value)?),
            "lane" => self.at.lane = number(value)?,
            "cred" => self.at.cred = number(value)?,
            "ack" => self.at.ack = number(value)?,
            "retransmit" => self.at.retransmit = true,
            "nowait" => self.nowait = true,
            _ => bail!("@{key}: known are slot seq lane cred ack retransmit nowait"),
        }
        Ok(())
    }
}

fn number<T: TryFrom<i128>>(text: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(text)?;
    T::try_from(text::number(text)?)
        .ok()
        .with_context(|| format!("{text} is out of range"))
}

/// A frame with any header.
fn raw(args: &Args, at: At) -> Result<Vec<u8>> {
    let (body, data) = (args.bytes("body")?, args.bytes("data")?);
    let or = |key: &str, default: usize| -> Result<u32> {
        if args.get(key).is_some() {
            args.number(key)
        } else {
            Ok(u32::try_from(default)?)
        }
    };
    let op = args.text("op")?;
    let header = RawHeader {
        len: or("len", HEADER_LEN + body.len() + data.len())?,
        kind: if args.get("kind").is_some() {
            args.number("kind")?
        } else {
            1
        },
        op: table::op(op).map_or_else(|| args.number("op"), |op| Ok(op as u8))?,
        flags: args.number("flags")?,
        slot: or("slot", at.slot.into())? as u16,
        credits: args.number("credits")?,
        seq: or("seq", at.seq.unwrap_or(1) as usize)?,
        cred: args.number("cred")?,
        status: args.number("status")?,
        data_len: or("data_len", data.len())?,
        ack: args.number("ack")?,
    };
    args.finish()?;
    Ok([table::encode(&header)?, body, data].concat())
}

fn assert(words: &[Vec<u8>]) -> Result<()> {
    let [a, op, b] = words else {
        bail!("assert needs A OP B")
    };
    let numbers = [a, b].map(|word| text::number(std::str::from_utf8(word).ok()?).ok());
    let order = match numbers {
        [Some(a), Some(b)] => a.cmp(&b),
        _ => a.cmp(b),
    };
    let holds = match &op[..] {
        b"==" => order.is_eq(),
        b"!=" => order.is_ne(),
        b"<" => order.is_lt(),
        b"<=" => order.is_le(),
        b">" => order.is_gt(),
        b">=" => order.is_ge(),
        _ => bail!("assert knows == != < <= > >="),
    };
    let show = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    ensure!(holds, "{} {} {} does not hold", show(a), show(op), show(b));
    Ok(())
}
