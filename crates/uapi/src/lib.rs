#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unreachable
    )
)]
//! `linux/vfio.h` as Rust types: numbers, structures, capability chains. No behaviour.
//!
//! Two views of the same bytes:
//!
//! * **Raw structures** ([`type1::DmaMap`], [`device::DeviceInfo`], ...) have the header's layout,
//!   padding spelled out; any bytes are a valid value. Read them with [`read_prefix`] or
//!   [`read_padded`], write them with `zerocopy::IntoBytes::as_bytes`. `flags` and indexes stay
//!   plain integers, so that a trace can print what a request really said.
//! * **Numbers with a meaning** ([`type1::MapFlags`], [`region::RegionIndex`], ...) hold only what
//!   the header defines: `from_bits` and `TryFrom<u32>` refuse the rest.
//!
//! Contract: nothing here panics or allocates beyond the input's size, on any input. Byte order is
//! the host's, as in the kernel.
//!
//! Rust names are short; the C name of each item is a search alias, and [`names::ALL`] lists them.

extern crate alloc;

mod macros;

pub mod cap;
pub mod cdev;
pub mod container;
pub mod device;
pub mod errno;
pub mod feature;
pub mod group;
pub mod ioctl;
pub mod ioeventfd;
pub mod irq;
pub mod names;
pub mod parse;
pub mod region;
pub mod reset;
pub mod type1;
pub mod windows;

pub use cap::{Cap, CapAlign, CapChain, Caps};
pub use errno::Errno;
pub use ioctl::{Request, RequestKind};
pub use parse::{read_padded, read_prefix};

/// A number the header gives no meaning to, where one was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnknownNumber(pub u32);

impl core::fmt::Display for UnknownNumber {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "unknown number {:#x}", self.0)
    }
}

impl core::error::Error for UnknownNumber {}
