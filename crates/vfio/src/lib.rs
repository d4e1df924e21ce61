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
//!
//! A front end has clients that issue VFIO requests: traced processes, guests, tests. It hands each
//! request on as a number and an address; this crate copies the argument, checks it in the kernel's
//! order, changes the engine (`iommu`) or refuses, and writes the answer back.
//!
//! ```text
//!   the front end                      this crate                            below
//!   ─────────────                      ──────────                            ─────
//!   a client's descriptors
//!     container ──► System::container_ioctl ──► Container ──► Type1 ──► iommu::AddressSpace
//!     group     ──► System::group_ioctl     ──► joins, leaves, gives device descriptors
//!     device    ──► System::device_ioctl    ──► Device ──► interrupts, resets, information
//!                   Device::read, write, mmio ──► regions, configuration space ──► pci::Device
//!   Caller      ◄── arguments, descriptors, pins, eventfds
//!   Containers  ◄── the containers it keeps         (ContainerTable, for one thread)
//!   Devices     ◄── the devices it keeps            (DeviceTable, for one thread)
//! ```
//!
//! # From objects to calls
//!
//! 1. Describe the host (`iommu::Host`) and its PCI functions ([`device::PciFunction`]);
//!    [`System::new`] makes the kernel side of them.
//! 2. Implement [`Caller`] for the process that issues requests: its memory, its descriptors, its
//!    eventfds, what it may lock. [`Platform`], a part of it, is where DMA and interrupts end.
//! 3. `open("/dev/vfio/vfio")` is [`ContainerTable::open`]; `open("/dev/vfio/N")` is
//!    [`System::open_group`]. Remember what each descriptor stands for: [`Caller::fd`] is asked.
//! 4. Pack caller, containers and devices into a [`Ctx`] and hand requests on by kind of descriptor:
//!    [`System::container_ioctl`], [`System::group_ioctl`], [`System::device_ioctl`]. Accesses to a
//!    device's regions, and what it does by itself, are the device's own
//!    ([`read`](device::Device::read), [`write`](device::Device::write),
//!    [`mmio`](device::Device::mmio), [`run`](device::Device::run)): they need only what lies
//!    [upstream](device::Upstream) of it.
//! 5. An [`Answer`] is a number that is not negative, or a [`Refusal`]: a reason for people, with
//!    [`Refusal::errno`] for the client.
//! 6. When the last reference to a descriptor goes: [`ContainerTable::close`],
//!    [`System::close_group`], [`System::close_device`].
//!
//! `examples/serve.rs` is such a front end, from opening a container to a device's DMA and its
//! interrupt: `cargo run -p softvfio-vfio --example serve`.
//!
//! # Locks
//!
//! Nothing here locks. A front end with threads puts a lock around the [`System`], one around each
//! device and one around each container. It takes the container's last, never two containers at once,
//! and does not wait for a device while it has the system: a device may be at work for long, with no
//! need of the system ([`Devices::change`]). A client's memory is touched in [`Platform::dma_read`] and
//! [`dma_write`](Platform::dma_write), which no container's lock surrounds, and in
//! [`Caller::copy_in`] and [`copy_out`](Caller::copy_out), which the front end can serve from copies.

extern crate alloc;

mod abi;
mod caller;
mod container;
pub mod device;
mod group;
mod ids;
pub mod order;
mod refusal;
mod removal;
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

pub use abi::Abi;
pub use caller::{BadAddress, BadEvent, Caller, FdObject, Message, Platform};
pub use container::{Container, Type1, Version};
pub use ids::{ContainerId, DeviceId, EventId, GroupId};
pub use refusal::{Answer, Refusal};
pub use removal::{REQUEST_INTERVAL_SECONDS, Removal};
pub use stores::{ContainerTable, Containers, DeviceTable, Devices};
pub use system::{Ctx, Driver, Shared, System};
