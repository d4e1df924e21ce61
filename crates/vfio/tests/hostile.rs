//! Hosts and functions that no machine has, and a front end and a client that do anything in any
//! order: nothing panics, nothing loops, and in the end nothing is held.

mod common;
#[path = "common/hosts.rs"]
mod hosts;

use common::{ARGS, BUF, World};
use devices::{Constant, Edu, Shape};
use iommu::{
    Dialect, Group, Host, InterruptController, Iommu, IovaRange, Limits, MsiPolicy, PageSizes,
    Prot, ReservedKind, ReservedRegion,
};
use pci::{Bar, BarKind, Bdf, ConfigSpace};
use proptest::collection::vec;
use proptest::prelude::*;
use softvfio_vfio::device::{IntxLine, Mmio, PciFunction};
use softvfio_vfio::{ContainerId, DeviceId, Driver, EventId, FdObject, GroupId, System};
use uapi::{Errno, ioctl};

/// Numbers that something may depend on.
fn word() -> impl Strategy<Value = u64> {
    const NEAR: [u64; 12] = [0, 1, 2, 4, 8, 16, 20, 32, 48, 64, 0xfff, 0x1000];
    prop_oneof![
        6 => prop::sample::select(&NEAR[..]),
        3 => (0..64_u32, 0..3_u64).prop_map(|(bit, less)| (1_u64 << bit).wrapping_sub(less)),
        2 => (0..0x400_u64).prop_map(|page| page << 12),
        1 => Just(BUF),
        1 => Just(ARGS + 0xff8),
        1 => (0..0x20_u64).prop_map(|less| u64::MAX - less),
        1 => any::<u64>(),
    ]
}

fn range() -> impl Strategy<Value = IovaRange> {
    let sorted = |(a, b): (u64, u64)| IovaRange::new(a.min(b), a.max(b)).unwrap();
    prop_oneof![(word(), word()).prop_map(sorted), Just(IovaRange::ALL)]
}

fn iommu() -> impl Strategy<Value = Iommu> {
    (range(), word(), range(), any::<[bool; 5]>()).prop_map(|(aperture, sizes, window, b)| Iommu {
        kind: "any".into(),
        aperture,
        page_sizes: PageSizes(sizes),
        write_only: b[0],
        msi: if b[1] { MsiPolicy::Implicit } else { MsiPolicy::Fixed { window } },
        msi_isolated: b[2],
        coherent: b[3],
        nests: b[4],
    })
}

fn group(number: u32) -> impl Strategy<Value = Group> {
    const KINDS: [ReservedKind; 4] = [
        ReservedKind::DirectRelaxable,
        ReservedKind::Reserved,
        ReservedKind::Msi,
        ReservedKind::SwMsi,
    ];
    let region = (range(), prop::sample::select(&KINDS[..])).prop_map(|(range, kind)| {
        ReservedRegion { range, kind, prot: Prot::WRITE, owner: "any".into() }
    });
    (0..3_usize, 0..3_usize, vec(region, 0..3)).prop_map(move |(iommu, controller, reserved)| {
        // Names that parse, and one that does not.
        let devices = vec![format!("0000:{number:02x}:00.0"), "?".into()];
        Group { number, iommu, controller, devices, reserved }
    })
}

fn host() -> impl Strategy<Value = Host> {
    let controller = (word(), any::<bool>()).prop_map(|(doorbell, dynamic_msix)| {
        InterruptController { kind: "any".into(), doorbell, dynamic_msix }
    });
    let page_size = prop_oneof![4 => Just(0x1000), 1 => word()];
    let limits = (prop_oneof![Just(0), Just(3), Just(u32::MAX)], any::<bool>());
    let groups = (group(0), group(1), group(1), 0..4_usize);
    (0..3_usize, page_size, vec(iommu(), 0..3), vec(controller, 0..3), groups, limits).prop_map(
        |(dialect, page_size, iommus, controllers, (a, b, c, n), (dma_entry_limit, unsafe_ok))| {
            Host {
                name: "any".into(),
                dialect: Dialect::ALL[dialect].clone(),
                page_size,
                iommus,
                controllers,
                groups: [a, b, c].into_iter().take(n).collect(),
                limits: Limits { dma_entry_limit, allow_unsafe_interrupts: unsafe_ok },
            }
        },
    )
}

#[derive(Clone, Debug)]
struct Part {
    edu: bool,
    group: u32,
    config: Vec<u8>,
    config_size: usize,
    bars: [Option<Bar>; 7],
    line: IntxLine,
}

fn part() -> impl Strategy<Value = Part> {
    let bar = (word(), word(), 0..5_u8).prop_map(|(start, size, kind)| {
        let kind = match kind {
            0 => BarKind::Io,
            k => BarKind::Memory { prefetchable: k & 1 != 0, is_64: k & 2 != 0 },
        };
        Some(Bar { start, size, kind })
    });
    let bars = vec(prop_oneof![bar, Just(None)], 7).prop_map(|b| b.try_into().unwrap());
    let line = prop_oneof![Just(IntxLine::None), Just(IntxLine::Level), Just(IntxLine::Rise)];
    // Capabilities anywhere: an offset, an id, where the list goes on, what follows.
    let standard = vec((any::<u8>(), 0..0x16_u8, any::<u8>(), any::<[u8; 10]>()), 0..6);
    let extended = vec((0x40..0x400_u16, 0..0x26_u16, 0x40..0x400_u16, any::<[u8; 8]>()), 0..6);
    let first = (any::<u8>(), any::<u8>());
    (any::<bool>(), 0..3_u32, (first, standard, extended), any::<bool>(), bars, line).prop_map(
        |(edu, group, ((first, pin), standard, extended), long, bars, line)| {
            let mut config = vec![0_u8; 4112];
            for (at, id, next, rest) in standard {
                let bytes = [&[id, next][..], &rest].concat();
                config[usize::from(at)..][..12].copy_from_slice(&bytes);
            }
            for (at, id, next, rest) in extended {
                let [a, b] = id.to_le_bytes();
                let [c, d] = (next << 6 | 1).to_le_bytes();
                let bytes = [&[a, b, c, d][..], &rest].concat();
                config[usize::from(at << 2)..][..12].copy_from_slice(&bytes);
            }
            config.truncate(4096);
            (config[6], config[0x34], config[0x3d]) = (config[6] | 0x10, first, pin & 1);
            let config_size = if long { 4096 } else { 256 };
            Part { edu, group, config, config_size, bars, line }
        },
    )
}

fn world(host: Host, parts: &[Part]) -> World {
    let mut models: Vec<Box<dyn pci::Device>> = Vec::new();
    let mut functions = Vec::new();
    for (bus, part) in (0_u8..).zip(parts) {
        let bdf = Bdf::new(0, bus, 0, 0).unwrap();
        let function = PciFunction::new(bdf, GroupId(part.group), part.bars);
        functions.push(PciFunction {
            line: part.line,
            on_root_bus: bus == 0,
            ..function.with_reset_methods("flr")
        });
        let size = pci::ConfigSize::of(part.config_size);
        let config = ConfigSpace::from_bytes(&part.config, size, &part.bars);
        models.push(if part.edu {
            Box::new(Edu::with_config(config))
        } else {
            let constant = Constant { bar: 0, offset: u64::MAX, bytes: vec![1; 9] };
            let rom = vec![0x55; 3];
            Box::new(Shape::new(&part.config, part.config_size, &part.bars, rom, vec![constant]))
        });
    }
    // One function has no model.
    functions.push(PciFunction::new(Bdf::new(0, 9, 0, 0).unwrap(), GroupId(0), [None; 7]));
    World::new(System::new(host, functions), models)
}

#[derive(Clone, Debug)]
enum Step {
    Container(u32, u32, Vec<u64>, u64),
    Group(u32, u32, Vec<u64>, u64),
    Device(u32, u32, Vec<u64>, u64),
    Transfer { device: u32, region: u64, offset: u64, data: Vec<u8>, write: bool },
    Edu { device: u32, register: u64, value: u64 },
    Mmap { device: u32, offset: u64, len: u64, shared: bool },
    Mmio { device: u32, bar: u8, offset: u64, len: usize, write: bool },
    Event { device: u32, event: u32 },
    Open(u32),
    Join(u32, u8),
    Take(u32, u32),
    Close(u8, u32),
    Bind(u32, bool),
    Bar0(u32, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let request = || prop_oneof![9 => 0x3b64..0x3b7a_u32, 1 => any::<u32>()];
    let words = || vec(word(), 0..9);
    let at = || prop_oneof![8 => Just(ARGS), 1 => Just(ARGS + 0xfe8), 1 => word()];
    let data = prop_oneof![vec(any::<u8>(), 0..10), vec(any::<u8>(), 4000..5000)];
    let device = || 0..5_u32;
    prop_oneof![
        8 => (0..3_u32, request(), words(), at()).prop_map(|(c, r, w, a)| Step::Container(c, r, w, a)),
        2 => (0..3_u32, request(), words(), at()).prop_map(|(g, r, w, a)| Step::Group(g, r, w, a)),
        8 => (device(), request(), words(), at()).prop_map(|(d, r, w, a)| Step::Device(d, r, w, a)),
        6 => (device(), 0..11_u64, word(), data, any::<bool>()).prop_map(
            |(device, region, offset, data, write)| Step::Transfer { device, region, offset, data, write }
        ),
        2 => (device(), 0..0xa0_u64, word())
            .prop_map(|(device, at, value)| Step::Edu { device, register: at & !7, value }),
        1 => (device(), word(), word(), any::<bool>())
            .prop_map(|(device, offset, len, shared)| Step::Mmap { device, offset, len, shared }),
        1 => (device(), 0..8_u8, word(), 0..20_usize, any::<bool>())
            .prop_map(|(device, bar, offset, len, write)| Step::Mmio { device, bar, offset, len, write }),
        1 => (device(), 0..40_u32).prop_map(|(device, event)| Step::Event { device, event }),
        1 => (0..3_u32).prop_map(Step::Open),
        3 => (0..3_u32, 0..3_u8).prop_map(|(group, container)| Step::Join(group, container)),
        3 => (0..3_u32, device()).prop_map(|(group, device)| Step::Take(group, device)),
        2 => (0..3_u8, 0..5_u32).prop_map(|(kind, id)| Step::Close(kind, id)),
        1 => (device(), any::<bool>()).prop_map(|(device, host)| Step::Bind(device, host)),
        1 => (device(), word()).prop_map(|(device, base)| Step::Bar0(device, base)),
    ]
}

fn put(w: &mut World, at: usize, words: &[u64]) {
    for (slot, word) in w.client.args[at..].chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes()[..4]);
    }
}

fn take(w: &mut World, group: u32, device: u32) {
    let Some(name) = w.system.function(DeviceId(device)).map(|f| f.name.clone()) else {
        return;
    };
    let name = [name.as_bytes(), &[0]].concat();
    let _ = w.group_with(GroupId(group), ioctl::VFIO_GROUP_GET_DEVICE_FD, &name);
}

fn close(w: &mut World, kind: u8, id: u32) {
    match kind {
        0 => w.containers.close(ContainerId(id)),
        1 => w.with(|s, ctx| s.close_group(GroupId(id), ctx)),
        _ => w.with(|s, ctx| s.close_device(DeviceId(id), ctx)),
    }
}

fn run(w: &mut World, step: Step) {
    match step {
        Step::Container(id, request, words, arg) => {
            // 64-bit fields after the first two words.
            for (i, word) in words.iter().skip(2).enumerate() {
                w.client.args[8 + i * 8..][..8].copy_from_slice(&word.to_le_bytes());
            }
            put(w, 0, &words[..words.len().min(2)]);
            let _ = w.container(ContainerId(id), request, arg);
        }
        Step::Group(id, request, words, arg) => {
            put(w, 0, &words);
            let _ = w.with(|s, ctx| s.group_ioctl(GroupId(id), ctx, request, arg));
        }
        Step::Device(id, request, words, arg) => {
            put(w, 0, &words);
            let _ = w.with(|s, ctx| s.device_ioctl(DeviceId(id), ctx, request, arg));
        }
        Step::Transfer { device, region, offset, mut data, write } => {
            let (id, at) = (DeviceId(device), (region << 40).wrapping_add(offset));
            let len = data.len();
            let moved = w.device(id, |d, up| {
                if write { d.write(up, at, &data) } else { d.read(up, at, &mut data) }
            });
            assert!(moved.is_err() || moved.is_ok_and(|n| n <= len));
        }
        Step::Edu { device, register, value } => {
            let data = value.to_le_bytes();
            let _ = w.device(DeviceId(device), |d, up| d.write(up, register, &data));
        }
        Step::Mmap { device, offset, len, shared } => {
            let _ = w.device(DeviceId(device), |d, _| d.mmap(offset, len, shared));
            let _ = w.device(DeviceId(device), |d, _| Ok(d.decodes_memory()));
        }
        Step::Mmio { device, bar, offset, len, write } => {
            let mut data = vec![0; len];
            let access = if write { Mmio::Write(&data) } else { Mmio::Read(&mut data) };
            let _ = w.device(DeviceId(device), |d, up| d.mmio(up, bar, offset, access));
        }
        Step::Event { device, event } => {
            let _ = w.device(DeviceId(device), |d, up| {
                d.event_fired(up, EventId(event));
                Ok(())
            });
            let _ = w.device(DeviceId(device), |d, up| Ok(d.run(up)));
        }
        Step::Open(group) => drop(w.system.open_group(GroupId(group))),
        Step::Join(group, container) => {
            let fd = 3 + i32::from(container);
            let _ =
                w.group_with(GroupId(group), ioctl::VFIO_GROUP_SET_CONTAINER, &fd.to_ne_bytes());
            let _ = w.container(ContainerId(container.into()), ioctl::VFIO_SET_IOMMU, 3);
        }
        Step::Take(group, device) => take(w, group, device),
        Step::Close(kind, id) => close(w, kind, id),
        Step::Bind(device, host) => {
            w.system.unbind(DeviceId(device));
            let driver = if host { "e1000e" } else { "vfio-pci" };
            let _ = w.system.bind(DeviceId(device), Driver::named(driver));
        }
        Step::Bar0(device, base) => {
            let _ = w.device(DeviceId(device), |d, _| {
                d.set_bar0_base(base);
                Ok(())
            });
        }
    }
}

#[test]
fn a_group_that_is_not_there_joins_nothing() {
    let mut w = world(hosts::mixed(&Dialect::V7_3), &[]);
    let container = w.open_container(3);
    let fd = 3_i32.to_ne_bytes();
    let joined = w.group_with(GroupId(99), ioctl::VFIO_GROUP_SET_CONTAINER, &fd);
    assert_eq!(joined, Err(Errno::ENOENT));
    w.containers.close(container);
    assert!(w.containers.get(container).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_panics_and_nothing_is_left(
        host in host(),
        parts in vec(part(), 0..4),
        steps in vec(step(), 0..120),
    ) {
        let mut w = world(host, &parts);
        for container in 0..3 {
            w.open_container(3 + container);
        }
        // Descriptors that are no eventfd, and some that are.
        w.client.fds.insert(6, FdObject::Group(GroupId(1)));
        w.client.fds.extend([(1, FdObject::Other), (2, FdObject::Other), (32, FdObject::Other)]);
        for group in 0..3 {
            run(&mut w, Step::Open(group));
            run(&mut w, Step::Join(group, 0));
            for device in 0..parts.len() as u32 + 1 {
                take(&mut w, group, device);
            }
        }
        for step in steps {
            run(&mut w, step);
        }
        for device in 0..5 {
            while w.devices.get(DeviceId(device)).is_some_and(|d| d.is_open()) {
                close(&mut w, 2, device);
            }
        }
        for id in 0..3 {
            close(&mut w, 1, id);
            close(&mut w, 0, id);
        }
        prop_assert!(w.client.pins.is_empty());
        prop_assert_eq!(w.system.shared().locked.pages(iommu::MmId(1)), 0);
        w.containers.drop_dead();
        prop_assert!((0..3).all(|id| w.containers.get(ContainerId(id)).is_none()));
    }
}
