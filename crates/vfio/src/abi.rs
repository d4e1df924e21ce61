//! Which numbers a client speaks: Linux's alone, or with MSI windows.
//!
//! The policy (who owns an MSI's address) is the host's; this is only how a client says it.

use uapi::type1::{InfoFlags, MapFlags, UnmapFlags};
use uapi::windows::{
    MSI_V6_DMA_FLAG_MSI_RESERVED_IOVA, MSI_V6_INFO_REQUIRE_MSI_MAP,
    SOFTVFIO_DMA_FLAG_RESERVED_MSI_IOVA, SOFTVFIO_INFO_REQUIRE_MSI_MAP,
};

/// The numbers a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Abi {
    /// Linux's, to the byte.
    #[default]
    Kernel,
    /// Linux's and ours beside them: windows, reserved regions.
    Reviewed,
    /// The proposal of April 2016: windows in the place of today's `VADDR`, no capabilities.
    MsiV6,
}

impl Abi {
    /// Every ABI.
    pub const ALL: [Self; 3] = [Self::Kernel, Self::Reviewed, Self::MsiV6];

    /// How it is called: `kernel`, `reviewed`, `msi-v6`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Reviewed => "reviewed",
            Self::MsiV6 => "msi-v6",
        }
    }

    /// The ABI of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|abi| abi.name() == name)
    }

    /// The ABI of a host for which none is named: windows where an IOMMU takes them.
    #[must_use]
    pub fn for_host(host: &iommu::Host) -> Self {
        let user = |i: &iommu::Iommu| matches!(i.msi, iommu::MsiPolicy::User { .. });
        if host.iommus.iter().any(user) { Self::Reviewed } else { Self::Kernel }
    }

    /// The bit of a map or unmap that makes its range a window.
    #[must_use]
    pub const fn window_flag(self) -> Option<u32> {
        match self {
            Self::Kernel => None,
            Self::Reviewed => Some(SOFTVFIO_DMA_FLAG_RESERVED_MSI_IOVA),
            Self::MsiV6 => Some(MSI_V6_DMA_FLAG_MSI_RESERVED_IOVA),
        }
    }

    /// The bit of the information that says MSIs need a window.
    pub(crate) const fn require_msi_map(self) -> u32 {
        match self {
            Self::Kernel => 0,
            Self::Reviewed => SOFTVFIO_INFO_REQUIRE_MSI_MAP,
            Self::MsiV6 => MSI_V6_INFO_REQUIRE_MSI_MAP,
        }
    }

    /// Linux's map flags that this ABI has.
    pub(crate) fn map_flags(self) -> MapFlags {
        match self {
            Self::MsiV6 => MapFlags::READ | MapFlags::WRITE,
            _ => MapFlags::all(),
        }
    }

    /// Linux's unmap flags that this ABI has.
    pub(crate) fn unmap_flags(self) -> UnmapFlags {
        match self {
            Self::MsiV6 => UnmapFlags::all().difference(UnmapFlags::VADDR),
            _ => UnmapFlags::all(),
        }
    }

    /// Linux's information flags that this ABI has.
    pub(crate) fn info_flags(self) -> InfoFlags {
        match self {
            Self::MsiV6 => InfoFlags::PGSIZES,
            _ => InfoFlags::PGSIZES | InfoFlags::CAPS,
        }
    }
}
