//! A client on the crate `vfio-ioctls`, as virtual machine monitors are.

use std::path::Path;
use std::sync::Arc;

use vfio_ioctls::{VfioContainer, VfioDevice, VfioOps};
use vmm_sys_util::eventfd::EventFd;

use super::raw;

pub(super) fn run() {
    let container = Arc::new(VfioContainer::new(None).unwrap());
    let open = |bdf: &str| {
        let path = format!("/sys/bus/pci/devices/{bdf}");
        let ops: Arc<dyn VfioOps> = container.clone();
        VfioDevice::new(Path::new(&path), ops, true).unwrap()
    };
    let (edu, nvme) = (open(raw::EDU), open(raw::NVME));
    let mut id = [0; 4];
    edu.region_read(7, &mut id, 0);
    assert_eq!(id, [0x34, 0x12, 0xe8, 0x11]);
    edu.region_write(7, &[6, 0], 4);
    edu.region_read(0, &mut id, 0);
    assert_eq!(u32::from_le_bytes(id), 0x0100_00ed);
    assert_eq!(edu.get_region_size(0), 1 << 20);
    assert!(nvme.max_interrupts() > 1);

    let memory = raw::memory(8192, libc::MAP_PRIVATE);
    // SAFETY: the memory is there for as long as the process, and only raw pointers lead to it.
    unsafe { container.vfio_dma_map(0x10_0000, 8192, memory).unwrap() };
    unsafe { memory.write_bytes(0xa5, 64) };
    let event = EventFd::new(0).unwrap();
    edu.enable_msi(vec![&event]).unwrap();
    let write = |at: u64, value: u64| edu.region_write(0, &value.to_le_bytes(), at);
    for (at, value) in [(0x80, 0x10_0000), (0x88, 0x4_0000), (0x90, 64), (0x98, 1 | 4)] {
        write(at, value);
    }
    assert_eq!(event.read().unwrap(), 1);
    edu.region_write(0, &0x100_u32.to_le_bytes(), 0x64);
    for (at, value) in [(0x80, 0x4_0000), (0x88, 0x10_1000), (0x90, 64), (0x98, 1 | 2 | 4)] {
        write(at, value);
    }
    assert_eq!(event.read().unwrap(), 1);
    assert_eq!(unsafe { memory.add(4096 + 63).read_volatile() }, 0xa5);
    edu.disable_msi().unwrap();
    let events: Vec<_> = (0..4).map(|_| EventFd::new(0).unwrap()).collect();
    nvme.enable_msix(events.iter().collect()).unwrap();
    nvme.disable_msix().unwrap();
    container.vfio_dma_unmap(0x10_0000, 8192).unwrap();
    nvme.reset();
}
