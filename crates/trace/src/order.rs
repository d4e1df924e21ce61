//! Which checks a request of a trace meets, in which order: `vfio::order` by operation.

use iommu::Dialect;
use uapi::irq::IrqSetFlags;
use uapi::type1::UnmapFlags;
use uapi::{feature, ioctl};
use vfio::order::{self, Dirty, Irqs, Map, Rule};
use vfio::{Abi, Container, ContainerId, Version};

use crate::names::{DIRTY_FLAGS, IRQ_FLAGS, IRQS, Names, REGIONS, map_flags, unmap_flags};
use crate::process::File;
use crate::request::{Request, low32};
use crate::world::World;

/// The checks of a request.
#[derive(Clone, Debug)]
pub struct Checks {
    /// What Linux calls the request.
    pub request: &'static str,
    /// Where Linux checks it, or what page describes it.
    pub source: &'static str,
    /// The checks, in their order.
    pub rules: Vec<Rule>,
}

/// What is known of the checks of an operation.
#[derive(Clone, Debug)]
pub enum Order {
    /// They are these.
    Checks(Checks),
    /// It is no request of VFIO: why.
    None(&'static str),
}

/// Operations that are no request of VFIO, and what they are instead.
const NOT_VFIO: [(&str, &str); 19] = [
    ("mem", MEMORY),
    ("mem_unmap", MEMORY),
    ("mem_protect", MEMORY),
    ("mem_fill", MEMORY),
    ("mem_read", MEMORY),
    ("open_container", "opening /dev/vfio/vfio checks nothing of VFIO's"),
    ("open_iommufd", "/dev/iommu is not there"),
    ("close", "closing a descriptor checks nothing of VFIO's"),
    ("faults", "it asks what devices met, as a host's log would say"),
    ("eventfd", EVENTFD),
    ("eventfd_read", EVENTFD),
    ("eventfd_write", EVENTFD),
    ("edu_dma", "it is several reads and writes of registers (region_read, region_write)"),
    ("rlimit_memlock", ADMINISTRATOR),
    ("setuid", ADMINISTRATOR),
    ("locked_kb", "it looks at the process' own counters"),
    ("module_param", ADMINISTRATOR),
    ("unbind", ADMINISTRATOR),
    ("remove", ADMINISTRATOR),
];
const MEMORY: &str = "it is the process' own memory, which VFIO does not see";
const EVENTFD: &str = "it is an eventfd, which VFIO only signals or waits for";
const ADMINISTRATOR: &str = "it is what the host's administrator does";
const OTHER_FILE: &str = "the descriptor is none of VFIO's";

const TYPE1: &str = "drivers/vfio/vfio_iommu_type1.c";
const CONTAINER: &str = "drivers/vfio/container.c";
const GROUP: &str = "drivers/vfio/group.c";
const PCI: &str = "drivers/vfio/pci/vfio_pci_core.c";
const IRQ: &str = "drivers/vfio/vfio_main.c, then pci/vfio_pci_intrs.c";
const REGION: &str = "drivers/vfio/pci/vfio_pci_rdwr.c and vfio_pci_config.c";
const WINDOWS: &str = "docs/msi-windows.md";

/// What the members of a request, or the bytes of its argument, say of it.
#[derive(Clone, Copy, Default)]
struct Asked {
    flags: u32,
    index: u32,
}

/// The checks of a request that is about to be carried out, or was refused.
pub(crate) fn of(world: &World, request: Request<'_>) -> Order {
    let dialect = &world.host().dialect;
    let name = request.text_or("op", "").unwrap_or_default();
    let flags = |names: Names, default| request.flags("flags", names, default).unwrap_or(default);
    let container = || world.container(container_of(world, request)?);
    let checks = match &*name {
        "api_version" => checks("VFIO_GET_API_VERSION", CONTAINER, vec![]),
        "check_extension" => checks("VFIO_CHECK_EXTENSION", CONTAINER, vec![]),
        "set_iommu" => set_iommu(dialect),
        "get_info" => checks("VFIO_IOMMU_GET_INFO", TYPE1, order::get_info()),
        "map" => map(world.abi(), dialect, container(), flags(map_flags(world.abi()), 3)),
        "unmap" => unmap(world.abi(), dialect, container(), flags(unmap_flags(world.abi()), 0)),
        "dirty" => dirty(dialect, flags(DIRTY_FLAGS, 0)),
        "open_group" => checks("open of /dev/vfio/GROUP", GROUP, order::open_group()),
        "group_status" => group(ioctl::VFIO_GROUP_GET_STATUS, dialect),
        "set_container" => group(ioctl::VFIO_GROUP_SET_CONTAINER, dialect),
        "unset_container" => group(ioctl::VFIO_GROUP_UNSET_CONTAINER, dialect),
        "get_device_fd" => group(ioctl::VFIO_GROUP_GET_DEVICE_FD, dialect),
        "device_info" => device(ioctl::VFIO_DEVICE_GET_INFO, dialect, Asked::default()),
        "region_info" => device(ioctl::VFIO_DEVICE_GET_REGION_INFO, dialect, Asked::default()),
        "irq_info" => device(ioctl::VFIO_DEVICE_GET_IRQ_INFO, dialect, Asked::default()),
        "reset" => device(ioctl::VFIO_DEVICE_RESET, dialect, Asked::default()),
        "set_irqs" => {
            let index = request.named("index", IRQS, 0).unwrap_or(u32::MAX);
            let asked = Asked { flags: flags(IRQ_FLAGS, 0), index };
            device(ioctl::VFIO_DEVICE_SET_IRQS, dialect, asked)
        }
        "region_read" => checks("pread of a device", REGION, order::read_region(region(request))),
        "region_write" => {
            checks("pwrite of a device", REGION, order::write_region(region(request)))
        }
        "mem" if request.text_or("kind", "").is_ok_and(|kind| kind == "region") => {
            checks("mmap of a device", PCI, order::mmap_region())
        }
        "bind" => checks("a driver's bind in sysfs", "drivers/iommu/iommu.c", order::bind()),
        "ioctl" => match raw(world, dialect, request) {
            Some(checks) => checks,
            None => return Order::None(OTHER_FILE),
        },
        other => {
            let known = NOT_VFIO.iter().find(|(op, _)| *op == other);
            return Order::None(known.map_or("there is no such operation", |(_, why)| why));
        }
    };
    Order::Checks(checks)
}

const fn checks(request: &'static str, source: &'static str, rules: Vec<Rule>) -> Checks {
    Checks { request, source, rules }
}

/// The container that a request is about.
pub(crate) fn container_of(world: &World, request: Request<'_>) -> Option<ContainerId> {
    let op = request.text_or("op", "").ok()?;
    let slot = || Some(world.slots.c[request.slot("c", world.slots.c.len()).ok()?]);
    let fd = match &*op {
        "set_container" | "ioctl" if request.has("fd") => {
            *world.slots.clone().named(&request.text("fd").ok()??)?
        }
        "map" | "unmap" | "dirty" | "get_info" | "set_iommu" | "set_container" | "ioctl" => slot()?,
        _ => {
            let fd = world.slots.d[request.slot("d", world.slots.d.len()).ok()?];
            return world.device_at(fd)?.container();
        }
    };
    match world.process.file(fd)? {
        File::Container(id) => Some(id),
        _ => None,
    }
}

/// The region that an offset in the descriptor's file lies in, without one moved elsewhere.
fn region(request: Request<'_>) -> u32 {
    let index = request.named("region", REGIONS, 7).unwrap_or(u32::MAX);
    let offset = request.number("offset", 0).unwrap_or(0);
    index.saturating_add(uapi::region::split_offset(offset).0)
}

/// Whether MSI windows can be registered: elsewhere their bit is an unknown flag.
fn takes_windows(container: Option<&Container>, abi: Abi) -> bool {
    let type1 = container.and_then(Container::type1);
    abi.window_flag().is_some() && type1.is_none_or(|t| t.space().max_windows().is_some())
}

/// Whether a request with those flags is about MSI windows.
fn about_windows(container: Option<&Container>, abi: Abi, flags: u32) -> bool {
    takes_windows(container, abi) && abi.window_flag().is_some_and(|bit| flags & bit != 0)
}

fn map(abi: Abi, dialect: &Dialect, container: Option<&Container>, flags: u32) -> Checks {
    if about_windows(container, abi, flags) {
        let rules = order::map_window(dialect, abi);
        return checks("VFIO_IOMMU_MAP_DMA of an MSI window", WINDOWS, rules);
    }
    let vaddr = uapi::type1::MapFlags::VADDR.bits();
    let what = match takes_windows(container, abi) {
        _ if abi != Abi::MsiV6 && flags & vaddr != 0 => Map::Update,
        true => Map::NewBesideWindows,
        false => Map::New,
    };
    checks("VFIO_IOMMU_MAP_DMA", TYPE1, order::map(dialect, what))
}

fn unmap(abi: Abi, dialect: &Dialect, container: Option<&Container>, flags: u32) -> Checks {
    let mut known = UnmapFlags::from_bits_truncate(flags);
    known.set(UnmapFlags::VADDR, known.contains(UnmapFlags::VADDR) && abi != Abi::MsiV6);
    if about_windows(container, abi, flags) {
        let rules = order::unmap_window(dialect, known);
        return checks("VFIO_IOMMU_UNMAP_DMA of an MSI window", WINDOWS, rules);
    }
    let version = container.and_then(Container::type1).map_or(Version::V2, |t| t.version());
    checks("VFIO_IOMMU_UNMAP_DMA", TYPE1, order::unmap(dialect, version, known))
}

fn dirty(dialect: &Dialect, flags: u32) -> Checks {
    let what = match flags {
        _ if flags & 4 != 0 => Dirty::GetBitmap,
        _ if flags & 1 != 0 => Dirty::Start,
        _ => Dirty::Stop,
    };
    checks("VFIO_IOMMU_DIRTY_PAGES", TYPE1, order::dirty_pages(dialect, what))
}

fn set_iommu(dialect: &Dialect) -> Checks {
    checks("VFIO_SET_IOMMU", CONTAINER, order::set_iommu(dialect))
}

/// A request of a group's descriptor.
fn group(number: u32, dialect: &Dialect) -> Checks {
    let (request, rules) = match number {
        ioctl::VFIO_GROUP_GET_STATUS => ("VFIO_GROUP_GET_STATUS", order::get_status()),
        ioctl::VFIO_GROUP_SET_CONTAINER => {
            ("VFIO_GROUP_SET_CONTAINER", order::set_container(dialect))
        }
        ioctl::VFIO_GROUP_UNSET_CONTAINER => {
            ("VFIO_GROUP_UNSET_CONTAINER", order::unset_container())
        }
        ioctl::VFIO_GROUP_GET_DEVICE_FD => ("VFIO_GROUP_GET_DEVICE_FD", order::get_device_fd()),
        _ => ("a group's ioctl", order::unknown_group_request()),
    };
    checks(request, GROUP, rules)
}

/// A request of a device's descriptor.
fn device(number: u32, dialect: &Dialect, asked: Asked) -> Checks {
    let (request, source, rules) = match number {
        ioctl::VFIO_DEVICE_GET_INFO => ("VFIO_DEVICE_GET_INFO", PCI, order::device_info()),
        ioctl::VFIO_DEVICE_GET_REGION_INFO => {
            ("VFIO_DEVICE_GET_REGION_INFO", PCI, order::region_info())
        }
        ioctl::VFIO_DEVICE_GET_IRQ_INFO => ("VFIO_DEVICE_GET_IRQ_INFO", PCI, order::irq_info()),
        ioctl::VFIO_DEVICE_SET_IRQS => {
            let flags = IrqSetFlags::from_bits_truncate(asked.flags);
            let rules = order::set_irqs(dialect, Irqs::of(asked.index), flags);
            ("VFIO_DEVICE_SET_IRQS", IRQ, rules)
        }
        ioctl::VFIO_DEVICE_RESET => ("VFIO_DEVICE_RESET", PCI, order::reset()),
        ioctl::VFIO_DEVICE_GET_PCI_HOT_RESET_INFO => {
            ("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", PCI, order::hot_reset_info())
        }
        ioctl::VFIO_DEVICE_PCI_HOT_RESET => {
            ("VFIO_DEVICE_PCI_HOT_RESET", PCI, order::hot_reset(dialect))
        }
        ioctl::VFIO_DEVICE_IOEVENTFD => ("VFIO_DEVICE_IOEVENTFD", PCI, order::ioeventfd()),
        ioctl::VFIO_DEVICE_FEATURE => {
            let number = asked.flags & feature::VFIO_DEVICE_FEATURE_MASK;
            let rules = order::feature(dialect, number);
            ("VFIO_DEVICE_FEATURE", "drivers/vfio/vfio_main.c, then pci/vfio_pci_core.c", rules)
        }
        _ => ("a device's ioctl", PCI, order::unknown_device_request()),
    };
    checks(request, source, rules)
}

/// A request by number, with its argument as bytes.
fn raw(world: &World, dialect: &Dialect, request: Request<'_>) -> Option<Checks> {
    let word = request.text_or("fd", "c0").ok()?;
    let number = low32(request.number("cmd", 0).ok()?);
    let bytes = request.bytes("data", usize::MAX).ok()?.unwrap_or_default();
    let word_at = |at: usize| {
        let bytes = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let asked = Asked { flags: word_at(4).unwrap_or(0), index: word_at(8).unwrap_or(u32::MAX) };
    let fd = *world.slots.clone().named(&word)?;
    Some(match world.process.file(fd)? {
        File::Container(id) => {
            let (abi, container) = (world.abi(), world.container(id));
            match number {
                ioctl::VFIO_GET_API_VERSION => checks("VFIO_GET_API_VERSION", CONTAINER, vec![]),
                ioctl::VFIO_CHECK_EXTENSION => checks("VFIO_CHECK_EXTENSION", CONTAINER, vec![]),
                ioctl::VFIO_SET_IOMMU => set_iommu(dialect),
                ioctl::VFIO_IOMMU_GET_INFO => {
                    checks("VFIO_IOMMU_GET_INFO", TYPE1, order::get_info())
                }
                ioctl::VFIO_IOMMU_MAP_DMA => map(abi, dialect, container, asked.flags),
                ioctl::VFIO_IOMMU_UNMAP_DMA => unmap(abi, dialect, container, asked.flags),
                ioctl::VFIO_IOMMU_DIRTY_PAGES => dirty(dialect, asked.flags),
                _ => {
                    let rules = order::unknown_container_request();
                    checks("a container's ioctl", CONTAINER, rules)
                }
            }
        }
        File::Group(_) => group(number, dialect),
        File::Device(_) => device(number, dialect, asked),
        File::Event(_) | File::Other => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::Members;
    use crate::ops::OPERATIONS;
    use crate::{Options, Reader, Session};

    #[test]
    fn every_operation_has_its_order_written_down_or_is_no_request() {
        let header = r#"{"built_in":"x86-intel"}"#;
        let reader = Reader::new(header.as_bytes(), "s");
        let session = Session::start(reader, &Options::default()).unwrap();
        for op in OPERATIONS {
            let text = serde_json::json!({"op": op}).to_string();
            let found = session.order_of(Request::new(&text, &Members::read(&text).unwrap()));
            // The raw ioctl here is one of a descriptor that is not open.
            let listed = *op == "ioctl" || NOT_VFIO.iter().any(|(name, _)| name == op);
            match found {
                Order::Checks(_) => assert!(!listed, "{op}"),
                Order::None(why) => assert!(listed, "{op}: {why}"),
            }
        }
        for (op, _) in NOT_VFIO {
            assert!(OPERATIONS.contains(&op), "{op} is no operation");
        }
    }
}
