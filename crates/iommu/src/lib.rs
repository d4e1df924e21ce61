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

pub mod account;
pub mod cache;
pub mod dialect;
pub mod domain;
pub mod doorbell;
pub mod event;
pub mod fault;
pub mod host;
pub mod pgsize;
pub mod pin;
#[cfg(feature = "planted")]
pub mod planted;
pub mod prot;
pub mod range;
pub mod refusal;
pub mod space;
pub mod table;
pub mod valid;

pub use account::{LockBudget, LockedMemory, OverLimit};
pub use dialect::Dialect;
pub use domain::Domain;
pub use doorbell::DoorbellTable;
pub use event::{Event, Observer};
pub use fault::{Fault, FaultReason};
pub use host::{
    Group, Host, InterruptController, Iommu, Limits, MsiPolicy, ReservedKind, ReservedRegion,
};
pub use pgsize::PageSizes;
pub use pin::{Backing, MmId, PinError, PinFault, PinId, Pinned, Pinner};
pub use prot::Prot;
pub use range::IovaRange;
pub use refusal::{AttachRefusal, BindRefusal, DirtyRefusal, MapRefusal, VaddrRefusal};
pub use space::{AddressSpace, BitmapSink, Env, MapRequest, Mapping, Translation};
