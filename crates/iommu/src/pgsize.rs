//! Page sizes as a bitmap.

use core::fmt;

/// Page sizes, one bit each: bit 12 is 4 KiB (`pgsize_bitmap`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageSizes(pub u64);

impl PageSizes {
    /// Every size: what a container without a domain starts from.
    pub const ALL: Self = Self(u64::MAX);

    /// The sizes both have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The sizes a VFIO container offers on a CPU with pages of `page_size` bytes: sizes below a
    /// CPU page are served by whole CPU pages (`vfio_update_pgsize_bitmap`).
    #[must_use]
    pub const fn for_cpu_pages(self, page_size: u64) -> Self {
        let small = page_size.wrapping_sub(1);
        if self.0 & small == 0 { self } else { Self((self.0 & !small) | page_size) }
    }

    /// The smallest size in bytes, 1 when there is none.
    #[must_use]
    pub const fn smallest(self) -> u64 {
        if self.0 == 0 { 1 } else { 1 << self.0.trailing_zeros() }
    }
}

impl fmt::Debug for PageSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_page_sizes_become_cpu_pages() {
        assert_eq!(PageSizes(0x4020_1000).for_cpu_pages(0x1000), PageSizes(0x4020_1000));
        assert_eq!(PageSizes(0x4020_1000).for_cpu_pages(0x4000), PageSizes(0x4020_4000));
        assert_eq!(PageSizes::ALL.for_cpu_pages(0x1000), PageSizes(0xffff_ffff_ffff_f000));
        assert_eq!(PageSizes(0x4020_1000).smallest(), 0x1000);
    }
}
