//! Windows that the user registers: IOVA set aside for doorbells, where the user wants them.
//!
//! A window belongs to the container; every domain whose MSIs are translated into user windows has
//! its own pool of the same window. A window is no mapping: it costs no entry and no locked memory,
//! has no dirty pages, and ordinary requests do not see it, but for its addresses being taken.

use crate::event::Event;
use crate::host::{Group, Iommu, MsiPolicy};
use crate::pool::Window;
use crate::refusal::{AttachRefusal, Field, WindowMisfit, WindowRefusal, in_the_way};
use crate::space::{AddressSpace, Env};
use crate::{Domain, IovaRange, Prot};

impl AddressSpace {
    /// The windows, ascending.
    pub fn windows(&self) -> impl Iterator<Item = Window> {
        self.windows.values().copied()
    }

    /// How many windows the container may have: the least that an attached IOMMU with user windows
    /// allows; `None` when none has them.
    #[must_use]
    pub fn max_windows(&self) -> Option<u32> {
        self.domains.iter().filter_map(Domain::max_windows).min()
    }

    /// Pages bound in the window that starts at `first`: the largest number over domains.
    #[must_use]
    pub fn window_used_pages(&self, first: u64) -> u64 {
        let domains = if planted!(RemoveSeesOneDomain) { 1 } else { usize::MAX };
        // The driver's own window of another domain may lie at the same address.
        let takers = self.domains.iter().filter(|d| d.max_windows().is_some());
        let pools = takers.take(domains).filter_map(Domain::pool);
        pools.map(|p| p.used_pages(first)).max().unwrap_or(0)
    }

    /// Registers a window.
    ///
    /// # Errors
    /// The first that applies: nothing attached takes windows, access, alignment, mapping or window
    /// in the way, number of windows, valid ranges, permission. Nothing has changed then.
    pub fn add_window(&mut self, window: Window, env: &mut Env<'_>) -> Result<(), WindowRefusal> {
        let Window { range, prot, .. } = window;
        let Some(limit) = self.max_windows() else { return Err(WindowRefusal::NotTaken) };
        if prot.is_empty() {
            return Err(WindowRefusal::NoAccess);
        }
        let fields = [(Field::Size, range.size()), (Field::Iova, range.first())];
        if let Some((field, value, granule)) = self.misaligned(&fields) {
            return Err(WindowRefusal::Misaligned { field, value, granule });
        }
        if let Some((existing, _)) = self.table.first_overlap(range) {
            return Err(WindowRefusal::Mapped { existing, nearest: self.nearest(range) });
        }
        if let Some(existing) = self.window_in(range) {
            return Err(WindowRefusal::Window { existing, nearest: self.nearest(range) });
        }
        if u32::try_from(self.windows.len()).unwrap_or(u32::MAX) >= limit {
            return Err(WindowRefusal::NoneLeft { limit });
        }
        if self.valid.covering(range).is_none() {
            let (why, nearest) = (self.why_unusable(range), self.nearest(range));
            return Err(WindowRefusal::NotUsable { why, nearest });
        }
        let takers = || self.domains.iter().filter(|d| d.max_windows().is_some());
        if !takers().all(|d| d.expresses(prot)) {
            return Err(WindowRefusal::Permission { prot });
        }
        // Nothing can fail from here on: every domain gets the window.
        for pool in self.domains.iter_mut().filter_map(Domain::user_pool_mut) {
            pool.add(window);
        }
        self.windows.insert(range.first(), window);
        env.observer.event(&Event::WindowAdded { window });
        Ok(())
    }

    /// Removes the window that is exactly `range`. `Ok(false)`: there is no window there at all.
    ///
    /// # Errors
    /// `range` is not exactly one window, or doorbells are bound in it. Nothing has changed then.
    pub fn remove_window(
        &mut self,
        range: IovaRange,
        env: &mut Env<'_>,
    ) -> Result<bool, WindowRefusal> {
        let Some(existing) = self.window_in(range) else { return Ok(false) };
        if existing != range {
            return Err(WindowRefusal::NotExact { wanted: range, existing });
        }
        self.check_idle(range)?;
        self.drop_window(range, env);
        Ok(true)
    }

    /// Removes every window, or none. Returns their bytes, modulo 2^64.
    ///
    /// # Errors
    /// [`WindowRefusal::Busy`] names the lowest window with doorbells. Nothing has changed then.
    pub fn remove_all_windows(&mut self, env: &mut Env<'_>) -> Result<u64, WindowRefusal> {
        for window in self.windows.values() {
            self.check_idle(window.range)?;
        }
        let mut bytes = 0u64;
        while let Some(range) = self.windows.values().next().map(|w| w.range) {
            bytes = bytes.wrapping_add(range.size());
            self.drop_window(range, env);
        }
        Ok(bytes)
    }

    /// The lowest window that shares a byte with `range`.
    pub(super) fn window_in(&self, range: IovaRange) -> Option<IovaRange> {
        let below = self.windows.range(..=range.first()).next_back();
        let above = self.windows.range(range.first()..).next();
        let above = above.filter(|_| !planted!(WindowAboveUnseen));
        let shares = |w: &(&u64, &Window)| w.1.range.overlaps(range);
        below.filter(shares).or(above.filter(shares)).map(|(_, w)| w.range)
    }

    /// Whether every window suits a group that is about to be attached. A group whose MSIs are not
    /// translated into user windows ignores them.
    pub(super) fn check_windows(&self, iommu: &Iommu, group: &Group) -> Result<(), AttachRefusal> {
        let MsiPolicy::User { max_windows: limit } = iommu.msi else { return Ok(()) };
        for (count, window) in (1u32..).zip(self.windows.values()) {
            if let Some(why) = misfit(iommu, group, window, count > limit, limit) {
                let (group, window) = (group.number, window.range);
                return Err(AttachRefusal::Window { group, window, why });
            }
        }
        Ok(())
    }

    /// Gives a domain that has just been made its own pool of every window.
    pub(super) fn give_windows(&mut self) {
        let Some(pool) = self.domains.last_mut().and_then(Domain::user_pool_mut) else { return };
        for window in self.windows.values().filter(|_| !planted!(LateDomainWithoutWindows)) {
            pool.add(*window);
        }
    }

    /// The last group leaves: no pool is left, and no window.
    pub(super) fn drop_all_windows(&mut self, env: &mut Env<'_>) {
        while let Some((_, window)) = self.windows.pop_first() {
            env.observer.event(&Event::WindowRemoved { range: window.range });
        }
    }

    fn check_idle(&self, window: IovaRange) -> Result<(), WindowRefusal> {
        match self.window_used_pages(window.first()) {
            0 => Ok(()),
            pages => Err(WindowRefusal::Busy { window, pages }),
        }
    }

    fn drop_window(&mut self, range: IovaRange, env: &mut Env<'_>) {
        for pool in self.domains.iter_mut().filter_map(Domain::user_pool_mut) {
            pool.remove(range);
        }
        self.windows.remove(&range.first());
        if planted!(RemovedWindowStaysCut) {
            self.valid.subtract(range);
        }
        env.observer.event(&Event::WindowRemoved { range });
    }
}

fn misfit(
    iommu: &Iommu,
    group: &Group,
    window: &Window,
    too_many: bool,
    limit: u32,
) -> Option<WindowMisfit> {
    let Window { range, prot, .. } = *window;
    let granule = iommu.page_sizes.smallest();
    let within = granule.wrapping_sub(1);
    if !iommu.aperture.covers(range) {
        Some(WindowMisfit::Aperture(iommu.aperture))
    } else if let Some(region) = in_the_way(group.reserved.iter(), range) {
        Some(WindowMisfit::Reserved(region))
    } else if range.first() & within != 0 || range.size() & within != 0 {
        Some(WindowMisfit::PageSize { granule })
    } else if prot == Prot::WRITE && !iommu.write_only {
        Some(WindowMisfit::Permission(prot))
    } else if too_many {
        Some(WindowMisfit::TooMany { limit })
    } else {
        None
    }
}
