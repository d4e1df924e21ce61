//! Locked memory, counted per address space as the kernel counts `mm->locked_vm`.

use alloc::collections::BTreeMap;

use crate::MmId;

/// Pages locked by every address space, over all containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockedMemory {
    pages: BTreeMap<MmId, u64>,
}

/// Whose pages are locked and how many may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockBudget {
    /// The address space charged.
    pub mm: MmId,
    /// Pages that it may have locked in all (`RLIMIT_MEMLOCK`, rounded down to pages); `None` with
    /// `CAP_IPC_LOCK`.
    pub limit_pages: Option<u64>,
}

/// A charge that would go over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// Pages locked now.
    pub locked_pages: u64,
    /// Pages wanted on top.
    pub wanted_pages: u64,
    /// Pages allowed.
    pub limit_pages: u64,
}

impl LockedMemory {
    /// Pages that `mm` has locked.
    #[must_use]
    pub fn pages(&self, mm: MmId) -> u64 {
        self.pages.get(&mm).copied().unwrap_or(0)
    }

    /// Whether `pages` more fit the budget. Pinning no page at all always fits, as in the kernel,
    /// where the test happens page by page.
    ///
    /// # Errors
    /// [`OverLimit`] when they do not.
    pub fn check(&self, budget: LockBudget, pages: u64) -> Result<(), OverLimit> {
        let Some(limit_pages) = budget.limit_pages else { return Ok(()) };
        let locked_pages = self.pages(budget.mm);
        if pages == 0 || locked_pages.saturating_add(pages) <= limit_pages {
            return Ok(());
        }
        Err(OverLimit { locked_pages, wanted_pages: pages, limit_pages })
    }

    /// Charges `pages`.
    ///
    /// # Errors
    /// [`OverLimit`]; nothing is charged then.
    pub fn charge(&mut self, budget: LockBudget, pages: u64) -> Result<(), OverLimit> {
        self.check(budget, pages)?;
        if pages != 0 {
            let now = self.pages.entry(budget.mm).or_insert(0);
            *now = now.saturating_add(pages);
        }
        Ok(())
    }

    /// Gives `pages` back.
    pub fn uncharge(&mut self, mm: MmId, pages: u64) {
        if pages == 0 {
            return;
        }
        if let Some(now) = self.pages.get_mut(&mm) {
            *now = now.saturating_sub(pages);
            if *now == 0 {
                self.pages.remove(&mm);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MM: MmId = MmId(1);

    #[test]
    fn the_limit_is_of_the_address_space_not_of_the_call() {
        let mut l = LockedMemory::default();
        let b = LockBudget { mm: MM, limit_pages: Some(16) };
        l.charge(b, 16).unwrap();
        assert_eq!(
            l.charge(b, 1),
            Err(OverLimit { locked_pages: 16, wanted_pages: 1, limit_pages: 16 })
        );
        assert_eq!(l.charge(b, 0), Ok(()));
        l.charge(LockBudget { mm: MM, limit_pages: None }, 5).unwrap();
        assert_eq!(l.pages(MM), 21);
        l.charge(LockBudget { mm: MmId(2), limit_pages: Some(16) }, 16).unwrap();
        l.uncharge(MM, 21);
        assert_eq!((l.pages(MM), l.pages(MmId(2))), (0, 16));
    }
}
