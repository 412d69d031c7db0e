// SPDX-License-Identifier: GPL-2.0

//! Opening and closing files, by name or by identity.

mod open_file;

pub(crate) use open_file::{
    Borrowed,
    OpenFile, //
};

use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::Pages;
use qtfs_proto::{
    message::{
        Lookup,
        Open,
        OpenReply, //
    },
    AttrFlags,
    FileId,
    FsClass,
    LookupFlags,
    OpenFlags,
    Opened,
    Target, //
};
use qtfs_vfs::{
    file::{
        with_fd,
        File, //
    },
    flags::{
        kind,
        open_flags, //
    },
    fs::AtomicOpen,
    inode::{
        Inode,
        InodeRef, //
    },
    task::{
        umask,
        Moment, //
    },
};

use crate::{
    data,
    dir::{
        self,
        Window, //
    },
    fs::Qtfs,
    mount::{
        Mount,
        S_IFMT, //
    },
    names, node, own,
    place::{
        self,
        Place, //
    },
    session::{
        request::Asked,
        Session,
        Wait, //
    },
};
use open_file::First;

/// Bytes of entries that come with the opening of a directory, when a program opens it as opendir(3)
/// does, and when it may well be about to list it.
const FIRST_LISTING: usize = 256 * 1024;
const LIKELY_LISTING: usize = 64 * 1024;

/// Bytes of contents that come with the opening of a file whose contents are made at read time.
const FIRST_BYTES: usize = 16 * 1024;

/// What the server is asked for when a program opens with `flags`.
///
/// The page cache reads what a write does not cover, so files for writing are opened for reading
/// too. When the caller may not read, [`sent`] tries again without.
/// Files whose contents are made at read time (`stream`) have no page cache, and some of them cannot
/// be opened for reading by anybody.
fn wanted(flags: u32, stream: bool) -> OpenFlags {
    let flags = open_flags(flags);
    let write = flags.has(OpenFlags::WRITE) && !stream;
    flags.with_if(write, OpenFlags::READ)
}

/// Room for contents that may come with the opening, which there is when the file is opened for
/// reading alone and its contents are made at read time.
fn first_bytes(program: u32, stream: bool) -> Result<Option<Arc<Pages>>> {
    let flags = open_flags(program);
    let not = OpenFlags::WRITE;
    let reads = flags.has(OpenFlags::READ) && !flags.has(not) && !flags.has(OpenFlags::DIRECTORY);
    if !stream || !reads {
        return Ok(None);
    }
    Ok(Some(Arc::new(Pages::alloc(FIRST_BYTES)?, GFP_KERNEL)?))
}

/// Room for entries that may come with the opening of a directory.
///
/// opendir(3) opens it without waiting, and its listing begins at once. Others, as Go, only say that
/// it must be a directory, which is also how it is opened for fsync(2): `likely` says whether it is
/// listed then.
fn first_entries(program: u32, likely: bool) -> Result<Option<Arc<Pages>>> {
    let flags = open_flags(program);
    let size = match flags.has(OpenFlags::NONBLOCK) {
        true => FIRST_LISTING,
        false => LIKELY_LISTING,
    };
    if !flags.has(OpenFlags::DIRECTORY) || !(likely || flags.has(OpenFlags::NONBLOCK)) {
        return Ok(None);
    }
    Ok(Some(Arc::new(Pages::alloc(size)?, GFP_KERNEL)?))
}

/// What came of an OPEN.
struct Sent {
    reply: OpenReply,
    /// The open file; none when the object is not to be opened on the server.
    open: Option<Arc<OpenFile>>,
    asked: Asked,
}

/// Sends an OPEN and makes the open file. `build` gives the request for the given flags.
fn sent<'a>(
    mount: &Mount,
    program: u32,
    stream: bool,
    sink: Option<&Arc<Pages>>,
    mut build: impl FnMut(OpenFlags) -> Result<Open<'a>>,
) -> Result<Sent> {
    let mut flags = wanted(program, stream);
    loop {
        let (reply, repeated) = mount.call_into(sink, Wait::Killable, || build(flags))?;
        let moment = Moment::now();
        let (data_len, asked) = (reply.data_len, reply.asked);
        let reply = match reply.decode::<Open<'_>>() {
            Err(e) if e == EEXIST && repeated => {
                let what = "HOST lost the session; whether the file was made here is not known";
                mount.session.log_error("OPEN", EIO, what);
                return Err(EIO);
            }
            // So says sysfs of a file that nobody can read.
            Err(e) if (e == EACCES || e == EINVAL) && flags != open_flags(program) => {
                flags = open_flags(program);
                continue;
            }
            other => other?,
        };
        if !reply.opened.has(Opened::OPENED) {
            return Ok(Sent {
                reply,
                open: None,
                asked,
            });
        }
        let created = reply.opened.has(Opened::CREATED);
        // A new file is not cut afterwards.
        let kept = if created {
            flags.without(OpenFlags::TRUNC)
        } else {
            flags
        };
        // What HOST says of its directories means nothing here.
        let stream = (reply.opened.has(Opened::STREAM) || reply.attr.flags.has(AttrFlags::STREAM))
            && reply.attr.mode & S_IFMT != kind::DIRECTORY;
        let incarnation = asked.incarnation;
        let open = OpenFile::new(mount, &reply, incarnation, kept, stream).inspect_err(|_| {
            let releases = &mount.session.releases;
            releases.close(&mount.session, reply.file, incarnation);
        })?;
        let end = reply.opened.has(Opened::EOF);
        let came = sink.filter(|_| data_len > 0 || end);
        if reply.attr.mode & S_IFMT == kind::DIRECTORY {
            // Without memory for the entries they are asked for.
            let data = came.and_then(|sink| sink.to_vec(data_len).ok());
            let beginning = data.map(|data| (data, end));
            *open.window.lock() = Window::first(asked, moment, beginning);
        } else if let Some(sink) = came {
            open.polled.set_unread(reply.attr.class != FsClass::Proc);
            if data_len < sink.len() {
                *open.first.lock() = Some(First {
                    pages: Some(sink.clone()),
                    len: data_len,
                    end,
                    moment,
                });
            }
        }
        return Ok(Sent {
            reply,
            open: Some(open),
            asked,
        });
    }
}

/// What every open does at its end.
fn begin(inode: &Inode<Qtfs>, open: &Arc<OpenFile>) -> Result {
    close_lingering(inode);
    let result = inode.node().opened(open).and_then(|()| {
        if inode.is_dir() {
            if let Some(moment) = open.window.lock().opened(inode) {
                inode.node().set_fresh_at(moment);
            }
        } else if open.stream {
            if let Some(first) = &*open.first.lock() {
                inode.node().set_fresh_at(first.moment);
            }
        }
        if inode.is_regular() && !open.stream {
            data::refresh(inode)?;
        }
        Ok(())
    });
    if result.is_err() {
        release(inode, open);
    }
    result
}

/// Takes over what was opened as `inode`, if it is that.
fn accept(inode: &Inode<Qtfs>, sent: Sent) -> Result<(Arc<OpenFile>, Opened)> {
    let Sent { reply, open, asked } = sent;
    let open = open.ok_or(ESTALE)?;
    let attr = &reply.attr;
    if !node::is_of(inode, attr, asked.incarnation) {
        dir::end(inode, &open);
        open.close(inode.mount());
        return Err(ESTALE);
    }
    node::apply(inode, attr, asked);
    begin(inode, &open)?;
    Ok((open, reply.opened))
}

pub(crate) fn open(inode: &Inode<Qtfs>, file: &File<Qtfs>) -> Result<Arc<OpenFile>> {
    let mount = inode.mount();
    let node = inode.node();
    if node.is_own() {
        // So that lsns(8) goes on: it takes a namespace that it cannot ask for one of others.
        return Err(EACCES);
    }
    let program = file.flags();
    let once = OpenFlags::CREATE.with(OpenFlags::EXCL);
    let truncates = open_flags(program).has(OpenFlags::TRUNC);
    if truncates && inode.is_regular() && inode.is_dirty() {
        data::write_out(inode)?;
    }
    let stream = inode.is_regular() && !node.is_of(FsClass::Regular);
    let sink = match inode.is_dir() {
        true => first_entries(program, node.is_listed())?,
        false => first_bytes(program, stream)?,
    };
    let lists = inode.is_dir() && sink.is_some();
    let want = sink.as_ref().map_or(0, |sink| sink.len() as u32);
    let sent = Place::with(inode, file.dentry(), true, |place| {
        sent(mount, program, stream, sink.as_ref(), |flags| {
            Ok(Open {
                target: place.target(mount, inode)?,
                flags: flags.without(once).with_if(lists, OpenFlags::LIST),
                mode: 0,
                umask: 0,
                want,
            })
        })
    })?;
    let (open, _) = accept(inode, sent)?;
    file.allow_direct();
    Ok(open)
}

/// Opens a FIFO, without waiting. Returns whether it waits for the other end.
pub(crate) fn open_fifo(inode: &Inode<Qtfs>, file: &File<Qtfs>) -> Result<(Arc<OpenFile>, bool)> {
    let mount = inode.mount();
    let not = OpenFlags::CREATE
        .with(OpenFlags::EXCL)
        .with(OpenFlags::TRUNC);
    let sent = sent(mount, file.flags(), true, None, |flags| {
        Ok(Open {
            target: Target::node(mount.id(inode)?),
            flags: flags.without(not),
            mode: 0,
            umask: 0,
            want: 0,
        })
    })?;
    let (open, opened) = accept(inode, sent)?;
    Ok((open, opened.has(Opened::ALONE)))
}

pub(crate) fn atomic_open(
    dir: &Inode<Qtfs>,
    bytes: &[u8],
    program: u32,
    mode: u32,
    file: &File<Qtfs>,
) -> Result<AtomicOpen<Qtfs>> {
    if let Some(found) = own::lookup(dir, bytes)? {
        return Ok(AtomicOpen::Found(found));
    }
    let mount = dir.mount();
    let (name, umask) = (place::name(bytes)?, umask());
    if dir.node().take_try() {
        // The directory is not where it was; the look-up finds it by its identity.
        let flags = LookupFlags::REBIND;
        let (reply, _) = mount.call(|| {
            Ok(Lookup {
                dir: mount.id(dir)?,
                name,
                flags,
            })
        })?;
        if let Ok(found) = reply.decode::<Lookup<'_>>() {
            mount.session.forget(&found.attr, reply.asked.incarnation);
        }
    }
    let stream = !dir.node().is_of(FsClass::Regular);
    let entries = first_entries(program, true)?;
    let lists = entries.is_some();
    let sink = match entries {
        Some(entries) => Some(entries),
        None => first_bytes(program, stream)?,
    };
    let want = sink.as_ref().map_or(0, |sink| sink.len() as u32);
    let result = sent(mount, program, stream, sink.as_ref(), |flags| {
        Ok(Open {
            target: Target::entry(mount.id(dir)?, name, qtfs_proto::NodeId::NONE),
            flags: flags.with_if(lists, OpenFlags::LIST),
            mode: mode & 0o7777,
            umask,
            want,
        })
    });
    if matches!(&result, Err(e) if *e == ESTALE) {
        dir.node().note_try();
    }
    let Sent { reply, open, asked } = result?;
    let created = reply.opened.has(Opened::CREATED);
    if created {
        dir.node().changed(&mount.session);
    }
    let inode = mount.inode(dir, &reply.attr, asked).inspect_err(|_| {
        if let Some(open) = &open {
            open.close(mount);
        }
    })?;
    let open = match open {
        // The kernel does not ask whether the caller may cross mount points once a file is open.
        Some(open) if names::is_mount_root(&reply.attr) => {
            dir::end(&inode, &open);
            open.close(mount);
            None
        }
        open => open,
    };
    let Some(open) = open else {
        return Ok(AtomicOpen::Found(names::found(inode, &reply.attr)));
    };
    begin(&inode, &open)?;
    file.allow_direct();
    Ok(AtomicOpen::Opened {
        inode,
        open,
        created,
    })
}

pub(crate) fn tmpfile(
    dir: &Inode<Qtfs>,
    program: u32,
    mode: u32,
) -> Result<(InodeRef<Qtfs>, Arc<OpenFile>)> {
    let mount = dir.mount();
    let umask = umask();
    // O_TMPFILE contains O_DIRECTORY, which is about the directory that is named.
    let Sent { reply, open, asked } = sent(mount, program, false, None, |flags| {
        Ok(Open {
            target: Target::node(mount.id(dir)?),
            flags: flags.without(OpenFlags::DIRECTORY).with(OpenFlags::TMPFILE),
            mode: mode & 0o7777,
            umask,
            want: 0,
        })
    })?;
    let open = open.ok_or(EIO)?;
    let inode = mount
        .inode(dir, &reply.attr, asked)
        .inspect_err(|_| open.close(mount))?;
    begin(&inode, &open)?;
    Ok((inode, open))
}

/// The id of the open file behind a descriptor of the current task, for whom it is passed to.
///
/// Fails with [`EBADF`] when it is none of qtfs, with [`EXDEV`] when it is of another mount, or of an
/// earlier incarnation of the session.
pub(crate) fn passed(fd: i32, session: &Arc<Session>, incarnation: u32) -> Result<FileId> {
    with_fd::<Qtfs, _>(fd, |file| {
        let inode = file.inode();
        let mount = inode.mount();
        if !Arc::ptr_eq(&mount.session, session) {
            return Err(EXDEV);
        }
        let id = file.open()?.id(mount, inode)?;
        match session.incarnation() == incarnation {
            true => Ok(id),
            false => Err(EXDEV),
        }
    })
}

/// The last reference to an open file goes away.
pub(crate) fn release(inode: &Inode<Qtfs>, open: &Arc<OpenFile>) {
    dir::end(inode, open);
    open.polled.end(&inode.mount().session);
    let writes = open.flags.has(OpenFlags::WRITE) && inode.is_regular();
    if writes && inode.is_dirty() {
        // Programs that mapped the file may have written after its descriptors were closed. Errors
        // of HOST stay with the inode for fsync(2); nobody can be told here.
        if data::write_out(inode).is_err() {
            // The program is being killed, or HOST is away. What it wrote still goes there by
            // this file, which is closed once nothing is left.
            if open.leaves() {
                open.close(inode.mount());
            } else {
                open.linger();
                close_lingering(inode);
            }
            return;
        }
    }
    inode.node().closed(open);
    if open.is_fifo || writes {
        open.close_now(inode.mount());
    } else {
        open.close(inode.mount());
    }
}

/// Closes the files that only waited for data to be written, if it is.
pub(crate) fn close_lingering(inode: &Inode<Qtfs>) {
    if inode.is_dirty() {
        return;
    }
    for open in inode.node().take_lingering() {
        open.close(inode.mount());
    }
}

/// A descriptor is closed: what was written must be on the server, or the program be told.
pub(crate) fn flush(file: &File<Qtfs>) -> Result {
    let inode = file.inode();
    if !file.writable() || !inode.is_regular() {
        return Ok(());
    }
    if file.is_last() {
        file.open()?.write_last(inode, || data::write_out(inode))?;
    } else {
        data::write_out(inode)?;
    }
    inode.take_write_error()
}
