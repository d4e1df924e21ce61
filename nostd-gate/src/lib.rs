//! Links the crates that promise `no_std` where std is not.
//!
//! With std anywhere below, its panic handler meets ours: error E0152, a duplicate lang item.

#![no_std]

use core::panic::PanicInfo;

use linked_list_allocator::LockedHeap;

use devices as _;
use iommu as _;
use pci as _;
use uapi as _;
use vfio as _;

#[global_allocator]
static ALLOCATOR: LockedHeap = LockedHeap::empty();

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
