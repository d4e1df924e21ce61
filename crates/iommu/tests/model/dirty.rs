//! The model's dirty pages (kernel-semantics 6): the kernel's bitmaps, kept bit by bit, with the
//! shift in place that leaves stray bits behind (`update_user_bitmap`).

use iommu::{DirtyRefusal, IovaRange};

use super::op::Sink;
use super::outcome::Words;
use super::reference::Model;
use super::span::Span;

/// Pages of the largest mapping whose bitmap is looked at.
const LOOKED_AT: u128 = 8192;
/// Pages that a kernel's bitmap can have.
const BITMAP_PAGES_MAX: u128 = (1 << 31) - 1;

impl Model {
    pub(crate) fn dirty_start(&mut self) -> Result<(), DirtyRefusal> {
        if self.tracking {
            return Ok(());
        }
        for span in self.spans() {
            let pages = self.pages(span);
            if pages > BITMAP_PAGES_MAX {
                let mapping = span.range();
                return Err(DirtyRefusal::TooManyPages { mapping, pages: pages as u64 });
            }
        }
        self.tracking = true;
        self.spans().into_iter().for_each(|s| self.fresh_bits(s));
        Ok(())
    }

    pub(crate) fn dirty_stop(&mut self) {
        self.tracking = false;
        self.maps.iter_mut().for_each(|m| m.bits.clear());
    }

    pub(crate) fn dirty_query(
        &mut self,
        range: IovaRange,
        sink: Sink,
    ) -> (Result<(), DirtyRefusal>, Words) {
        let mut memory = sink.memory();
        let span = Span::of(range);
        if !self.tracking {
            return (Err(DirtyRefusal::Off), Words(memory));
        }
        if let Some(existing) = self.cut_by(span) {
            return (Err(DirtyRefusal::Cuts { wanted: range, existing }), Words(memory));
        }
        for mapping in self.starting_in(span) {
            if self.report(mapping, span.first, sink, &mut memory).is_none() {
                return (Err(DirtyRefusal::Bitmap), Words(memory));
            }
        }
        (Ok(()), Words(memory))
    }

    pub(crate) fn unmap_dirty(
        &mut self,
        range: IovaRange,
        sink: Sink,
    ) -> (Result<u64, DirtyRefusal>, Words) {
        let mut memory = sink.memory();
        let span = Span::of(range);
        if !self.tracking {
            return (Err(DirtyRefusal::Off), Words(memory));
        }
        let mut bytes = 0u64;
        for mapping in self.starting_in(span) {
            if self.report(mapping, span.first, sink, &mut memory).is_none() {
                return (Err(DirtyRefusal::Bitmap), Words(memory));
            }
            bytes = bytes.wrapping_add(self.remove(&[mapping]));
        }
        (Ok(bytes), Words(memory))
    }

    /// A sink that ends before the bitmap of a mapping too large to look at.
    pub(crate) fn bounded(&self, range: IovaRange, sink: Sink) -> Sink {
        let span = Span::of(range);
        let mut end = Sink::WORDS as u64;
        for mapping in self.starting_in(span) {
            let (word, shift) = self.offset(mapping, span.first);
            let pages = self.pages(mapping);
            let words = (pages + u128::from(shift)).div_ceil(64);
            if pages > LOOKED_AT || u128::from(word) + words > Sink::WORDS as u128 {
                end = end.min(word);
            }
        }
        Sink { readable: sink.readable.min(end), writable: sink.writable.min(end), ..sink }
    }

    /// A mapping begins with a clean bitmap.
    pub(crate) fn fresh_bits(&mut self, span: Span) {
        let pages = self.pages(span);
        let bits = if self.tracking && pages <= LOOKED_AT {
            vec![false; (pages.div_ceil(64) as usize + 1) * 64]
        } else {
            Vec::new()
        };
        self.at_mut(span).bits = bits;
    }

    /// Another page size needs other bitmaps.
    pub(crate) fn renew_bits(&mut self, granule_before: u64) {
        if self.granule() != granule_before {
            self.spans().into_iter().for_each(|s| self.fresh_bits(s));
        }
    }

    fn pages(&self, span: Span) -> u128 {
        span.size() / u128::from(self.granule())
    }

    /// Word and bit of a mapping's first page in a bitmap that begins at `base`.
    fn offset(&self, mapping: Span, base: u128) -> (u64, u32) {
        let bit = (mapping.first - base) / u128::from(self.granule());
        ((bit / 64) as u64, (bit % 64) as u32)
    }

    fn report(&mut self, span: Span, base: u128, sink: Sink, memory: &mut [u64]) -> Option<()> {
        let (word, shift) = self.offset(span, base);
        let (pages, attached) = (self.pages(span), !self.domains.is_empty());
        let (stray, shift) = (self.setup.stray, shift as usize);
        let mapping = self.at_mut(span);
        let dirty = attached && mapping.pin.is_some();
        if mapping.bits.is_empty() {
            // Too large to look at: the sink ends before it.
            assert!(word >= sink.writable && (shift == 0 || word >= sink.readable));
            return None;
        }
        let pages = pages as usize;
        mapping.bits[..pages].fill(dirty);
        let words = (pages + shift).div_ceil(64);
        let mut moved = mapping.bits.clone();
        if shift != 0 {
            moved[..words * 64].rotate_right(shift);
            moved[..shift].fill(false);
            if stray {
                mapping.bits.clone_from(&moved);
            }
            if word >= sink.readable {
                return None;
            }
            // The kernel keeps the whole word of what was there, not only the bits below.
            let kept = if stray { 64 } else { shift };
            for (bit, value) in moved.iter_mut().enumerate().take(kept) {
                *value |= memory[word as usize] >> bit & 1 != 0;
            }
            if stray {
                mapping.bits.clone_from(&moved);
            }
        }
        if word + words as u64 > sink.writable {
            return None;
        }
        for (n, bits) in moved[..words * 64].chunks(64).enumerate() {
            let value = bits.iter().rev().fold(0, |v, bit| v << 1 | u64::from(*bit));
            memory[word as usize + n] = value;
        }
        if !stray {
            mapping.bits.fill(false);
        }
        Some(())
    }
}
