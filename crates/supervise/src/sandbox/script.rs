//! System calls prepared by the launcher, made by its child.
//!
//! Between `fork` and `exec` nothing may allocate: another thread of the launcher may have held the
//! allocator's lock. So the launcher writes down every call with its strings, and the child only
//! makes them, in order, and names the first that fails by its index.

use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};

/// One prepared call, or the few that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// No mount event leaves this namespace, none comes in.
    Private,
    /// A new tmpfs.
    Tmpfs(CString),
    /// A new directory.
    Mkdir(CString),
    /// A new file with this content.
    File { path: CString, mode: u32, data: Vec<u8> },
    /// A new link.
    Symlink { target: CString, path: CString },
    /// Makes a directory a mount, so that it can be moved.
    BindSelf(CString),
    /// A new directory that shows one of the host's, with the mounts in it.
    BindDir { from: CString, to: CString },
    /// A new file that shows one of the host's.
    BindFile { from: CString, to: CString },
    /// Moves a mount.
    Move { from: CString, to: CString },
}

/// Steps, and what they hide.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    /// The host's entries in whose place ours stand.
    pub(super) shadowed: Vec<PathBuf>,
}

impl Script {
    /// Makes the calls. Allocates nothing.
    pub(super) fn run(&self) -> Result<(), (usize, Errno)> {
        for (index, step) in self.steps.iter().enumerate() {
            step.run().map_err(|errno| (index, errno))?;
        }
        Ok(())
    }
}

impl Step {
    pub(super) fn run(&self) -> Result<(), Errno> {
        match self {
            Step::Private => rustix::mount::mount_change(
                c"/",
                MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
            ),
            Step::Tmpfs(path) => rustix::mount::mount(
                c"softvfio",
                path.as_c_str(),
                c"tmpfs",
                MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
                c"mode=0755,size=64m",
            ),
            Step::Mkdir(path) => rustix::fs::mkdir(path.as_c_str(), Mode::from_raw_mode(0o755)),
            Step::File { path, mode, data } => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                let file = rustix::fs::open(path.as_c_str(), flags, Mode::from_raw_mode(*mode))?;
                let mut rest = data.as_slice();
                while !rest.is_empty() {
                    let written = rustix::io::write(&file, rest)?;
                    rest = rest.get(written..).unwrap_or_default();
                }
                Ok(())
            }
            Step::Symlink { target, path } => {
                rustix::fs::symlink(target.as_c_str(), path.as_c_str())
            }
            Step::BindSelf(path) => rustix::mount::mount_bind(path.as_c_str(), path.as_c_str()),
            Step::BindDir { from, to } => {
                rustix::fs::mkdir(to.as_c_str(), Mode::from_raw_mode(0o755))?;
                match rustix::mount::mount_bind_recursive(from.as_c_str(), to.as_c_str()) {
                    // Gone since it was listed, or another: then it is gone here too.
                    Err(Errno::NOENT | Errno::NOTDIR) => rustix::fs::rmdir(to.as_c_str()),
                    other => other,
                }
            }
            Step::BindFile { from, to } => {
                let mode = Mode::from_raw_mode(0o644);
                rustix::fs::mknodat(CWD, to.as_c_str(), FileType::RegularFile, mode, 0)?;
                match rustix::mount::mount_bind_recursive(from.as_c_str(), to.as_c_str()) {
                    Err(Errno::NOENT | Errno::NOTDIR) => rustix::fs::unlink(to.as_c_str()),
                    other => other,
                }
            }
            Step::Move { from, to } => rustix::mount::mount_move(from.as_c_str(), to.as_c_str()),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |path: &CString| path.to_string_lossy().into_owned();
        match self {
            Step::Private => write!(f, "making all mounts private"),
            Step::Tmpfs(path) => write!(f, "mounting a tmpfs on {}", show(path)),
            Step::Mkdir(path) => write!(f, "creating directory {}", show(path)),
            Step::File { path, .. } => write!(f, "creating file {}", show(path)),
            Step::Symlink { path, .. } => write!(f, "creating link {}", show(path)),
            Step::BindSelf(path) => write!(f, "binding {} to itself", show(path)),
            Step::BindDir { from, to } | Step::BindFile { from, to } => {
                write!(f, "binding {} to {}", show(from), show(to))
            }
            Step::Move { from, to } => write!(f, "moving mount {} to {}", show(from), show(to)),
        }
    }
}
