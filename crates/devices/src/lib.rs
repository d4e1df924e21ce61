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
//! Emulated PCI devices.
//!
//! A model knows its registers, its configuration space and a [`pci::DmaBus`]: neither containers
//! nor eventfds. Contract: nothing that software writes, and nothing found in memory, panics,
//! overflows or loops without bound.
//!
//! * [`Edu`] is QEMU's educational device: registers, a DMA engine, one MSI, INTx.
//! * [`Ioat`] is Intel's I/OAT engine: one channel that copies and fills memory.
//! * [`Nvme`] is an NVM Express controller over any [`Backend`](nvme::Backend).
//! * [`Shape`] is any function as far as a recording tells: configuration space, BARs, constants.
//!
//! ```text
//!   register access ──► Device::bar_read, bar_write ──► Edu ──► DmaBus::read, write   DMA, MSIs
//!   configuration   ──► Device::config_mut             │
//!                                                      └─────► DmaBus::set_intx       the one wire
//! ```
//!
//! Whoever drives a model brings the bus:
//!
//! ```
//! use pci::{Aborted, Device, DmaBus};
//! use softvfio_devices::Edu;
//!
//! /// A bus with nothing on it.
//! struct Empty;
//!
//! impl DmaBus for Empty {
//!     fn read(&mut self, _addr: u64, data: &mut [u8]) -> Result<(), Aborted> {
//!         data.fill(0);
//!         Err(Aborted)
//!     }
//!     fn write(&mut self, _addr: u64, _data: &[u8]) -> Result<(), Aborted> {
//!         Err(Aborted)
//!     }
//!     fn set_intx(&mut self, _asserted: bool) {}
//! }
//!
//! let mut edu = Edu::new();
//! edu.bar_write(0, 0x08, &5u32.to_le_bytes(), &mut Empty);
//! let mut factorial = [0; 4];
//! edu.bar_read(0, 0x08, &mut factorial, &mut Empty);
//! assert_eq!(u32::from_le_bytes(factorial), 120);
//! ```

extern crate alloc;

/// Whether a bug is planted; `false` where none can be.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($bug:ident) => {
        crate::planted::is_planted(crate::planted::Bug::$bug)
    };
}
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

mod buffer;
pub mod edu;
#[cfg(test)]
mod front;
pub mod ioat;
#[cfg(test)]
mod machine;
pub mod msi_test;
pub mod nvme;
#[cfg(feature = "planted")]
pub mod planted;
pub mod shape;

pub use edu::Edu;
pub use ioat::{Ioat, IoatConfig};
pub use msi_test::MsiTest;
pub use nvme::{Nvme, NvmeConfig};
pub use shape::{Constant, Shape};
