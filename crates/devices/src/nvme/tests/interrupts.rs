//! MSI-X and the pin.

use pci::{Device, Status, regs};

use super::rig::{DATA, Rig, io};

#[test]
fn one_message_for_a_batch() {
    let mut rig = Rig::ready();
    rig.machine.interrupts.clear();
    for _ in 0..10 {
        rig.submit(1, io(2, 0, 1, DATA, 0));
    }
    rig.ring_tail(1);
    rig.run();
    assert_eq!(rig.machine.interrupts, [1]);
    rig.admin(10, [6, 0, 0, 0, 0, 0], 0);
    assert_eq!((&rig.machine.interrupts[..], rig.machine.line), (&[1, 0][..], Some(false)));
}

#[test]
fn masked_vectors_fire_later() {
    let mut rig = Rig::ready();
    rig.machine.interrupts.clear();
    rig.write(0x201c, 1);
    rig.exec(1, io(2, 0, 1, DATA, 0));
    assert_eq!((rig.read(0x3000), rig.machine.interrupts.len()), (2, 0));
    rig.write(0x201c, 0);
    assert_eq!((rig.read(0x3000), &rig.machine.interrupts[..]), (0, &[1][..]));
    // The whole function.
    let enable = regs::msix::ENABLE;
    rig.nvme.config_mut().write_u16(0x42, enable | regs::msix::FUNCTION_MASK);
    rig.exec(1, io(2, 0, 1, DATA, 0));
    rig.nvme.config_mut().write_u16(0x42, enable);
    rig.nvme.config_written(&mut rig.machine);
    assert_eq!(rig.machine.interrupts, [1, 1]);
}

#[test]
fn the_pin_follows_completions_and_its_mask() {
    let mut rig = Rig::started();
    let pending = |rig: &Rig| rig.nvme.config().u16(regs::STATUS) & Status::INTERRUPT.bits() != 0;
    rig.submit(0, super::rig::Sqe { opcode: 10, cdw: [6, 0, 0, 0, 0, 0], ..Default::default() });
    rig.ring_tail(0);
    rig.run();
    assert!(rig.machine.line == Some(true) && pending(&rig));
    rig.write(0x0c, 1);
    assert_eq!((rig.machine.line, rig.read(0x0c), rig.read(0x10)), (Some(false), 1, 1));
    rig.write(0x10, 1);
    assert_eq!(rig.machine.line, Some(true));
    rig.take(0).unwrap();
    rig.ring_head(0);
    assert!(rig.machine.line == Some(false) && !pending(&rig));
    // With messages the pin is let go.
    rig.submit(0, super::rig::Sqe { opcode: 10, cdw: [6, 0, 0, 0, 0, 0], ..Default::default() });
    rig.ring_tail(0);
    rig.run();
    assert_eq!(rig.machine.line, Some(true));
    rig.nvme.config_mut().write_u16(0x42, regs::msix::ENABLE);
    rig.nvme.config_written(&mut rig.machine);
    assert_eq!(rig.machine.line, Some(false));
}
