//! System calls that no safe wrapper has, each as a safe function.

pub(crate) mod client;
pub(crate) mod filter;
pub(crate) mod locks;
pub(crate) mod mapped;
mod mapping;
pub(crate) mod notify;
pub(crate) mod pair;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod procmap;
pub(crate) mod ptrace;
pub(crate) mod shared;
pub(crate) mod signals;
pub(crate) mod vfio;

/// The error of the last system call.
fn last_error() -> std::io::Error {
    std::io::Error::last_os_error()
}
