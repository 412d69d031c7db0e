// SPDX-License-Identifier: GPL-2.0

//! Every structure of the protocol once more: its fields in the order of the wire.

use super::Field;
use super::Value;
use proptest::prelude::*;
use qtfs_proto::event::{Notified, Wake};
use qtfs_proto::message::*;
use qtfs_proto::relay::{Purpose, SocketType};
use qtfs_proto::Attr;
use qtfs_proto::*;

macro_rules! table {
    ($( $name:ident $(<$lt:lifetime>)? { $( $field:ident: $ty:ty ),* $(,)? } )*) => { $(
        impl<'a> Field<'a> for $name $(<$lt>)? {
            fn strategy() -> BoxedStrategy<Value> {
                let fields: Vec<BoxedStrategy<Value>> = vec![ $( <$ty as Field>::strategy() ),* ];
                fields.prop_map(Value::Group).boxed()
            }

            fn sample(_n: &mut u64) -> Value {
                Value::Group(vec![ $( <$ty as Field>::sample(_n) ),* ])
            }

            fn view(value: &'a Value) -> Self {
                let mut _fields = value.group().iter();
                Self { $( $field: <$ty as Field>::view(_fields.next().expect("one value per field")) ),* }
            }

            fn wire(value: &Value, _out: &mut Vec<u8>) {
                let mut _fields = value.group().iter();
                $( <$ty as Field>::wire(_fields.next().expect("one value per field"), _out); )*
            }
        }
    )* };
}

table! {
    Target<'a> { node: NodeId, dir: NodeId, name: OptName<'a> }
    Forget { node: NodeId, stamp: u64 }
    InodeFlags {
        flags: u32, xflags: u32, extsize: u32, projid: u32, cowextsize: u32, flags_valid: u8,
    }
    Attr {
        node: NodeId, stamp: u64, ino: u64, generation: u32, flags: AttrFlags, dev: u64,
        mount: u64, class: FsClass, grant: u32, mode: u32, nlink: u32, uid: u32, gid: u32,
        rdev_major: u32, rdev_minor: u32, blksize: u32, size: u64, blocks: u64, attributes: u64,
        attributes_mask: u64, atime: Time, mtime: Time, ctime: Time, btime: Time, version: u64,
    }

    Hello<'a> {
        magic: u32, version_min: u16, version_max: u16, features: u64, max_data: u32, slots: u16,
        lane: u16, session: [u8; 16], machine: [u8; 16], instance: u64, client: Bytes<'a>,
    }
    HelloReply {
        version_min: u16, version_max: u16, version: u16, features: u64, max_data: u32, slots: u16,
        session: [u8; 16], ttl: u32, boot: u64,
    }
    Credential<'a> { index: u32, uid: u32, gid: u32, caps: u64, groups: List<'a, u32> }
    CredentialReply {}
    Attach<'a> { path: Path<'a> }
    AttachReply { attr: Attr, read_only: u8 }
    Ping {}
    PingReply {}
    Release<'a> { files: List<'a, FileId>, nodes: List<'a, Forget> }
    ReleaseReply {}
    Lookup<'a> { dir: NodeId, name: Name<'a>, flags: LookupFlags }
    LookupReply { attr: Attr }
    Walk<'a> { root: NodeId, path: Path<'a> }
    WalkReply { attr: Attr }
    Getattr<'a> { target: Target<'a>, file: FileId }
    GetattrReply { attr: Attr }
    Setattr<'a> {
        target: Target<'a>, file: FileId, valid: SetattrValid, mode: u32, uid: u32, gid: u32,
        size: u64, atime: Time, mtime: Time,
    }
    SetattrReply { attr: Attr }
    Access<'a> { target: Target<'a>, mask: AccessMask }
    AccessReply {}
    Open<'a> { target: Target<'a>, flags: OpenFlags, mode: u32, umask: u32, want: u32 }
    OpenReply { file: FileId, opened: Opened, attr: Attr }
    Read { file: FileId, offset: u64, len: u32, flags: ReadFlags }
    ReadReply { attr: Attr }
    Write { file: FileId, offset: u64, flags: WriteFlags }
    WriteReply { written: u32, offset: u64, attr: Attr }
    Fsync { file: FileId, datasync: u8, start: u64, end: u64 }
    FsyncReply {}
    Readdir { file: FileId, cookie: u64, want: u32, flags: ReaddirFlags }
    ReaddirReply { eof: u8 }
    Mkdir<'a> { dir: NodeId, name: Name<'a>, mode: u32, umask: u32 }
    MkdirReply { attr: Attr }
    Mknod<'a> {
        dir: NodeId, name: Name<'a>, mode: u32, umask: u32, rdev_major: u32, rdev_minor: u32,
    }
    MknodReply { attr: Attr }
    Symlink<'a> { dir: NodeId, name: Name<'a>, text: Path<'a> }
    SymlinkReply { attr: Attr }
    Link<'a> { target: Target<'a>, dir: NodeId, name: Name<'a> }
    LinkReply { attr: Attr }
    Unlink<'a> { dir: NodeId, name: Name<'a>, flags: UnlinkFlags }
    UnlinkReply { nlink: u32 }
    Rename<'a> {
        dir: NodeId, name: Name<'a>, new_dir: NodeId, new_name: Name<'a>, flags: RenameFlags,
    }
    RenameReply {}
    Readlink<'a> { target: Target<'a> }
    ReadlinkReply<'a> { text: Path<'a> }
    Statfs<'a> { target: Target<'a> }
    StatfsReply {
        kind: u64, bsize: u32, frsize: u32, blocks: u64, bfree: u64, bavail: u64, files: u64,
        ffree: u64, fsid: u64, namelen: u32, flags: u32,
    }
    Getxattr<'a> { target: Target<'a>, name: XattrName<'a>, max: u32 }
    GetxattrReply<'a> { len: u32, value: Bytes<'a> }
    Setxattr<'a> { target: Target<'a>, name: XattrName<'a>, value: Bytes<'a>, flags: XattrFlags }
    SetxattrReply {}
    Removexattr<'a> { target: Target<'a>, name: XattrName<'a> }
    RemovexattrReply {}
    Listxattr<'a> { target: Target<'a>, max: u32 }
    ListxattrReply<'a> { len: u32, names: Bytes<'a> }
    Lock {
        file: FileId, owner: u64, pid: u32, kind: LockType, start: u64, end: u64, flags: LockFlags,
    }
    LockReply { attr: Attr }
    Testlock {
        file: FileId, owner: u64, kind: LockType, start: u64, end: u64, flags: LockFlags,
    }
    TestlockReply { kind: LockType, start: u64, end: u64, pid: u32 }
    Fallocate { file: FileId, mode: u32, offset: u64, len: u64 }
    FallocateReply { attr: Attr }
    Seek { file: FileId, offset: u64, hole: u8 }
    SeekReply { offset: u64 }
    Copy {
        source: FileId, source_offset: u64, dest: FileId, dest_offset: u64, len: u64,
        flags: CopyFlags,
    }
    CopyReply { copied: u64, attr: Attr }
    Getflags<'a> { target: Target<'a> }
    GetflagsReply { flags: InodeFlags }
    Setflags<'a> { target: Target<'a>, flags: InodeFlags }
    SetflagsReply {}
    Syncfs { node: NodeId }
    SyncfsReply {}
    Poll { file: FileId, watch: u64, wake: PollEvents }
    PollReply { ready: PollEvents, queued: u32 }
    Receive { file: FileId, len: u32, flags: ReceiveFlags }
    ReceiveReply {}
    Channel<'a> {
        target: Target<'a>, purpose: Purpose, kind: SocketType, token: u64, file: FileId,
    }
    ChannelReply { file: FileId }
    Send { file: FileId }
    SendReply {}
    Notify { node: NodeId, watch: u64, mask: NotifyMask }
    NotifyReply {}

    Notified<'a> { watch: u64, parent: u64, mask: NotifyMask, cookie: u32, name: OptName<'a> }
    Wake { watch: u64, events: PollEvents }
}
