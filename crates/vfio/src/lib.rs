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
//! VFIO as objects: container, group and device, answering as Linux does.

extern crate alloc;

mod caller;
mod container;
pub mod device;
mod group;
mod ids;
mod refusal;
mod stores;
mod system;
mod user;

#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted {
    /// Nothing is planted where nothing can be.
    pub(crate) const fn is_planted() -> bool {
        false
    }
}

pub use caller::{BadAddress, BadEvent, Caller, FdObject, Platform};
pub use container::{Container, Type1, Version};
pub use ids::{ContainerId, DeviceId, EventId, GroupId};
pub use refusal::{Answer, Refusal};
pub use stores::{ContainerTable, Containers, ModelTable, Models};
pub use system::{Ctx, Driver, Shared, System};
