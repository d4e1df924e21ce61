//! The order of checks of each request, as data: what is checked, what it answers when it fails.
//!
//! The code that checks is in `container`, `group`, `device` and the engine; this is what it promises,
//! for people who want to know how far a request came. Checks that nothing can fail here are left out:
//! no kernel here has mediated devices, is out of memory, or gets a signal. Facts: `vfio_iommu_type1.c`,
//! `container.c`, `group.c`, `vfio_main.c` and `pci/vfio_pci_*.c` of Linux 6.1, 6.12 and 7.3.

mod container;
mod device;
mod group;
mod irq;
mod region;
mod type1;
mod window;

use uapi::Errno;

use crate::Refusal;
use crate::device::DeviceRefusal;

pub use container::{set_iommu, unknown_container_request};
pub use device::{
    device_info, feature, hot_reset, hot_reset_info, ioeventfd, irq_info, region_info, reset,
    unknown_device_request,
};
pub use group::{
    bind, get_device_fd, get_status, open_group, set_container, unknown_group_request,
    unset_container,
};
pub use irq::{Irqs, set_irqs};
pub use region::{mmap_region, read_region, write_region};
pub use type1::{Dirty, Map, dirty_pages, get_info, map, unmap};
pub use window::{map_window, unmap_window};

/// One check.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What must hold.
    pub says: &'static str,
    /// The answer where it does not.
    pub errno: Errno,
    refuses: fn(&Refusal) -> bool,
}

/// The check that a refusal comes from.
#[must_use]
pub fn find(rules: &[Rule], refusal: &Refusal) -> Option<usize> {
    rules.iter().position(|rule| (rule.refuses)(refusal))
}

/// `rule!("what must hold", ERRNO, refusals that say it does not)`.
macro_rules! rule {
    ($says:expr, $errno:ident, $($refusal:pat_param)|+) => {
        $crate::order::Rule {
            says: $says,
            errno: ::uapi::Errno::$errno,
            refuses: |refusal| matches!(refusal, $($refusal)|+),
        }
    };
}
use rule;

/// The same for refusals of a device.
macro_rules! device_rule {
    ($says:expr, $errno:ident, $($refusal:pat_param)|+) => {
        $crate::order::rule!($says, $errno, $crate::Refusal::Device($($refusal)|+))
    };
}
use device_rule;

const READABLE: Rule = rule!(
    "the argument can be read",
    EFAULT,
    Refusal::BadAddress | Refusal::Device(DeviceRefusal::BadAddress)
);
const WRITABLE: Rule = rule!(
    "the answer can be written",
    EFAULT,
    Refusal::NotWritten | Refusal::Device(DeviceRefusal::NotWritten)
);
const FLAGS: Rule = rule!("no unknown flags", EINVAL, Refusal::UnknownFlags { .. });
const UNKNOWN: Rule = rule!(
    "there is such a request",
    ENOTTY,
    Refusal::UnknownRequest(_) | Refusal::Device(DeviceRefusal::UnknownRequest(_))
);

impl Rule {
    /// The same check where a kernel answers something else.
    const fn answering(mut self, errno: Errno) -> Self {
        self.errno = errno;
        self
    }
}
