//! What a container says of itself with one group in it: `VFIO_IOMMU_GET_INFO`, with nothing mapped.
//!
//! No device is opened, and all is closed before the answer is returned. A group that somebody has is
//! left alone: the kernel lets one file have it, and answers EBUSY to the next. Order of requests:
//! `Documentation/driver-api/vfio.rst`.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use uapi::cap::Caps;
use uapi::container::{Extension, VFIO_API_VERSION};
use uapi::group::{GroupFlags, GroupStatus};
use uapi::ioctl::{
    VFIO_CHECK_EXTENSION, VFIO_GET_API_VERSION, VFIO_GROUP_GET_STATUS, VFIO_IOMMU_GET_INFO,
    VFIO_SET_IOMMU,
};
use uapi::type1::{DmaAvailCap, InfoFlags, IovaRangeCap, MigrationCap, Type1Info};
use uapi::windows::MsiWindowsCap;
use zerocopy::{FromBytes, IntoBytes};

use crate::sys::vfio as sys;

/// The container's node.
const CONTAINER: &str = "/dev/vfio/vfio";
/// Bytes of an answer that are believed.
const MOST: u32 = 1 << 20;

/// What a container with one group said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerInfo {
    /// `type1v2`, or `type1` where that is all there is.
    pub iommu_type: &'static str,
    /// One bit per page size.
    pub page_sizes: u64,
    /// First and last bytes of what may be mapped.
    pub ranges: Vec<(u64, u64)>,
    /// Mappings that it takes.
    pub dma_avail: Option<u32>,
    /// Page sizes of dirty tracking, and the largest bitmap in bytes.
    pub migration: (u64, u64),
    /// Whether DMA is coherent with the caches, whatever a device asks.
    pub coherent: bool,
    /// MSI windows that users may register; `None` where the kernel knows no such windows.
    pub max_windows: Option<u32>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// `/dev/vfio/vfio` cannot be opened: no group can be asked.
    #[error("{CONTAINER}: {0}")]
    Container(io::Error),
    /// The container speaks another language, or knows no type1.
    #[error("{CONTAINER} knows no type1 IOMMU")]
    NoType1,
    /// The group's node cannot be opened.
    #[error("/dev/vfio/{group}: {why}")]
    Group {
        /// Its number.
        group: u32,
        /// What the kernel said, for people.
        why: String,
    },
    /// A driver of the host's has a device of the group.
    #[error("group {0}: a driver other than vfio-pci has one of its devices")]
    NotViable(u32),
    /// Interrupts are not isolated from other devices', and `allow_unsafe_interrupts` is not set.
    #[error("group {0}: VFIO_SET_IOMMU is EPERM, as where interrupts are not isolated")]
    NotIsolated(u32),
    /// A request failed.
    #[error("group {group}: {request}: {error}")]
    Request {
        /// The group's number.
        group: u32,
        /// Which request.
        request: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The container is iommufd's, which knows of a group's IOMMU when a device is opened.
    #[error("{CONTAINER} is iommufd's, which knows nothing of a group before a device is opened")]
    Iommufd,
}

impl NoAnswer {
    /// Whether no other group will have a better answer.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Container(_) | Self::NoType1 | Self::Iommufd)
    }
}

/// Asks the container that has a group of this machine, and nothing else.
///
/// # Errors
/// [`NoAnswer`]: nothing is left open then either.
pub fn ask(group: u32) -> Result<ContainerInfo, NoAnswer> {
    let container = open(CONTAINER).map_err(NoAnswer::Container)?;
    let version = sys::by_value(container.as_fd(), VFIO_GET_API_VERSION, 0);
    if version.map_err(NoAnswer::Container)? != VFIO_API_VERSION.cast_signed() {
        return Err(NoAnswer::NoType1);
    }
    let cannot = |error: io::Error| {
        let why = match error.kind() {
            ErrorKind::NotFound => "it is not there: no device of the group is bound to vfio-pci",
            ErrorKind::PermissionDenied => "permission denied",
            ErrorKind::ResourceBusy => "somebody has the group",
            _ => return NoAnswer::Group { group, why: error.to_string() },
        };
        NoAnswer::Group { group, why: why.into() }
    };
    let file = open(&format!("/dev/vfio/{group}")).map_err(cannot)?;
    let failed = |request| move |error| NoAnswer::Request { group, request, error };

    let mut status = GroupStatus::default();
    // Under `softvfio run` the first request says what opening does elsewhere.
    sys::by_structure(file.as_fd(), VFIO_GROUP_GET_STATUS, status.as_mut_bytes())
        .map_err(cannot)?;
    let flags = GroupFlags::from_bits_retain(status.flags);
    if !flags.contains(GroupFlags::VIABLE) {
        return Err(NoAnswer::NotViable(group));
    }
    if flags.contains(GroupFlags::CONTAINER_SET) {
        return Err(NoAnswer::Group { group, why: "somebody has the group".into() });
    }
    sys::set_container(file.as_fd(), container.as_fd())
        .map_err(failed("VFIO_GROUP_SET_CONTAINER"))?;
    let has = |extension: Extension| {
        let answer = sys::by_value(container.as_fd(), VFIO_CHECK_EXTENSION, extension.number());
        answer.map(|answer| answer > 0).map_err(failed("VFIO_CHECK_EXTENSION"))
    };
    let (extension, iommu_type) = match has(Extension::Type1V2)? {
        true => (Extension::Type1V2, "type1v2"),
        false if has(Extension::Type1)? => (Extension::Type1, "type1"),
        false => return Err(NoAnswer::NoType1),
    };
    let set = sys::by_value(container.as_fd(), VFIO_SET_IOMMU, extension.number());
    set.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => NoAnswer::NotIsolated(group),
        _ => NoAnswer::Request { group, request: "VFIO_SET_IOMMU", error },
    })?;
    let bytes = get_info(&container).map_err(failed("VFIO_IOMMU_GET_INFO"))?;
    let coherent = has(Extension::DmaCc)?;
    // The group first: it cannot leave a container that is gone.
    drop(file);
    drop(container);
    read(&bytes, iommu_type, coherent)
        .unwrap_or_else(|| Err(failed("VFIO_IOMMU_GET_INFO")(ErrorKind::InvalidData.into())))
}

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// The whole answer: the first says how many bytes that takes.
fn get_info(container: &File) -> io::Result<Vec<u8>> {
    let mut size = size_of::<Type1Info>() as u32;
    // The set of groups does not change meanwhile, so the second answer fits.
    for _ in 0..4 {
        let mut bytes = vec![0; size as usize];
        sys::by_structure(container.as_fd(), VFIO_IOMMU_GET_INFO, &mut bytes)?;
        let needed = Type1Info::read_from_prefix(&bytes).map_or(0, |(info, _)| info.argsz);
        if needed <= size {
            return Ok(bytes);
        }
        size = needed;
        if size > MOST {
            break;
        }
    }
    Err(ErrorKind::InvalidData.into())
}

/// Takes an answer apart; `None` for one that says nothing of use.
fn read(
    bytes: &[u8],
    iommu_type: &'static str,
    coherent: bool,
) -> Option<Result<ContainerInfo, NoAnswer>> {
    let (info, _) = Type1Info::read_from_prefix(bytes).ok()?;
    let flags = InfoFlags::from_bits_retain(info.flags);
    if !flags.contains(InfoFlags::PGSIZES | InfoFlags::CAPS) || info.iova_pgsizes == 0 {
        return None;
    }
    let caps = || Caps::new(bytes, info.cap_offset).filter_map(Result::ok);
    // type1 has had this capability for as long as the others; iommufd's imitation has it not.
    let Some(migration) = caps().find_map(|cap| cap.read::<MigrationCap>()) else {
        return Some(Err(NoAnswer::Iommufd));
    };
    let ranges = caps().find_map(|cap| cap.read_list::<IovaRangeCap>())?;
    let ranges: Vec<_> = ranges.iter().map(|range| (range.start, range.end)).collect();
    if ranges.is_empty() || ranges.iter().any(|(first, last)| first > last) {
        return None;
    }
    Some(Ok(ContainerInfo {
        iommu_type,
        page_sizes: info.iova_pgsizes,
        ranges,
        dma_avail: caps().find_map(|cap| cap.read::<DmaAvailCap>()).map(|cap| cap.avail),
        migration: (migration.pgsize_bitmap, migration.max_dirty_bitmap_size),
        coherent,
        max_windows: caps().find_map(|cap| cap.read::<MsiWindowsCap>()).map(|c| c.max_windows),
    }))
}

#[cfg(test)]
mod tests {
    use uapi::cap::{CapAlign, CapChain};
    use uapi::type1::RawIovaRange;

    use super::*;

    fn answer(chain: &CapChain, page_sizes: u64, caps: InfoFlags) -> Vec<u8> {
        let base = size_of::<Type1Info>() as u32;
        let info = Type1Info {
            argsz: 0x1000,
            flags: (InfoFlags::PGSIZES | caps).bits(),
            iova_pgsizes: page_sizes,
            cap_offset: base,
            pad: 0,
        };
        [info.as_bytes(), &chain.emit(base)].concat()
    }

    fn chain(ranges: &[(u64, u64)], migration: bool) -> CapChain {
        let mut chain = CapChain::new(CapAlign::None);
        if migration {
            chain.push_cap(&MigrationCap {
                pgsize_bitmap: 0x1000,
                max_dirty_bitmap_size: 1 << 28,
                ..MigrationCap::default()
            });
        }
        chain.push_cap(&DmaAvailCap { avail: 70_000 });
        let ranges: Vec<_> =
            ranges.iter().map(|(start, end)| RawIovaRange { start: *start, end: *end }).collect();
        chain.push_list::<IovaRangeCap>(&ranges);
        chain
    }

    #[test]
    fn an_answer_is_taken_apart() {
        let ranges = [(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)];
        let bytes = answer(&chain(&ranges, true), 0x4020_1000, InfoFlags::CAPS);
        let info = read(&bytes, "type1v2", true).unwrap().unwrap();
        assert_eq!((&info.ranges[..], info.page_sizes), (&ranges[..], 0x4020_1000));
        assert_eq!((info.dma_avail, info.migration), (Some(70_000), (0x1000, 1 << 28)));
        assert_eq!((info.max_windows, info.coherent), (None, true));
    }

    /// iommufd answers before it knows the IOMMU: all of 64 bits.
    #[test]
    fn the_container_of_iommufd_is_not_believed() {
        let bytes = answer(&chain(&[(0, u64::MAX)], false), 0x1000, InfoFlags::CAPS);
        assert!(matches!(read(&bytes, "type1v2", true), Some(Err(NoAnswer::Iommufd))));
    }

    #[test]
    fn answers_without_use_are_none() {
        let good = chain(&[(0, 0xfff)], true);
        assert!(read(&answer(&good, 0, InfoFlags::CAPS), "type1", true).is_none());
        assert!(read(&answer(&good, 0x1000, InfoFlags::empty()), "type1", true).is_none());
        let bytes = answer(&chain(&[], true), 0x1000, InfoFlags::CAPS);
        assert!(read(&bytes, "type1", true).is_none());
        let bytes = answer(&chain(&[(5, 4)], true), 0x1000, InfoFlags::CAPS);
        assert!(read(&bytes, "type1", true).is_none());
        let whole = answer(&good, 0x1000, InfoFlags::CAPS);
        for end in 0..whole.len() {
            // Whatever is cut off, nothing panics.
            let _ = read(&whole[..end], "type1", true);
        }
    }
}
