//! The machine of the x86-intel recordings: its functions, as their traces' headers have them.

#![allow(dead_code, reason = "each test file uses its part")]

use devices::{Constant, Edu, Shape};
use iommu::{
    Dialect, Group, Host, InterruptController, Iommu, IovaRange, Limits, MsiPolicy, PageSizes,
    Prot, ReservedKind, ReservedRegion,
};
use pci::{Bar, ConfigSize, ConfigSpace};
use softvfio_vfio::device::{IntxLine, PciFunction};
use softvfio_vfio::{DeviceId, FdObject, GroupId, System};
use uapi::Errno;
use uapi::ioctl::{VFIO_GROUP_GET_DEVICE_FD, VFIO_GROUP_SET_CONTAINER, VFIO_SET_IOMMU};

use crate::common::{ARGS, World};

pub(crate) struct Recorded {
    name: &'static str,
    group: u32,
    reset_method: &'static str,
    config_size: usize,
    /// BAR or ROM, first byte, last byte, flags.
    resources: &'static [(usize, u64, u64, u64)],
    config: &'static str,
}

pub(crate) const EDU: DeviceId = DeviceId(0);
pub(crate) const NIC: DeviceId = DeviceId(1);
pub(crate) const NVME: DeviceId = DeviceId(2);
pub(crate) const SH1: DeviceId = DeviceId(3);

const FUNCTIONS: [Recorded; 6] = [
    Recorded {
        name: "0000:00:03.0",
        group: 1,
        reset_method: "",
        config_size: 256,
        resources: &[(0, 0xfe40_0000, 0xfe4f_ffff, 0x40200)],
        config: "3412e811030110001000ff0000000000000040fe000000000000000000000000\
                 000000000000000000000000f41a00110000000040000000000000000b010000\
                 05008000",
    },
    Recorded {
        name: "0000:00:05.0",
        group: 3,
        reset_method: "pm",
        config_size: 4096,
        resources: &[
            (0, 0xfe64_0000, 0xfe65_ffff, 0x40200),
            (1, 0xfe66_0000, 0xfe67_ffff, 0x40200),
            (2, 0xd040, 0xd05f, 0x40101),
            (3, 0xfe68_0000, 0xfe68_3fff, 0x40200),
            (6, 0xfe60_0000, 0xfe63_ffff, 0x46200),
        ],
        config: "8680d310070110000000000200000000000064fe000066fe41d00000000068fe\
                 00000000000000000000000086800000000060fec8000000000000000a010000\
                 0000000000000000000000000000000000000000000000000000000000000000\
                 0000000000000000000000000000000000000000000000000000000000000000\
                 0000000000000000000000000000000000000000000000000000000000000000\
                 1100040003000000032000000000000000000000000000000000000000000000\
                 000000000000000001d022000300000005e08000000000000000000000000000\
                 10a0910020800000000000001104000000001100000000000000000000000000\
                 010002140000000000004002302046000000000000e00000a000000000000000\
                 0000000000000000000000000000000000000000000000000000000000000000\
                 03000100563412ffff005452",
    },
    Recorded {
        name: "0000:01:00.0",
        group: 7,
        reset_method: "flr bus",
        config_size: 4096,
        resources: &[(0, 0xfe20_0000, 0xfe20_3fff, 0x14_0204)],
        config: "361b1000070110000202080100000000040020fe000000000000000000000000\
                 000000000000000000000000f41a00110000000040000000000000000b010000\
                 1180400000200000003000000000000000000000000000000000000000000000\
                 010003000b000000000000000000000000000000000000000000000000000000\
                 1060020020800010000000001104000000001100000000000000000000000000\
                 00000000000000003000000000000000",
    },
    Recorded {
        name: "0000:03:01.0",
        group: 8,
        reset_method: "bus",
        config_size: 256,
        resources: &[(0, 0xfdc0_0000, 0xfdcf_ffff, 0x40200)],
        config: "3412e811030110001000ff00000000000000c0fd000000000000000000000000\
                 000000000000000000000000f41a00110000000040000000000000000a010000\
                 05008000",
    },
    Recorded {
        name: "0000:03:02.0",
        group: 8,
        reset_method: "",
        config_size: 256,
        resources: &[(0, 0xfdd0_0000, 0xfddf_ffff, 0x40200)],
        config: "3412e811030110001000ff00000000000000d0fd000000000000000000000000\
                 000000000000000000000000f41a00110000000040000000000000000a010000\
                 05008000",
    },
    Recorded {
        name: "0000:03:03.0",
        group: 8,
        reset_method: "",
        config_size: 256,
        resources: &[
            (0, 0xfde4_0000, 0xfde5_ffff, 0x40200),
            (1, 0xc000, 0xc03f, 0x40101),
            (6, 0xfde0_0000, 0xfde3_ffff, 0x46200),
        ],
        config: "86800e100301000003000002000000000000e4fd01c000000000000000000000\
                 000000000000000000000000f41a00110000e0fd00000000000000000b010000",
    },
];

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks_exact(2).map(byte).collect()
}

fn model(recorded: &Recorded, bars: &[Option<Bar>; 7]) -> Box<dyn pci::Device> {
    let config = bytes(recorded.config);
    if config.starts_with(&[0x34, 0x12]) {
        let size = ConfigSize::of(recorded.config_size);
        return Box::new(Edu::with_config(ConfigSpace::from_bytes(&config, size, bars)));
    }
    let (rom, registers) = match recorded.group {
        3 => (bytes("55aa93e9"), bytes("41021418")),
        7 => (Vec::new(), bytes("ff07010f")),
        _ => (Vec::new(), Vec::new()),
    };
    let constants = vec![Constant { bar: 0, offset: 0, bytes: registers }];
    Box::new(Shape::new(&config, recorded.config_size, bars, rom, constants))
}

/// The machine, with the answers of a kernel.
pub(crate) fn machine(dialect: &Dialect) -> World {
    let mut functions = Vec::new();
    let mut models: Vec<Box<dyn pci::Device>> = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    for recorded in &FUNCTIONS {
        let mut bars = [None; 7];
        for (index, first, last, flags) in recorded.resources {
            bars[*index] = Bar::from_resource(*first, *last, *flags);
        }
        let bdf = recorded.name.parse().unwrap();
        let mut function = PciFunction::new(bdf, GroupId(recorded.group), bars)
            .with_reset_methods(recorded.reset_method);
        function.line = IntxLine::Rise;
        functions.push(function);
        models.push(model(recorded, &bars));
        match groups.iter_mut().find(|g| g.number == recorded.group) {
            Some(group) => group.devices.push(recorded.name.into()),
            None => groups.push(Group {
                number: recorded.group,
                iommu: 0,
                controller: 0,
                devices: vec![recorded.name.into()],
                reserved: vec![ReservedRegion {
                    range: IovaRange::new(0xfee0_0000, 0xfeef_ffff).unwrap(),
                    kind: ReservedKind::Msi,
                    prot: Prot::WRITE,
                    owner: "interrupt remapping".into(),
                }],
            }),
        }
    }
    let host = Host {
        name: "x86-intel".into(),
        dialect: dialect.clone(),
        page_size: 4096,
        iommus: vec![Iommu {
            kind: "vt-d".into(),
            aperture: IovaRange::new(0, (1 << 48) - 1).unwrap(),
            page_sizes: PageSizes(0x4020_1000),
            write_only: false,
            msi: MsiPolicy::Implicit,
            msi_isolated: true,
            coherent: false,
            nests: true,
        }],
        controllers: vec![InterruptController {
            kind: "apic".into(),
            doorbell: 0xfee0_0000,
            dynamic_msix: true,
        }],
        groups,
        limits: Limits::default(),
    };
    World::new(System::new(host, functions), models)
}

/// Opens a device in a container of its own; the container's descriptor is 50.
pub(crate) fn open(world: &mut World, device: DeviceId) {
    let recorded = &FUNCTIONS[device.0 as usize];
    let group = GroupId(recorded.group);
    let container = world.open_container(50);
    world.system.open_group(group).unwrap();
    world.client.fds.insert(60, FdObject::Group(group));
    world.group_with(group, VFIO_GROUP_SET_CONTAINER, &50_i32.to_ne_bytes()).unwrap();
    world.container(container, VFIO_SET_IOMMU, 3).unwrap();
    let name = [recorded.name.as_bytes(), b"\0"].concat();
    world.group_with(group, VFIO_GROUP_GET_DEVICE_FD, &name).unwrap();
}

/// Where configuration space is in a device's file.
pub(crate) const CONFIG: u64 = 7 << 40;
pub(crate) const ROM: u64 = 6 << 40;

pub(crate) fn opened(device: DeviceId) -> World {
    let mut world = machine(&Dialect::V6_12);
    open(&mut world, device);
    world
}

pub(crate) fn read(w: &mut World, device: DeviceId, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
    let mut data = vec![0x55; len];
    let answer = w.device(device, |d, up| d.read(up, at, &mut data));
    let count = answer.map_err(|r| r.errno(&w.system.shared().host.dialect))?;
    data.truncate(count);
    Ok(data)
}

pub(crate) fn write(w: &mut World, device: DeviceId, at: u64, data: &[u8]) -> Result<usize, Errno> {
    let answer = w.device(device, |d, up| d.write(up, at, data));
    answer.map_err(|r| r.errno(&w.system.shared().host.dialect))
}

/// A request with a structure; answers what is in its place afterwards.
pub(crate) fn ioctl(
    w: &mut World,
    device: DeviceId,
    request: u32,
    arg: &str,
) -> Result<Vec<u8>, Errno> {
    w.client.args.fill(0xaa);
    let arg = bytes(arg);
    w.client.args[..arg.len()].copy_from_slice(&arg);
    let answer = w.with(|s, ctx| s.device_ioctl(device, ctx, request, ARGS));
    w.errno(answer)?;
    Ok(w.client.args[..64].to_vec())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
