//! `VFIO_DEVICE_FEATURE`: the header and the ids.
//!
//! Source: linux/vfio.h.

use crate::macros::{flags, numbers, wire};

wire! {
    /// In of `VFIO_DEVICE_FEATURE`; the feature's data follows, in or out.
    #[doc(alias = "vfio_device_feature")]
    FeatureHeader {
        /// Size of the caller's buffer in bytes.
        argsz: u32,
        /// The feature's number in the low 16 bits, [`FeatureFlags`] above.
        flags: u32,
    }
}

impl FeatureHeader {
    /// The smallest `argsz` accepted, in bytes.
    pub const MIN_ARGSZ: u32 = 8;

    /// The feature's number, to be tried as a [`Feature`].
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.flags & VFIO_DEVICE_FEATURE_MASK
    }

    /// What is asked, unknown bits kept.
    #[must_use]
    pub const fn operation(&self) -> FeatureFlags {
        FeatureFlags::from_bits_retain(self.flags & !VFIO_DEVICE_FEATURE_MASK)
    }
}

/// The bits of [`FeatureHeader::flags`] that hold the number.
pub const VFIO_DEVICE_FEATURE_MASK: u32 = 0xffff;

flags! {
    /// What to do with a feature, in [`FeatureHeader::flags`].
    FeatureFlags {
        /// Read its data.
        GET = 1 << 16, "VFIO_DEVICE_FEATURE_GET";
        /// Write its data.
        SET = 1 << 17, "VFIO_DEVICE_FEATURE_SET";
        /// Only ask whether the rest would work.
        PROBE = 1 << 18, "VFIO_DEVICE_FEATURE_PROBE";
    }
}

numbers! {
    /// A feature.
    Feature {
        /// The secret shared by a physical function and its virtual ones. Set.
        PciVfToken = 0, "VFIO_DEVICE_FEATURE_PCI_VF_TOKEN";
        /// Which migration protocols there are. Get.
        Migration = 1, "VFIO_DEVICE_FEATURE_MIGRATION";
        /// The migration state. Get, set.
        MigDeviceState = 2, "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE";
        /// Allow low power. Set.
        LowPowerEntry = 3, "VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY";
        /// Allow low power, with an eventfd for waking. Set.
        LowPowerEntryWithWakeup = 4, "VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP";
        /// End low power. Set.
        LowPowerExit = 5, "VFIO_DEVICE_FEATURE_LOW_POWER_EXIT";
        /// The device logs its writes to memory. Set.
        DmaLoggingStart = 6, "VFIO_DEVICE_FEATURE_DMA_LOGGING_START";
        /// End the log. Set.
        DmaLoggingStop = 7, "VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP";
        /// Read the log. Get.
        DmaLoggingReport = 8, "VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT";
        /// How much a migration will move. Get.
        MigDataSize = 9, "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE";
        /// Bus mastering of CDX devices. Set.
        BusMaster = 10, "VFIO_DEVICE_FEATURE_BUS_MASTER";
        /// A dma-buf of parts of a region. Get.
        DmaBuf = 11, "VFIO_DEVICE_FEATURE_DMA_BUF";
        /// Opt in to the second form of pre-copy information. Set.
        MigPrecopyInfoV2 = 12, "VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2";
        /// Errors of s390 PCI. Get.
        ZpciError = 13, "VFIO_DEVICE_FEATURE_ZPCI_ERROR";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_operation_share_a_word() {
        let header = FeatureHeader { argsz: 8, flags: 0x8005_0003 };
        assert_eq!(Feature::try_from(header.number()), Ok(Feature::LowPowerEntry));
        assert_eq!(header.operation().bits(), 0x8005_0000);
        assert_eq!(FeatureFlags::from_bits(header.operation().bits()), None);
    }
}
