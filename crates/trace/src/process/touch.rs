//! Which pages of anonymous memory a fault has filled, for kernels whose read-only pins of
//! untouched memory pin a shared zero page ([`iommu::Dialect::zero_page_pinned`]).
//!
//! Such a pin is real in nothing but its address: the device does not see what the process writes
//! later, since the process gets another page then. Whether it counts as locked memory depends on
//! the page's size: the small zero page does not, the huge one does (recorded: `locked_kb` of the
//! random traces of Linux 6.1). So blocks of one huge page are followed:
//!
//! * untouched, wholly inside a mapping: a read gives the huge zero page, a write a huge page;
//! * with a huge zero page: a write splits it into small zero pages and one page of its own;
//! * else page by page.

use super::runs::Runs;

/// What is behind a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// A page of its own.
    Own,
    /// The zero page.
    Zero,
    /// A part of the huge zero page.
    HugeZero,
}

/// The pages of an object, by index.
#[derive(Debug)]
pub(crate) struct Touched {
    pages: Runs<Page>,
    /// Small pages in a huge one.
    huge: u64,
}

impl Touched {
    /// Nothing touched; huge pages have `huge` small ones.
    pub(crate) fn new(huge: u64) -> Self {
        Self { pages: Runs::default(), huge: huge.max(1) }
    }

    /// Pages between the start of the huge page that holds address page `at` and `at` itself, less
    /// `index`: what to add to an index of the object to count from a huge page's start.
    pub(crate) fn shift(&self, at: u64, index: u64) -> u64 {
        (at % self.huge).wrapping_sub(index) % self.huge
    }

    /// Pages `first..end` are read or written through a mapping of pages `low..high` of the object
    /// whose index 0 lies at a multiple of a huge page plus `shift` pages.
    pub(crate) fn touch(
        &mut self,
        first: u64,
        end: u64,
        write: bool,
        (low, high): (u64, u64),
        shift: u64,
    ) {
        let huge = self.huge;
        let block_of = |page: u64| (page + shift) / huge;
        let mut at = first;
        while at < end {
            // One block with a state of its own, or many untouched or alike ones at once.
            let (stop, state) = self.pages.first_piece(at, end);
            let block = (block_of(at) * huge).saturating_sub(shift);
            let block_end = (block_of(at) + 1) * huge - shift;
            let to = match state {
                Some(Page::Own) => stop,
                Some(Page::HugeZero) if write && at == block && block_end <= stop => {
                    let to = block + (stop - block) / huge * huge;
                    self.pages.set(at, to, Page::Own);
                    to
                }
                Some(Page::HugeZero) if write => {
                    let low = self.pages.pieces(block, block_end);
                    for (a, b, s) in low {
                        if s == Some(Page::HugeZero) {
                            self.pages.set(a, b, Page::Zero);
                        }
                    }
                    let to = block_end.min(end);
                    self.pages.set(at, to, Page::Own);
                    to
                }
                Some(Page::HugeZero) => stop,
                Some(Page::Zero) if write => {
                    self.pages.set(at, stop, Page::Own);
                    stop
                }
                Some(Page::Zero) => stop,
                None => {
                    let whole = low <= block
                        && block_end <= high
                        && (block_of(at) * huge >= shift)
                        && self.pages.first_piece(block, block_end) == (block_end, None);
                    let (a, b, to, state) = if whole {
                        // As many whole untouched blocks as the rest has.
                        let run_end = self.untouched_end(block, high);
                        let last = block_of(end.min(run_end) - 1);
                        let mut upto = (last + 1) * huge - shift;
                        if upto > run_end {
                            upto -= huge;
                        }
                        let upto = upto.max(block_end);
                        (block, upto, upto.min(end), if write { Page::Own } else { Page::HugeZero })
                    } else {
                        let to = stop.min(block_end);
                        (at, to, to, if write { Page::Own } else { Page::Zero })
                    };
                    self.pages.set(a, b, state);
                    to
                }
            };
            at = to;
        }
    }

    /// Where the untouched run that holds `from` ends, at most `high`.
    fn untouched_end(&self, from: u64, high: u64) -> u64 {
        match self.pages.first_piece(from, high) {
            (end, None) => end,
            _ => from,
        }
    }

    /// A mapping now ends at page `at`: a huge zero page across it is split.
    pub(crate) fn split_at(&mut self, at: u64, shift: u64) {
        let block = (at + shift) / self.huge * self.huge;
        if block == at + shift {
            return;
        }
        let (a, b) = (block.saturating_sub(shift), block + self.huge - shift);
        for (x, y, s) in self.pages.pieces(a, b) {
            if s == Some(Page::HugeZero) {
                self.pages.set(x, y, Page::Zero);
            }
        }
    }

    /// What is behind pages `first..end`: (first, end, page); untouched ones as their own.
    pub(crate) fn pieces(&self, first: u64, end: u64) -> Vec<(u64, u64, Page)> {
        self.pages
            .pieces(first, end)
            .into_iter()
            .map(|(a, b, s)| (a, b, s.unwrap_or(Page::Own)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: (u64, u64) = (0, 2048);

    #[test]
    fn a_write_makes_a_huge_page_and_a_read_the_huge_zero_page() {
        let mut t = Touched::new(512);
        t.touch(3, 4, true, ALL, 0);
        t.touch(600, 601, false, ALL, 0);
        assert_eq!(t.pieces(0, 1024), [(0, 512, Page::Own), (512, 1024, Page::HugeZero)]);
        t.touch(700, 702, true, ALL, 0);
        assert_eq!(
            t.pieces(512, 1024),
            [(512, 700, Page::Zero), (700, 702, Page::Own), (702, 1024, Page::Zero)]
        );
    }

    #[test]
    fn small_memory_has_small_pages() {
        let mut t = Touched::new(512);
        t.touch(0, 2, false, (0, 16), 0);
        t.touch(1, 3, true, (0, 16), 0);
        assert_eq!(t.pieces(0, 3), [(0, 1, Page::Zero), (1, 3, Page::Own)]);
    }

    #[test]
    fn a_terabyte_is_a_few_runs() {
        let mut t = Touched::new(512);
        let all = (0, 1 << 28);
        t.touch(5, (1 << 28) - 5, false, all, 0);
        assert_eq!(t.pieces(0, 1 << 28), [(0, 1 << 28, Page::HugeZero)]);
        t.touch(0, 1 << 28, true, all, 0);
        assert_eq!(t.pieces(0, 1 << 28), [(0, 1 << 28, Page::Own)]);
    }

    #[test]
    fn unaligned_memory_has_small_pages_at_its_ends() {
        let mut t = Touched::new(512);
        t.touch(0, 1100, false, (0, 1100), 100);
        assert_eq!(
            t.pieces(0, 1100),
            [(0, 412, Page::Zero), (412, 924, Page::HugeZero), (924, 1100, Page::Zero)]
        );
        t.split_at(500, 100);
        assert_eq!(t.pieces(0, 1100), [(0, 1100, Page::Zero)]);
    }

    /// The same, page by page.
    fn slow(state: &mut [Option<Page>], huge: usize, first: usize, end: usize, write: bool) {
        for page in first..end {
            let block = page / huge * huge..page / huge * huge + huge;
            let blank = state[block.clone()].iter().all(Option::is_none);
            match state[page] {
                Some(Page::Own) => {}
                Some(Page::HugeZero) if write => {
                    state[block].fill(Some(Page::Zero));
                    state[page] = Some(Page::Own);
                }
                Some(_) if write => state[page] = Some(Page::Own),
                Some(_) => {}
                None if blank && write => state[block].fill(Some(Page::Own)),
                None if blank => state[block].fill(Some(Page::HugeZero)),
                None => state[page] = Some(if write { Page::Own } else { Page::Zero }),
            }
        }
    }

    #[test]
    fn many_touches_are_as_one_after_the_other() {
        let mut seed = 1_u64;
        let mut next = |below: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for _ in 0..500 {
            let (mut fast, mut slow) = (Touched::new(8), [None; 64]);
            for _ in 0..12 {
                let first = next(64);
                let end = (first + 1 + next(20)).min(64);
                let write = next(3) == 0;
                fast.touch(first as u64, end as u64, write, (0, 64), 0);
                self::tests::slow(&mut slow, 8, first, end, write);
                for (page, state) in slow.iter().enumerate() {
                    assert_eq!(
                        fast.pages.get(page as u64),
                        *state,
                        "{first}..{end} {write} {page}"
                    );
                }
            }
        }
    }
}
