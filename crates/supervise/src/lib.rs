//! The door: unmodified programs that use VFIO, on a software IOMMU with emulated devices.
//!
//! Linux on x86-64. This crate knows processes, descriptors and memory; what a request means is
//! `vfio`'s matter.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What a device of one's own is made of.
pub use pci;

pub mod client;
pub mod control;
mod door;
pub mod kinds;
mod maps;
pub mod mmio;
pub mod record;
pub mod report;
pub mod sandbox;
pub mod session;
pub mod show;
#[allow(unsafe_code, reason = "system calls that no safe wrapper has")]
mod sys;
pub mod watch;

/// The processors that we may have.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Whether a descriptor can be read or written without waiting. (Its own flags may be a client's.)
fn is_ready(fd: &OwnedFd, what: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, what)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok()
        && fds[0].revents().contains(what)
}

/// Waits for what must come. A child that another test is about to start has our descriptors until
/// its `exec`: for so long, what we close is not closed.
#[cfg(test)]
fn comes(mut what: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !what() {
        assert!(std::time::Instant::now() < end, "it does not come");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
