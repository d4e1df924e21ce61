//! The two processes between the supervisor and the program.
//!
//! *init* makes the namespaces, lays out the tree, starts the *client*, and stays: it adopts every
//! orphan below it, tells the client's end as soon as it is known, and kills all when it is told to
//! (`END`) or when the supervisor is gone (the lifeline, a pipe, hangs up; unlike a death signal
//! it does not depend on which thread called). It ends when it has no child left. The client puts
//! itself under the filter, sends the listener, waits to be let go, and becomes the program.
//!
//! Everything here runs between `fork` and `exec`: it makes system calls and allocates nothing.

use std::ffi::{CString, c_int};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Pid, Signal, WaitOptions, setrlimit};

use super::error::Stage;
use super::full;
use super::limits::Limits;
use super::script::Script;
use crate::sys::filter::{Instruction, install};
use crate::sys::process::{
    END, Exec, SignalMask, block_signals, close_before_exec, close_copy, drop_handlers, exit, fork,
    keep_only, kill_children, read_signal, set_disposition, signal_fd, unshare, write_once,
};

/// All that the two processes need, prepared by the supervisor.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Lines for `/proc/self/uid_map` and `gid_map`; without them there is no user namespace.
    pub(super) id_maps: Option<[CString; 2]>,
    pub(super) script: Script,
    /// Where to go when the tree is there: a working directory in `/dev` or `/sys` is another then.
    pub(super) directory: Option<CString>,
    /// Or not begin; otherwise it stays where it was.
    pub(super) must_go: bool,
    pub(super) filter: Vec<Instruction>,
    pub(super) exec: Exec,
    /// Whether a file system without room is wanted.
    pub(super) full: bool,
    /// Signals that the program is to start with at their default, though ignored here.
    pub(super) reset: Vec<c_int>,
    /// Limits that the program is to start with, where they are not ours.
    pub(super) limits: Limits,
    /// The program's standard input, output and error, where they are not ours.
    pub(super) stdio: [Option<OwnedFd>; 3],
    /// The supervisor's ends of the pipes, to be closed.
    pub(super) foreign: [RawFd; 3],
}

/// The child's ends.
pub(super) struct Ends {
    /// Socket: answers out, permission to go in.
    pub(super) control: OwnedFd,
    /// Where the client's wait status is written.
    pub(super) status: OwnedFd,
    /// Hangs up when the supervisor is gone.
    pub(super) lifeline: OwnedFd,
}

/// What goes through the control socket towards the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) stage: u32,
    pub(super) index: u32,
    pub(super) errno: i32,
    pub(super) pid: i32,
}

/// A message, and the descriptors that came with it.
pub(super) type Received = (Message, [Option<OwnedFd>; 3]);

impl Message {
    const SIZE: usize = 16;

    fn bytes(self) -> [u8; Message::SIZE] {
        let mut bytes = [0; Message::SIZE];
        let words = [self.stage, self.index, self.errno.cast_unsigned(), self.pid.cast_unsigned()];
        for (slot, word) in bytes.chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn parse(bytes: [u8; Message::SIZE]) -> Message {
        let word = |at: usize| {
            bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
        };
        Message {
            stage: word(0),
            index: word(4),
            errno: word(8).cast_signed(),
            pid: word(12).cast_signed(),
        }
    }

    fn send(self, to: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let bytes = self.bytes();
        sendmsg(to, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
    }

    /// The next message; `None` when the other side is gone.
    pub(super) fn receive(from: BorrowedFd<'_>) -> Result<Option<Received>, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; Message::SIZE];
        let result = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(from, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        let mut fds = [None, None, None];
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                for (slot, fd) in fds.iter_mut().zip(rights) {
                    *slot = Some(fd);
                }
            }
        }
        Ok((result.bytes == Message::SIZE).then(|| (Message::parse(bytes), fds)))
    }
}

type Failure = (Stage, usize, Errno);

/// init's life; its value is its exit status. Signals are blocked when it begins.
pub(super) fn run(prepared: &mut Prepared, ends: Ends) -> i32 {
    for fd in prepared.foreign {
        close_copy(fd);
    }
    close_before_exec(&kept(prepared, &ends));
    drop_handlers();
    set_disposition(libc::SIGCHLD, false);
    let started = prepare(prepared).and_then(|(umask, dev_vfio, full)| {
        let init = rustix::process::getpid();
        fork(|| {
            let control = ends.control.as_fd();
            close_copy(ends.status.as_raw_fd());
            close_copy(ends.lifeline.as_raw_fd());
            let fds = (&dev_vfio, full.as_ref());
            let (stage, index, errno) = client(prepared, control, init, umask, fds);
            tell(control, stage, index, errno);
            127
        })
        .map_err(|errno| (Stage::Fork, 0, errno))
    });
    match started {
        Ok(client) => watch(client, ends.status, ends.lifeline),
        Err((stage, index, errno)) => {
            tell(ends.control.as_fd(), stage, index, errno);
            1
        }
    }
}

/// What the two processes use; a number below 0 is none.
fn kept(prepared: &Prepared, ends: &Ends) -> [RawFd; 6] {
    let [input, output, error] =
        prepared.stdio.each_ref().map(|fd| fd.as_ref().map_or(-1, AsRawFd::as_raw_fd));
    let [control, status, lifeline] =
        [&ends.control, &ends.status, &ends.lifeline].map(AsRawFd::as_raw_fd);
    [input, output, error, control, status, lifeline]
}

fn tell(control: BorrowedFd<'_>, stage: Stage, index: usize, errno: Errno) {
    let message = Message {
        stage: stage as u32,
        index: index as u32,
        errno: errno.raw_os_error(),
        pid: rustix::process::getpid().as_raw_nonzero().get(),
    };
    // Nobody is left to be told of a failure here.
    let _ = message.send(control, &[]);
}

/// The namespaces and what is in them.
fn prepare(prepared: &Prepared) -> Result<(Mode, OwnedFd, Option<OwnedFd>), Failure> {
    let at = |stage| move |errno| (stage, 0, errno);
    let _ = rustix::thread::set_name(c"softvfio-init");
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(at(Stage::Prepare))?;
    if let Some([uids, gids]) = &prepared.id_maps {
        unshare(libc::CLONE_NEWUSER).map_err(at(Stage::UserNamespace))?;
        // Only then may a group be mapped.
        write_once(c"/proc/self/setgroups", b"deny").map_err(at(Stage::IdMap))?;
        write_once(c"/proc/self/uid_map", uids.as_bytes()).map_err(at(Stage::IdMap))?;
        write_once(c"/proc/self/gid_map", gids.as_bytes()).map_err(at(Stage::IdMap))?;
    }
    unshare(libc::CLONE_NEWNS).map_err(at(Stage::MountNamespace))?;
    let umask = rustix::process::umask(Mode::empty());
    prepared.script.run().map_err(|(index, errno)| (Stage::Script, index, errno))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dev_vfio =
        rustix::fs::open(c"/dev/vfio", flags, Mode::empty()).map_err(at(Stage::DevVfio))?;
    // Most programs do without it.
    let full = if prepared.full { full::mount().ok() } else { None };
    Ok((umask, dev_vfio, full))
}

/// From the fork to the program; returns only why it could not.
fn client(
    prepared: &mut Prepared,
    control: BorrowedFd<'_>,
    init: Pid,
    umask: Mode,
    (dev_vfio, full): (&OwnedFd, Option<&OwnedFd>),
) -> Failure {
    let at = |stage| move |errno| (stage, 0, errno);
    let result = (|| {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(at(Stage::Prepare))?;
        if rustix::process::getppid() != Some(init) {
            exit(127);
        }
        rustix::process::umask(umask);
        if let Some(directory) = &prepared.directory {
            // Without `must_go`, one of the host that may be hidden now.
            match rustix::process::chdir(directory.as_c_str()) {
                Err(errno) if prepared.must_go => return Err((Stage::Directory, 0, errno)),
                _ => {}
            }
        }
        for &signal in &prepared.reset {
            set_disposition(signal, false);
        }
        let [input, output, error] = &prepared.stdio;
        if let Some(fd) = input {
            rustix::stdio::dup2_stdin(fd).map_err(at(Stage::Prepare))?;
        }
        if let Some(fd) = output {
            rustix::stdio::dup2_stdout(fd).map_err(at(Stage::Prepare))?;
        }
        if let Some(fd) = error {
            rustix::stdio::dup2_stderr(fd).map_err(at(Stage::Prepare))?;
        }
        let listener = install(&prepared.filter).map_err(at(Stage::Filter))?;
        let ready = Message {
            stage: Stage::Ready as u32,
            index: 0,
            errno: 0,
            pid: rustix::process::getpid().as_raw_nonzero().get(),
        };
        let [listening, dev_vfio] = [listener.as_fd(), dev_vfio.as_fd()];
        let sent = match full {
            Some(full) => ready.send(control, &[listening, dev_vfio, full.as_fd()]),
            None => ready.send(control, &[listening, dev_vfio]),
        };
        sent.map_err(at(Stage::Prepare))?;
        drop(listener);
        let mut go = [0u8];
        match rustix::io::read(control, &mut go) {
            Ok(1) => Ok(()),
            // The supervisor gave up.
            _ => exit(127),
        }
    })();
    match result {
        Ok(()) => {
            for (resource, limit) in prepared.limits.into_iter().flatten() {
                let _ = setrlimit(resource, limit);
            }
            SignalMask::none().set();
            let errno = prepared.exec.exec();
            block_signals();
            (Stage::Exec, 0, errno)
        }
        Err(failure) => failure,
    }
}

/// Waits for whatever ends, until nothing is left.
fn watch(client: Pid, status: OwnedFd, lifeline: OwnedFd) -> i32 {
    let Ok(signals) = signal_fd() else { return 1 };
    let Ok([status, lifeline, signals]) = keep_only([status, lifeline, signals]) else { return 1 };
    let _ = rustix::process::chdir(c"/");
    // What kills the supervisor's whole process group (`timeout -s KILL`, a shell) must leave us to
    // clear up. The client stays in that group: Ctrl-C is for it.
    let _ = rustix::process::setsid();
    let mut status = Some(status);
    let mut lifeline = Some(lifeline);
    let mut killing = false;
    loop {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, result))) => {
                    if pid == client
                        && let Some(pipe) = status.take()
                    {
                        let _ = rustix::io::write(&pipe, &result.as_raw().to_ne_bytes());
                    }
                }
                Ok(None) => break,
                Err(Errno::INTR) => {}
                // No child is left.
                Err(_) => return 0,
            }
        }
        if killing && !kill_children() && status.is_some() {
            // Without `/proc` there is one child known.
            let _ = rustix::process::kill_process(client, Signal::KILL);
        }
        let pause = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let mut fds = [
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(lifeline.as_ref().unwrap_or(&signals), PollFlags::IN),
        ];
        let _ = poll(&mut fds, killing.then_some(&pause));
        let hung_up = fds.get(1).is_some_and(|fd| {
            fd.revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
        });
        if hung_up {
            lifeline = None;
            killing = true;
        }
        while let Some(signal) = read_signal(signals.as_fd()) {
            killing |= signal == END.as_raw();
        }
    }
}
