//! Orders of checks (`vfio::order`), where a trace cannot show them: memory that can be read and not
//! written, a second process, a private mapping. `crates/trace/tests/order` has the others.

mod common;
#[path = "common/hosts.rs"]
mod hosts;

use common::{ARGS, BUF, World};
use devices::Edu;
use hosts::{INTEL, mixed};
use iommu::{Dialect, MmId};
use softvfio_vfio::device::PciFunction;
use softvfio_vfio::order::{self, Rule, find};
use softvfio_vfio::{ContainerId, DeviceId, GroupId, Refusal, System, Version};
use uapi::Errno;
use uapi::ioctl;
use uapi::type1::{DmaMap, DmaUnmap, UnmapFlags};
use zerocopy::IntoBytes;

const EDU: DeviceId = DeviceId(0);
const GROUP: GroupId = GroupId(INTEL);

/// An open device in a container of version 2, with a mapping.
fn world(dialect: &Dialect) -> (World, ContainerId) {
    let function = PciFunction::new("0000:00:1e.0".parse().unwrap(), GROUP, Edu::bars());
    let system = System::new(mixed(dialect), vec![function]);
    let mut world = World::new(system, vec![Box::new(Edu::new())]);
    let c = world.open_container(3);
    world.system.open_group(GROUP).unwrap();
    let set = ioctl::VFIO_GROUP_SET_CONTAINER;
    assert_eq!(world.group_with(GROUP, set, &3i32.to_ne_bytes()), Ok(0));
    assert_eq!(world.container(c, ioctl::VFIO_SET_IOMMU, 3), Ok(0));
    let name = b"0000:00:1e.0\0";
    assert!(world.group_with(GROUP, ioctl::VFIO_GROUP_GET_DEVICE_FD, name).is_ok());
    let map = DmaMap { argsz: 32, flags: 3, vaddr: BUF, iova: 0x10000, size: 0x2000 };
    assert_eq!(world.container_with(c, ioctl::VFIO_IOMMU_MAP_DMA, map.as_bytes()), Ok(0));
    (world, c)
}

/// The check that a refusal comes from, whose errno is the answer.
fn failed<'a>(rules: &'a [Rule], refusal: &Refusal, dialect: &Dialect) -> &'a Rule {
    let rule = &rules[find(rules, refusal).unwrap_or_else(|| panic!("no rule for {refusal:?}"))];
    assert_eq!(rule.errno, refusal.errno(dialect));
    rule
}

#[test]
fn an_answer_that_cannot_be_written_is_the_last_check() {
    for dialect in Dialect::ALL {
        let (mut world, c) = world(dialect);
        let unmap = DmaUnmap { argsz: 24, flags: 0, iova: 0x10000, size: 0x2000 };
        world.client.args[..24].copy_from_slice(unmap.as_bytes());
        world.client.args_are_constant = true;
        let unmap = ioctl::VFIO_IOMMU_UNMAP_DMA;
        let refusal = world.with(|s, ctx| s.container_ioctl(c, ctx, unmap, ARGS)).unwrap_err();
        let rules = order::unmap(dialect, Version::V2, UnmapFlags::empty());
        let last = rules.last().unwrap();
        assert_eq!(failed(&rules, &refusal, dialect).says, last.says);
        assert_eq!(last.says, "the answer can be written");

        // argsz, flags, index.
        world.client.args[..12].copy_from_slice([16u32, 0, 0].as_bytes());
        let info = ioctl::VFIO_DEVICE_GET_IRQ_INFO;
        let refusal = world.with(|s, ctx| s.device_ioctl(EDU, ctx, info, ARGS)).unwrap_err();
        assert_eq!(failed(&order::irq_info(), &refusal, dialect).says, last.says);
        let status = ioctl::VFIO_GROUP_GET_STATUS;
        let refusal = world.with(|s, ctx| s.group_ioctl(GROUP, ctx, status, ARGS)).unwrap_err();
        assert_eq!(failed(&order::get_status(), &refusal, dialect).says, last.says);
    }
}

#[test]
fn another_process_must_be_allowed_to_lock_the_pages() {
    for dialect in Dialect::ALL {
        let (mut world, c) = world(dialect);
        let unmap = DmaUnmap { argsz: 24, flags: 4, iova: 0x10000, size: 0x2000 };
        let request = ioctl::VFIO_IOMMU_UNMAP_DMA;
        assert_eq!(world.container_with(c, request, unmap.as_bytes()), Ok(0));
        (world.client.mm, world.client.memlock, world.client.may_lock) = (MmId(2), 0, false);
        let rules = order::map(dialect, order::Map::Update);
        let mut update = |size| {
            let map = DmaMap { argsz: 32, flags: 4, vaddr: BUF, iova: 0x10000, size };
            world.client.args[..32].copy_from_slice(map.as_bytes());
            let map = ioctl::VFIO_IOMMU_MAP_DMA;
            let refusal = world.with(|s, ctx| s.container_ioctl(c, ctx, map, ARGS)).unwrap_err();
            failed(&rules, &refusal, dialect).says
        };
        assert_eq!(update(0x1000), "iova and size are exactly the mapping's");
        assert_eq!(update(0x2000), rules.last().unwrap().says);
        assert_eq!(rules.last().unwrap().errno, Errno::ENOMEM);
    }
}

#[test]
fn a_private_mapping_of_a_region() {
    let (mut world, _) = world(&Dialect::V7_3);
    let rules = order::mmap_region();
    let mut mmap = |offset, shared| {
        let mapped = world.device(EDU, |device, _| device.mmap(offset, 0x1000_0000, shared));
        failed(&rules, &mapped.unwrap_err().into(), &Dialect::V7_3).says
    };
    // Configuration space, and beyond its end too.
    assert_eq!(mmap(7 << 40, false), "the mapping is shared (MAP_SHARED)");
    assert_eq!(mmap(7 << 40, true), "the region is a BAR");
}
