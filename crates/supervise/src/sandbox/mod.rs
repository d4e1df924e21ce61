//! Where a client runs: its namespaces, its `/dev` and `/sys`, its system call filter.
//!
//! [`Launch::start`] builds a private world for an unmodified program: a mount namespace (in a user
//! namespace, unless we may mount), real empty files at `/dev/vfio/*`, the emulated functions and
//! groups in `/sys` beside the host's own, and a seccomp filter that sends the calls which concern
//! VFIO to a listener. Nothing is left behind: the mounts end with the last process, and the
//! processes end with [`Processes`], or with the process that launched them, however it ends.
//!
//! A start costs a few milliseconds: `cargo run --release -p softvfio-supervise --example within --
//! --rounds 20 true` prints each beside a plain one. Most of it is a mount for each of the host's
//! entries that must be seen beside ours; `times` has the parts.
//!
//! ```no_run
//! use softvfio_supervise::sandbox::{Launch, SysFunction, SysGroup, Tree};
//!
//! let tree = Tree {
//!     functions: vec![SysFunction::new("0000:01:00.0", 17, vec![0; 256])],
//!     groups: vec![SysGroup { number: 17, kind: "DMA".into(), ..SysGroup::default() }],
//!     ..Tree::default()
//! };
//! let mut launched = Launch::new(&tree, "lspci".as_ref()).start()?;
//! // Answer what comes from `launched.listener` in another thread, then:
//! launched.processes.go()?;
//! let status = launched.processes.wait()?;
//! # Ok::<(), softvfio_supervise::sandbox::LaunchError>(())
//! ```

mod additions;
mod doctor;
mod error;
mod filter;
mod full;
mod host;
mod init;
mod launch;
mod limits;
mod overlay;
mod processes;
mod script;
mod signals;
#[cfg(test)]
mod times;
mod tree;

pub use doctor::{Check, Verdict, doctor};
pub use error::LaunchError;
pub use filter::{ARCH_I386, ARCH_X86_64, Call, Filter, classify};
pub(crate) use full::file_without_room;
pub use launch::Launch;
pub use limits::raise_limits;
pub(crate) use processes::Killer;
pub use processes::{Launched, Process, Processes};
pub(crate) use signals::Arrived;
pub use signals::Signals;
pub use tree::{SysFunction, SysGroup, SysIommu, SysLink, SysResource, Tree};
