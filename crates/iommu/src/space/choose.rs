//! Choosing an IOVA for a caller who does not care where.

use crate::IovaRange;
use crate::space::AddressSpace;

impl AddressSpace {
    /// The lowest IOVA at which `size` bytes could be mapped now: free, in one valid range, and a
    /// multiple of `align` bytes and of the smallest IOMMU page.
    ///
    /// VFIO's callers choose for themselves; iommufd chooses unless told not to. `None` when there
    /// is no such place, `size` is no multiple of the smallest page or 0, or `align` is no power of
    /// two. Takes time linear in the mappings below the answer.
    #[must_use]
    pub fn choose_iova(&self, size: u64, align: u64) -> Option<u64> {
        let granule = self.page_sizes.smallest();
        if size == 0 || size & granule.wrapping_sub(1) != 0 || !align.is_power_of_two() {
            return None;
        }
        let lowest_gap = |within| self.table.lowest_gap(size, align.max(granule), within);
        if self.valid.is_empty() {
            return lowest_gap(IovaRange::ALL);
        }
        self.valid_ranges().into_iter().find_map(lowest_gap)
    }
}
