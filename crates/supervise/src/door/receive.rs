//! The threads that receive system calls: each is decoded, carried out and answered before the next.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::Door;
use super::transfer::{Buffers, Transfer};
use crate::sandbox::{Call, classify};
use crate::sys::notify::{self, Notification, Response};

impl Door {
    /// Answers system calls until nobody is left to make any; starts the threads for it.
    pub(crate) fn receive_all(self: &Arc<Self>) {
        let mut threads = Vec::new();
        let mut more = || {
            let door = Arc::clone(self);
            let name = format!("receive {}", threads.len());
            match std::thread::Builder::new().name(name).spawn(move || door.receive()) {
                Ok(thread) => threads.push(thread),
                Err(_) => self.trouble("no further thread can be started: a request waits"),
            }
        };
        more();
        self.turns.look_after(more);
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }

    fn receive(&self) {
        while let Some(turn) = self.turns.wait() {
            loop {
                match self.next_call() {
                    Ok(notification) => {
                        self.turns.begin();
                        self.answer(&notification);
                        if !self.turns.end(&turn) {
                            break;
                        }
                    }
                    Err(Errno::INTR) => {}
                    // Its thread is gone; or everybody is.
                    Err(Errno::NOENT) if !self.is_deserted() => {}
                    Err(_) => return self.turns.finish(),
                }
            }
        }
    }

    fn next_call(&self) -> Result<Notification, Errno> {
        // Before Linux 6.11 whoever waits is not told that nobody is left.
        if !self.receive_ends {
            use rustix::event::{PollFd, PollFlags, poll};
            poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], None)?;
        }
        let received = notify::receive(self.listener.as_fd());
        received.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// Whether no process is left under the filter.
    fn is_deserted(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.listener, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    fn answer(&self, notification: &Notification) {
        let respond = |response| {
            // A thread that was killed meanwhile waits for nothing.
            let _ = notify::respond(self.listener.as_fd(), notification.id, response);
        };
        let Notification { arch, number, args, .. } = *notification;
        let Some(call) = classify(arch, number, args) else {
            return respond(Response::Continue);
        };
        let waits = || notify::is_waiting(self.listener.as_fd(), notification.id);
        let process = self.processes.of(notification.tid, waits);
        if call == Call::Exit {
            // Told first, so that it is known what the process closed of itself. It is in no hurry.
            self.close_closed_within(Duration::from_secs(1), false);
            if let Ok(process) = process {
                self.watch.exiting(process.tgid());
            }
            return respond(Response::Continue);
        }
        let Ok(process) = process else {
            if !waits() {
                return;
            }
            self.watch.trouble("a process could not be looked into; its request was refused");
            return respond(Response::Error(libc::EPERM));
        };
        let response = match call {
            Call::Exit => Some(Response::Continue),
            Call::Ioctl { fd, cmd, arg } => Some(self.ioctl(&process, notification, fd, cmd, arg)),
            Call::Buffer { fd, write, address, size, offset } => {
                let buffers = Buffers::One { addr: address, len: size };
                let transfer = Transfer { fd, write, buffers, offset, flags: 0 };
                self.transfer(&process, notification.tid, &transfer)
            }
            Call::Vector { fd, write, iov, count, offset, flags, compat } => {
                let buffers = Buffers::List { addr: iov, count, compat };
                let transfer = Transfer { fd, write, buffers, offset, flags };
                self.transfer(&process, notification.tid, &transfer)
            }
            Call::Mmap { size, flags, fd, offset, .. } => match flags.cast_signed() {
                flags if flags & libc::MAP_ANONYMOUS != 0 => Some(Response::Continue),
                flags => {
                    // `MAP_SHARED_VALIDATE` has that bit too.
                    let shared = flags & libc::MAP_SHARED != 0;
                    self.map(&process, notification.tid, fd, offset, size, shared)
                }
            },
        };
        if let Some(response) = response {
            respond(response);
        }
    }
}
