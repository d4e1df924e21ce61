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
//! The engine: what an I/O virtual address means.
//!
//! A device behind an IOMMU knows I/O virtual addresses (IOVAs) only. This crate keeps what each of
//! them means, changes it on request, and tells for every access of a device where it goes. It
//! knows neither bytes nor file descriptors nor errnos: those are `vfio`'s, one floor up.
//!
//! ```text
//!   Host                      data: IOMMUs, groups, reserved regions, doorbells, limits, Dialect
//!    │ attach(host, group)
//!    ▼
//!   AddressSpace ◄── map, unmap, cut, update_vaddr, dirty_*          &mut self, with an Env:
//!    │  table of Mappings: the truth                                  Pinner        pins memory
//!    │  Domains: groups that share page tables                        LockedMemory  is charged
//!    │  valid ranges, page sizes                                      Observer      is told
//!    │ translate(group, iova, access)                                &self
//!    ▼
//!   Translation::Memory │ Translation::Doorbell │ Fault
//! ```
//!
//! # From objects to calls
//!
//! 1. Describe the machine: a [`Host`] with its [`Iommu`]s, [`Group`]s, [`ReservedRegion`]s and
//!    [`InterruptController`]s. Its [`Dialect`] says which kernel's answers it gives.
//! 2. [`AddressSpace::new`] makes an empty address space (a VFIO container has one).
//! 3. Implement [`Pinner`] for whoever owns the memory that is mapped, and put it into an [`Env`]
//!    together with the one [`LockedMemory`] of the system and an [`Observer`] (`()` listens to
//!    nothing).
//! 4. [`AddressSpace::attach`] brings a group in: into the [`Domain`] of an earlier group that can
//!    share its page tables, else into one of its own. [`AddressSpace::valid_ranges`] and
//!    [`AddressSpace::page_sizes`] say what may be mapped from now on.
//! 5. [`AddressSpace::map`] maps a [`MapRequest`]. A [`MapRefusal`] says why not, and where a
//!    mapping of that size would be legal; printed, it is a sentence for people.
//! 6. [`AddressSpace::translate`] answers each access of a device: memory, with the pin it lies in
//!    and how many bytes follow; a doorbell, which makes the write an interrupt; or a [`Fault`].
//! 7. [`AddressSpace::bind_doorbell`] gives the address to which a group's devices write MSIs.
//!
//! `examples/map.rs` does all of this: `cargo run -p softvfio-iommu --example map`.
//!
//! # What holds
//!
//! * Mappings never overlap; a refusal changes nothing; what is pinned is what is mapped.
//! * Ranges are inclusive ([`IovaRange`]), so the last byte may be 2^64-1.
//! * Nothing here locks, sleeps, prints, or panics on any input. A caller with threads puts the
//!   address space behind a lock: `&mut self` changes, `&self` translates.
//! * Mapping and unmapping cost the same whatever the size of the mapping; only dirty bitmaps are
//!   written page by page.

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
pub mod event;
pub mod fault;
pub mod host;
pub mod pgsize;
pub mod pin;
#[cfg(feature = "planted")]
pub mod planted;
pub mod pool;
pub mod prot;
pub mod range;
pub mod refusal;
pub mod space;
pub mod table;
pub mod valid;

pub use account::{LockBudget, LockedMemory, OverLimit};
pub use dialect::Dialect;
pub use domain::Domain;
pub use event::{Event, Observer};
pub use fault::{Fault, FaultReason};
pub use host::{
    Group, Host, InterruptController, Iommu, Limits, MsiPolicy, ReservedKind, ReservedRegion,
};
pub use pgsize::PageSizes;
pub use pin::{Backing, MmId, PinError, PinFault, PinId, Pinned, Pinner};
pub use pool::{Consumer, Pool, Window};
pub use prot::Prot;
pub use range::IovaRange;
pub use refusal::{
    AttachRefusal, BindRefusal, DirtyRefusal, MapRefusal, VaddrRefusal, WindowRefusal,
};
pub use space::{AddressSpace, BitmapSink, Doorbell, Env, MapRequest, Mapping, Translation};
