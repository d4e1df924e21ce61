//! User addresses that move while devices go on: invalidate, then update.
//!
//! A VMM that restarts itself in place keeps its DMA mappings: it declares their addresses invalid,
//! and the new process gives the new ones. What is pinned does not change.

use core::ops::ControlFlow;

use crate::event::Event;
use crate::refusal::{Field, VaddrRefusal};
use crate::space::{AddressSpace, Env, State};
use crate::{IovaRange, LockBudget};

impl AddressSpace {
    /// Declares the user address of every mapping that starts in `range` invalid. Returns their
    /// bytes, modulo 2^64.
    ///
    /// # Errors
    /// [`VaddrRefusal::AlreadyInvalid`] when one is invalid already; nothing has changed then.
    pub fn invalidate_vaddr(
        &mut self,
        range: IovaRange,
        env: &mut Env<'_>,
    ) -> Result<u64, VaddrRefusal> {
        let already = self.each_starting_in(range, |space, existing| {
            match space.table.get(existing.first()) {
                Some((_, m)) if m.vaddr_is_invalid() => ControlFlow::Break(existing),
                _ => ControlFlow::Continue(()),
            }
        });
        if let Some(existing) = already {
            return Err(VaddrRefusal::AlreadyInvalid { existing });
        }
        let mut bytes = 0u64;
        self.each_starting_in(range, |space, range| {
            if let Some((_, m)) = space.table.get_mut(range.first()) {
                m.state.insert(State::VADDR_INVALID);
                space.invalid_vaddrs = space.invalid_vaddrs.saturating_add(1);
                bytes = bytes.wrapping_add(range.size());
                env.observer.event(&Event::VaddrInvalidated { range });
            }
            ControlFlow::<()>::Continue(())
        });
        Ok(bytes)
    }

    /// Gives the mapping that is exactly `range` its new user address. When the caller's address
    /// space is another one, the locked pages are charged to it instead.
    ///
    /// # Errors
    /// In the kernel's order: wrap, alignment, nothing mapped, address still valid or range not
    /// exact, limit of locked memory. Nothing has changed then.
    pub fn update_vaddr(
        &mut self,
        range: IovaRange,
        vaddr: u64,
        budget: LockBudget,
        env: &mut Env<'_>,
    ) -> Result<(), VaddrRefusal> {
        if vaddr.checked_add(range.size().wrapping_sub(1)).is_none() {
            return Err(VaddrRefusal::VaddrWraps { vaddr, size: range.size() });
        }
        let fields =
            [(Field::Size, range.size()), (Field::Iova, range.first()), (Field::Vaddr, vaddr)];
        if let Some((field, value, granule)) = self.misaligned(&fields) {
            return Err(VaddrRefusal::Misaligned { field, value, granule });
        }
        let Some((existing, &mapping)) = self.table.first_overlap(range) else {
            return Err(VaddrRefusal::NothingMapped { wanted: range });
        };
        if !mapping.vaddr_is_invalid() {
            return Err(VaddrRefusal::StillValid { existing });
        }
        if existing != range {
            return Err(VaddrRefusal::NotExact { wanted: range, existing });
        }
        let moves = mapping.mm != budget.mm;
        // The halves of a cut share one charge, which stays with the address space that paid it.
        if moves && !mapping.state.contains(State::SHARED_PIN) {
            env.locked.charge(budget, mapping.charged_pages).map_err(VaddrRefusal::OverLimit)?;
            if !planted!(UpdateChargesTwice) {
                env.locked.uncharge(mapping.mm, mapping.charged_pages);
            }
        }
        if let Some((_, m)) = self.table.get_mut(range.first()) {
            m.vaddr = vaddr;
            if moves {
                m.mm = budget.mm;
                m.state.set(State::MAY_LOCK, budget.limit_pages.is_none());
            }
            m.state.remove(State::VADDR_INVALID);
            self.invalid_vaddrs = self.invalid_vaddrs.saturating_sub(1);
        }
        env.observer.event(&Event::VaddrUpdated { range, vaddr });
        Ok(())
    }
}
