//! Checks that no trace can fail: `crates/trace/tests/order` has the others.

use iommu::{BindRefusal, Dialect, IovaRange};
use uapi::Errno;
use uapi::irq::IrqSetFlags;

use super::process::ARG;
use super::rig::words;
use super::{INTX, MSIX, rig};
use crate::Refusal;
use crate::device::DeviceRefusal;
use crate::device::irq::tests::rig::Rig;
use crate::order::{Irqs, find, set_irqs};

const FLAGS: IrqSetFlags = IrqSetFlags::DATA_EVENTFD.union(IrqSetFlags::ACTION_TRIGGER);

/// What the check says that a request with eventfd `fd` fails, and the answer.
fn failed(rig: &mut Rig, index: u32, fd: i32) -> (&'static str, Errno) {
    let mut bytes = words(&[24, FLAGS.bits(), index, 0, 1]);
    bytes.extend(fd.to_ne_bytes());
    rig.process.memory = bytes;
    let refusal = rig.with(|irqs, env| irqs.set_irqs(env, ARG)).unwrap_err();
    let (dialect, errno) = (rig.dialect, refusal.errno(rig.dialect));
    let rules = set_irqs(dialect, Irqs::of(index), FLAGS);
    let at = find(&rules, &Refusal::Device(DeviceRefusal::Irq(refusal))).unwrap();
    assert_eq!(rules[at].errno, errno);
    (rules[at].says, errno)
}

#[test]
fn vectors_and_lines_that_are_not_there() {
    for dialect in Dialect::ALL {
        let mut rig = rig();
        rig.dialect = dialect;
        // A line that leads nowhere is noticed after the descriptor.
        rig.line_wired = false;
        assert_eq!(failed(&mut rig, INTX, 99), ("each descriptor is open", Errno::EBADF));
        assert_eq!(failed(&mut rig, INTX, 10), ("the device's line is wired", Errno::ENODEV));
        // No vector is left: before the doorbell and the descriptor are looked at.
        let left = "the interrupt controller has a vector left, and the driver's MSI window a page";
        rig.doorbell.refusal = Some(BindRefusal::NoWindow { group: 1, needed: 1 });
        rig.vectors_left = 0;
        assert_eq!(failed(&mut rig, MSIX, 99), (left, Errno::ENOSPC));
        rig.vectors_left = 1;
        let window = IovaRange::sized(0x800_0000, 0x1000).unwrap();
        rig.doorbell.refusal = Some(BindRefusal::WindowFull { window, pages: 1 });
        assert_eq!(failed(&mut rig, MSIX, 99), (left, Errno::ENOSPC));
        rig.close();
    }
}
