//! A machine with devices, its kernel, and one process.

use std::collections::BTreeSet;

use devices::{Edu, Shape};
use iommu::{Dialect, IovaRange, LockedMemory, MmId, Prot, Translation};
use pci::{Bar, BarKind, Bdf};
use vfio::device::{Device, DeviceRefusal, PciFunction, Upstream};
use vfio::{ContainerId, ContainerTable, Ctx, DeviceId, DeviceTable, FdObject, GroupId, System};

use crate::client::Client;
use crate::{hosts, invariants};

/// Groups with a device in them; the host has more.
const WITH_DEVICE: [u32; 3] = [1, 2, 3];

/// Everything.
pub(super) struct Machine {
    pub(super) system: System,
    pub(super) client: Client,
    pub(super) containers: ContainerTable,
    pub(super) devices: DeviceTable,
}

impl Machine {
    pub(super) fn new(dialect: &Dialect) -> Self {
        let mut functions = Vec::new();
        let mut models: Vec<Box<dyn pci::Device>> = Vec::new();
        for (device, group) in (3u8..).zip(WITH_DEVICE) {
            let bdf = Bdf::new(0, 0, device, 0).expect("a device number below 32");
            // Group 2 has the function with MSI-X and a way to reset it.
            if group == 2 {
                functions.push(
                    PciFunction::new(bdf, GroupId(group), shape_bars()).with_reset_methods("flr"),
                );
                models.push(Box::new(shape()));
            } else {
                functions.push(PciFunction::new(bdf, GroupId(group), Edu::bars()));
                models.push(Box::new(Edu::new()));
            }
        }
        let system = System::new(hosts::mixed(dialect, 0x1000), functions);
        Self {
            devices: DeviceTable::new(&system, models),
            system,
            client: Client::default(),
            containers: ContainerTable::default(),
        }
    }

    /// Runs `f` as a request of the process.
    pub(super) fn with<R>(&mut self, f: impl FnOnce(&mut System, &mut Ctx<'_>) -> R) -> R {
        let mut ctx = Ctx {
            caller: &mut self.client,
            containers: &mut self.containers,
            devices: &mut self.devices,
        };
        f(&mut self.system, &mut ctx)
    }

    /// Runs `f` on a device and what lies upstream of it.
    pub(super) fn on_device<R>(
        &mut self,
        id: DeviceId,
        f: impl FnOnce(&mut Device, &mut Upstream<'_>) -> Result<R, DeviceRefusal>,
    ) -> Result<R, DeviceRefusal> {
        let device = self.devices.get_mut(id).ok_or(DeviceRefusal::NotThere)?;
        f(device, &mut Upstream { containers: &mut self.containers, platform: &mut self.client })
    }

    /// The containers that have a descriptor or a group.
    pub(super) fn container_ids(&self) -> BTreeSet<ContainerId> {
        let open = self.client.fds.values().filter_map(|object| match object {
            FdObject::Container(id) => Some(*id),
            _ => None,
        });
        let groups = self.system.shared().host.groups.iter().map(|g| GroupId(g.number));
        open.chain(groups.filter_map(|g| self.system.container_of(g))).collect()
    }

    /// Ranges whose edges matter: mappings and holes of every container.
    pub(super) fn landmarks(&self) -> Vec<IovaRange> {
        let mut marks = vec![IovaRange::ALL];
        for type1 in self.container_ids().iter().filter_map(|id| self.containers.get(*id)?.type1())
        {
            marks.extend(type1.space().mappings().map(|(range, _)| range));
            marks.extend(type1.space().valid_ranges());
        }
        marks
    }

    /// Closes a descriptor.
    pub(super) fn close(&mut self, fd: i32) {
        match self.client.fds.remove(&fd) {
            Some(FdObject::Container(id)) => self.containers.close(id),
            Some(FdObject::Group(id)) => self.with(|system, ctx| system.close_group(id, ctx)),
            Some(FdObject::Device(id)) => self.with(|system, ctx| system.close_device(id, ctx)),
            _ => {}
        }
        self.containers.drop_dead();
    }

    /// What holds after every request.
    pub(super) fn check(&self) {
        let mut met = BTreeSet::new();
        for id in self.container_ids() {
            let container = self.containers.get(id).expect("a container that is referred to");
            for group in container.groups() {
                assert_eq!(self.system.container_of(*group), Some(id), "group {group} is in two");
            }
            if let Some(type1) = container.type1() {
                let more = invariants::check(type1.space(), &self.client.pins);
                assert!(met.is_disjoint(&more), "two containers share a pin");
                met.extend(more);
            }
        }
        let live = self.client.pins.live();
        assert!(met.iter().eq(live.keys()), "pins met through mappings, and pins held");
        let locked = self.system.shared().locked.pages(MmId(0));
        assert_eq!(locked, self.client.pins.charged_pages(), "locked pages");
    }

    /// The process ends: nothing may be held.
    pub(super) fn end(mut self) {
        let fds: Vec<i32> = self.client.fds.keys().copied().collect();
        for fd in fds {
            self.close(fd);
        }
        self.check();
        assert!(self.container_ids().is_empty(), "a container outlives its process");
        assert!(self.client.pins.live().is_empty(), "memory stays pinned");
        assert!(self.client.events.is_empty(), "eventfds stay held: {:?}", self.client.events);
        assert_eq!(self.system.shared().locked, LockedMemory::default());
    }

    /// Whether a container's devices could reach any byte of `range`.
    pub(super) fn reaches(&self, id: ContainerId, range: IovaRange) -> bool {
        let Some(type1) = self.containers.get(id).and_then(|c| c.type1()) else { return false };
        let group = type1.space().domains().first().and_then(|d| d.members().first());
        let group = group.map_or(0, |m| m.group);
        [range.first(), range.last()].into_iter().any(|iova| {
            [Prot::READ, Prot::WRITE].into_iter().any(|access| {
                let answer = type1.space().translate(group, iova, access);
                matches!(answer, Ok(Translation::Memory { .. }))
            })
        })
    }

    /// The device a descriptor refers to.
    pub(super) fn device(&self, fd: i32) -> Option<DeviceId> {
        match self.client.fds.get(&fd) {
            Some(FdObject::Device(id)) => Some(*id),
            _ => None,
        }
    }
}

fn shape_bars() -> [Option<Bar>; 7] {
    let bar = |start, size, is_64| {
        Some(Bar { start, size, kind: BarKind::Memory { prefetchable: false, is_64 } })
    };
    let ports = Some(Bar { start: 0xc000, size: 32, kind: BarKind::Io });
    [
        bar(0xfe00_0000, 0x2_0000, false),
        None,
        ports,
        bar(0xfe10_0000, 0x4000, true),
        None,
        None,
        bar(0xfe20_0000, 0x1000, false),
    ]
}

/// A function with power management, MSI, PCI Express and MSI-X: its table is in BAR 3.
fn shape() -> Shape {
    let mut config = vec![0; 0x100];
    for (at, bytes) in [
        (0x00, &[0x86, 0x80, 0xd3, 0x10, 0, 0, 0x10, 0, 0, 0, 0, 2][..]),
        (0x10, &[0, 0, 0, 0xfe, 0, 0, 0, 0, 1, 0xc0, 0, 0, 4, 0, 0x10, 0xfe]),
        (0x30, &[0, 0, 0x20, 0xfe, 0x40]),
        (0x3c, &[11, 1]),
        (0x40, &[0x01, 0x50, 0x23, 0xc8, 0, 0, 0, 0]),
        (0x50, &[0x05, 0x70, 0x88, 0x01, 0, 0, 0, 0]),
        (0x70, &[0x10, 0xa0, 0x02, 0, 0, 0, 0, 0x10]),
        (0xa0, &[0x11, 0, 7, 0, 3, 0, 0, 0, 3, 0x20, 0, 0]),
    ] {
        config[at..at + bytes.len()].copy_from_slice(bytes);
    }
    Shape::new(&config, 4096, &shape_bars(), vec![0x55, 0xaa, 1], Vec::new())
}
