//! `VFIO_IOMMU_GET_INFO` (kernel-semantics 3).

use alloc::vec::Vec;

use uapi::type1::{DmaAvailCap, InfoFlags, IovaRangeCap, MigrationCap, RawIovaRange, Type1Info};
use uapi::{CapAlign, CapChain};

use super::Type1;
use super::dirty::BITMAP_SIZE_MAX;
use crate::{Answer, Caller, Refusal, Shared, user};

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
        info.flags = (InfoFlags::PGSIZES | InfoFlags::CAPS).bits();
        info.iova_pgsizes = self.space.page_sizes().0;

        let chain = self.capabilities(dialect.caps_are_aligned);
        let needed = u32::try_from(chain.len()).unwrap_or(u32::MAX).saturating_add(size);
        if info.argsz < needed {
            info.argsz = needed;
            info.cap_offset = 0;
        } else {
            caller.copy_out(arg.wrapping_add(u64::from(size)), &chain.emit(size))?;
            info.cap_offset = size;
        }
        user::write(caller, arg, &info, usize::try_from(written).unwrap_or(usize::MAX))?;
        Ok(0)
    }

    fn capabilities(&self, aligned: bool) -> CapChain {
        let mut chain = CapChain::new(if aligned { CapAlign::Eight } else { CapAlign::None });
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
        chain
    }
}
