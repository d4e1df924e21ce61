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

pub mod dialect;
pub mod fault;
pub mod host;
pub mod pgsize;
pub mod pin;
pub mod prot;
pub mod range;

pub use dialect::Dialect;
pub use fault::{Fault, FaultReason};
pub use host::{
    Group, Host, InterruptController, Iommu, Limits, MsiPolicy, ReservedKind, ReservedRegion,
};
pub use pgsize::PageSizes;
pub use pin::{Backing, MmId, PinError, PinFault, PinId, Pinned, Pinner};
pub use prot::Prot;
pub use range::IovaRange;
