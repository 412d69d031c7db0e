// SPDX-License-Identifier: GPL-2.0

//! Listing directories.
//!
//! The server sends many entries at once, with their attributes. A listing is a snapshot: what
//! came with it answers the first `stat(2)` of each entry by the process that lists, as long as
//! it has the directory open; everybody else asks the server. A listing begins as what the directory
//! has now: what came with its opening is for the task that opened it, if it has waited for nothing
//! since.

use core::{
    mem,
    sync::atomic::{
        AtomicBool,
        AtomicI32,
        Ordering, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use qtfs_net::Pages;
use qtfs_proto::{
    dirent::Entry,
    message::Readdir,
    ReaddirFlags, //
    Reader,
};
use qtfs_vfs::{
    file::{
        DirEmitter,
        File, //
    },
    inode::Inode,
    task::{
        self,
        Moment, //
    },
};

use crate::{
    file::OpenFile,
    fs::Qtfs,
    mount::{
        key,
        new_inode, //
    },
    names::is_mount_root,
    node, own,
    session::{
        request::{
            is_lost,
            Asked, //
        },
        verify,
        Wait, //
    },
};

/// Bytes of entries that are asked for at once.
const WANT: usize = 512 * 1024;
/// Up to this many bytes of entries, attributes are asked for in any case.
const PLUS_ALWAYS: usize = 1024 * 1024;
/// Position after `.` and `..`: where the server's entries begin.
const FIRST: u64 = 2;

/// Who lists a directory, if anybody does.
pub(crate) struct Listing {
    process: AtomicI32,
    /// Attributes that came with the listing were used.
    used: AtomicBool,
}

impl Listing {
    /// Nobody.
    pub(crate) const fn new() -> Self {
        Self {
            process: AtomicI32::new(0),
            used: AtomicBool::new(false),
        }
    }

    fn begin(&self) {
        self.process
            .store(task::current_process(), Ordering::Relaxed);
    }

    /// Somebody used what came with the listing.
    pub(crate) fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// The directory is closed.
    pub(crate) fn end(&self) {
        self.process.store(0, Ordering::Relaxed);
    }

    /// Whether the current process has the directory open and lists it.
    pub(crate) fn is_current(&self) -> bool {
        self.process.load(Ordering::Relaxed) == task::current_process()
    }
}

/// The part of a directory that the server sent last.
#[derive(Default)]
pub(crate) struct Window {
    data: KVVec<u8>,
    /// Where in `data` the next entry begins.
    at: usize,
    /// What the server calls that place.
    cookie: u64,
    /// The part reaches the end of the directory.
    eof: bool,
    /// `data` is what the server sent; else it is yet to be asked.
    valid: bool,
    /// The kernel knows the entries whose attributes came with it.
    learned: bool,
    /// Bytes of entries so far.
    listed: usize,
    /// When it was asked for.
    asked: Option<Asked>,
    /// When the directory was opened, until it is listed.
    opened: Option<Moment>,
}

impl Window {
    /// That of a directory which was opened at a moment, with its beginning if that came with it:
    /// the entries, and whether that is all.
    pub(crate) fn first(
        asked: Asked,
        opened: Moment,
        beginning: Option<(KVVec<u8>, bool)>,
    ) -> Self {
        let valid = beginning.is_some();
        let (data, eof) = beginning.unwrap_or_default();
        Self {
            asked: Some(asked),
            opened: Some(opened),
            listed: data.len(),
            data,
            eof,
            valid,
            ..Self::default()
        }
    }

    /// The moment at which `dir` was opened, if nothing has happened since that somebody could know
    /// of: the directory is still what its opening said.
    pub(crate) fn opened(&self, dir: &Inode<Qtfs>) -> Option<Moment> {
        let is_now = self
            .asked
            .is_some_and(|asked| !dir.node().has_changed(asked));
        self.opened.filter(|moment| is_now && moment.lasts())
    }

    /// Forgets what came with the opening and was not used.
    fn discard(self, dir: &Inode<Qtfs>) {
        let Some(asked) = self.asked.filter(|_| !self.learned) else {
            return;
        };
        for entry in qtfs_proto::dirent::entries(&self.data) {
            let Ok(entry) = entry else { return };
            let Some(attr) = entry.attr else { continue };
            if verify::attributes(&attr).is_err() {
                continue;
            }
            let key = key(&attr);
            // What the kernel knows goes on being known, since this.
            match dir.find(&key, |inode| inode.node().identity() == key) {
                Some(inode) => node::adopt(&inode, &attr, asked.incarnation),
                None => dir.mount().session.forget(&attr, asked.incarnation),
            }
        }
    }
}

/// The directory is closed, or was not to be opened.
pub(crate) fn end(dir: &Inode<Qtfs>, open: &OpenFile) {
    open.listing.end();
    let window = mem::take(&mut *open.window.lock());
    if window.opened.is_some() {
        dir.node().set_listed(false);
    }
    window.discard(dir);
}

/// The server's name for a position, and the other way round. Positions below [`FIRST`] are `.`
/// and `..`; the server's own may begin at 0.
fn cookie(pos: u64) -> u64 {
    match pos {
        0..=FIRST => 0,
        pos if pos > i64::MAX as u64 - FIRST => pos,
        pos => pos - FIRST - 1,
    }
}

fn position(cookie: u64) -> u64 {
    match cookie {
        cookie if cookie >= i64::MAX as u64 - 2 * FIRST => cookie,
        cookie => cookie + FIRST + 1,
    }
}

/// Fetches the entries from `cookie` on.
fn fetch(inode: &Inode<Qtfs>, open: &OpenFile, cookie: u64, plus: bool) -> Result<Window> {
    let sink = Arc::new(Pages::alloc(WANT)?, GFP_KERNEL)?;
    let flags = ReaddirFlags::NONE.with_if(plus, ReaddirFlags::PLUS);
    let want = u32::try_from(WANT)?;
    loop {
        let none = Arc::new(Pages::new(), GFP_KERNEL)?;
        let into = Some(sink.clone());
        let result = open.exchange(inode, none, into, Wait::Killable, |file| Readdir {
            file,
            cookie,
            want,
            flags,
        });
        match result {
            Err(e) if is_lost(e) => continue,
            Err(e) => return Err(e),
            Ok(reply) => {
                let eof = reply.decode::<Readdir>()?.eof != 0;
                let data = sink.to_vec(reply.data_len)?;
                return Ok(Window {
                    data,
                    at: 0,
                    cookie,
                    eof,
                    valid: true,
                    learned: false,
                    listed: reply.data_len,
                    asked: Some(reply.asked),
                    opened: None,
                });
            }
        }
    }
}

pub(crate) fn readdir(file: &File<Qtfs>, emitter: &mut DirEmitter<'_>) -> Result {
    let starts = emitter.pos() < FIRST;
    if emitter.pos() < FIRST && !emitter.dots() {
        return Ok(());
    }
    let (inode, open) = (file.inode(), file.open()?);
    open.listing.begin();
    let mut window = open.window.lock();
    let is_new = window.opened(inode).is_some();
    if window.opened.take().is_some() {
        inode.node().set_listed(is_new);
    }
    // What was listed before is for whoever goes on with it.
    if !is_new && (starts || !window.learned) {
        mem::take(&mut *window).discard(inode);
    }
    loop {
        let wanted = cookie(emitter.pos());
        let begins = emitter.pos() <= FIRST;
        if !window.valid || window.cookie != wanted || (begins && window.at != 0) {
            // Attributes are worth their price at the start, and when somebody used them.
            let plus =
                begins || window.listed < PLUS_ALWAYS || open.listing.used.load(Ordering::Relaxed);
            let listed = if begins { 0 } else { window.listed };
            *window = fetch(inode, open, wanted, plus)?;
            window.listed += listed;
        }
        // Not when the directory is opened: names must not change meanwhile.
        if !mem::replace(&mut window.learned, true) {
            learn(file, open, &window);
        }
        while let Some(rest) = window.data.get(window.at..).filter(|rest| !rest.is_empty()) {
            let mut reader = Reader::new(rest);
            let entry: Entry<'_> = reader.get().map_err(|_| {
                let session = &inode.mount().session;
                session.end_connections("a list of entries cannot be read")
            })?;
            let used = rest.len() - reader.remaining();
            let ino = own::number(inode, entry.name.bytes()).unwrap_or(entry.ino);
            if !emitter.emit(entry.name.bytes(), ino, entry.kind, position(entry.next)) {
                return Ok(());
            }
            let next = entry.next;
            window.at += used;
            window.cookie = next;
        }
        if window.eof || window.data.is_empty() {
            return Ok(());
        }
        // The next part has its own beginning.
        window.valid = false;
    }
}

/// Makes the kernel know the entries whose attributes came with the listing. The directory is locked.
fn learn(file: &File<Qtfs>, open: &OpenFile, window: &Window) {
    let Some(asked) = window.asked else { return };
    let dir = file.inode();
    let session = &dir.mount().session;
    for entry in qtfs_proto::dirent::entries(&window.data) {
        let Ok(entry) = entry else { return };
        let Some(attr) = entry.attr else { continue };
        if let Err(what) = verify::attributes(&attr) {
            session.end_connections(what);
            return;
        }
        if own::is_name(dir, entry.name.bytes()) {
            session.forget(&attr, asked.incarnation);
            continue;
        }
        let found = file.dentry().learn(
            entry.name.bytes(),
            is_mount_root(&attr),
            |inode: &Inode<Qtfs>| node::is_of(inode, &attr, asked.incarnation),
            || dir.get(new_inode(&attr)),
        );
        match found {
            Ok(inode) => {
                node::apply(&inode, &attr, asked);
                inode.node().listed(&open.listing);
            }
            // Without memory for it the name will be asked for.
            Err(_) => session.forget(&attr, asked.incarnation),
        }
    }
}
