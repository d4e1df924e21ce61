//! The group fd.
//!
//! Source: linux/vfio.h.

use crate::macros::{flags, wire};

wire! {
    /// In and out of `VFIO_GROUP_GET_STATUS`.
    #[doc(alias = "vfio_group_status")]
    GroupStatus {
        /// In: size of the caller's structure in bytes.
        argsz: u32,
        /// Out: [`GroupFlags`].
        flags: u32,
    }
}

impl GroupStatus {
    /// The smallest `argsz` accepted, in bytes.
    pub const MIN_ARGSZ: u32 = 8;
}

flags! {
    /// The state of a group, in [`GroupStatus::flags`].
    GroupFlags {
        /// No device of the group is in use by a kernel driver.
        VIABLE = 1 << 0, "VFIO_GROUP_FLAGS_VIABLE";
        /// The group is in a container.
        CONTAINER_SET = 1 << 1, "VFIO_GROUP_FLAGS_CONTAINER_SET";
    }
}
