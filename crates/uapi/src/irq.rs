//! Interrupts of a device.
//!
//! Source: linux/vfio.h.

use crate::macros::{flags, numbers, wire};

wire! {
    /// In and out of `VFIO_DEVICE_GET_IRQ_INFO`.
    #[doc(alias = "vfio_irq_info")]
    IrqInfo {
        /// In: size of the caller's structure in bytes.
        argsz: u32,
        /// Out: [`IrqInfoFlags`].
        flags: u32,
        /// In: which kind of interrupt, an [`IrqIndex`].
        index: u32,
        /// Out: how many interrupts of this kind there are.
        count: u32,
    }
}

impl IrqInfo {
    /// The smallest `argsz` accepted, in bytes.
    pub const MIN_ARGSZ: u32 = 16;
}

flags! {
    /// What an interrupt kind allows, in [`IrqInfo::flags`].
    IrqInfoFlags {
        /// Signals an eventfd.
        EVENTFD = 1 << 0, "VFIO_IRQ_INFO_EVENTFD";
        /// Can be masked and unmasked.
        MASKABLE = 1 << 1, "VFIO_IRQ_INFO_MASKABLE";
        /// Masks itself when it fires.
        AUTOMASKED = 1 << 2, "VFIO_IRQ_INFO_AUTOMASKED";
        /// All are enabled together; more need a disable first.
        NORESIZE = 1 << 3, "VFIO_IRQ_INFO_NORESIZE";
    }
}

numbers! {
    /// A kind of interrupt every PCI device has an index for.
    IrqIndex {
        /// The legacy line.
        Intx = 0, "VFIO_PCI_INTX_IRQ_INDEX";
        /// Message signalled.
        Msi = 1, "VFIO_PCI_MSI_IRQ_INDEX";
        /// Message signalled, from a table.
        Msix = 2, "VFIO_PCI_MSIX_IRQ_INDEX";
        /// An uncorrected bus error.
        Err = 3, "VFIO_PCI_ERR_IRQ_INDEX";
        /// The host asks for the device back.
        Req = 4, "VFIO_PCI_REQ_IRQ_INDEX";
    }
}

/// Indexes are below this.
pub const VFIO_PCI_NUM_IRQS: u32 = 5;

wire! {
    /// In of `VFIO_DEVICE_SET_IRQS`; `count` elements of data follow.
    #[doc(alias = "vfio_irq_set")]
    IrqSet {
        /// Size of this structure with its data, in bytes.
        argsz: u32,
        /// [`IrqSetFlags`]: one kind of data, one action.
        flags: u32,
        /// Which kind of interrupt, an [`IrqIndex`].
        index: u32,
        /// First interrupt of the kind.
        start: u32,
        /// How many.
        count: u32,
    }
}

impl IrqSet {
    /// The smallest `argsz` accepted, in bytes.
    pub const MIN_ARGSZ: u32 = 20;
}

flags! {
    /// Data and action, in [`IrqSet::flags`].
    IrqSetFlags {
        /// No data: the action happens.
        DATA_NONE = 1 << 0, "VFIO_IRQ_SET_DATA_NONE";
        /// One byte each: the action happens where it is not 0.
        DATA_BOOL = 1 << 1, "VFIO_IRQ_SET_DATA_BOOL";
        /// One i32 each: the eventfd the action is tied to, -1 to untie it.
        DATA_EVENTFD = 1 << 2, "VFIO_IRQ_SET_DATA_EVENTFD";
        /// Mask.
        ACTION_MASK = 1 << 3, "VFIO_IRQ_SET_ACTION_MASK";
        /// Unmask.
        ACTION_UNMASK = 1 << 4, "VFIO_IRQ_SET_ACTION_UNMASK";
        /// Signal; with eventfds, enable.
        ACTION_TRIGGER = 1 << 5, "VFIO_IRQ_SET_ACTION_TRIGGER";
    }
}

impl IrqSetFlags {
    /// The kinds of data.
    #[doc(alias = "VFIO_IRQ_SET_DATA_TYPE_MASK")]
    pub const DATA_TYPE_MASK: Self =
        Self::DATA_NONE.union(Self::DATA_BOOL).union(Self::DATA_EVENTFD);

    /// The actions.
    #[doc(alias = "VFIO_IRQ_SET_ACTION_TYPE_MASK")]
    pub const ACTION_TYPE_MASK: Self =
        Self::ACTION_MASK.union(Self::ACTION_UNMASK).union(Self::ACTION_TRIGGER);

    /// Bytes of one element of data; `None` unless there is exactly one kind of it.
    #[must_use]
    pub fn element_size(self) -> Option<u32> {
        match self.intersection(Self::DATA_TYPE_MASK) {
            Self::DATA_NONE => Some(0),
            Self::DATA_BOOL => Some(1),
            Self::DATA_EVENTFD => Some(4),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_have_a_size_for_one_kind_of_data_only() {
        let size = |bits| IrqSetFlags::from_bits_retain(bits).element_size();
        assert_eq!([size(33), size(34), size(36)], [Some(0), Some(1), Some(4)]);
        assert_eq!([size(32), size(3), size(5)], [None, None, None]);
    }
}
