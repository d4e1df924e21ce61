//! An ioctl with its structure, as far as it is known here.

use std::fmt::{self, Write as _};

use uapi::container::Extension;
use uapi::irq::{IrqIndex, IrqSet, IrqSetFlags};
use uapi::parse::{read_padded, read_prefix};
use uapi::region::RegionInfo;
use uapi::type1::{DmaMap, DmaUnmap, MapFlags, UnmapFlags};
use uapi::{RequestKind, ioctl};

use crate::watch::{Piece, Target, bytes_at};

/// Descriptors of a list that are shown.
const SHOWN: usize = 8;

/// `NAME(arguments)`.
pub(super) fn write(
    out: &mut String,
    target: Target,
    request: u32,
    arg: u64,
    read: &[Piece],
    written: &[Piece],
) -> fmt::Result {
    let kind = match target {
        Target::Container(_) => RequestKind::Container,
        Target::Group(_) => RequestKind::Group,
        Target::Device(_) => RequestKind::Device,
    };
    let Some(name) = uapi::Request::new(kind, request).name() else {
        return write!(out, "ioctl({request:#x}, {arg:#x})");
    };
    let name = ["VFIO_IOMMU_", "VFIO_GROUP_", "VFIO_DEVICE_", "VFIO_"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    write!(out, "{name}(")?;
    let bytes = |len| bytes_at(read, arg, len);
    match (target, request) {
        (Target::Container(_), ioctl::VFIO_GET_API_VERSION)
        | (Target::Group(_), ioctl::VFIO_GROUP_UNSET_CONTAINER)
        | (Target::Device(_), ioctl::VFIO_DEVICE_RESET) => {}
        (Target::Container(_), ioctl::VFIO_CHECK_EXTENSION | ioctl::VFIO_SET_IOMMU) => {
            match u32::try_from(arg).ok().and_then(|number| Extension::try_from(number).ok()) {
                Some(extension) => out.write_str(extension.name())?,
                None => write!(out, "{arg:#x}")?,
            }
        }
        (Target::Container(_), ioctl::VFIO_IOMMU_MAP_DMA) => {
            let map: DmaMap = read_padded(&bytes(32));
            let (iova, size, vaddr) = (map.iova, Size(map.size), map.vaddr);
            let flags = MapFlags::from_bits_retain(map.flags);
            write!(out, "iova={iova:#x}, size={size}, vaddr={vaddr:#x}, {flags}")?;
        }
        (Target::Container(_), ioctl::VFIO_IOMMU_UNMAP_DMA) => {
            let unmap: DmaUnmap = read_padded(&bytes(24));
            write!(out, "iova={:#x}, size={}", unmap.iova, Size(unmap.size))?;
            if unmap.flags != 0 {
                write!(out, ", {}", UnmapFlags::from_bits_retain(unmap.flags))?;
            }
            let size = bytes_at(written, arg.wrapping_add(16), 8);
            if let Some(size) = read_prefix::<[u8; 8]>(&size).map(u64::from_le_bytes) {
                write!(out, " => size={}", Size(size))?;
            }
        }
        (Target::Group(_), ioctl::VFIO_GROUP_SET_CONTAINER) => {
            let fd = read_prefix::<[u8; 4]>(&bytes(4)).map_or(-1, i32::from_le_bytes);
            write!(out, "fd {fd}")?;
        }
        (Target::Group(_), ioctl::VFIO_GROUP_GET_DEVICE_FD) => {
            let name = bytes(64);
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            write!(out, "{:?}", String::from_utf8_lossy(&name[..end]))?;
        }
        (Target::Device(_), ioctl::VFIO_DEVICE_GET_REGION_INFO) => {
            let asked: RegionInfo = read_padded(&bytes(32));
            write!(out, "index={}", asked.index)?;
            let after = bytes_at(written, arg, 32);
            if let Some(info) = read_prefix::<RegionInfo>(&after) {
                let (size, offset) = (Size(info.size), info.offset);
                write!(out, " => size={size}, offset={offset:#x}, flags={:#x}", info.flags)?;
            }
        }
        (Target::Device(_), ioctl::VFIO_DEVICE_SET_IRQS) => set_irqs(out, &bytes(20), arg, read)?,
        _ => {
            let words = bytes(8);
            match (read_prefix::<[u8; 4]>(&words), words.get(4..).and_then(read_prefix::<[u8; 4]>))
            {
                (Some(argsz), Some(flags)) => {
                    let (argsz, flags) = (u32::from_le_bytes(argsz), u32::from_le_bytes(flags));
                    write!(out, "argsz={argsz}, flags={flags:#x}")?;
                }
                _ => write!(out, "{arg:#x}")?,
            }
        }
    }
    out.write_str(")")
}

fn set_irqs(out: &mut String, head: &[u8], arg: u64, read: &[Piece]) -> fmt::Result {
    let set: IrqSet = read_padded(head);
    match IrqIndex::try_from(set.index) {
        Ok(index) => out.write_str(index.name().trim_start_matches("VFIO_PCI_"))?,
        Err(_) => write!(out, "index={}", set.index)?,
    }
    let flags = IrqSetFlags::from_bits_retain(set.flags);
    write!(out, ", {flags}, start={}, count={}", set.start, set.count)?;
    if flags.contains(IrqSetFlags::DATA_EVENTFD) {
        let count = usize::try_from(set.count).unwrap_or(usize::MAX);
        let len = count.min(SHOWN) * 4;
        let fds = bytes_at(read, arg.wrapping_add(20), len);
        let fds = fds.chunks_exact(4).filter_map(read_prefix::<[u8; 4]>).map(i32::from_le_bytes);
        let fds: Vec<String> = fds.map(|fd| fd.to_string()).collect();
        let more = if count > SHOWN { ", ..." } else { "" };
        write!(out, ", [{}{more}]", fds.join(", "))?;
    }
    Ok(())
}

/// Bytes; a whole number of KiB or more with its letter, as people write it.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{:#x}", self.0)
    }
}
