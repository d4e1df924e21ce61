//! Checks of reads, writes and mappings of a device's regions, by the region that the offset is in.

use alloc::vec;
use alloc::vec::Vec;

use uapi::region::RegionIndex;

use super::{Rule, device_rule};
use crate::device::DeviceRefusal;

const REGION: Rule = device_rule!(
    "the device has a region of that index (the offset's bits from 40 up)",
    EINVAL,
    DeviceRefusal::NoSuchRegion(_)
);
const IN_CONFIG: Rule = device_rule!(
    "it stays inside of configuration space",
    EFAULT,
    DeviceRefusal::BeyondConfig { .. }
);
const IN_BAR: Rule = device_rule!(
    "the BAR exists, and the offset is inside of it",
    EINVAL,
    DeviceRefusal::BeyondBar { .. }
);
const DECODES: Rule = device_rule!(
    "the device decodes memory (COMMAND.MEMORY, power state D0)",
    EIO,
    DeviceRefusal::MemoryOff
);

/// The checks of a `pread`.
#[must_use]
pub fn read_region(index: u32) -> Vec<Rule> {
    match RegionIndex::try_from(index) {
        Ok(RegionIndex::Config) => vec![REGION, IN_CONFIG],
        Ok(RegionIndex::Rom) => vec![
            REGION,
            device_rule!(
                "the device has a ROM, and the offset is inside of it",
                EINVAL,
                DeviceRefusal::BeyondBar { .. }
            ),
            device_rule!("the ROM has contents, and is decoded", ENOMEM, DeviceRefusal::NoRom),
        ],
        Ok(RegionIndex::Vga) | Err(_) => vec![REGION],
        Ok(_) => vec![REGION, IN_BAR, DECODES],
    }
}

/// The checks of a `pwrite`.
#[must_use]
pub fn write_region(index: u32) -> Vec<Rule> {
    match RegionIndex::try_from(index) {
        Ok(RegionIndex::Rom) => {
            vec![REGION, device_rule!("it is no ROM", EINVAL, DeviceRefusal::RomIsReadOnly)]
        }
        _ => read_region(index),
    }
}

/// The checks of an `mmap`.
#[must_use]
pub fn mmap_region() -> Vec<Rule> {
    vec![
        REGION,
        device_rule!(
            "the mapping is shared (MAP_SHARED)",
            EINVAL,
            DeviceRefusal::NotMappable("the mapping is private")
        ),
        device_rule!(
            "the region is a BAR",
            EINVAL,
            DeviceRefusal::NotMappable("the region is no BAR")
        ),
        device_rule!(
            "the BAR is memory, and has pages of its own",
            EINVAL,
            DeviceRefusal::NotMappable(_)
        ),
        device_rule!("it ends inside of the BAR", EINVAL, DeviceRefusal::BeyondBar { .. }),
    ]
}
