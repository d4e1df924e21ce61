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
//! PCI functions as hardware: configuration space, BARs, MSI and MSI-X, and the bus a device sees.
//!
//! ```text
//!   software ──► ConfigSpace (what a write changes)        Device (a model's registers)
//!                  │ Command: memory, I/O, bus master        │ DMA, MSIs
//!                  ▼                                         ▼
//!                 Bar: which addresses answer           MasterGate ──► DmaBus ──► whoever owns it
//! ```
//!
//! * [`Device`] is what a model implements; [`DmaBus`] is all that it can do to the machine.
//! * [`ConfigSpace`] is a function's *physical* configuration space: which bits a write changes is
//!   the hardware's choice. What a VFIO user sees of it is decided elsewhere.
//! * [`Msi`] and [`MsixTable`] turn a vector number into the bus write that is the interrupt.
//! * [`MasterGate`] is the Bus Master bit: without it nothing leaves the function.
//!
//! Nothing here knows IOMMUs, containers or eventfds. Contract: no offset, size or register value
//! panics, overflows or loops.

extern crate alloc;

pub mod bar;
pub mod bdf;
pub mod bus;
pub mod caps;
pub mod config;
pub mod device;
pub mod gate;
mod masks;
pub mod msi;
pub mod msix;
pub mod regs;

pub use bar::{Bar, BarKind, ResourceFlags};
pub use bdf::Bdf;
pub use bus::{Aborted, DmaBus};
pub use caps::Capability;
pub use config::{ConfigSize, ConfigSpace};
pub use device::{Device, PAGE_SIZE, Polled};
pub use gate::MasterGate;
pub use msi::Msi;
pub use msix::MsixTable;
pub use regs::{Command, Status};
