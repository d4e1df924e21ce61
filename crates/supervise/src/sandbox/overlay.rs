//! From what is to be added to the system calls that add it.
//!
//! Nothing can be created in sysfs, and overlayfs refuses it, so a directory that gains an entry is
//! replaced: a tmpfs directory with the host's entries bound in (links copied) and ours beside
//! them. Only directories that change are replaced; a path through the host's own directories costs
//! nothing. Pure: the host is a [`Host`], the result a [`Script`].

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::additions::{Dir, Node};
use super::script::{Script, Step};

/// What the host has.
pub(super) trait Host {
    /// The entries of a directory; `None` if there is none, or it cannot be read.
    fn entries(&self, dir: &Path) -> Option<Vec<Entry>>;
}

/// An entry of one of the host's directories.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: OsString,
    pub(super) kind: EntryKind,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    Dir,
    Link(OsString),
    Other,
}

/// The machine we run on.
pub(super) struct ThisHost;

impl Host for ThisHost {
    fn entries(&self, dir: &Path) -> Option<Vec<Entry>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(dir).ok()? {
            let Ok(entry) = entry else { continue };
            let Ok(kind) = entry.file_type() else { continue };
            let kind = if kind.is_dir() {
                EntryKind::Dir
            } else if kind.is_symlink() {
                match std::fs::read_link(entry.path()) {
                    Ok(target) => EntryKind::Link(target.into()),
                    Err(_) => continue,
                }
            } else {
                EntryKind::Other
            };
            all.push(Entry { name: entry.file_name(), kind });
        }
        Some(all)
    }
}

/// Why there is no script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PlanError {
    /// The host lacks this directory, or it cannot be read.
    NoDirectory(PathBuf),
    /// A name or text with a NUL or a slash.
    BadName(PathBuf),
}

/// The script that lays `additions` over the host's `/`, with `staging`, an existing directory, as
/// its workplace.
pub(super) fn plan(additions: &Dir, staging: &Path, host: &dyn Host) -> Result<Script, PlanError> {
    let mut plan = Plan { host, script: Script::default(), staging, moves: Vec::new() };
    plan.push(Step::Private);
    plan.push(Step::Tmpfs(c(staging)?));
    for (name, node) in &additions.children {
        let path = Path::new("/").join(name);
        if let Node::Dir(dir) = node {
            plan.place(&path, dir)?;
        }
    }
    let moves = std::mem::take(&mut plan.moves);
    // The workplace itself goes where the last directory will cover it: an unmount would wait for
    // every CPU, longest where they are busy.
    if let Some(last) = moves.last() {
        plan.push(Step::Move { from: c(staging)?, to: c(last)? });
        for (slot, target) in moves.iter().enumerate() {
            let from = last.join(slot.to_string());
            plan.push(Step::Move { from: c(from)?, to: c(target)? });
        }
    }
    Ok(plan.script)
}

struct Plan<'a> {
    host: &'a dyn Host,
    script: Script,
    staging: &'a Path,
    /// Where each directory of the workplace, by its number, belongs.
    moves: Vec<PathBuf>,
}

impl Plan<'_> {
    fn push(&mut self, step: Step) {
        self.script.steps.push(step);
    }

    /// `path` is a directory of the host.
    fn place(&mut self, path: &Path, dir: &Dir) -> Result<(), PlanError> {
        let entries =
            self.host.entries(path).ok_or_else(|| PlanError::NoDirectory(path.to_owned()))?;
        let has =
            |name: &OsString| entries.iter().any(|e| e.name == *name && e.kind == EntryKind::Dir);
        let passes = !dir.opaque
            && dir.children.iter().all(|(name, node)| match node {
                Node::Dir(below) => has(name) || below.is_vacuous(),
                Node::File { .. } | Node::Link(_) => false,
            });
        if passes {
            for (name, node) in &dir.children {
                if let Node::Dir(below) = node
                    && has(name)
                {
                    self.place(&path.join(name), below)?;
                }
            }
            return Ok(());
        }
        if dir.opaque {
            self.script.shadowed.push(path.to_owned());
        }
        let slot = self.staging.join(self.moves.len().to_string());
        self.push(Step::Mkdir(c(&slot)?));
        self.push(Step::BindSelf(c(&slot)?));
        self.fill(&slot, path, &entries, dir)?;
        self.moves.push(path.to_owned());
        Ok(())
    }

    /// Fills `target` with the host's `entries` of `path`, and `dir`.
    fn fill(
        &mut self,
        target: &Path,
        path: &Path,
        entries: &[Entry],
        dir: &Dir,
    ) -> Result<(), PlanError> {
        let has = |name: &str| entries.iter().any(|entry| entry.name == *name);
        for Entry { name, kind } in entries {
            let (to, from) = (target.join(name), path.join(name));
            match dir.children.get(name) {
                None if dir.opaque => {}
                None if *kind == EntryKind::Other && looks_beside_itself(&from) && !has(WHOLE) => {
                    self.push(Step::BindDir { from: c(path)?, to: c(target.join(WHOLE))? });
                    let link = Path::new(WHOLE).join(name);
                    self.push(Step::Symlink { target: c(link)?, path: c(&to)? });
                }
                None => match kind {
                    EntryKind::Link(link) => {
                        self.push(Step::Symlink { target: c(link)?, path: c(&to)? });
                    }
                    EntryKind::Dir => self.push(Step::BindDir { from: c(&from)?, to: c(&to)? }),
                    EntryKind::Other => self.push(Step::BindFile { from: c(&from)?, to: c(&to)? }),
                },
                Some(Node::Dir(below)) if *kind == EntryKind::Dir => {
                    if below.opaque {
                        self.script.shadowed.push(from.clone());
                    }
                    let entries = self.host.entries(&from).unwrap_or_default();
                    self.push(Step::Mkdir(c(&to)?));
                    self.fill(&to, &from, &entries, below)?;
                }
                Some(node) => {
                    if !dir.opaque {
                        self.script.shadowed.push(from);
                    }
                    self.create(&to, node)?;
                }
            }
        }
        for (name, node) in &dir.children {
            check_name(name)?;
            if !entries.iter().any(|e| e.name == *name) {
                self.create(&target.join(name), node)?;
            }
        }
        Ok(())
    }

    fn create(&mut self, path: &Path, node: &Node) -> Result<(), PlanError> {
        match node {
            Node::File { mode, data } => {
                self.push(Step::File { path: c(path)?, mode: *mode, data: data.clone() });
            }
            Node::Link(target) => {
                self.push(Step::Symlink { target: c(target)?, path: c(path)? });
            }
            Node::Dir(dir) if dir.is_vacuous() => {}
            Node::Dir(dir) => {
                self.push(Step::Mkdir(c(path)?));
                for (name, node) in &dir.children {
                    check_name(name)?;
                    self.create(&path.join(name), node)?;
                }
            }
        }
        Ok(())
    }
}

/// Where a directory's original can be reached, as a whole.
const WHOLE: &str = ".host";

/// Files that cannot be bound alone: as `/dev/ptmx` is opened, the kernel looks for `pts` in the same
/// directory of the same mount (`path_pts` in `fs/namei.c`).
fn looks_beside_itself(path: &Path) -> bool {
    path == Path::new("/dev/ptmx")
}

fn c(path: impl AsRef<Path>) -> Result<CString, PlanError> {
    let path = path.as_ref();
    CString::new(path.as_os_str().as_bytes()).map_err(|_| PlanError::BadName(path.to_owned()))
}

/// Names come from the caller: one that climbs out of its directory is refused.
fn check_name(name: &OsString) -> Result<(), PlanError> {
    let bytes = name.as_bytes();
    let bad = bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/');
    if bad { Err(PlanError::BadName(name.into())) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
