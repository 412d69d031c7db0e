// SPDX-License-Identifier: GPL-2.0

//! The fields of every message, to make requests from arguments and to print replies.
//!
//! The compiler sees to it that no message and no field is missing: requests are made with all
//! their fields named, replies are taken apart with all their fields named, and both functions
//! match over all opcodes.

use crate::args::invalid;
use crate::args::Args;
use crate::args::FromArgs;
use crate::text;
use anyhow::bail;
use anyhow::Context;
use anyhow::Result;
use qtfs_proto::message::*;
use qtfs_proto::relay::Purpose;
use qtfs_proto::relay::SocketType;
use qtfs_proto::*;

/// What was printed of a message: names and values of fields, `attr.ino` and so on.
pub type Fields = Vec<(String, String)>;

/// Something of the protocol that can be printed.
pub trait Show {
    /// Appends its fields, with `name` in front.
    fn show(&self, name: &str, out: &mut Fields);
}

macro_rules! flags {
    ($( $ty:ident { $($flag:ident)* } )*) => { $(
        impl FromArgs<'_> for $ty {
            /// Names of flags with `|` between them, or the number.
            fn from_args(args: &Args, key: &str) -> Result<Self> {
                let mut flags = Self::NONE;
                for name in args.text(key)?.split('|').filter(|name| !name.is_empty()) {
                    let more = match name {
                        $( stringify!($flag) => Self::$flag, )*
                        _ => match text::number(name) {
                            Ok(bits) => Self::from_bits(u32::try_from(bits)?)
                                .with_context(|| format!("{key}={name}: use raw for unknown bits"))?,
                            Err(_) => {
                                let known = [$( stringify!($flag) ),*];
                                bail!("{key}={name}: known are {}", known.join(" "));
                            }
                        },
                    };
                    flags = flags.with(more);
                }
                Ok(flags)
            }
        }

        impl Show for $ty {
            fn show(&self, name: &str, out: &mut Fields) {
                const LISTED: $ty = $ty::NONE $( .with($ty::$flag) )*;
                const { assert!(LISTED.bits() == $ty::ALL.bits(), "a flag is missing here") };
                let mut names = Vec::new();
                $( if self.has(Self::$flag) { names.push(stringify!($flag)); } )*
                let text = if names.is_empty() { "0".into() } else { names.join("|") };
                out.push((name.into(), text));
            }
        }
    )* };
}

flags! {
    OpenFlags {
        READ WRITE APPEND CREATE EXCL TRUNC DIRECTORY NONBLOCK SYNC DSYNC NOATIME TMPFILE EXEC LIST
    }
    Opened { OPENED CREATED EOF STREAM POLL ALONE }
    PollEvents { IN PRI OUT ERR HUP NVAL RDNORM RDBAND WRNORM WRBAND MSG RDHUP }
    LookupFlags { REBIND }
    SetattrValid {
        MODE UID GID SIZE ATIME MTIME ATIME_NOW MTIME_NOW KILL_SUID KILL_SGID KILL_PRIV OPEN
    }
    AccessMask { EXEC WRITE READ CHDIR }
    WriteFlags { APPEND DSYNC SYNC WRITEBACK KILL_PRIV CLOSE }
    ReaddirFlags { PLUS }
    UnlinkFlags { DIRECTORY }
    RenameFlags { NOREPLACE EXCHANGE WHITEOUT }
    XattrFlags { CREATE REPLACE }
    LockFlags { WAIT FLOCK OFD RECLAIM }
    NotifyMask {
        ACCESS MODIFY ATTRIB CLOSE_WRITE CLOSE_NOWRITE OPEN MOVED_FROM MOVED_TO CREATE DELETE DELETE_SELF MOVE_SELF
        UNMOUNT OVERFLOW MASK_ADD ISDIR
    }
    ReceiveFlags { WAIT }
    CopyFlags { CLONE DEDUPE CAN_SHORTEN }
    ReadFlags { NONBLOCK DIRECT }
    AttrFlags { NO_XATTR MOUNT_ROOT STREAM MAGIC_LINK }
}

macro_rules! shown {
    ($( $ty:ty, $this:ident => $text:expr; )*) => { $(
        impl Show for $ty {
            fn show(&self, name: &str, out: &mut Fields) {
                let $this = self;
                out.push((name.into(), $text));
            }
        }
    )* };
}

shown! {
    u8, n => n.to_string();
    u16, n => n.to_string();
    u32, n => n.to_string();
    u64, n => n.to_string();
    [u8; 16], id => text::hex(id);
    NodeId, id => id.0.to_string();
    FileId, id => id.0.to_string();
    FsClass, class => format!("{class:?}").to_lowercase();
    LockType, kind => format!("{kind:?}").to_lowercase();
    Purpose, purpose => format!("{purpose:?}").to_lowercase();
    SocketType, kind => format!("{kind:?}").to_lowercase();
    Time, time => format!("{}.{:09}", time.sec, time.nsec);
    Path<'_>, path => text::quote(path.bytes());
    Bytes<'_>, bytes => text::quote(bytes.bytes());
}

/// Structures that are fields of messages.
macro_rules! parts {
    ($( $name:ident { $($field:ident)* } )*) => { $(
        impl Show for $name {
            fn show(&self, name: &str, out: &mut Fields) {
                let Self { $($field),* } = self;
                $( $field.show(&format!("{name}.{}", stringify!($field)), out); )*
            }
        }
    )* };
}

parts! {
    Attr {
        node stamp ino generation flags dev mount class grant mode nlink uid gid rdev_major
        rdev_minor blksize size blocks attributes attributes_mask atime mtime ctime btime version
    }
    InodeFlags { flags xflags extsize projid cowextsize flags_valid }
}

impl<'a> FromArgs<'a> for InodeFlags {
    fn from_args(args: &'a Args, key: &str) -> Result<Self> {
        let part = |name: &str| format!("{key}.{name}");
        Ok(Self {
            flags: args.field(&part("flags"))?,
            xflags: args.field(&part("xflags"))?,
            extsize: args.field(&part("extsize"))?,
            projid: args.field(&part("projid"))?,
            cowextsize: args.field(&part("cowextsize"))?,
            flags_valid: args.field(&part("flags_valid"))?,
        })
    }
}

/// Writes `field` with the protocol's own code.
pub fn encode(field: &impl Encode) -> Result<Vec<u8>> {
    let mut buf = vec![0; MAX_BODY];
    let mut w = Writer::new(&mut buf);
    w.put(field).map_err(invalid)?;
    let len = w.len();
    buf.truncate(len);
    Ok(buf)
}

macro_rules! messages {
    ($( $req:ident { $($field:ident)* } $rep:ident { $($rfield:ident)* } )*) => {
        /// The body of a request.
        pub fn request(op: Op, args: &Args) -> Result<Vec<u8>> {
            let body = match op {
                $( Op::$req => encode(&$req { $( $field: args.field(stringify!($field))? ),* })?, )*
            };
            args.finish()?;
            Ok(body)
        }

        /// The fields of a reply.
        pub fn reply(op: Op, body: &[u8]) -> Result<Fields, Error> {
            let mut out = Fields::new();
            match op {
                $( Op::$req => {
                    let $rep { $($rfield),* } = decode_reply::<$req>(body)?;
                    $( $rfield.show(stringify!($rfield), &mut out); )*
                } )*
            }
            Ok(out)
        }
    };
}

messages! {
    Hello { magic version_min version_max features max_data slots lane session machine instance client }
    HelloReply { version_min version_max version features max_data slots session ttl boot }
    Credential { index uid gid caps groups } CredentialReply {}
    Attach { path } AttachReply { attr read_only }
    Ping {} PingReply {}
    Release { files nodes } ReleaseReply {}
    Lookup { dir name flags } LookupReply { attr }
    Walk { root path } WalkReply { attr }
    Getattr { target file } GetattrReply { attr }
    Setattr { target file valid mode uid gid size atime mtime } SetattrReply { attr }
    Access { target mask } AccessReply {}
    Open { target flags mode umask want } OpenReply { file opened attr }
    Read { file offset len flags } ReadReply { attr }
    Write { file offset flags } WriteReply { written offset attr }
    Fsync { file datasync start end } FsyncReply {}
    Readdir { file cookie want flags } ReaddirReply { eof }
    Mkdir { dir name mode umask } MkdirReply { attr }
    Mknod { dir name mode umask rdev_major rdev_minor } MknodReply { attr }
    Symlink { dir name text } SymlinkReply { attr }
    Link { target dir name } LinkReply { attr }
    Unlink { dir name flags } UnlinkReply { nlink }
    Rename { dir name new_dir new_name flags } RenameReply {}
    Readlink { target } ReadlinkReply { text }
    Statfs { target }
    StatfsReply { kind bsize frsize blocks bfree bavail files ffree fsid namelen flags }
    Getxattr { target name max } GetxattrReply { len value }
    Setxattr { target name value flags } SetxattrReply {}
    Removexattr { target name } RemovexattrReply {}
    Listxattr { target max } ListxattrReply { len names }
    Lock { file owner pid kind start end flags } LockReply { attr }
    Testlock { file owner kind start end flags } TestlockReply { kind start end pid }
    Fallocate { file mode offset len } FallocateReply { attr }
    Seek { file offset hole } SeekReply { offset }
    Copy { source source_offset dest dest_offset len flags } CopyReply { copied attr }
    Getflags { target } GetflagsReply { flags }
    Setflags { target flags } SetflagsReply {}
    Syncfs { node } SyncfsReply {}
    Poll { file watch wake } PollReply { ready queued }
    Receive { file len flags } ReceiveReply { }
    Channel { target purpose kind token file } ChannelReply { file }
    Send { file } SendReply { }
    Notify { node watch mask } NotifyReply { }
}

/// The opcode of a name in any case.
pub fn op(name: &str) -> Option<Op> {
    Op::ALL
        .iter()
        .copied()
        .find(|op| op.name().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_can_be_written() {
        let args = Args::lenient(&[("name", "x"), ("new_name", "x")]);
        for op in Op::ALL {
            let body = request(*op, &args).unwrap();
            assert_eq!(Request::decode(*op, &body).unwrap().op(), *op);
        }
        let words = text::words("dir=5 name=x flags=REBIND").unwrap();
        let body = request(Op::Lookup, &Args::new(&words).unwrap()).unwrap();
        let expected = Lookup {
            dir: NodeId(5),
            name: Name::new(b"x").unwrap(),
            flags: LookupFlags::REBIND,
        };
        assert_eq!(
            Request::decode(Op::Lookup, &body),
            Ok(Request::Lookup(expected))
        );
        assert_eq!(super::op("lookup"), Some(Op::Lookup));
    }

    #[test]
    fn replies_are_printed() {
        let body = encode(&WriteReply {
            written: 5,
            offset: 7,
            attr: attr(),
        })
        .unwrap();
        let fields = reply(Op::Write, &body).unwrap();
        let line: Vec<String> = fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let line = line.join(" ");
        assert!(
            line.starts_with("written=5 offset=7 attr.node=1 attr.stamp=2 "),
            "{line}"
        );
        assert!(
            line.contains("attr.class=cgroup") && line.contains("attr.mtime=9.000000010"),
            "{line}"
        );
        assert!(reply(Op::Write, &body[1..]).is_err());
    }

    fn attr() -> Attr {
        let mut buf = [0; 512];
        buf[0] = 1;
        let mut attr: Attr = Reader::new(&buf).get().unwrap();
        attr.stamp = 2;
        attr.class = FsClass::Cgroup;
        attr.mtime = Time { sec: 9, nsec: 10 };
        attr
    }
}
