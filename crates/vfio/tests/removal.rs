//! A device is taken back from its user: requested, given up, gone; and what becomes of its group.

mod common;

use common::{ARGS, World};
use devices::Edu;
use iommu::{
    Dialect, Group, Host, InterruptController, Iommu, IovaRange, Limits, MsiPolicy, PageSizes,
};
use pci::Bdf;
use softvfio_vfio::device::PciFunction;
use softvfio_vfio::{ContainerId, DeviceId, EventId, FdObject, GroupId, Removal, System};
use uapi::Errno;
use uapi::ioctl::{
    VFIO_DEVICE_SET_IRQS, VFIO_GROUP_GET_DEVICE_FD, VFIO_GROUP_GET_STATUS,
    VFIO_GROUP_SET_CONTAINER, VFIO_GROUP_UNSET_CONTAINER, VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_UNMAP_DMA,
    VFIO_SET_IOMMU,
};
use zerocopy::IntoBytes;

const GROUP: GroupId = GroupId(1);
const A: DeviceId = DeviceId(0);
const B: DeviceId = DeviceId(1);
const EVENT: i32 = 60;

/// Two edu devices in a group, behind an IOMMU with user windows; a window registered.
fn world(devices: u8) -> (World, ContainerId) {
    let names = (0..devices).map(|n| format!("0000:00:00.{n}"));
    let host = Host {
        name: "arm".into(),
        dialect: Dialect::V7_3,
        page_size: 0x1000,
        iommus: vec![Iommu {
            kind: "smmuv3".into(),
            aperture: IovaRange::new(0, (1 << 48) - 1).unwrap(),
            page_sizes: PageSizes(0x4020_1000),
            write_only: false,
            msi: MsiPolicy::User { max_windows: 4 },
            msi_isolated: true,
            coherent: false,
            nests: false,
        }],
        controllers: vec![InterruptController {
            kind: "gicv3-its".into(),
            doorbell: 0x808_0040,
            dynamic_msix: true,
        }],
        groups: vec![Group {
            number: 1,
            iommu: 0,
            controller: 0,
            devices: names.clone().collect(),
            reserved: vec![],
        }],
        limits: Limits::default(),
    };
    let function = |name: String| {
        let bdf: Bdf = name.parse().unwrap();
        PciFunction::new(bdf, GROUP, Edu::bars())
    };
    let models = (0..devices).map(|_| Box::new(Edu::new()) as Box<dyn pci::Device>).collect();
    let mut w = World::new(System::new(host, names.map(function).collect()), models);
    let c = w.open_container(3);
    w.client.fds.insert(EVENT, FdObject::Other);
    w.system.open_group(GROUP).unwrap();
    assert_eq!(join(&mut w), Ok(0));
    w.container(c, VFIO_SET_IOMMU, 3).unwrap();
    assert_eq!(window(&mut w, c, VFIO_IOMMU_MAP_DMA), Ok(0));
    (w, c)
}

fn join(w: &mut World) -> Result<i64, Errno> {
    w.group_with(GROUP, VFIO_GROUP_SET_CONTAINER, &3_i32.to_ne_bytes())
}

fn status(w: &mut World) -> Result<i64, Errno> {
    w.group_with(GROUP, VFIO_GROUP_GET_STATUS, [8_u32, 0].as_bytes())
}

fn window(w: &mut World, c: ContainerId, request: u32) -> Result<i64, Errno> {
    if request == VFIO_IOMMU_MAP_DMA {
        let arg = [32 | (1 << 63) | 3 << 32, 0_u64, 0x10_0000, 0x1000];
        return w.container_with(c, request, arg.as_bytes());
    }
    w.container_with(c, request, [24 | (1 << 63), 0x10_0000, 0x1000_u64].as_bytes())
}

fn open(w: &mut World, device: DeviceId) -> Result<i64, Errno> {
    let name = format!("0000:00:00.{}\0", device.0);
    w.group_with(GROUP, VFIO_GROUP_GET_DEVICE_FD, name.as_bytes())
}

fn enable(w: &mut World, device: DeviceId, index: u32) {
    let arg = [24_u32, 0x24, index, 0, 1, EVENT as u32];
    w.client.args[..24].copy_from_slice(arg.as_bytes());
    let answer = w.with(|s, ctx| s.device_ioctl(device, ctx, VFIO_DEVICE_SET_IRQS, ARGS));
    assert_eq!(w.errno(answer), Ok(0));
}

fn remove(w: &mut World, device: DeviceId) -> Removal {
    w.with(|s, ctx| s.remove_device(device, ctx))
}

fn close(w: &mut World, device: DeviceId) {
    w.with(|s, ctx| s.close_device(device, ctx));
}

#[test]
fn a_device_goes_when_its_user_lets_go() {
    let (mut w, c) = world(1);
    open(&mut w, A).unwrap();
    open(&mut w, A).unwrap();
    enable(&mut w, A, 1);
    // Nobody to ask, and it goes on.
    assert_eq!(remove(&mut w, A), Removal::NoChannel);
    assert_eq!(w.client.signals.get(&EventId(EVENT as u32)), None);
    enable(&mut w, A, 4);
    for times in 1..3 {
        assert_eq!(remove(&mut w, A), Removal::Requested);
        assert_eq!(w.client.signals.get(&EventId(EVENT as u32)), Some(&times));
    }
    // No new descriptor; the group is as it was, and open.
    assert_eq!(open(&mut w, A), Err(Errno::ENODEV));
    assert_eq!(status(&mut w), Ok(0));
    let again = w.system.open_group(GROUP).unwrap_err();
    assert_eq!(w.errno(Err(again)), Err(Errno::EBUSY));
    close(&mut w, A);
    assert_eq!(remove(&mut w, A), Removal::Requested);
    assert_eq!(window(&mut w, c, VFIO_IOMMU_UNMAP_DMA), Err(Errno::EBUSY));
    close(&mut w, A);
    // The group's last device took it out of the container: windows ended, the IOMMU is gone.
    assert_eq!(remove(&mut w, A), Removal::Gone);
    assert_eq!(w.system.container_of(GROUP), None);
    assert_eq!(window(&mut w, c, VFIO_IOMMU_UNMAP_DMA), Err(Errno::EINVAL));
    assert_eq!(join(&mut w), Err(Errno::ENODEV));
    assert_eq!(status(&mut w), Err(Errno::ENODEV));
    assert_eq!(open(&mut w, A), Err(Errno::ENODEV));
    let left = w.group_with(GROUP, VFIO_GROUP_UNSET_CONTAINER, &[]);
    assert_eq!(left, Err(Errno::EINVAL));
    w.with(|s, ctx| s.close_group(GROUP, ctx));
    let gone = w.system.open_group(GROUP).unwrap_err();
    assert_eq!(w.errno(Err(gone)), Err(Errno::ENOENT));
}

#[test]
fn a_group_lives_while_vfio_has_a_device_of_it() {
    let (mut w, c) = world(2);
    open(&mut w, B).unwrap();
    // Nobody has the first: it is gone at once, and the group stays.
    assert_eq!(remove(&mut w, A), Removal::Gone);
    assert_eq!(open(&mut w, A), Err(Errno::ENODEV));
    assert_eq!((status(&mut w), w.system.container_of(GROUP)), (Ok(0), Some(c)));
    enable(&mut w, B, 1);
    assert_eq!(remove(&mut w, B), Removal::NoChannel);
    // The group's descriptor is closed before the device's.
    w.with(|s, ctx| s.close_group(GROUP, ctx));
    assert_eq!(w.system.container_of(GROUP), Some(c));
    close(&mut w, B);
    assert_eq!((remove(&mut w, B), w.system.container_of(GROUP)), (Removal::Gone, None));
    assert_eq!(remove(&mut w, DeviceId(7)), Removal::Gone);
}
