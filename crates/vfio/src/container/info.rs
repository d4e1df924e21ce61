//! `VFIO_IOMMU_GET_INFO` (kernel-semantics 3).

use alloc::vec::Vec;

use iommu::{IovaRange, Prot, ReservedKind};
use uapi::cap::Capability;
use uapi::type1::{DmaAvailCap, IovaRangeCap, MigrationCap, RawIovaRange, Type1Info};
use uapi::windows::{
    MsiWindowsCap, RESERVED_DIRECT, RESERVED_DIRECT_RELAXABLE, RESERVED_GROUP_CONTAINER,
    RESERVED_MSI, RESERVED_RESERVED, RESERVED_SW_MSI, RESERVED_WINDOW, RawMsiWindow,
    RawReservedRegion, ReservedRegionsCap,
};
use uapi::{CapAlign, CapChain};
use zerocopy::IntoBytes;

use super::Type1;
use super::dirty::BITMAP_SIZE_MAX;
use crate::{Abi, Answer, Caller, Refusal, Shared, user};

/// Bytes of [`Type1Info`] before its padding: all that older kernels write.
const WITHOUT_PAD: u32 = 20;

impl Type1 {
    #[doc(alias = "VFIO_IOMMU_GET_INFO")]
    pub(super) fn get_info(&self, shared: &Shared, caller: &mut dyn Caller, arg: u64) -> Answer {
        let dialect = &shared.host.dialect;
        let min = Type1Info::MIN_ARGSZ;
        let mut info: Type1Info = user::read(caller, arg, 16)?;
        if info.argsz < min {
            return Err(Refusal::ArgszTooSmall { argsz: info.argsz, min });
        }
        let size = u32::try_from(size_of::<Type1Info>()).unwrap_or(u32::MAX);
        let written = match info.argsz {
            n if dialect.info_has_pad => n.min(size),
            n if n >= WITHOUT_PAD => WITHOUT_PAD,
            _ => min,
        };
        info.flags = shared.abi.info_flags().bits();
        if self.space.max_windows().is_some() {
            info.flags |= shared.abi.require_msi_map();
        }
        info.iova_pgsizes = self.space.page_sizes().0;

        let chain = self.capabilities(shared);
        let needed = u32::try_from(chain.len()).unwrap_or(u32::MAX).saturating_add(size);
        if chain.is_empty() {
            info.cap_offset = 0;
        } else if info.argsz < needed {
            info.argsz = needed;
            info.cap_offset = 0;
        } else {
            let at = arg.wrapping_add(u64::from(size));
            user::write_bytes(caller, at, &chain.emit(size))?;
            info.cap_offset = size;
        }
        user::write(caller, arg, &info, usize::try_from(written).unwrap_or(usize::MAX))?;
        Ok(0)
    }

    fn capabilities(&self, shared: &Shared) -> CapChain {
        let aligned = shared.host.dialect.caps_are_aligned;
        let mut chain = CapChain::new(if aligned { CapAlign::Eight } else { CapAlign::None });
        if shared.abi == Abi::MsiV6 {
            return chain;
        }
        chain.push_cap(&MigrationCap {
            flags: 0,
            reserved: 0,
            pgsize_bitmap: self.space.page_sizes().smallest(),
            max_dirty_bitmap_size: BITMAP_SIZE_MAX,
        });
        chain.push_cap(&DmaAvailCap { avail: self.space.available() });
        let ranges: Vec<RawIovaRange> = self
            .space
            .valid_ranges()
            .iter()
            .map(|r| RawIovaRange { start: r.first(), end: r.last() })
            .collect();
        if !ranges.is_empty() {
            chain.push_list::<IovaRangeCap>(&ranges);
        }
        if shared.abi == Abi::Reviewed {
            chain.align();
            chain.push_list::<ReservedRegionsCap>(&self.reserved_regions());
            if let Some(max_windows) = self.space.max_windows() {
                chain.align();
                self.push_windows(&mut chain, shared, max_windows);
            }
        }
        chain
    }

    /// Every region that the attached groups reserve, then the windows.
    fn reserved_regions(&self) -> Vec<RawReservedRegion> {
        let reserved =
            self.space.reserved().map(|(group, r)| (r.range, kind(r.kind), r.prot, group));
        let windows = self.space.windows();
        let windows = windows.map(|w| (w.range, RESERVED_WINDOW, w.prot, RESERVED_GROUP_CONTAINER));
        let raw = |(range, kind, prot, group): (IovaRange, u32, Prot, u32)| RawReservedRegion {
            start: range.first(),
            last: range.last(),
            kind,
            permission: u32::from(prot.bits()),
            group,
            reserved: 0,
        };
        reserved.chain(windows).map(raw).collect()
    }

    fn push_windows(&self, chain: &mut CapChain, shared: &Shared, max_windows: u32) {
        let windows: Vec<RawMsiWindow> = self
            .space
            .windows()
            .map(|w| RawMsiWindow {
                start: w.range.first(),
                last: w.range.last(),
                used_pages: u32::try_from(self.space.window_used_pages(w.range.first()))
                    .unwrap_or(u32::MAX),
                permission: u32::from(w.prot.bits()),
            })
            .collect();
        let head = MsiWindowsCap {
            pages_needed: self.space.doorbell_pages_needed(),
            pages_host: shared.host.doorbell_pages(),
            page_shift: shared.host.page_size.trailing_zeros(),
            max_windows,
            count: u32::try_from(windows.len()).unwrap_or(u32::MAX),
            reserved: 0,
        };
        let mut body = head.as_bytes().to_vec();
        body.extend_from_slice(windows.as_bytes());
        chain.push(MsiWindowsCap::ID, MsiWindowsCap::VERSION, &body);
    }
}

const fn kind(kind: ReservedKind) -> u32 {
    match kind {
        ReservedKind::Direct => RESERVED_DIRECT,
        ReservedKind::DirectRelaxable => RESERVED_DIRECT_RELAXABLE,
        ReservedKind::Reserved => RESERVED_RESERVED,
        ReservedKind::Msi => RESERVED_MSI,
        ReservedKind::SwMsi => RESERVED_SW_MSI,
    }
}
