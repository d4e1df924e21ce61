//! A thread that receives system calls: each is decoded, carried out and answered before the next.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::Door;
use super::transfer::{Buffers, Transfer};
use crate::sandbox::{Call, classify};
use crate::sys::notify::{self, Notification, Response};

impl Door {
    /// Answers system calls until nobody is left to make any.
    pub(crate) fn receive(&self) {
        loop {
            match notify::receive(self.listener.as_fd()) {
                Ok(notification) => self.answer(&notification),
                Err(_) if self.stopped() => return,
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    // Its thread is gone; or everybody is.
                    Some(Errno::NOENT) if !self.is_deserted() => {}
                    _ => return,
                },
            }
        }
    }

    /// Whether no process is left under the filter.
    pub(crate) fn is_deserted(&self) -> bool {
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
        let process = self.processes.of(notification.tid);
        if !notify::is_waiting(self.listener.as_fd(), notification.id) {
            return;
        }
        let Ok(process) = process else {
            self.watch.trouble("a process could not be looked into; its request was refused");
            return respond(Response::Error(libc::EPERM));
        };
        let response = match call {
            Call::Ioctl { fd, cmd, arg } => self.ioctl(&process, notification, fd, cmd, arg),
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
                    self.map(&process, fd, offset, size, shared)
                }
            },
        };
        if let Some(response) = response {
            respond(response);
        }
    }
}
