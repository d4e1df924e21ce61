//! `VFIO_IOMMU_UNMAP_DMA` (kernel-semantics 2.4, 2.5).

use core::cell::RefCell;

use iommu::{Env, IovaRange};
use uapi::type1::{Bitmap, DmaUnmap, UnmapFlags};

use super::dirty::{UserBitmap, Via, check_bitmap};
use super::{Type1, Version, env};
use crate::{Answer, Caller, Refusal, Shared, user};

impl Type1 {
    #[doc(alias = "VFIO_IOMMU_UNMAP_DMA")]
    pub(super) fn unmap_dma(
        &mut self,
        shared: &mut Shared,
        caller: &mut dyn Caller,
        arg: u64,
    ) -> Answer {
        let mut unmap: DmaUnmap = user::read_all(caller, arg)?;
        if unmap.argsz < DmaUnmap::MIN_ARGSZ {
            return Err(Refusal::ArgszTooSmall { argsz: unmap.argsz, min: DmaUnmap::MIN_ARGSZ });
        }
        let window = self.window_flag(shared.abi).unwrap_or(0);
        let unknown = unmap.flags & !(shared.abi.unmap_flags().bits() | window);
        if unknown != 0 {
            return Err(Refusal::UnknownFlags { unknown });
        }
        let flags = UnmapFlags::from_bits_truncate(unmap.flags & !window);
        if unmap.flags & window != 0 {
            return self.unmap_window(shared, caller, arg, unmap, flags);
        }
        let with_bitmap = flags.contains(UnmapFlags::GET_DIRTY_BITMAP);
        if with_bitmap && flags.intersects(UnmapFlags::ALL | UnmapFlags::VADDR) {
            return Err(Refusal::FlagMix("GET_DIRTY_BITMAP excludes ALL and VADDR"));
        }
        let mut bitmap = None;
        if with_bitmap {
            let min = DmaUnmap::MIN_ARGSZ_BITMAP;
            if unmap.argsz < min {
                return Err(Refusal::ArgszTooSmall { argsz: unmap.argsz, min });
            }
            let b: Bitmap = user::read_tail(caller, arg, DmaUnmap::MIN_ARGSZ)?;
            check_bitmap(caller, &b, unmap.size)?;
            bitmap = Some(b);
        }
        let range = self.unmap_range(flags, &unmap)?;
        if let Some(b) = &bitmap {
            let granule = self.space.page_sizes().smallest();
            if !self.space.is_tracking_dirty() {
                return Err(iommu::DirtyRefusal::Off.into());
            }
            if b.pgsize != granule {
                return Err(Refusal::BitmapPageSize { pgsize: b.pgsize, granule });
            }
        }
        // Before 7.3 the end 2^64 was 0 to the walk, which then found nothing.
        let all = flags.contains(UnmapFlags::ALL);
        let unseen = !all && range.last() == u64::MAX && !shared.host.dialect.top_is_reachable;

        if self.version == Version::V2
            && !all
            && let Some(existing) = self.space.cut_by(range)
        {
            return Err(Refusal::Cuts { wanted: range, existing });
        }
        // Version 1 stops at a mapping that starts before the range: it removes nothing.
        let starts_inside = self.version == Version::V1
            && self.space.mapping_at(range.first()).is_some_and(|(r, _)| r.first() < range.first());
        unmap.size = if unseen || starts_inside {
            0
        } else if flags.contains(UnmapFlags::VADDR) {
            self.space.invalidate_vaddr(range, &mut env(shared, caller))?
        } else if let Some(b) = &bitmap {
            let shorter: &mut dyn Caller = caller;
            let via = RefCell::new(shorter);
            let mut pinner = Via(&via);
            let mut bits = UserBitmap::new(&via, b.data);
            let Shared { locked, observer, .. } = shared;
            let mut env = Env { pinner: &mut pinner, locked, observer: observer.as_mut() };
            self.space.unmap_dirty(range, &mut bits, &mut env)?
        } else {
            let mut env = env(shared, caller);
            if self.space.unmap_exact(range, &mut env) {
                range.size()
            } else {
                self.space.unmap(range, &mut env)
            }
        };
        user::write(caller, arg, &unmap, size_of::<DmaUnmap>())?;
        Ok(0)
    }

    pub(super) fn unmap_range(
        &self,
        flags: UnmapFlags,
        unmap: &DmaUnmap,
    ) -> Result<IovaRange, Refusal> {
        let granule = self.space.page_sizes().smallest();
        let aligned = |what, value: u64| {
            if value & granule.wrapping_sub(1) == 0 {
                Ok(())
            } else {
                Err(Refusal::Misaligned { what, value, granule })
            }
        };
        aligned("iova", unmap.iova)?;
        if flags.contains(UnmapFlags::ALL) {
            if unmap.iova != 0 || unmap.size != 0 {
                return Err(Refusal::AllWithRange);
            }
            return Ok(IovaRange::ALL);
        }
        if unmap.size == 0 {
            return Err(Refusal::Empty);
        }
        aligned("size", unmap.size)?;
        IovaRange::sized(unmap.iova, unmap.size).ok_or(Refusal::Wraps {
            what: "iova",
            first: unmap.iova,
            size: unmap.size,
        })
    }
}
