//! What no recording shows: limits of the interrupt controller, messages of the function, windows.

mod answers;
mod order;
mod process;
mod props;
mod rig;

use alloc::string::ToString;
use alloc::vec::Vec;

use iommu::{BindRefusal, Dialect, IovaRange};
use pci::Device;
use uapi::Errno;

use self::props::function;
use self::rig::{DOORBELL, Rig};
use super::{IrqEnv, IrqRefusal, Irqs};

const INTX: u32 = 0;
const MSI: u32 = 1;
const MSIX: u32 = 2;
const REQ: u32 = 4;
/// `DATA_NONE | ACTION_TRIGGER`.
const NONE: u32 = 0x21;

fn rig() -> Rig {
    let mut rig = Rig::new(function(false), &Dialect::V7_3);
    rig.process.counters.extend((10..16).map(|fd| (fd, 0)));
    rig
}

fn refusal(rig: &mut Rig, bytes: &[u32]) -> IrqRefusal {
    rig.process.memory = rig::words(bytes);
    rig.with(|irqs, env| irqs.set_irqs(env, process::ARG)).unwrap_err()
}

#[test]
fn a_message_signals_its_vector() {
    for index in [MSI, MSIX] {
        let mut rig = rig();
        assert_eq!(rig.set_fds(index, 0, &[10, -1, 12]), Ok(0));
        assert_eq!(rig.irqs.vectors_used(), 3);
        for vector in 0..3 {
            assert_eq!(rig.run(|f, bus| f.fire(vector, bus)), 0);
        }
        assert_eq!([10, 11, 12].map(|fd| rig.read(fd)), [1, 0, 1]);
        let platform = &mut rig.process;
        assert!(rig.irqs.deliver_msi(DOORBELL, 1, platform), "swallowed: nobody listens");
        assert!(!rig.irqs.deliver_msi(DOORBELL, 3, platform), "no such vector");
        assert!(!rig.irqs.deliver_msi(DOORBELL + 4, 0, platform), "not the doorbell");
        assert_eq!(rig.set(NONE, index, 0, 0, &[]), Ok(0));
        assert!(!rig.irqs.deliver_msi(DOORBELL, 0, &mut rig.process), "off");
        rig.close();
    }
}

#[test]
fn a_vector_without_eventfd_is_masked_and_comes_when_it_gets_one() {
    for index in [MSI, MSIX] {
        let mut rig = rig();
        assert_eq!(rig.set_fds(index, 0, &[10, -1]), Ok(0));
        assert_eq!(rig.run(|f, bus| f.fire(1, bus)), 0);
        assert_eq!(rig.set_fds(index, 1, &[11]), Ok(0));
        // MSI's pending bits are the function's own to send; this one has no register for it.
        let pending = u64::from(index == MSIX);
        assert_eq!([rig.read(10), rig.read(11)], [0, pending]);
        rig.close();
    }
}

#[test]
fn the_function_is_programmed_and_left_clean() {
    let mut rig = rig();
    assert_eq!(rig.set_fds(MSI, 0, &[10, 11, 12]), Ok(0));
    assert_eq!(rig.irqs.msi_vectors_log2(), Some(2));
    let config = rig.function.config();
    assert_eq!((config.u16(0x42), config.u32(0x44)), (0x01a5, 0x800_0040));
    assert_eq!(config.u32(0x50), 0xffff_fff8, "masked but for three");
    assert!(config.command().contains(pci::Command::INTX_DISABLE));
    assert_eq!(rig.set(NONE, MSI, 0, 0, &[]), Ok(0));
    let config = rig.function.config();
    assert_eq!((config.u16(0x42), config.u32(0x50)), (0x0184, 0));
    assert!(!config.command().contains(pci::Command::INTX_DISABLE));
    assert_eq!(rig.irqs.msi_vectors_log2(), None);
    assert_eq!(rig.set_fds(MSIX, 2, &[10]), Ok(0));
    let entry = |rig: &mut Rig, vector: u64| {
        let mut bytes = [0; 16];
        rig.run(|f, bus| f.bar_read(0, 0x2000 + 16 * vector, &mut bytes, bus));
        bytes.chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(entry(&mut rig, 1), [0x800_0040, 0, 1, 1]);
    assert_eq!(entry(&mut rig, 2), [0x800_0040, 0, 2, 0]);
    assert_eq!(rig.function.config().u16(0x62), 0x8004);
    rig.close();
    assert_eq!(rig.function.config().u16(0x62), 0x0004);
    assert_eq!(entry(&mut rig, 2)[3], 1);
}

#[test]
fn fewer_vectors_than_asked_is_a_number() {
    let mut rig = rig();
    rig.multi_msi = false;
    assert_eq!(rig.set_fds(MSI, 0, &[10, 11]), Ok(1));
    assert_eq!((rig.irqs.mode(), rig.doorbell.references), (None, 0));
    assert_eq!(rig.set_fds(MSI, 0, &[10]), Ok(0));
    rig.close();
    rig.vectors_left = 3;
    assert_eq!(rig.set_fds(MSIX, 1, &[10, 11, 12]), Ok(3));
    rig.vectors_left = 0;
    assert_eq!(rig.set_fds(MSIX, 0, &[10]), Err(Errno::ENOSPC));
    // Grown on demand, as far as the controller goes.
    rig.vectors_left = 2;
    assert_eq!(rig.set_fds(MSIX, 0, &[10]), Ok(0));
    rig.vectors_left = 1;
    assert_eq!(rig.set_fds(MSIX, 2, &[12, 13]), Err(Errno::ENOSPC));
    assert_eq!(rig.irqs.vectors_used(), 2);
    rig.close();
}

#[test]
fn no_way_to_the_controller_leaves_nothing_behind() {
    let mut rig = rig();
    let window = IovaRange::sized(0x800_0000, 0x1000).unwrap();
    let full = BindRefusal::WindowFull { window, pages: 1 };
    for (why, errno) in
        [(full, Errno::ENOSPC), (BindRefusal::NotAttached { group: 1 }, Errno::EINVAL)]
    {
        rig.doorbell.refusal = Some(why);
        for index in [MSI, MSIX] {
            assert_eq!(rig.set_fds(index, 0, &[10, 11]), Err(errno));
            assert!(rig.process.held.is_empty());
            assert_eq!(rig.irqs.mode(), None);
            assert!(!rig.function.messages());
        }
        // The number available is known only once one vector is there.
        rig.multi_msi = false;
        assert_eq!(rig.set_fds(MSI, 0, &[10, 11]), Err(errno));
        rig.multi_msi = true;
    }
    // INTx needs no doorbell.
    assert_eq!(rig.set_fds(INTX, 0, &[10]), Ok(0));
    rig.close();
}

#[test]
fn a_line_that_leads_nowhere_and_a_sleeping_function() {
    let mut rig = rig();
    rig.line_wired = false;
    assert_eq!(rig.set_fds(INTX, 0, &[99]), Err(Errno::EBADF));
    assert_eq!(rig.set_fds(INTX, 0, &[10]), Err(Errno::ENODEV));
    assert_eq!(rig.set_fds(INTX, 0, &[-1]), Err(Errno::ENODEV));
    assert!(rig.process.held.is_empty());
    // A power management capability in the last free bytes, state D3hot.
    let config = rig.function.config_mut();
    config.set(0x61, &[0x70]);
    config.set(0x70, &[1, 0, 3, 0, 3, 0, 0, 0]);
    assert_eq!(rig.set_fds(MSIX, 0, &[10]), Err(Errno::EINVAL));
    rig.function.config_mut().set(0x74, &[0]);
    assert_eq!(rig.set_fds(MSIX, 0, &[10]), Ok(0));
    rig.close();
}

#[test]
fn a_reset_keeps_the_mode_and_programs_again() {
    let mut rig = rig();
    for index in [MSI, MSIX] {
        assert_eq!(rig.set_fds(index, 0, &[10, 11]), Ok(0));
        rig.reset();
        assert_eq!(rig.run(|f, bus| f.fire(1, bus)), 0);
        assert_eq!(rig.read(11), 1);
        assert_eq!(rig.set(NONE, index, 0, 0, &[]), Ok(0));
    }
    assert_eq!(rig.set_fds(INTX, 0, &[10]), Ok(0));
    rig.run(|f, bus| f.raise(1, bus));
    assert_eq!(rig.read(10), 1);
    rig.reset();
    assert!(rig.function.config().command().contains(pci::Command::INTX_DISABLE), "still masked");
    assert_eq!(rig.set(0x11, INTX, 0, 1, &[]), Ok(0));
    assert_eq!(rig.read(10), 0, "the line fell with the reset");
    rig.close();
}

#[test]
fn requests_of_the_host_reach_who_listens() {
    let mut rig = rig();
    assert!(!rig.irqs.signal_req(&mut rig.process));
    assert_eq!(rig.set_fds(REQ, 0, &[10]), Ok(0));
    assert!(rig.irqs.signal_req(&mut rig.process));
    assert!(!rig.irqs.signal_err(&mut rig.process));
    assert_eq!(rig.read(10), 1);
    rig.close();
}

#[test]
fn the_users_disable_bit_is_physical_while_intx_is_off() {
    let mut rig = rig();
    let disabled = |rig: &Rig| rig.function.config().command().contains(pci::Command::INTX_DISABLE);
    let set = |rig: &mut Rig, on| {
        let Rig { irqs, function, process, .. } = rig;
        irqs.set_user_intx_disable(on, function, process);
    };
    set(&mut rig, true);
    assert!(disabled(&rig));
    set(&mut rig, false);
    assert!(!disabled(&rig));
    set(&mut rig, true);
    rig.close();
    rig.irqs.opened(&mut rig.function);
    assert!(!disabled(&rig));
}

#[test]
fn a_request_that_claims_much_data_allocates_none() {
    let mut rig = rig();
    let huge = refusal(&mut rig, &[u32::MAX, 0x24, MSIX, 0, 0xffff_fff0]);
    assert_eq!(huge.to_string(), "vectors 0..=4294967279 asked, the function has 5 MSI-X vectors");
    let wraps = refusal(&mut rig, &[u32::MAX, 0x24, MSIX, 5, u32::MAX - 5]);
    assert_eq!(wraps, IrqRefusal::Wraps { start: 5, count: u32::MAX - 5 });
}

#[test]
fn an_environment_takes_vectors_off() {
    let mut rig = rig();
    rig.vectors_left = 4;
    rig.process.memory = rig::words(&[28, 0x24, MSIX, 0, 2, 10, 11]);
    let left = rig.with(|irqs: &mut Irqs, env: &mut IrqEnv<'_>| {
        irqs.set_irqs(env, process::ARG).unwrap();
        env.vectors_left
    });
    assert_eq!(left, 2);
    rig.close();
}
