//! Following a client to its end.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal,
};

use super::error::{LaunchError, Stage};
use super::init::{Message, Received};
use crate::sys::process::END;

/// A client that stands before its program's first instruction.
#[derive(Debug)]
pub struct Launched {
    /// The processes. First, as they are to end before their calls remain unanswered.
    pub processes: Processes,
    /// Receives its system calls, and those of all that it starts.
    pub listener: OwnedFd,
    /// `/dev/vfio` as it sees it (`O_PATH`).
    pub dev_vfio: OwnedFd,
    /// A file system that is full, mounted nowhere; `None` where it was not wanted or cannot be had.
    pub full: Option<OwnedFd>,
    /// Paths of the host's own devices and groups that ours hide from it.
    pub shadowed: Vec<PathBuf>,
}

/// A process that cannot be taken for another.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// Its descriptor; readable when it has ended.
    pub pidfd: OwnedFd,
}

impl Process {
    pub(super) fn open(pid: Pid) -> Result<Process, Errno> {
        Ok(Process { pid, pidfd: pidfd_open(pid, PidfdFlags::empty())? })
    }
}

/// What [`Launch::start`](super::Launch::start) started. Dropping it ends all of it.
#[derive(Debug)]
pub struct Processes {
    pub(super) client: Option<Process>,
    pub(super) init: Process,
    pub(super) command: OsString,
    pub(super) control: Option<OwnedFd>,
    pub(super) status: Option<OwnedFd>,
    pub(super) lifeline: Option<OwnedFd>,
}

impl Processes {
    /// The program's process.
    pub fn client(&self) -> &Process {
        self.client.as_ref().unwrap_or(&self.init)
    }

    /// The process above it, which adopts its orphans.
    pub fn init(&self) -> &Process {
        &self.init
    }

    /// Lets the program begin, and waits until it has, or could not. A tracer may attach before; if
    /// it stops the client, it must not be the thread that calls this.
    pub fn go(&mut self) -> Result<(), LaunchError> {
        let Some(control) = &self.control else { return Ok(()) };
        // A client that has died meanwhile is found below.
        let _ = rustix::net::send(control, &[1], SendFlags::NOSIGNAL);
        let answer = self.message()?;
        self.control = None;
        match answer {
            // The descriptor was closed by the exec, or with the process: its status tells.
            None => Ok(()),
            Some((message, _)) => {
                let errno = Errno::from_raw_os_error(message.errno);
                Err(match Stage::from_number(message.stage) {
                    Some(stage) => stage.error(errno, None, self.command.clone()),
                    None => LaunchError::Died,
                })
            }
        }
    }

    /// Readable when [`Processes::wait`] would not block. `None` after it has answered.
    pub fn status_fd(&self) -> Option<BorrowedFd<'_>> {
        self.status.as_ref().map(AsFd::as_fd)
    }

    /// Waits for the program's end. What it left behind may still run.
    pub fn wait(&mut self) -> Result<ExitStatus, LaunchError> {
        let Some(status) = self.status.take() else { return Err(LaunchError::Died) };
        let mut bytes = [0; 4];
        loop {
            match rustix::io::read(&status, &mut bytes) {
                Ok(4) => return Ok(ExitStatus::from_raw(i32::from_ne_bytes(bytes))),
                Err(Errno::INTR) => {}
                Ok(_) => return Err(LaunchError::Died),
                Err(errno) => {
                    return Err(LaunchError::System { what: "reading the status", errno });
                }
            }
        }
    }

    /// Kills the program and all that it started. Returns at once; [`Processes::wait_all`] waits.
    pub fn kill_all(&self) {
        // It fails if everything has ended.
        let _ = pidfd_send_signal(&self.init.pidfd, END);
    }

    /// For another thread.
    pub(crate) fn killer(&self) -> Result<Killer, LaunchError> {
        let copy = |fd: &OwnedFd| {
            let copied = rustix::io::fcntl_dupfd_cloexec(fd, 0);
            copied.map_err(|errno| LaunchError::System { what: "copying a descriptor", errno })
        };
        let client = self.client();
        Ok(Killer {
            client: Process { pid: client.pid, pidfd: copy(&client.pidfd)? },
            init: copy(&self.init.pidfd)?,
        })
    }

    /// Waits until nothing of what was started is left.
    pub fn wait_all(&mut self) {
        loop {
            match rustix::process::waitid(
                WaitId::PidFd(self.init.pidfd.as_fd()),
                WaitIdOptions::EXITED,
            ) {
                Err(Errno::INTR) => {}
                // Reaped now, or before.
                _ => return,
            }
        }
    }

    /// The next message of the child, if it still has its end.
    pub(super) fn message(&self) -> Result<Option<Received>, LaunchError> {
        let Some(control) = &self.control else { return Ok(None) };
        Message::receive(control.as_fd())
            .map_err(|errno| LaunchError::System { what: "hearing from the client", errno })
    }
}

/// Signals for what was started, from another thread.
#[derive(Debug)]
pub(crate) struct Killer {
    client: Process,
    init: OwnedFd,
}

impl Killer {
    /// Sends a signal to the program; false when it has ended.
    pub(crate) fn tell(&self, signal: i32) -> bool {
        let signal = Signal::from_named_raw(signal);
        signal.is_some_and(|signal| pidfd_send_signal(&self.client.pidfd, signal).is_ok())
    }

    /// As [`Processes::kill_all`].
    pub(crate) fn kill_all(&self) {
        let _ = pidfd_send_signal(&self.init, END);
    }

    /// Whether a terminal's signals for us go to the program as well.
    pub(crate) fn client_is_in_our_group(&self) -> bool {
        let group = rustix::process::getpgid(Some(self.client.pid));
        group.is_ok_and(|group| group == rustix::process::getpgrp())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // init kills all when the lifeline hangs up; a client that was not let go gives up.
        self.lifeline = None;
        self.control = None;
        self.kill_all();
        self.wait_all();
    }
}
