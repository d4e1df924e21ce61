//! The whole crate against an independent translation of linux/vfio.h (vfio-bindings), and, for
//! what that lacks, against numbers written out here and the header of this machine.

use std::{
    collections::BTreeMap,
    fs,
    mem::{align_of, offset_of, size_of},
};

use softvfio_uapi::{
    Errno,
    cap::{self, CapHeader, Capability},
    cdev, container, device, feature, group, ioctl, ioeventfd, irq,
    names::{self, NameKind},
    region, reset, type1,
};
use vfio_bindings::bindings::vfio;
use zerocopy::{FromZeros, IntoBytes};

/// Size, alignment and every field's offset. The pattern without `..` makes a missing field an
/// error; `IntoBytes` on our side already excludes padding.
macro_rules! same {
    ($ours:path => $theirs:ident { $($field:ident $(as $($their_field:ident).+)?),+ $(,)? }) => {
        same!(@ $ours, $theirs, 0, $($field: [$field $(, $($their_field).+)?],)+);
        assert_eq!(align_of::<$ours>(), align_of::<vfio::$theirs>(), stringify!($theirs));
    };
    (body $ours:path => $theirs:ident { $($field:ident $(as $($their_field:ident).+)?),+ $(,)? }) => {
        same!(
            @ $ours, $theirs, cap::CAP_HEADER_SIZE,
            $($field: [$field $(, $($their_field).+)?],)+
        );
    };
    (@ $ours:path, $theirs:ident, $before:expr, $($field:ident: [$($name:tt)+],)+) => {
        let $ours { $($field: _),+ } = <$ours>::new_zeroed();
        assert_eq!($before + size_of::<$ours>(), size_of::<vfio::$theirs>(), stringify!($theirs));
        $(
            assert_eq!(
                $before + offset_of!($ours, $field),
                same!(@offset $theirs, $($name)+),
                concat!(stringify!($theirs), ".", stringify!($field))
            );
        )+
    };
    (@offset $theirs:ident, $same:ident) => { offset_of!(vfio::$theirs, $same) };
    (@offset $theirs:ident, $ours:ident, $($other:ident).+) => {
        offset_of!(vfio::$theirs, $($other).+)
    };
}

#[test]
fn container_structures() {
    same!(type1::Type1Info => vfio_iommu_type1_info {
        argsz, flags, iova_pgsizes, cap_offset, pad,
    });
    same!(type1::DmaMap => vfio_iommu_type1_dma_map { argsz, flags, vaddr, iova, size });
    same!(type1::DmaUnmap => vfio_iommu_type1_dma_unmap { argsz, flags, iova, size });
    same!(type1::Bitmap => vfio_bitmap { pgsize, size, data });
    same!(type1::DirtyPages => vfio_iommu_type1_dirty_bitmap { argsz, flags });
    same!(type1::DirtyBitmapGet => vfio_iommu_type1_dirty_bitmap_get { iova, size, bitmap });
    same!(type1::RawIovaRange => vfio_iova_range { start, end });
}

#[test]
fn group_structures() {
    same!(group::GroupStatus => vfio_group_status { argsz, flags });
}

#[test]
fn device_structures() {
    same!(device::DeviceInfo => vfio_device_info {
        argsz, flags, num_regions, num_irqs, cap_offset, pad,
    });
    same!(region::RegionInfo => vfio_region_info {
        argsz, flags, index, cap_offset, size, offset,
    });
    same!(region::SparseMmapArea => vfio_region_sparse_mmap_area { offset, size });
    same!(irq::IrqInfo => vfio_irq_info { argsz, flags, index, count });
    same!(irq::IrqSet => vfio_irq_set { argsz, flags, index, start, count });
    same!(reset::HotResetInfo => vfio_pci_hot_reset_info { argsz, flags, count });
    same!(reset::PciDependentDevice => vfio_pci_dependent_device {
        group_id as __bindgen_anon_1.group_id, segment, bus, devfn,
    });
    same!(reset::HotReset => vfio_pci_hot_reset { argsz, flags, count });
    same!(ioeventfd::IoEventFd => vfio_device_ioeventfd {
        argsz, flags, offset, data, fd, reserved,
    });
    same!(feature::FeatureHeader => vfio_device_feature { argsz, flags });
    same!(cdev::BindIommufd => vfio_device_bind_iommufd {
        argsz, flags, iommufd, out_devid, token_uuid_ptr,
    });
    same!(cdev::AttachPt => vfio_device_attach_iommufd_pt { argsz, flags, pt_id, pasid });
    same!(cdev::DetachPt => vfio_device_detach_iommufd_pt { argsz, flags, pasid });
}

/// A body begins right after the header, so its offsets are 8 less than the C structure's.
#[test]
fn capability_structures() {
    same!(CapHeader => vfio_info_cap_header { id, version, next });
    assert_eq!(cap::CAP_HEADER_SIZE, size_of::<vfio::vfio_info_cap_header>());

    same!(body type1::IovaRangeCap => vfio_iommu_type1_info_cap_iova_range { nr_iovas, reserved });
    // bindgen leaves the hole before pgsize_bitmap nameless: `reserved` is checked by the others.
    let type1::MigrationCap { flags: _, reserved: _, pgsize_bitmap: _, max_dirty_bitmap_size: _ } =
        type1::MigrationCap::default();
    type Migration = vfio::vfio_iommu_type1_info_cap_migration;
    assert_eq!(8 + size_of::<type1::MigrationCap>(), size_of::<Migration>());
    assert_eq!(8 + offset_of!(type1::MigrationCap, flags), offset_of!(Migration, flags));
    assert_eq!(
        8 + offset_of!(type1::MigrationCap, pgsize_bitmap),
        offset_of!(Migration, pgsize_bitmap)
    );
    assert_eq!(
        8 + offset_of!(type1::MigrationCap, max_dirty_bitmap_size),
        offset_of!(Migration, max_dirty_bitmap_size)
    );
    same!(body type1::DmaAvailCap => vfio_iommu_type1_info_dma_avail { avail });
    same!(body device::PciAtomicCompCap => vfio_device_info_cap_pci_atomic_comp {
        flags, reserved,
    });
    same!(body region::SparseMmapCap => vfio_region_info_cap_sparse_mmap { nr_areas, reserved });
    same!(body region::RegionTypeCap => vfio_region_info_cap_type { kind as type_, subtype });
    assert_eq!(region::MsixMappableCap {}.as_bytes(), []);
}

#[test]
fn capability_ids() {
    fn id<T: Capability>() -> (u32, u16) {
        (u32::from(T::ID), T::VERSION)
    }
    assert_eq!(id::<type1::IovaRangeCap>(), (vfio::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 1));
    assert_eq!(id::<type1::MigrationCap>(), (vfio::VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, 1));
    assert_eq!(id::<type1::DmaAvailCap>(), (vfio::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, 1));
    assert_eq!(id::<device::PciAtomicCompCap>(), (vfio::VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP, 1));
    assert_eq!(id::<region::SparseMmapCap>(), (vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP, 1));
    assert_eq!(id::<region::RegionTypeCap>(), (vfio::VFIO_REGION_INFO_CAP_TYPE, 1));
    assert_eq!(id::<region::MsixMappableCap>(), (vfio::VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, 1));
}

/// `argsz` below these is EINVAL: the end of the last field the first interface had.
#[test]
fn smallest_argsz() {
    macro_rules! ends {
        ($($ours:path => $theirs:ident.$last:ident;)+) => {
            $(
                let size = size_of_val(&vfio::$theirs::default().$last);
                let end = offset_of!(vfio::$theirs, $last) + size;
                assert_eq!(<$ours>::MIN_ARGSZ as usize, end, stringify!($theirs));
            )+
        };
    }
    ends! {
        type1::Type1Info => vfio_iommu_type1_info.iova_pgsizes;
        type1::DmaMap => vfio_iommu_type1_dma_map.size;
        type1::DmaUnmap => vfio_iommu_type1_dma_unmap.size;
        type1::DirtyPages => vfio_iommu_type1_dirty_bitmap.flags;
        group::GroupStatus => vfio_group_status.flags;
        device::DeviceInfo => vfio_device_info.num_irqs;
        region::RegionInfo => vfio_region_info.offset;
        irq::IrqInfo => vfio_irq_info.count;
        irq::IrqSet => vfio_irq_set.count;
        reset::HotResetInfo => vfio_pci_hot_reset_info.count;
        reset::HotReset => vfio_pci_hot_reset.count;
        ioeventfd::IoEventFd => vfio_device_ioeventfd.fd;
        feature::FeatureHeader => vfio_device_feature.flags;
    }
    let bitmap = size_of::<vfio::vfio_bitmap>() as u32;
    assert_eq!(type1::DmaUnmap::MIN_ARGSZ_BITMAP, type1::DmaUnmap::MIN_ARGSZ + bitmap);
    let get = size_of::<vfio::vfio_iommu_type1_dirty_bitmap_get>() as u32;
    assert_eq!(type1::DirtyPages::MIN_ARGSZ_BITMAP, type1::DirtyPages::MIN_ARGSZ + get);
}

/// Every name of the crate but the request numbers, from vfio-bindings.
fn oracle() -> BTreeMap<&'static str, u32> {
    macro_rules! constants {
        ($($name:ident)+) => { BTreeMap::from([$((stringify!($name), vfio::$name)),+]) };
    }
    constants! {
        VFIO_TYPE1_IOMMU VFIO_SPAPR_TCE_IOMMU VFIO_TYPE1v2_IOMMU VFIO_DMA_CC_IOMMU VFIO_EEH
        __VFIO_RESERVED_TYPE1_NESTING_IOMMU VFIO_SPAPR_TCE_v2_IOMMU VFIO_NOIOMMU_IOMMU
        VFIO_UNMAP_ALL VFIO_UPDATE_VADDR
        VFIO_IOMMU_INFO_PGSIZES VFIO_IOMMU_INFO_CAPS
        VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION
        VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL
        VFIO_DMA_MAP_FLAG_READ VFIO_DMA_MAP_FLAG_WRITE VFIO_DMA_MAP_FLAG_VADDR
        VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP VFIO_DMA_UNMAP_FLAG_ALL VFIO_DMA_UNMAP_FLAG_VADDR
        VFIO_IOMMU_DIRTY_PAGES_FLAG_START VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP
        VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP
        VFIO_GROUP_FLAGS_VIABLE VFIO_GROUP_FLAGS_CONTAINER_SET
        VFIO_DEVICE_FLAGS_RESET VFIO_DEVICE_FLAGS_PCI VFIO_DEVICE_FLAGS_PLATFORM
        VFIO_DEVICE_FLAGS_AMBA VFIO_DEVICE_FLAGS_CCW VFIO_DEVICE_FLAGS_AP VFIO_DEVICE_FLAGS_FSL_MC
        VFIO_DEVICE_FLAGS_CAPS VFIO_DEVICE_FLAGS_CDX
        VFIO_DEVICE_INFO_CAP_ZPCI_BASE VFIO_DEVICE_INFO_CAP_ZPCI_GROUP
        VFIO_DEVICE_INFO_CAP_ZPCI_UTIL VFIO_DEVICE_INFO_CAP_ZPCI_PFIP
        VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP
        VFIO_PCI_ATOMIC_COMP32 VFIO_PCI_ATOMIC_COMP64 VFIO_PCI_ATOMIC_COMP128
        VFIO_PCI_BAR0_REGION_INDEX VFIO_PCI_BAR1_REGION_INDEX VFIO_PCI_BAR2_REGION_INDEX
        VFIO_PCI_BAR3_REGION_INDEX VFIO_PCI_BAR4_REGION_INDEX VFIO_PCI_BAR5_REGION_INDEX
        VFIO_PCI_ROM_REGION_INDEX VFIO_PCI_CONFIG_REGION_INDEX VFIO_PCI_VGA_REGION_INDEX
        VFIO_REGION_INFO_FLAG_READ VFIO_REGION_INFO_FLAG_WRITE VFIO_REGION_INFO_FLAG_MMAP
        VFIO_REGION_INFO_FLAG_CAPS
        VFIO_REGION_INFO_CAP_SPARSE_MMAP VFIO_REGION_INFO_CAP_TYPE
        VFIO_REGION_INFO_CAP_MSIX_MAPPABLE VFIO_REGION_INFO_CAP_NVLINK2_SSATGT
        VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD
        VFIO_PCI_INTX_IRQ_INDEX VFIO_PCI_MSI_IRQ_INDEX VFIO_PCI_MSIX_IRQ_INDEX
        VFIO_PCI_ERR_IRQ_INDEX VFIO_PCI_REQ_IRQ_INDEX
        VFIO_IRQ_INFO_EVENTFD VFIO_IRQ_INFO_MASKABLE VFIO_IRQ_INFO_AUTOMASKED VFIO_IRQ_INFO_NORESIZE
        VFIO_IRQ_SET_DATA_NONE VFIO_IRQ_SET_DATA_BOOL VFIO_IRQ_SET_DATA_EVENTFD
        VFIO_IRQ_SET_ACTION_MASK VFIO_IRQ_SET_ACTION_UNMASK VFIO_IRQ_SET_ACTION_TRIGGER
        VFIO_PCI_HOT_RESET_FLAG_DEV_ID VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED
        VFIO_DEVICE_IOEVENTFD_8 VFIO_DEVICE_IOEVENTFD_16 VFIO_DEVICE_IOEVENTFD_32
        VFIO_DEVICE_IOEVENTFD_64
        VFIO_DEVICE_FEATURE_GET VFIO_DEVICE_FEATURE_SET VFIO_DEVICE_FEATURE_PROBE
        VFIO_DEVICE_FEATURE_PCI_VF_TOKEN VFIO_DEVICE_FEATURE_MIGRATION
        VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY
        VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP VFIO_DEVICE_FEATURE_LOW_POWER_EXIT
        VFIO_DEVICE_FEATURE_DMA_LOGGING_START VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP
        VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT VFIO_DEVICE_FEATURE_MIG_DATA_SIZE
        VFIO_DEVICE_FEATURE_BUS_MASTER VFIO_DEVICE_FEATURE_DMA_BUF
        VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2
        VFIO_DEVICE_BIND_FLAG_TOKEN VFIO_DEVICE_ATTACH_PASID VFIO_DEVICE_DETACH_PASID
    }
}

/// What vfio-bindings 0.7 lacks: it cannot translate the macros of request numbers, and one feature
/// is newer. From kernel-semantics section 0.
const NOT_IN_BINDINGS: &[(&str, u32)] = &[
    ("VFIO_GET_API_VERSION", 0x3b64),
    ("VFIO_CHECK_EXTENSION", 0x3b65),
    ("VFIO_SET_IOMMU", 0x3b66),
    ("VFIO_GROUP_GET_STATUS", 0x3b67),
    ("VFIO_GROUP_SET_CONTAINER", 0x3b68),
    ("VFIO_GROUP_UNSET_CONTAINER", 0x3b69),
    ("VFIO_GROUP_GET_DEVICE_FD", 0x3b6a),
    ("VFIO_DEVICE_GET_INFO", 0x3b6b),
    ("VFIO_DEVICE_GET_REGION_INFO", 0x3b6c),
    ("VFIO_DEVICE_GET_IRQ_INFO", 0x3b6d),
    ("VFIO_DEVICE_SET_IRQS", 0x3b6e),
    ("VFIO_DEVICE_RESET", 0x3b6f),
    ("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", 0x3b70),
    ("VFIO_IOMMU_GET_INFO", 0x3b70),
    ("VFIO_DEVICE_PCI_HOT_RESET", 0x3b71),
    ("VFIO_IOMMU_MAP_DMA", 0x3b71),
    ("VFIO_DEVICE_QUERY_GFX_PLANE", 0x3b72),
    ("VFIO_IOMMU_UNMAP_DMA", 0x3b72),
    ("VFIO_DEVICE_GET_GFX_DMABUF", 0x3b73),
    ("VFIO_IOMMU_ENABLE", 0x3b73),
    ("VFIO_IOMMU_DISABLE", 0x3b74),
    ("VFIO_DEVICE_IOEVENTFD", 0x3b74),
    ("VFIO_DEVICE_FEATURE", 0x3b75),
    ("VFIO_IOMMU_DIRTY_PAGES", 0x3b75),
    ("VFIO_DEVICE_BIND_IOMMUFD", 0x3b76),
    ("VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0x3b76),
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", 0x3b77),
    ("VFIO_IOMMU_SPAPR_TCE_CREATE", 0x3b77),
    ("VFIO_DEVICE_DETACH_IOMMUFD_PT", 0x3b78),
    ("VFIO_IOMMU_SPAPR_TCE_REMOVE", 0x3b78),
    ("VFIO_MIG_GET_PRECOPY_INFO", 0x3b79),
    ("VFIO_EEH_PE_OP", 0x3b79),
    ("VFIO_DEVICE_FEATURE_ZPCI_ERROR", 13),
];

/// All our names, each of which must be new.
fn ours() -> BTreeMap<&'static str, u32> {
    let mut all = BTreeMap::new();
    for (name, number) in names::ALL.iter().flat_map(|family| family.names) {
        assert_eq!(all.insert(*name, *number), None, "{name} twice");
    }
    all
}

#[test]
fn names_equal_the_bindings() {
    let newer: BTreeMap<_, _> = NOT_IN_BINDINGS.iter().copied().collect();
    let mut rest = ours();
    rest.retain(|name, _| !newer.contains_key(name));
    assert_eq!(rest, oracle());
}

#[test]
fn names_newer_than_the_bindings() {
    let ours = ours();
    for (name, number) in NOT_IN_BINDINGS {
        assert_eq!(ours.get(name), Some(number), "{name}");
    }
}

#[test]
fn requests_have_the_type_and_base() {
    assert_eq!(ioctl::VFIO_TYPE, vfio::VFIO_TYPE);
    assert_eq!(ioctl::VFIO_BASE, vfio::VFIO_BASE);
    for family in names::ALL.iter().filter(|family| family.kind == NameKind::Ioctl) {
        for (name, number) in family.names {
            assert_eq!(number >> 8, u32::from(vfio::VFIO_TYPE), "{name}");
            assert!(number & 0xff >= vfio::VFIO_BASE, "{name}");
        }
    }
}

#[test]
fn other_constants() {
    assert_eq!(container::VFIO_API_VERSION, vfio::VFIO_API_VERSION);
    assert_eq!(region::VFIO_PCI_NUM_REGIONS, vfio::VFIO_PCI_NUM_REGIONS);
    assert_eq!(irq::VFIO_PCI_NUM_IRQS, vfio::VFIO_PCI_NUM_IRQS);
    assert_eq!(region::VFIO_REGION_TYPE_PCI_VENDOR_TYPE, vfio::VFIO_REGION_TYPE_PCI_VENDOR_TYPE);
    assert_eq!(region::VFIO_REGION_TYPE_PCI_VENDOR_MASK, vfio::VFIO_REGION_TYPE_PCI_VENDOR_MASK);
    assert_eq!(irq::IrqSetFlags::DATA_TYPE_MASK.bits(), vfio::VFIO_IRQ_SET_DATA_TYPE_MASK);
    assert_eq!(irq::IrqSetFlags::ACTION_TYPE_MASK.bits(), vfio::VFIO_IRQ_SET_ACTION_TYPE_MASK);
    assert_eq!(reset::VFIO_PCI_DEVID_OWNED, vfio::VFIO_PCI_DEVID_OWNED);
    assert_eq!(reset::VFIO_PCI_DEVID_NOT_OWNED, vfio::VFIO_PCI_DEVID_NOT_OWNED as u32);
    assert_eq!(ioeventfd::IoEventFdFlags::SIZE_MASK.bits(), vfio::VFIO_DEVICE_IOEVENTFD_SIZE_MASK);
    assert_eq!(feature::VFIO_DEVICE_FEATURE_MASK, vfio::VFIO_DEVICE_FEATURE_MASK);
}

/// The rows of `#define NAME value` in a header of this machine, none when it is not installed.
fn defines(path: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (name, value) =
                line.strip_prefix("#define")?.trim().split_once(char::is_whitespace)?;
            let value = value.split("/*").next()?.trim();
            Some((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Requests of the installed header, whatever its version: ours have its numbers, and we lack only
/// what sPAPR calls numbers that type1 has a name for.
#[test]
fn requests_of_the_installed_header() {
    let ours = ours();
    let defines = defines("/usr/include/linux/vfio.h");
    let mut requests = 0;
    for (name, value) in &defines {
        let Some(number) = value
            .strip_prefix("_IO(VFIO_TYPE, VFIO_BASE + ")
            .and_then(|rest| rest.strip_suffix(')')?.parse::<u32>().ok())
        else {
            continue;
        };
        requests += 1;
        match name.as_str() {
            "VFIO_IOMMU_SPAPR_TCE_GET_INFO" | "VFIO_IOMMU_SPAPR_REGISTER_MEMORY" => {
                assert!(!ours.contains_key(name.as_str()), "{name} would hide a type1 request");
            }
            name => assert_eq!(ours.get(name), Some(&(0x3b00 + 100 + number)), "{name}"),
        }
    }
    assert!(defines.is_empty() || requests > 20, "the header's form has changed: {requests}");
}

#[test]
fn errno_numbers() {
    let literal = [
        ("EPERM", 1),
        ("ENOENT", 2),
        ("EINTR", 4),
        ("EIO", 5),
        ("ENXIO", 6),
        ("E2BIG", 7),
        ("EBADF", 9),
        ("EAGAIN", 11),
        ("ENOMEM", 12),
        ("EACCES", 13),
        ("EFAULT", 14),
        ("EBUSY", 16),
        ("EEXIST", 17),
        ("ENODEV", 19),
        ("EINVAL", 22),
        ("ENFILE", 23),
        ("EMFILE", 24),
        ("ENOTTY", 25),
        ("ENOSPC", 28),
        ("ESPIPE", 29),
        ("EPIPE", 32),
        ("ERANGE", 34),
        ("ENOSYS", 38),
        ("ENODATA", 61),
        ("EOVERFLOW", 75),
        ("EBADFD", 77),
        ("EMSGSIZE", 90),
        ("EOPNOTSUPP", 95),
        ("EADDRINUSE", 98),
        ("ETIMEDOUT", 110),
        ("ECANCELED", 125),
    ];
    let ours: Vec<_> = Errno::ALL.iter().map(|(name, errno)| (*name, errno.number())).collect();
    assert_eq!(ours, literal);

    // The installed headers too.
    for path in ["/usr/include/asm-generic/errno-base.h", "/usr/include/asm-generic/errno.h"] {
        for (name, value) in defines(path) {
            if let (Some(errno), Ok(number)) = (Errno::from_name(&name), value.parse::<i32>()) {
                assert_eq!(errno.number(), number, "{name}");
            }
        }
    }
}
