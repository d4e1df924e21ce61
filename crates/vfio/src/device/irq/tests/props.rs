//! Random requests: nothing panics, leaks or is given back twice, and the doorbell is held exactly
//! while messages are on.

use alloc::vec::Vec;

use iommu::{BindRefusal, Dialect};
use pci::ConfigSize;
use proptest::prelude::*;
use uapi::irq::IrqIndex;

use super::rig::{Function, Rig};

/// A function with MSI (up to four vectors, maskable) and MSI-X (five vectors).
pub(super) fn function(obeys_disable: bool) -> Function {
    let mut config = [0; 0x80];
    config[6] = 0x10;
    config[0x34] = 0x40;
    config[0x3d] = 1;
    config[0x40..0x44].copy_from_slice(&[0x05, 0x60, 0x84, 0x01]);
    config[0x60..0x6c].copy_from_slice(&[0x11, 0, 4, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0]);
    Function::new(&config, ConfigSize::Conventional, obeys_disable)
}

#[derive(Clone, Debug)]
enum Step {
    Set { argsz: Option<u32>, flags: u32, index: u32, start: u32, count: u32, data: Vec<i32> },
    Raise(u32),
    Clear(u32),
    Fire(u32),
    UserDisable(bool),
    Limits { refuse: bool, left: u32, multi: bool, wired: bool },
    CloseFd(i32),
    Message { data: u32 },
    Reset,
    Teardown,
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![
        8 => (0..3_u32, 3..6_u32).prop_map(|(data, action)| 1 << data | 1 << action),
        1 => any::<u32>(),
    ];
    let edge = || prop_oneof![8 => 0..7_u32, 1 => Just(u32::MAX), 1 => any::<u32>()];
    let fd = prop_oneof![4 => 10..14_i32, 1 => Just(50), 1 => Just(99), 2 => -2..0_i32];
    let data = prop::collection::vec(fd, 0..6);
    let argsz = prop::option::weighted(0.1, edge());
    prop_oneof![
        12 => (argsz, flags, 0..6_u32, edge(), prop::option::weighted(0.1, edge()), data).prop_map(
            |(argsz, flags, index, start, count, data)| {
                let count = count.unwrap_or_else(|| u32::try_from(data.len()).unwrap());
                Step::Set { argsz, flags, index, start, count, data }
            }
        ),
        2 => any::<u32>().prop_map(Step::Raise),
        2 => any::<u32>().prop_map(Step::Clear),
        2 => edge().prop_map(Step::Fire),
        2 => any::<bool>().prop_map(Step::UserDisable),
        1 => (any::<bool>(), 0..8_u32, any::<bool>(), any::<bool>())
            .prop_map(|(refuse, left, multi, wired)| Step::Limits { refuse, left, multi, wired }),
        1 => (10..14_i32).prop_map(Step::CloseFd),
        1 => edge().prop_map(|data| Step::Message { data }),
        1 => Just(Step::Reset),
        1 => Just(Step::Teardown),
    ]
}

fn run(rig: &mut Rig, step: Step) {
    match step {
        Step::Set { argsz, flags, index, start, count, data } => {
            let mut bytes: Vec<u8> = data.iter().flat_map(|fd| fd.to_ne_bytes()).collect();
            let size = 20 + u32::try_from(bytes.len()).unwrap();
            let mut all = super::rig::words(&[argsz.unwrap_or(size), flags, index, start, count]);
            all.append(&mut bytes);
            if let Ok(available) = rig.set_bytes(all) {
                assert!((0..=5).contains(&available));
            }
        }
        Step::Raise(bits) => {
            rig.run(|f, bus| f.raise(bits, bus));
        }
        Step::Clear(bits) => {
            rig.run(|f, bus| f.clear(bits, bus));
        }
        Step::Fire(vector) => {
            rig.run(|f, bus| f.fire(vector, bus));
        }
        Step::UserDisable(disable) => {
            rig.irqs.set_user_intx_disable(disable, &mut rig.function, &mut rig.process);
        }
        Step::Limits { refuse, left, multi, wired } => {
            rig.doorbell.refusal = refuse.then_some(BindRefusal::NotAttached { group: 1 });
            rig.vectors_left = if left == 7 { u32::MAX } else { left };
            (rig.multi_msi, rig.line_wired) = (multi, wired);
        }
        Step::CloseFd(fd) => {
            rig.process.counters.remove(&fd);
            rig.irqs.unmask_closed(&mut rig.process);
        }
        Step::Message { data } => {
            rig.irqs.deliver_msi(super::rig::DOORBELL, data, &mut rig.process);
        }
        Step::Reset => rig.reset(),
        Step::Teardown => rig.close(),
    }
    let messages = matches!(rig.irqs.mode(), Some(IrqIndex::Msi | IrqIndex::Msix));
    assert_eq!(rig.doorbell.references, u32::from(messages));
    assert_eq!(rig.function.messages(), messages, "the function's enable bits");
    assert!(messages || rig.irqs.vectors_used() == 0);
}

proptest! {
    #[test]
    fn random_requests_leave_nothing_behind(
        steps in prop::collection::vec(step(), 0..60),
        dialect in 0..3_usize,
        flags in any::<[bool; 3]>(),
    ) {
        let [obeys_disable, dynamic_msix, line_up_noticed] = flags;
        let mut rig = Rig::new(function(obeys_disable), Dialect::ALL[dialect]);
        (rig.dynamic_msix, rig.line_up_noticed) = (dynamic_msix, line_up_noticed);
        rig.process.counters.extend((10..14).map(|fd| (fd, 0)));
        for step in steps {
            run(&mut rig, step);
        }
        rig.close();
    }
}
