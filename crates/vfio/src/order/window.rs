//! Checks of requests about MSI windows, which no kernel has: docs/msi-windows.md.

use alloc::vec;
use alloc::vec::Vec;

use iommu::{Dialect, WindowRefusal};
use uapi::type1::UnmapFlags;

use super::container::HAS_IOMMU;
use super::type1::{MAP_ARGSZ, SIZE, UNMAP_ARGSZ, range_wraps, unmap_range};
use super::{FLAGS, READABLE, Rule, WRITABLE, rule};
use crate::{Abi, Refusal};

/// The checks of a `MAP_DMA` that registers an MSI window, where an IOMMU of the container takes them.
#[must_use]
pub fn map_window(dialect: &Dialect, abi: Abi) -> Vec<Rule> {
    let wraps = range_wraps(dialect);
    let mut mix = Vec::new();
    // The proposal of 2016 has no VADDR, and takes windows without READ and WRITE for both.
    if abi != Abi::MsiV6 {
        mix.push(rule!("READ or WRITE, and no VADDR", EINVAL, Refusal::FlagMix(_)));
    }
    let mut rules = vec![HAS_IOMMU, READABLE, MAP_ARGSZ, FLAGS, SIZE];
    if dialect.wrap_is_eoverflow {
        rules.push(wraps);
        rules.extend(mix);
    } else {
        rules.extend(mix);
        rules.push(wraps);
    }
    rules.extend([
        rule!(
            "iova and size are multiples of the IOMMU's smallest page",
            EINVAL,
            Refusal::Window(WindowRefusal::Misaligned { .. })
        ),
        rule!("nothing is mapped there", EEXIST, Refusal::Window(WindowRefusal::Mapped { .. })),
        rule!("no window is there", EEXIST, Refusal::Window(WindowRefusal::Window { .. })),
        rule!(
            "the container may have another window",
            ENOSPC,
            Refusal::Window(WindowRefusal::NoneLeft { .. })
        ),
        rule!(
            "it lies within one valid range: inside every aperture, on nothing reserved",
            EINVAL,
            Refusal::Window(WindowRefusal::NotUsable { .. })
        ),
        rule!(
            "every IOMMU can express its permission",
            EINVAL,
            Refusal::Window(WindowRefusal::Permission { .. })
        ),
    ]);
    rules
}

/// The checks of an `UNMAP_DMA` that removes MSI windows.
#[must_use]
pub fn unmap_window(dialect: &Dialect, flags: UnmapFlags) -> Vec<Rule> {
    let mut rules = vec![
        HAS_IOMMU,
        READABLE,
        UNMAP_ARGSZ,
        FLAGS,
        rule!("neither GET_DIRTY_BITMAP nor VADDR", EINVAL, Refusal::FlagMix(_)),
    ];
    rules.extend(unmap_range(dialect, flags));
    if !flags.contains(UnmapFlags::ALL) {
        rules.push(rule!(
            "it is exactly one window",
            EINVAL,
            Refusal::Window(WindowRefusal::NotExact { .. })
        ));
    }
    rules.extend([
        rule!("no doorbell is bound in it", EBUSY, Refusal::Window(WindowRefusal::Busy { .. })),
        WRITABLE,
    ]);
    rules
}
