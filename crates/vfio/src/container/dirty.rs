//! `VFIO_IOMMU_DIRTY_PAGES` (kernel-semantics 6) and bitmaps in the client's memory.

use alloc::vec::Vec;
use core::cell::RefCell;

use iommu::{BitmapSink, IovaRange, PinError, PinId, Pinned, Pinner};
use uapi::type1::{Bitmap, DirtyBitmapGet, DirtyFlags, DirtyPages};

use super::{Type1, Version, env};
use crate::{Answer, Caller, Refusal, Shared, user};

/// Bytes of the largest bitmap.
pub(super) const BITMAP_SIZE_MAX: u64 = 256 << 20;

/// Checks a bitmap's address and size for a range of `size` bytes; the page size that it names is
/// only checked for being one.
pub(super) fn check_bitmap(caller: &dyn Caller, bitmap: &Bitmap, size: u64) -> Result<(), Refusal> {
    if !caller.is_user_range(bitmap.data, bitmap.size) {
        return Err(Refusal::BitmapAddress(bitmap.data));
    }
    // A page size of 0 has no lowest bit: undefined in the kernel, refused here.
    let pages = size.checked_shr(bitmap.pgsize.trailing_zeros()).unwrap_or(0);
    let needed = pages.div_ceil(64).saturating_mul(8);
    if pages == 0 || bitmap.size == 0 || bitmap.size > BITMAP_SIZE_MAX || bitmap.size < needed {
        return Err(Refusal::BitmapSize { size: bitmap.size, pages });
    }
    Ok(())
}

impl Type1 {
    #[doc(alias = "VFIO_IOMMU_DIRTY_PAGES")]
    pub(super) fn dirty_pages(
        &mut self,
        shared: &mut Shared,
        caller: &mut dyn Caller,
        arg: u64,
    ) -> Answer {
        if self.version == Version::V1 {
            return Err(Refusal::DirtyNeedsV2);
        }
        let head: DirtyPages = user::read_all(caller, arg)?;
        if head.argsz < DirtyPages::MIN_ARGSZ {
            return Err(Refusal::ArgszTooSmall { argsz: head.argsz, min: DirtyPages::MIN_ARGSZ });
        }
        let flags = DirtyFlags::from_bits(head.flags)
            .ok_or(Refusal::UnknownFlags { unknown: head.flags & !DirtyFlags::all().bits() })?;
        if flags == DirtyFlags::START {
            self.space.dirty_start(&mut env(shared, caller))?;
        } else if flags == DirtyFlags::STOP {
            self.space.dirty_stop(&mut env(shared, caller));
        } else if flags == DirtyFlags::GET_BITMAP {
            self.get_bitmap(shared, caller, arg, head.argsz)?;
        } else {
            return Err(Refusal::FlagMix("exactly one of START, STOP, GET_BITMAP is needed"));
        }
        Ok(0)
    }

    fn get_bitmap(
        &mut self,
        shared: &Shared,
        caller: &mut dyn Caller,
        arg: u64,
        argsz: u32,
    ) -> Result<(), Refusal> {
        let min = DirtyPages::MIN_ARGSZ_BITMAP;
        if argsz < min {
            return Err(Refusal::ArgszTooSmall { argsz, min });
        }
        let get: DirtyBitmapGet = user::read_tail(caller, arg, DirtyPages::MIN_ARGSZ)?;
        if get.size == 0 {
            return Err(Refusal::Empty);
        }
        let wraps = Refusal::Wraps { what: "iova", first: get.iova, size: get.size };
        let range = IovaRange::sized(get.iova, get.size)
            .filter(|r| r.last() != u64::MAX || shared.host.dialect.top_is_reachable)
            .ok_or(wraps)?;
        check_bitmap(caller, &get.bitmap, get.size)?;
        let granule = self.space.page_sizes().smallest();
        if get.bitmap.pgsize != granule {
            return Err(Refusal::BitmapPageSize { pgsize: get.bitmap.pgsize, granule });
        }
        for (what, value) in [("iova", get.iova), ("size", get.size)] {
            if value & granule.wrapping_sub(1) != 0 {
                return Err(Refusal::Misaligned { what, value, granule });
            }
        }
        let via = RefCell::new(caller);
        Ok(self.space.dirty_query(range, &mut UserBitmap::new(&via, get.bitmap.data))?)
    }
}

/// One caller as the engine's pinner and its bitmap at once.
pub(super) struct Via<'a, 'c>(pub(super) &'a RefCell<&'c mut dyn Caller>);

impl Pinner for Via<'_, '_> {
    fn pin(&mut self, vaddr: u64, size: u64, write: bool) -> Result<Pinned, PinError> {
        self.0.borrow_mut().pin(vaddr, size, write)
    }

    fn unpin(&mut self, pin: PinId) {
        self.0.borrow_mut().unpin(pin);
    }
}

/// A bitmap at an address of the caller.
pub(super) struct UserBitmap<'a, 'c> {
    caller: &'a RefCell<&'c mut dyn Caller>,
    data: u64,
}

impl<'a, 'c> UserBitmap<'a, 'c> {
    pub(super) const fn new(caller: &'a RefCell<&'c mut dyn Caller>, data: u64) -> Self {
        Self { caller, data }
    }

    fn address(&self, index: u64) -> Option<u64> {
        self.data.checked_add(index.checked_mul(8)?)
    }
}

impl BitmapSink for UserBitmap<'_, '_> {
    fn read(&mut self, index: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.caller.borrow_mut().copy_in(self.address(index)?, &mut word).ok()?;
        Some(u64::from_ne_bytes(word))
    }

    fn write(&mut self, index: u64, words: &[u64]) -> Option<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        self.caller.borrow_mut().copy_out(self.address(index)?, &bytes).ok()
    }
}
