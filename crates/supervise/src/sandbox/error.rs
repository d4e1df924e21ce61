//! Why a client could not be started, and what to do about it.

use std::ffi::OsString;
use std::path::PathBuf;

use rustix::io::Errno;

use super::host;

/// Why a client could not be started. Prints as a sentence that says what to enable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// No user namespace, or one without rights.
    #[error("a user namespace cannot be {}: {errno}. {advice}", if *.made { "set up" } else { "made" })]
    UserNamespace {
        /// Made, but without the rights that come with it.
        made: bool,
        /// The kernel's answer.
        errno: Errno,
        /// What to enable.
        advice: String,
    },
    /// No mount namespace.
    #[error("a mount namespace cannot be made: {errno}. {advice}")]
    MountNamespace {
        /// The kernel's answer.
        errno: Errno,
        /// What to enable.
        advice: String,
    },
    /// The client's `/dev` and `/sys` could not be built.
    #[error("the client's /dev and /sys cannot be built: {step}: {errno}. {advice}")]
    Tree {
        /// What was being done.
        step: String,
        /// The kernel's answer.
        errno: Errno,
        /// What to enable.
        advice: String,
    },
    /// Another listener is in force for this process: softvfio within softvfio, or a container
    /// manager that answers system calls itself.
    #[error(
        "this process runs under another seccomp listener (softvfio inside softvfio, or a container \
         manager that answers system calls): there can be only one. Start it outside"
    )]
    Nested,
    /// No filter.
    #[error("the system call filter cannot be installed: {errno}. {advice}")]
    Filter {
        /// The kernel's answer.
        errno: Errno,
        /// What to enable.
        advice: String,
    },
    /// The program could not be executed.
    #[error("{}: {errno}", command.display())]
    Exec {
        /// The program.
        command: OsString,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The program's working directory cannot be had.
    #[error("{}: {errno}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The host lacks a directory that everything stands on.
    #[error("{} cannot be read: /dev and /sys must be there", .0.display())]
    NoDirectory(PathBuf),
    /// A name in the tree, an argument or a variable with a NUL or a slash where none may be.
    #[error("{} is not a name: it is empty, or has a slash or a NUL in it", .0.display())]
    BadName(PathBuf),
    /// Another system call of ours.
    #[error("{what}: {errno}")]
    System {
        /// What was being done.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The child ended before it said anything.
    #[error("the child that prepares the client ended unexpectedly")]
    Died,
}

/// Where a child was when a call failed. What it sends through its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Stage {
    Ready,
    UserNamespace,
    IdMap,
    MountNamespace,
    Script,
    DevVfio,
    Fork,
    Prepare,
    Filter,
    Exec,
    Directory,
}

impl Stage {
    const ALL: [Self; 11] = [
        Self::Ready,
        Self::UserNamespace,
        Self::IdMap,
        Self::MountNamespace,
        Self::Script,
        Self::DevVfio,
        Self::Fork,
        Self::Prepare,
        Self::Filter,
        Self::Exec,
        Self::Directory,
    ];

    pub(super) fn from_number(number: u32) -> Option<Stage> {
        Self::ALL.into_iter().find(|&stage| stage as u32 == number)
    }

    /// The error for a failure at this stage; `step` is what the script was doing.
    pub(super) fn error(
        self,
        errno: Errno,
        step: Option<String>,
        command: OsString,
    ) -> LaunchError {
        match self {
            Stage::UserNamespace | Stage::IdMap => LaunchError::UserNamespace {
                made: self == Stage::IdMap,
                errno,
                advice: host::user_namespace_advice(),
            },
            Stage::MountNamespace => {
                LaunchError::MountNamespace { errno, advice: host::mount_advice() }
            }
            Stage::Script => LaunchError::Tree {
                step: step.unwrap_or_default(),
                errno,
                advice: host::mount_advice(),
            },
            Stage::Filter if errno == Errno::BUSY => LaunchError::Nested,
            Stage::Filter => LaunchError::Filter { errno, advice: host::filter_advice() },
            Stage::Exec => LaunchError::Exec { command, errno },
            Stage::DevVfio => LaunchError::System { what: "opening the client's /dev/vfio", errno },
            Stage::Fork => LaunchError::System { what: "starting the client's process", errno },
            Stage::Prepare | Stage::Ready | Stage::Directory => {
                LaunchError::System { what: "preparing the client's process", errno }
            }
        }
    }
}
