//! The differences between kernels, each by name.
//!
//! Code asks for a difference, never for a version. What a field says is true of the kernels that
//! set it; sources are the recorded traces.

/// Named differences between the kernels whose answers we give.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dialect {
    /// How the dialect is called: `6.1`, `6.12` or `7.3`.
    pub name: &'static str,
    /// An IOVA or user address range that wraps is `EOVERFLOW`, found before flags and alignment
    /// (7.3). Others: `EINVAL`, found after them.
    pub wrap_is_eoverflow: bool,
    /// A range that ends exactly at 2^64 is a range (7.3). Others take its end for 0: an unmap
    /// finds nothing, a dirty query is `EINVAL`.
    pub top_is_reachable: bool,
    /// Type 6 (nesting) passes `CHECK_EXTENSION` and opens a v2 container (6.1, 6.12).
    pub nesting_type: bool,
    /// Capabilities start at multiples of 8 (6.12, 7.3).
    pub caps_are_aligned: bool,
    /// `GET_INFO` writes back up to 24 bytes; otherwise up to 20 (6.1).
    pub info_has_pad: bool,
    /// `SET_CONTAINER` with a file that is no container is `EBADFD` (6.12, 7.3), else `EINVAL`.
    pub foreign_fd_is_ebadfd: bool,
    /// Read-only maps of untouched anonymous memory pin the shared zero page: not charged, and the
    /// device does not see what the process writes later (6.1).
    pub zero_page_pinned: bool,
    /// The error interrupt exists on every function (7.3), else on PCI Express functions only.
    pub err_irq_everywhere: bool,
    /// Active MSI-X may grow by vectors where the interrupt controller can (6.12, 7.3), else needs a
    /// disable first.
    pub msix_grows: bool,
    /// `SET_IRQS` beyond the vectors that are enabled is refused before anything changes (6.1).
    /// Others go vector by vector: what needs no vector (a loopback, a release) passes.
    pub irq_range_checked_first: bool,
    /// An error or request interrupt with descriptor -2 or less is left as it is (6.1), else
    /// `EINVAL`.
    pub odd_err_fd_ignored: bool,
    /// Memory BARs are read and written 8 bytes at a time where they can be (6.12, 7.3), else 4.
    pub wide_bar_accesses: bool,
    /// A hot reset without groups is `EINVAL` even where there is no bus to reset (6.12, 7.3), else
    /// `ENODEV` comes first.
    pub hot_reset_count_first: bool,
    /// `GET_PCI_HOT_RESET_INFO` writes the list of devices, then its header (6.12, 7.3), else the
    /// other way round: with memory for the header alone it is `EFAULT`, and the header unchanged.
    pub hot_reset_list_first: bool,
    /// Device features 11 (dma-buf) and 12 (pre-copy information) are known (7.3).
    pub device_dma_buf: bool,
    /// A dirty query whose range starts before a mapping, by no multiple of 64 pages, leaves extra
    /// bits that the next query of that mapping returns (all kernels so far).
    pub dirty_bits_stray: bool,
    /// Enabling interrupts when every page of the user's MSI windows has a doorbell is `ENOMEM`, as
    /// in the proposal of 2016, which no kernel took; otherwise `ENOSPC`.
    pub full_pool_is_enomem: bool,
}

impl Dialect {
    /// Linux 6.1.
    pub const V6_1: Self = Self {
        name: "6.1",
        wrap_is_eoverflow: false,
        top_is_reachable: false,
        nesting_type: true,
        caps_are_aligned: false,
        info_has_pad: false,
        foreign_fd_is_ebadfd: false,
        zero_page_pinned: true,
        err_irq_everywhere: false,
        msix_grows: false,
        irq_range_checked_first: true,
        odd_err_fd_ignored: true,
        wide_bar_accesses: false,
        hot_reset_count_first: false,
        hot_reset_list_first: false,
        device_dma_buf: false,
        dirty_bits_stray: true,
        full_pool_is_enomem: false,
    };

    /// Linux 6.12.
    pub const V6_12: Self = Self {
        name: "6.12",
        caps_are_aligned: true,
        info_has_pad: true,
        foreign_fd_is_ebadfd: true,
        zero_page_pinned: false,
        msix_grows: true,
        irq_range_checked_first: false,
        odd_err_fd_ignored: false,
        wide_bar_accesses: true,
        hot_reset_count_first: true,
        hot_reset_list_first: true,
        ..Self::V6_1
    };

    /// Linux 7.3, the newest.
    pub const V7_3: Self = Self {
        name: "7.3",
        wrap_is_eoverflow: true,
        top_is_reachable: true,
        nesting_type: false,
        err_irq_everywhere: true,
        device_dma_buf: true,
        ..Self::V6_12
    };

    /// Every dialect, oldest first.
    pub const ALL: [&'static Self; 3] = [&Self::V6_1, &Self::V6_12, &Self::V7_3];

    /// The dialect of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|d| d.name == name)
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self::V7_3
    }
}
