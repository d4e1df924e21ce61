//! An eventfd whose signal writes a register.
//!
//! Source: linux/vfio.h.

use crate::macros::{flags, wire};

wire! {
    /// In of `VFIO_DEVICE_IOEVENTFD`.
    #[doc(alias = "vfio_device_ioeventfd")]
    IoEventFd {
        /// Size of the caller's structure in bytes.
        argsz: u32,
        /// [`IoEventFdFlags`], exactly one.
        flags: u32,
        /// Where to write, in the device fd's file, in bytes.
        offset: u64,
        /// What to write.
        data: u64,
        /// The eventfd, or -1 to remove.
        fd: i32,
        /// Zero.
        reserved: u32,
    }
}

impl IoEventFd {
    /// The smallest `argsz` accepted, in bytes: everything before `reserved`.
    pub const MIN_ARGSZ: u32 = 28;
}

flags! {
    /// The width of the write, in [`IoEventFd::flags`].
    IoEventFdFlags {
        /// One byte.
        WRITE_8 = 1 << 0, "VFIO_DEVICE_IOEVENTFD_8";
        /// Two bytes.
        WRITE_16 = 1 << 1, "VFIO_DEVICE_IOEVENTFD_16";
        /// Four bytes.
        WRITE_32 = 1 << 2, "VFIO_DEVICE_IOEVENTFD_32";
        /// Eight bytes.
        WRITE_64 = 1 << 3, "VFIO_DEVICE_IOEVENTFD_64";
    }
}

impl IoEventFdFlags {
    /// The width bits: all there are.
    #[doc(alias = "VFIO_DEVICE_IOEVENTFD_SIZE_MASK")]
    pub const SIZE_MASK: Self = Self::all();

    /// Bytes of the write, 1, 2, 4 or 8; `None` unless exactly one width is set.
    #[must_use]
    pub fn width(self) -> Option<u32> {
        let bits = self.intersection(Self::SIZE_MASK).bits();
        (bits.count_ones() == 1).then_some(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bit_is_the_width() {
        assert_eq!(IoEventFdFlags::WRITE_16.width(), Some(2));
        assert_eq!(IoEventFdFlags::empty().width(), None);
        assert_eq!(IoEventFdFlags::from_bits_retain(5).width(), None);
    }
}
