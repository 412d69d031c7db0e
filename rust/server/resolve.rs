// SPDX-License-Identifier: GPL-2.0

//! From what a request names to an object of HOST.
//!
//! By name: the chain of names is walked from the directory that ATTACH named, with the caller's
//! credential and without symlinks, and must lead to the node's object. By identity: an open file,
//! else the chain walked as engine, else the file handle. Whatever is found has a path, and the
//! policy has a rule for that path, or the request is refused here.

use kernel::{
    prelude::*,
    str::BStr,
    sync::Arc, //
};
use qtfs_proto::{
    types::Target,
    Name,
    NodeId, //
};
use qtfs_vfs::local::{
    self,
    path::Symlinks,
    Path, //
};

use crate::{
    dispatch::Context,
    file::OpenFile,
    node::{
        Chain,
        Node, //
    },
    policy::Rule,
    refusal::{
        Refusal,
        Result, //
    },
};

/// An object that was found, and what may be done with it.
pub(crate) struct Found<'a> {
    pub(crate) path: Path,
    /// Path on HOST.
    pub(crate) text: KVVec<u8>,
    pub(crate) rule: Rule,
    pub(crate) at: At<'a>,
}

/// How an object was found.
#[derive(Clone)]
pub(crate) enum At<'a> {
    /// As a node that is known.
    Node(Arc<Node>),
    /// Under a name in a directory; it may have no node yet.
    Entry {
        /// The directory.
        dir: NodeId,
        /// The name.
        name: Name<'a>,
    },
}

impl Found<'_> {
    /// Fails with [`EROFS`] when nothing may be changed here.
    pub(crate) fn writable(&self) -> Result {
        if self.rule.read_only {
            return Err(EROFS.into());
        }
        Ok(())
    }
}

/// An error on the way to an object: what the client believes of the way is out of date, unless
/// HOST has troubles of its own.
fn on_the_way(error: Error) -> Error {
    match error {
        ENOENT | ENOTDIR | EACCES | EPERM | ELOOP | EXDEV | ENAMETOOLONG => ESTALE,
        e => e,
    }
}

/// A copy with a NUL at its end.
pub(crate) fn with_nul(bytes: &[u8]) -> Result<KVVec<u8>> {
    let mut copy = KVVec::with_capacity(bytes.len() + 1, GFP_KERNEL)?;
    copy.extend_from_slice(bytes, GFP_KERNEL)?;
    copy.push(0, GFP_KERNEL)?;
    Ok(copy)
}

/// A path as a string of C, of which `text` is the memory.
pub(crate) fn c_str(text: &[u8]) -> Result<&CStr> {
    Ok(CStr::from_bytes_with_nul(text).map_err(|_| EINVAL)?)
}

/// The path of what has `name` in the directory at `dir`.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Result<KVVec<u8>> {
    let mut text = KVVec::with_capacity(dir.len() + 1 + name.len(), GFP_KERNEL)?;
    text.extend_from_slice(dir.strip_suffix(b"/").unwrap_or(dir), GFP_KERNEL)?;
    text.push(b'/', GFP_KERNEL)?;
    text.extend_from_slice(name, GFP_KERNEL)?;
    Ok(text)
}

/// Walks a path below `from`, in as many steps as the kernel's limit for paths makes necessary.
fn descend(mut from: Path, mut names: &[u8]) -> Result<Path> {
    while !names.is_empty() {
        let (part, rest) = if names.len() <= qtfs_proto::PATH_MAX {
            (names, &[][..])
        } else {
            let window = names.get(..qtfs_proto::PATH_MAX).unwrap_or_default();
            let cut = window
                .iter()
                .rposition(|&b| b == b'/')
                .ok_or(ENAMETOOLONG)?;
            let (part, rest) = names.split_at_checked(cut).ok_or(EIO)?;
            (part, rest.get(1..).unwrap_or_default())
        };
        let text = with_nul(part)?;
        from = from.beneath(c_str(&text)?, Symlinks::Refuse)?;
        names = rest;
    }
    Ok(from)
}

/// Mounts what is mounted when a directory is used.
///
/// Fails with [`ESTALE`] when it was not mounted until now: the directory is another one than the
/// client believes, which looks the name up anew.
pub(crate) fn enter(dir: &Path) -> Result {
    if !dir.clone().entered()?.same_object(dir) {
        return Err(ESTALE.into());
    }
    Ok(())
}

impl Context<'_> {
    /// The rule for a path.
    pub(crate) fn rule(&self, text: &[u8]) -> Result<Rule> {
        self.policy.rule(text).ok_or_else(|| {
            log_warn!(
                "{}: {} of {} is refused, it is not exported\n",
                self.session,
                self.job.op.name(),
                BStr::from_bytes(text)
            );
            Refusal::new(
                EACCES,
                fmt!(
                    "HOST does not export {}; it exports {}",
                    BStr::from_bytes(text),
                    self.policy
                ),
            )
        })
    }

    /// The directory that ATTACH named by this path, as it is now.
    fn root(&self, text: &[u8]) -> Result<Path> {
        let text = with_nul(text)?;
        let _engine = self.as_engine();
        Ok(Path::absolute(c_str(&text)?, Symlinks::Refuse)?.entered()?)
    }

    /// The directory that an object cannot leave, on its file system, without being out of reach:
    /// what is exported, or the root of what HOST has mounted below it.
    pub(crate) fn top(&self, found: &Found<'_>) -> Result<Path> {
        let exported = self.root(self.policy.top(&found.text).ok_or(EACCES)?)?;
        Ok(match exported.same_mount(&found.path) {
            true => exported,
            false => found.path.mount_root(),
        })
    }

    /// Walks a chain of names with the current credential.
    fn walk(&self, chain: &Chain) -> Result<Path> {
        descend(self.root(chain.root())?, chain.names())
    }

    /// Walks a chain and checks that it leads to its node; when `inside`, to what a name in it is
    /// in.
    fn walk_to_node(&self, chain: &Chain, inside: bool) -> Result<Path> {
        let mut path = self
            .walk(chain)
            .map_err(|refusal| Refusal::from(on_the_way(refusal.error())))?;
        if inside && path.is_dir() {
            path = path.entered()?;
        }
        // A directory that ATTACH named is whatever is there. HOST may have mounted others anew.
        if !chain.names().is_empty() && !path.identity().same_object(&chain.node.identity) {
            return Err(ESTALE.into());
        }
        Ok(path)
    }

    fn found(&self, path: Path, chain: Chain) -> Result<Found<'static>> {
        let rule = self.rule(&chain.text)?;
        Ok(Found {
            path,
            text: chain.text,
            rule,
            at: At::Node(chain.node),
        })
    }

    /// A directory, by name.
    pub(crate) fn dir(&self, id: NodeId) -> Result<Found<'static>> {
        let chain = self.session.nodes.way(id)?;
        let path = self.walk_to_node(&chain, true)?;
        if !path.is_dir() {
            return Err(ENOTDIR.into());
        }
        self.found(path, chain)
    }

    /// A directory, by name, or by identity when it is not where it was.
    pub(crate) fn dir_anywhere(&self, id: NodeId) -> Result<Found<'static>> {
        match self.dir(id) {
            Err(refusal) if refusal.error() == ESTALE => {
                let found = self.by_identity(id)?;
                if !found.path.is_dir() {
                    return Err(ENOTDIR.into());
                }
                Ok(found)
            }
            result => result,
        }
    }

    /// What a name in a directory leads to, with the caller's credential.
    pub(crate) fn child<'n>(&self, dir: &Found<'_>, name: Name<'n>) -> Result<Found<'n>> {
        let path = dir.path.child(&local::Name::new(name.bytes())?)?;
        self.entry(dir, name, path)
    }

    /// `path` as what a name in a directory leads to.
    pub(crate) fn entry<'n>(
        &self,
        dir: &Found<'_>,
        name: Name<'n>,
        path: Path,
    ) -> Result<Found<'n>> {
        let At::Node(node) = &dir.at else {
            return Err(EIO.into());
        };
        let text = join(&dir.text, name.bytes())?;
        Ok(Found {
            path,
            rule: self.rule(&text)?,
            text,
            at: At::Entry { dir: node.id, name },
        })
    }

    /// The object that a request acts on.
    pub(crate) fn target<'n>(&self, target: &Target<'n>) -> Result<Found<'n>> {
        self.find_target(target, false)
    }

    /// As [`Context::target`], for a request that goes into directories.
    pub(crate) fn target_inside<'n>(&self, target: &Target<'n>) -> Result<Found<'n>> {
        self.find_target(target, true)
    }

    fn find_target<'n>(&self, target: &Target<'n>, inside: bool) -> Result<Found<'n>> {
        let Some(name) = target.name.name() else {
            return self.by_identity(target.node);
        };
        let dir = self.dir(target.dir)?;
        let found = self.child(&dir, name).and_then(|mut found| {
            if inside && found.path.is_dir() {
                found.path = found.path.entered()?;
            }
            Ok(found)
        });
        if target.node.is_none() {
            return found;
        }
        let found = found.map_err(|refusal| match refusal.error() {
            ENOENT => ESTALE.into(),
            _ => refusal,
        })?;
        let node = self.session.nodes.get(target.node)?;
        if found.path.identity() != node.identity {
            return Err(ESTALE.into());
        }
        Ok(found)
    }

    /// An object wherever it is by now.
    pub(crate) fn by_identity(&self, id: NodeId) -> Result<Found<'static>> {
        let node = self.session.nodes.get(id)?;
        let open = self.open_file(&node);
        // A directory counts as where it is now, unless it is nowhere any more.
        let stays = |open: &&Arc<OpenFile>| {
            let path = open.file().path();
            !path.is_dir() || path.is_unlinked()
        };
        if let Some(open) = open.as_ref().filter(stays) {
            return self.by_open_file(&node, open);
        }
        let _engine = self.as_engine();
        if let Ok(chain) = self.session.nodes.way(id) {
            match self.walk_to_node(&chain, false) {
                Ok(path) => return self.found(path, chain),
                Err(refusal) if refusal.error() != ESTALE => return Err(refusal),
                Err(_) => {}
            }
        }
        let path = match open {
            Some(open) => open.file().path(),
            None => self.by_handle(&node)?,
        };
        self.where_it_is(&node, path)
    }

    fn open_file(&self, node: &Node) -> Option<Arc<OpenFile>> {
        let id = self.session.nodes.file(node.id)?;
        let open = self.session.files.get(id).ok()?;
        // What is open of a socket are channels, which are no files of HOST.
        (!open.file().is_socket()).then_some(open)
    }

    /// What a channel about a socket is, which may be there after the socket's file. The rule is
    /// that of the place where the channel was opened.
    pub(crate) fn by_channel(&self, id: NodeId) -> Result<Found<'static>> {
        let node = self.session.nodes.get(id)?;
        let ids = self.session.nodes.files(id);
        let mut files = ids.iter().filter_map(|id| self.session.files.get(*id).ok());
        let channel = files.find(|open| open.file().is_socket()).ok_or(ESTALE)?;
        self.by_open_file(&node, &channel)
    }

    /// What is open stays what it is wherever HOST moves it; the rule is that of the place where it
    /// was opened.
    fn by_open_file(&self, node: &Arc<Node>, open: &OpenFile) -> Result<Found<'static>> {
        let mut text = KVVec::with_capacity(open.text().len(), GFP_KERNEL)?;
        text.extend_from_slice(open.text(), GFP_KERNEL)?;
        Ok(Found {
            path: open.file().path(),
            rule: self.rule(&text)?,
            text,
            at: At::Node(node.clone()),
        })
    }

    /// The current thread acts as engine.
    fn by_handle(&self, node: &Node) -> Result<Path> {
        let handle = node.handle.as_ref().ok_or(ESTALE)?;
        let on = self.mount_of(node)?;
        let path = handle.find(&on)?;
        if path.identity() != node.identity {
            return Err(ESTALE.into());
        }
        Ok(path)
    }

    /// Finds the names that lead to an object by now, and takes them for its chain. The current
    /// thread acts as engine.
    fn where_it_is(&self, node: &Arc<Node>, path: Path) -> Result<Found<'static>> {
        let mut buf = KVVec::from_elem(0, qtfs_proto::PATH_MAX + 1, GFP_KERNEL)?;
        let text = path.text(&mut buf).map_err(on_the_way)?;
        let rule = self.policy.rule(text).ok_or(ESTALE)?;
        // What the kernel says is where the object is on that mount; only what a walk finds there
        // is what the policy is about.
        let there = self.root(text).map_err(|_| ESTALE)?;
        if !there.same_object(&path) {
            return Err(ESTALE.into());
        }
        self.rename_chain(text)?;
        let mut copy = KVVec::with_capacity(text.len(), GFP_KERNEL)?;
        copy.extend_from_slice(text, GFP_KERNEL)?;
        Ok(Found {
            path: there,
            text: copy,
            rule,
            at: At::Node(node.clone()),
        })
    }

    /// Some place on the file system that an object is on, and on the mount when it is a directory.
    fn mount_of(&self, node: &Node) -> Result<Path> {
        let on_same = |id: NodeId| {
            let path = self.walk(&self.session.nodes.way(id).ok()?).ok()?;
            let same = node.identity.may_be_on_mount_of(&path.identity());
            same.then_some(path)
        };
        let mut above = self.session.nodes.parent(node.id);
        while let Some(dir) = above {
            if let Some(path) = on_same(dir) {
                return Ok(path);
            }
            above = self.session.nodes.parent(dir);
        }
        let roots = self.session.nodes.roots()?;
        Ok(roots.iter().copied().find_map(on_same).ok_or(ESTALE)?)
    }

    /// Takes the names in a path as those that lead to its objects from now on.
    fn rename_chain(&self, text: &[u8]) -> Result {
        let roots = self.session.nodes.roots()?;
        let mut best: Option<(Chain, &[u8])> = None;
        for root in roots.iter() {
            let chain = self.session.nodes.way(*root)?;
            let base = chain.root().strip_suffix(b"/").unwrap_or(chain.root());
            let Some([b'/', rest @ ..]) = text.strip_prefix(base) else {
                continue;
            };
            if best.as_ref().is_none_or(|(_, r)| rest.len() < r.len()) {
                best = Some((chain, rest));
            }
        }
        let Some((chain, rest)) = best else {
            // It is exported, but the client has mounted nothing above it.
            return Ok(());
        };
        let mut dir = chain.node.id;
        let mut path = self.root(chain.root())?;
        for name in rest.split(|&b| b == b'/') {
            path = path.child(&local::Name::new(name)?)?;
            dir = self.session.nodes.entry(dir, name, &path)?.id;
        }
        Ok(())
    }
}
