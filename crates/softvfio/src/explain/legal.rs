//! What would have been legal in the place of a refused request.

use iommu::{AttachRefusal, BindRefusal, DirtyRefusal, IovaRange, MapRefusal};
use iommu::{OverLimit, VaddrRefusal, WindowRefusal};
use vfio::Refusal;
use vfio::device::{DeviceRefusal, IrqRefusal};

/// A sentence about it, where the reason does not say it all.
pub(super) fn legal(refusal: &Refusal) -> Option<String> {
    Some(match refusal {
        Refusal::ArgszTooSmall { min, .. }
        | Refusal::Device(DeviceRefusal::ArgszTooSmall { min, .. }) => {
            format!("argsz {min} or more")
        }
        Refusal::UnknownFlags { unknown } if *unknown == WINDOW => {
            "bit 31 registers MSI windows, where an IOMMU of the container lets users choose them. \
             None does here; on the host arm-smmuv3-its-user one does"
                .into()
        }
        Refusal::Misaligned { what, value, granule } => multiples(what, *value, *granule),
        Refusal::Map(MapRefusal::Misaligned { field, value, granule })
        | Refusal::Vaddr(VaddrRefusal::Misaligned { field, value, granule })
        | Refusal::Window(WindowRefusal::Misaligned { field, value, granule }) => {
            multiples(&field.to_string(), *value, *granule)
        }
        Refusal::Wraps { what, first, .. } => {
            format!("at {what} {first:#x}, at most {:#x} bytes", first.wrapping_neg())
        }
        Refusal::Cuts { wanted, existing }
        | Refusal::Dirty(DirtyRefusal::Cuts { wanted, existing }) => {
            whole("with all of that mapping", hull(*wanted, *existing))
        }
        Refusal::Vaddr(VaddrRefusal::NotExact { existing, .. })
        | Refusal::Window(WindowRefusal::NotExact { existing, .. }) => whole("exactly", *existing),
        Refusal::Vaddr(VaddrRefusal::StillValid { .. }) => {
            "UNMAP_DMA with VADDR first, which declares the address invalid".into()
        }
        Refusal::BitmapSize { pages, .. } => match pages.div_ceil(64).saturating_mul(8) {
            0 => "a page size for the bitmap that is no larger than the range".into(),
            needed if needed > BITMAP_MAX => "ranges of at most 2147483648 pages".into(),
            needed => format!("a bitmap of {needed} bytes to 256 MiB"),
        },
        Refusal::BitmapPageSize { granule, .. } => format!("a bitmap for pages of {granule:#x}"),
        Refusal::Dirty(DirtyRefusal::Off) => "DIRTY_PAGES with START first".into(),
        Refusal::DirtyNeedsV2 => "a container whose SET_IOMMU was type1v2 (3)".into(),
        Refusal::NoIommu => "SET_CONTAINER of a group, then SET_IOMMU, first".into(),
        Refusal::HasNoContainer(_) => "SET_CONTAINER first".into(),
        Refusal::NoSuchDevice { .. } => {
            "the address of a device of that group that is bound to vfio-pci, as in 0000:01:00.0"
                .into()
        }
        Refusal::NoSuchType(_) | Refusal::NotAType(_) | Refusal::NoNesting { .. } => {
            "type1v2 (3), or type1 (1)".into()
        }
        Refusal::HasContainer(_) => "UNSET_CONTAINER first".into(),
        Refusal::DevicesOpen { .. } => "all descriptors of its devices closed first".into(),
        Refusal::Map(MapRefusal::NoEntriesLeft { .. }) => {
            "an UNMAP_DMA first, fewer and larger mappings, or a larger dma_entry_limit of \
             vfio_iommu_type1, which SET_IOMMU looks at"
                .into()
        }
        Refusal::Map(MapRefusal::OverLimit(over))
        | Refusal::Vaddr(VaddrRefusal::OverLimit(over))
        | Refusal::Attach(AttachRefusal::OverLimit { error: over, .. }) => locked(over),
        Refusal::Attach(refusal) => attach(refusal)?,
        Refusal::Device(refusal) => device(refusal)?,
        _ => return None,
    })
}

const WINDOW: u32 = 1 << 31;
const BITMAP_MAX: u64 = 256 << 20;

fn multiples(what: &str, value: u64, granule: u64) -> String {
    let below = value & !granule.wrapping_sub(1);
    match below.checked_add(granule) {
        Some(above) if what == "size" && below == 0 => {
            format!("multiples of {granule:#x}: {what} {above:#x}")
        }
        Some(above) => format!("multiples of {granule:#x}: {what} {below:#x}, or {above:#x}"),
        None => format!("multiples of {granule:#x}: {what} {below:#x}"),
    }
}

/// The smallest range with both in it.
fn hull(a: IovaRange, b: IovaRange) -> IovaRange {
    IovaRange::new(a.first().min(b.first()), a.last().max(b.last())).unwrap_or(b)
}

fn whole(how: &str, range: IovaRange) -> String {
    format!("{how}: iova {:#x}, size {:#x}", range.first(), range.size())
}

fn locked(over: &OverLimit) -> String {
    let left = over.limit_pages.saturating_sub(over.locked_pages);
    format!("at most {left} pages more; or a larger RLIMIT_MEMLOCK (ulimit -l), or CAP_IPC_LOCK")
}

fn attach(refusal: &AttachRefusal) -> Option<String> {
    Some(match refusal {
        AttachRefusal::VaddrInvalid { .. } => "MAP_DMA with VADDR of that mapping first".into(),
        AttachRefusal::Aperture { mapping: Some(_), .. }
        | AttachRefusal::Reserved { .. }
        | AttachRefusal::PageSize { .. } => {
            "UNMAP_DMA of that mapping first; or a container of its own for the group".into()
        }
        AttachRefusal::Aperture { .. } | AttachRefusal::NothingValid { .. } => {
            "a container of its own for the group".into()
        }
        AttachRefusal::UnsafeInterrupts { .. } => {
            "allow_unsafe_interrupts=1 of vfio_iommu_type1, where whoever has the device is trusted"
                .into()
        }
        AttachRefusal::Window { .. } => {
            "UNMAP_DMA of that window first; or a container of its own for the group".into()
        }
        _ => return None,
    })
}

fn device(refusal: &DeviceRefusal) -> Option<String> {
    Some(match refusal {
        DeviceRefusal::MemoryOff => {
            "COMMAND.MEMORY (bit 1 at 4 in configuration space) set first, in power state D0".into()
        }
        DeviceRefusal::ListTooShort { needed, .. } => {
            format!("argsz {} or more", needed.saturating_mul(8).saturating_add(12))
        }
        DeviceRefusal::Irq(IrqRefusal::OutOfRange { have: 0, .. }) => {
            "another kind of interrupt: the device has none of these".into()
        }
        DeviceRefusal::Irq(IrqRefusal::OutOfRange { have, .. }) => {
            format!("vectors below {have} (GET_IRQ_INFO has the count)")
        }
        DeviceRefusal::Irq(IrqRefusal::OtherEnabled { .. }) => {
            "the other kind disabled first: DATA_NONE, ACTION_TRIGGER, start 0, count 0".into()
        }
        DeviceRefusal::Irq(IrqRefusal::OneLine { count: 0, .. }) => {
            "start 0, count 1; DATA_NONE with a count of 0 disables INTx, which is not enabled"
                .into()
        }
        DeviceRefusal::Irq(IrqRefusal::NotEnabled(_)) => {
            "DATA_EVENTFD with ACTION_TRIGGER first, which enables".into()
        }
        DeviceRefusal::Irq(IrqRefusal::Doorbell(
            BindRefusal::NoWindow { needed, .. } | BindRefusal::NoWritableWindow { needed },
        )) => format!("MAP_DMA of a writable MSI window of {needed} page(s) or more first"),
        DeviceRefusal::Irq(IrqRefusal::Doorbell(BindRefusal::WindowsFull { needed, .. })) => {
            format!("MSI windows of {needed} pages or more, all together")
        }
        _ => return None,
    })
}
