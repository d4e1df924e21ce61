//! Removing mappings.

use core::ops::ControlFlow;

use crate::event::Event;
use crate::space::{AddressSpace, BitmapSink, Env, Mapping, State};
use crate::{DirtyRefusal, IovaRange};

impl AddressSpace {
    /// The mapping that `range` would cut: it holds the first byte and starts before it, or holds
    /// the last byte and ends after it.
    #[must_use]
    pub fn cut_by(&self, range: IovaRange) -> Option<IovaRange> {
        let cut = self.table.cut_by(range);
        if planted!(CutTestMissesEnd) {
            return cut.filter(|r| r.first() < range.first());
        }
        cut
    }

    /// Removes the mapping that is exactly `range`; whether there was one.
    pub fn unmap_exact(&mut self, range: IovaRange, env: &mut Env<'_>) -> bool {
        let Some(mapping) = self.table.remove_exact(range) else { return false };
        self.removed(range, &mapping, env);
        true
    }

    /// Removes every mapping that starts in `range`, lowest first. Returns their bytes, modulo
    /// 2^64.
    pub fn unmap(&mut self, range: IovaRange, env: &mut Env<'_>) -> u64 {
        let mut bytes = 0u64;
        while let Some((found, mapping)) = self.table.remove_first_in(range) {
            self.removed(found, &mapping, env);
            bytes = bytes.wrapping_add(found.size());
        }
        bytes
    }

    /// As [`unmap`](Self::unmap), and tells which pages may have been written: bit 0 is the first
    /// page of `range`.
    ///
    /// # Errors
    /// [`DirtyRefusal::Off`] when tracking is off. [`DirtyRefusal::Bitmap`] when the bitmap cannot
    /// be written: mappings removed so far stay removed, as in the kernel.
    pub fn unmap_dirty(
        &mut self,
        range: IovaRange,
        bitmap: &mut dyn BitmapSink,
        env: &mut Env<'_>,
    ) -> Result<u64, DirtyRefusal> {
        if !self.is_tracking_dirty() {
            return Err(DirtyRefusal::Off);
        }
        let mut bytes = 0u64;
        let stopped = self.each_starting_in(range, |space, found| {
            if let Err(refusal) = space.report_dirty(found, range.first(), bitmap) {
                return ControlFlow::Break(refusal);
            }
            if let Some((range, mapping)) = space.table.remove(found.first()) {
                space.removed(range, &mapping, env);
                bytes = bytes.wrapping_add(range.size());
            }
            ControlFlow::Continue(())
        });
        stopped.map_or(Ok(bytes), Err)
    }

    /// Walks the mappings that start in `range`, ascending; `f` may remove the one it is shown.
    pub(super) fn each_starting_in<B>(
        &mut self,
        range: IovaRange,
        mut f: impl FnMut(&mut Self, IovaRange) -> ControlFlow<B>,
    ) -> Option<B> {
        let mut from = range.first();
        while let Some((found, _)) = self.table.next_from(from) {
            if found.first() > range.last() {
                break;
            }
            if found.first() >= range.first()
                && let ControlFlow::Break(b) = f(self, found)
            {
                return Some(b);
            }
            match found.last().checked_add(1) {
                Some(next) => from = next,
                None => break,
            }
        }
        None
    }

    /// Everything that follows from a mapping having left the table.
    fn removed(&mut self, range: IovaRange, mapping: &Mapping, env: &mut Env<'_>) {
        if mapping.vaddr_is_invalid() {
            self.invalid_vaddrs = self.invalid_vaddrs.saturating_sub(1);
        }
        if let Some(dirty) = &mut self.dirty {
            dirty.remove(&range.first());
        }
        self.let_go(mapping, env);
        env.observer.event(&Event::Unmapped { range });
    }

    /// Gives a mapping's pin and charge back, or its part in them.
    pub(super) fn let_go(&mut self, mapping: &Mapping, env: &mut Env<'_>) {
        if !mapping.state.contains(State::SHARED_PIN) {
            super::map::release(mapping, env);
            return;
        }
        let Some(shared) = self.shared_pins.get_mut(&mapping.pin) else { return };
        shared.mappings = shared.mappings.saturating_sub(1);
        if shared.mappings == 0 {
            env.locked.uncharge(shared.mm, shared.charged_pages);
            env.pinner.unpin(mapping.pin);
            self.shared_pins.remove(&mapping.pin);
        }
    }
}
