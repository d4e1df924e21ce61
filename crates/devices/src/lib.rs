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

extern crate alloc;

pub mod edu;
pub mod shape;

pub use edu::Edu;
pub use shape::{Constant, Shape};
