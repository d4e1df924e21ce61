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
mod ids;
mod stores;

pub use caller::{BadAddress, BadEvent, Caller, FdObject, Platform};
pub use ids::{ContainerId, DeviceId, EventId, GroupId};
pub use stores::{ContainerTable, Containers, ModelTable, Models};
