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
//! The engine.

extern crate alloc;

pub mod prot;
pub mod range;

pub use prot::Prot;
pub use range::IovaRange;
