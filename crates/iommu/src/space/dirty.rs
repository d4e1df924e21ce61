//! Dirty tracking: which pages a device may have written.
//!
//! A real IOMMU of VFIO's kind cannot tell, so the kernel reports every page of a mapping that a
//! device can reach, each time it is asked. (That a device left does not show: as long as another
//! one stays everything is dirty anyway, and with the last one the mappings go.) That takes no
//! bitmap per mapping: what is kept is the tail of the kernel's bitmap, where stray bits live (see
//! [`Dialect::dirty_bits_stray`](crate::Dialect)).

use alloc::collections::BTreeMap;

use crate::IovaRange;
use crate::event::Event;
use crate::refusal::{DirtyRefusal, MapRefusal};
use crate::space::map::BITMAP_PAGES_MAX;
use crate::space::{AddressSpace, Env};

/// Where a bitmap goes: 64-bit words in the client's memory, bit 0 of word 0 the first page.
pub trait BitmapSink {
    /// Reads word `index`; `None` when it is not accessible.
    fn read(&mut self, index: u64) -> Option<u64>;
    /// Writes `words` from word `index` on; `None` when they are not accessible.
    fn write(&mut self, index: u64, words: &[u64]) -> Option<()>;
}

/// What is kept of a mapping's bitmap while tracking is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DirtyBits {
    /// Bits beyond the last page: of the word that holds the bit after it, and of the next.
    tail: [u64; 2],
}

/// The bitmap of one mapping, word by word, as the kernel's holds it.
#[derive(Clone, Copy)]
struct Words {
    pages: u64,
    dirty: bool,
    tail: [u64; 2],
}

impl Words {
    /// Word `k` of the bitmap; words beyond its end are 0.
    fn get(&self, k: u64) -> u64 {
        let whole = self.pages >> 6;
        let ones = if self.dirty { u64::MAX } else { 0 };
        match k.checked_sub(whole) {
            None => ones,
            Some(0) => (ones & low_bits(self.pages & 63)) | self.tail[0],
            Some(1) if self.pages & 63 != 0 => self.tail[1],
            Some(_) => 0,
        }
    }

    /// Word `k` after the whole bitmap moved up by `shift` bits (0..=63).
    fn shifted(&self, k: u64, shift: u32) -> u64 {
        if shift == 0 {
            return self.get(k);
        }
        let carried = match k.checked_sub(1) {
            Some(below) => self.get(below).wrapping_shr(64_u32.wrapping_sub(shift)),
            None => 0,
        };
        self.get(k).wrapping_shl(shift) | carried
    }
}

fn low_bits(n: u64) -> u64 {
    1u64.checked_shl(u32::try_from(n).unwrap_or(64)).map_or(u64::MAX, |b| b.wrapping_sub(1))
}

/// Words handed to the client at once.
const CHUNK: usize = 256;

impl AddressSpace {
    /// Whether dirty pages are tracked.
    #[must_use]
    pub const fn is_tracking_dirty(&self) -> bool {
        self.dirty.is_some()
    }

    /// Starts dirty tracking; does nothing when it is on.
    ///
    /// # Errors
    /// [`DirtyRefusal::TooManyPages`]; tracking stays off.
    pub fn dirty_start(&mut self, env: &mut Env<'_>) -> Result<(), DirtyRefusal> {
        if self.dirty.is_some() {
            return Ok(());
        }
        let mut all = BTreeMap::new();
        for (mapping, _) in self.table.iter() {
            let pages = self.pages(mapping);
            if pages > BITMAP_PAGES_MAX {
                return Err(DirtyRefusal::TooManyPages { mapping, pages });
            }
            all.insert(mapping.first(), DirtyBits::default());
        }
        self.dirty = Some(all);
        env.observer.event(&Event::DirtyTracking { on: true });
        Ok(())
    }

    /// Stops dirty tracking; does nothing when it is off.
    pub fn dirty_stop(&mut self, env: &mut Env<'_>) {
        if self.dirty.take().is_some() {
            env.observer.event(&Event::DirtyTracking { on: false });
        }
    }

    /// Tells which pages of `range` may have been written; bit 0 is the first page of `range`.
    /// Bits of pages without a mapping are left as they are.
    ///
    /// # Errors
    /// Tracking is off, `range` cuts a mapping, or the bitmap is not accessible: what was written
    /// to it before stays.
    pub fn dirty_query(
        &mut self,
        range: IovaRange,
        bitmap: &mut dyn BitmapSink,
    ) -> Result<(), DirtyRefusal> {
        if self.dirty.is_none() {
            return Err(DirtyRefusal::Off);
        }
        if let Some(existing) = self.cut_by(range) {
            return Err(DirtyRefusal::Cuts { wanted: range, existing });
        }
        let stopped = self.each_starting_in(range, |space, mapping| {
            match space.report_dirty(mapping, range.first(), bitmap) {
                Ok(()) => core::ops::ControlFlow::Continue(()),
                Err(refusal) => core::ops::ControlFlow::Break(refusal),
            }
        });
        stopped.map_or(Ok(()), Err)
    }

    /// Reports one mapping into a bitmap whose bit 0 is the page at `base`, and forgets.
    pub(super) fn report_dirty(
        &mut self,
        range: IovaRange,
        base: u64,
        bitmap: &mut dyn BitmapSink,
    ) -> Result<(), DirtyRefusal> {
        let page_shift = self.page_sizes.smallest().trailing_zeros();
        let pages = self.pages(range);
        let reachable = !self.domains.is_empty()
            && self.table.get(range.first()).is_some_and(|(_, m)| m.is_pinned());
        let stray = self.dirty_bits_stray;
        let Some(bits) = self.dirty.as_mut().and_then(|d| d.get_mut(&range.first())) else {
            return Ok(());
        };
        let words = Words { pages, dirty: reachable, tail: bits.tail };

        let first_bit = range.first().wrapping_sub(base).wrapping_shr(page_shift);
        let (at, shift) = (first_bit >> 6, u32::try_from(first_bit & 63).unwrap_or(0));
        let count = pages.saturating_add(u64::from(shift)).div_ceil(64);
        // The first word may hold bits of the mapping before: they are read back and kept.
        let mut lead = 0;
        if shift != 0 {
            let whole = pages >> 6;
            if stray {
                bits.tail[0] = words.shifted(whole, shift) & !low_bits(pages & 63);
                if count > whole.saturating_add(1) {
                    bits.tail[1] = words.shifted(whole.saturating_add(1), shift);
                }
            }
            lead = bitmap.read(at).ok_or(DirtyRefusal::Bitmap)?;
            if stray && whole == 0 {
                bits.tail[0] |= lead & !low_bits(pages & 63);
            }
            if !stray {
                lead &= low_bits(u64::from(shift));
            }
            if planted!(DirtyLosesLead) {
                lead = 0;
            }
        }
        let mut chunk = [0u64; CHUNK];
        let mut done = 0u64;
        while done < count {
            let mut filled = 0usize;
            let start = done;
            for slot in &mut chunk {
                if done == count {
                    break;
                }
                *slot = words.shifted(done, shift) | if done == 0 { lead } else { 0 };
                done = done.saturating_add(1);
                filled = filled.saturating_add(1);
            }
            let words = chunk.get(..filled).unwrap_or_default();
            bitmap.write(at.saturating_add(start), words).ok_or(DirtyRefusal::Bitmap)?;
        }
        Ok(())
    }

    /// A mapping was made: its bitmap, when tracking is on.
    pub(super) fn start_dirty(&mut self, range: IovaRange) -> Result<(), MapRefusal> {
        if self.dirty.is_none() {
            return Ok(());
        }
        let pages = self.pages(range);
        if pages > BITMAP_PAGES_MAX {
            return Err(MapRefusal::TooManyPages { pages });
        }
        if let Some(dirty) = &mut self.dirty {
            dirty.insert(range.first(), DirtyBits::default());
        }
        Ok(())
    }

    /// A mapping was cut at `at`: both halves begin with clean bitmaps.
    pub(super) fn cut_dirty(&mut self, range: IovaRange, at: u64) {
        if let Some(dirty) = &mut self.dirty {
            dirty.insert(range.first(), DirtyBits::default());
            dirty.insert(at, DirtyBits::default());
        }
    }

    /// The page size changed: other pages need other bitmaps. (A kernel goes on with the old ones,
    /// beyond their end when pages became smaller.)
    pub(super) fn renew_dirty(&mut self) {
        if let Some(dirty) = &mut self.dirty {
            dirty.values_mut().for_each(|bits| *bits = DirtyBits::default());
        }
    }

    fn pages(&self, range: IovaRange) -> u64 {
        range.size().wrapping_shr(self.page_sizes.smallest().trailing_zeros())
    }
}
