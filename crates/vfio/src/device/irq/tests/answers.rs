//! Recorded answers of real kernels, replayed: every line of `answers/*.txt` is a request and what
//! Linux said to it.
//!
//! A line is `REQUEST -> ANSWER`, with `| KERNEL ANSWER` where one kernel differs from the first.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use iommu::Dialect;
use pci::ConfigSize;
use uapi::irq::{IrqIndex, IrqSetFlags};

use super::process::ARG;
use super::rig::{Function, Rig};
use crate::device::irq::IrqKind;

/// A kernel that was recorded, and what the machine's interrupt controller does.
struct Kernel {
    name: &'static str,
    dialect: &'static Dialect,
    dynamic_msix: bool,
    line_up_noticed: bool,
}

const KERNELS: [Kernel; 5] = [
    kernel("x86-6.1", &Dialect::V6_1, true, false),
    kernel("x86-6.12", &Dialect::V6_12, true, false),
    kernel("x86-7.3", &Dialect::V7_3, true, false),
    kernel("arm-6.12", &Dialect::V6_12, false, true),
    kernel("arm-7.3", &Dialect::V7_3, true, true),
];

const fn kernel(
    name: &'static str,
    dialect: &'static Dialect,
    dynamic_msix: bool,
    line_up_noticed: bool,
) -> Kernel {
    Kernel { name, dialect, dynamic_msix, line_up_noticed }
}

fn replay(text: &str) {
    let recorded: Vec<&str> = text.lines().nth(1).unwrap().split(' ').skip(2).collect();
    let mut replayed = 0;
    for kernel in KERNELS.iter().filter(|k| recorded.contains(&k.name)) {
        for obeys_disable in [false, true] {
            replay_on(text, kernel, obeys_disable);
            replayed += 1;
        }
    }
    assert_eq!(replayed, 2 * recorded.len());
}

fn replay_on(text: &str, kernel: &Kernel, obeys_disable: bool) {
    let mut rig: Option<Rig> = None;
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with("//") || line.starts_with('#') {
            continue;
        }
        if let Some(device) = line.strip_prefix("device ") {
            let (size, hex) = device.split_once(' ').unwrap();
            let size = ConfigSize::of(size.parse().unwrap());
            let function = Function::new(&bytes(hex), size, obeys_disable);
            let mut new = Rig::new(function, kernel.dialect);
            new.dynamic_msix = kernel.dynamic_msix;
            new.line_up_noticed = kernel.line_up_noticed;
            rig = Some(new);
            continue;
        }
        let (request, answers) = line.split_once(" -> ").unwrap_or((line, ""));
        let mut answers = answers.split(" | ");
        let first = answers.next().unwrap();
        let want =
            answers.find_map(|a| a.strip_prefix(kernel.name)?.strip_prefix(' ')).unwrap_or(first);
        let got = ask(rig.as_mut().unwrap(), request);
        assert_eq!(got.as_deref().unwrap_or(""), want, "{}:{number}: {line}", kernel.name);
    }
    rig.unwrap().close();
}

/// Does what a line asks; the answer as the recording has it, `None` for none.
fn ask(rig: &mut Rig, request: &str) -> Option<String> {
    let (verb, rest) = request.split_once(' ').unwrap_or((request, ""));
    match verb {
        "open" => rig.irqs.opened(&mut rig.function),
        "close" if rest == "d0" => rig.close(),
        "close" => close(rig, fd(rest)),
        "eventfd" => {
            rig.process.counters.insert(fd(rest), 0);
        }
        "write" => {
            let (fd_name, value) = rest.split_once(' ').unwrap();
            rig.write(fd(fd_name), value.parse().unwrap());
        }
        "status" => return Some(u8::from(rig.function.wants_service()).to_string()),
        "read" => {
            let count = rig.read(fd(rest));
            return Some(if count == 0 { "EAGAIN".into() } else { count.to_string() });
        }
        "command" => {
            rig.function.set_master(hex(rest) & 4 != 0);
            let disable = hex(rest) & 0x400 != 0;
            rig.irqs.set_user_intx_disable(disable, &mut rig.function, &mut rig.process);
        }
        "bar" => {
            let (register, value) = rest.split_once(' ').unwrap();
            let value = hex(value);
            let lost = match hex(register) {
                0x60 => rig.run(|f, bus| f.raise(value, bus)),
                0x64 => rig.run(|f, bus| f.clear(value, bus)),
                _ => panic!("{request}"),
            };
            assert_eq!(lost, 0);
        }
        "reset" => return Some(if reset(rig) { "0" } else { "EINVAL" }.into()),
        "info" => return Some(info(rig, rest)),
        "ioctl" => return Some(ioctl(rig, rest)),
        _ => return Some(set_irqs(rig, verb, rest)),
    }
    None
}

/// Of the recorded functions those without power management have no reset method either.
fn reset(rig: &mut Rig) -> bool {
    let can = pci::Device::config(&rig.function).capability(pci::regs::cap::PM).is_some();
    if can {
        rig.reset();
    }
    can
}

fn close(rig: &mut Rig, fd: i32) {
    rig.process.counters.remove(&fd);
    let unmask = rig.irqs.unmask_event().and_then(|e| rig.process.held.get(&e).copied());
    if unmask == Some(fd) {
        rig.irqs.unmask_closed(&mut rig.process);
    }
}

fn info(rig: &Rig, index: &str) -> String {
    let kind = index_of(index).try_into().unwrap();
    match IrqKind::of(kind, &rig.function, rig.dialect, rig.dynamic_msix) {
        Some(IrqKind { flags, count }) => format!("{:#x} {count}", flags.bits()),
        None => "EINVAL".into(),
    }
}

fn ioctl(rig: &mut Rig, rest: &str) -> String {
    if rest == "null" {
        rig.process.memory.clear();
        let refusal = rig.with(|irqs, env| irqs.set_irqs(env, 0)).unwrap_err();
        return refusal.errno(rig.dialect).to_string();
    }
    // Either way nothing is readable after the bytes; zeros would be, were they asked for.
    let (at_end, hex) = match rest.strip_prefix("at end ") {
        Some(rest) => (true, rest.split_once(' ').unwrap().1),
        None => (false, rest),
    };
    let mut bytes = bytes(hex);
    if !at_end {
        bytes.resize(0x1000, 0xaa);
    }
    answer(rig.set_bytes(bytes))
}

/// `msix eventfd trigger START COUNT : e0 -1 e2x70 argsz=24`; with `end=20` only so many bytes of it
/// can be read.
fn set_irqs(rig: &mut Rig, index: &str, rest: &str) -> String {
    let mut words = rest.split(' ').filter(|w| *w != ":" && !w.contains('='));
    let [data, action, start, count] = core::array::from_fn(|_| words.next().unwrap());
    let option = |name| {
        let value = rest.split(' ').find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
        value.map(|v| v.parse().unwrap())
    };
    let flags = match data {
        "flags" => hex(action),
        _ => IrqSetFlags::NAMES
            .iter()
            .filter(|(name, _)| {
                let name = name.to_lowercase();
                name.ends_with(&format!("data_{data}"))
                    || name.ends_with(&format!("action_{action}"))
            })
            .fold(0, |sum, (_, bit)| sum | bit),
    };
    let mut bytes = vec![];
    for word in words {
        let (word, times) = word.split_once('x').unwrap_or((word, "1"));
        for _ in 0..times.parse().unwrap() {
            match data {
                "eventfd" => bytes.extend(fd(word).to_ne_bytes()),
                _ => bytes.push(word.parse().unwrap()),
            }
        }
    }
    let size = 20 + u32::try_from(bytes.len()).unwrap();
    let argsz = option("argsz").unwrap_or(size);
    let (start, count) = (start.parse().unwrap(), count.parse().unwrap());
    let mut all = super::rig::words(&[argsz, flags, index_of(index), start, count]);
    all.extend(bytes);
    all.resize(option("end").map_or(0x2000, |end| usize::try_from(end).unwrap()), 0xaa);
    answer(rig.set_bytes(all))
}

fn answer(answer: Result<i64, uapi::Errno>) -> String {
    answer.map_or_else(|errno| errno.to_string(), |n| n.to_string())
}

fn index_of(name: &str) -> u32 {
    let ends = format!("_{}_irq_index", name);
    let known = IrqIndex::NAMES.iter().find(|(c, _)| c.to_lowercase().ends_with(&ends));
    known.map_or_else(|| name.parse().unwrap(), |(_, number)| *number)
}

/// `e2`: an eventfd; `c0`: something else; a number: itself.
fn fd(name: &str) -> i32 {
    match name.strip_prefix('e') {
        Some(n) => 10 + n.parse::<i32>().unwrap(),
        None if name == "c0" => 50,
        None => name.parse().unwrap(),
    }
}

fn hex(text: &str) -> u32 {
    u32::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// One test for each file.
macro_rules! recordings {
    ($($name:ident: $file:literal;)+) => {$(
        #[test]
        fn $name() {
            replay(include_str!(concat!("answers/", $file, ".txt")));
        }
    )+};
}

recordings! {
    arguments: "args-edu";
    edu: "edge-edu";
    edu_at_random: "random-edu";
    intx: "intx-edu";
    intx_with_the_line_up: "intxup-edu";
    more_edu: "more-edu";
    more_nic: "more-nic";
    msi: "msi-edu";
    msix: "msix-nic";
    nic: "edge-nic";
    nic_at_random: "random-nic";
    nvme: "edge-nvme";
    switching_kinds: "switch-edu";
    unmask_eventfd: "unmask-edu";
}

#[test]
fn the_argument_address_may_be_anything() {
    let mut rig = Rig::new(Function::new(&[], ConfigSize::Conventional, false), &Dialect::V7_3);
    for addr in [0, 1, ARG - 1, u64::MAX - 19, u64::MAX] {
        let refusal = rig.with(|irqs, env| irqs.set_irqs(env, addr)).unwrap_err();
        assert_eq!(refusal.errno(rig.dialect), uapi::Errno::EFAULT);
    }
}
