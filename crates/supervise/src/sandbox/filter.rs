//! Which system calls of a client come to the supervisor.
//!
//! Classic BPF, as seccomp runs it. Everything that VFIO does not concern is allowed, for most calls
//! without running the program at all (the kernel keeps a bitmap of numbers that are always
//! allowed). What comes: `ioctl` of type `;`, and reads, writes and mappings at offsets of 2^40 and
//! more, where the regions of devices are. Negative offsets stay with the kernel.
//!
//! Both of x86-64's architectures are looked at, 64-bit and i386; x32 is refused with `ENOSYS`, as
//! kernels without it do. io_uring cannot issue ioctls; its reads and writes of a device descriptor
//! pass by unless `refuse_io_uring` is set.

use crate::sys::filter::Instruction;

/// What is left to choose about the filter.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// Mappings of device regions come to the supervisor too.
    pub mmap: bool,
    /// `io_uring_setup` answers `ENOSYS`.
    pub refuse_io_uring: bool,
    /// `exit_group` comes to the supervisor too, which lets it go on.
    pub exits: bool,
}

impl Default for Filter {
    fn default() -> Filter {
        Filter { mmap: true, refuse_io_uring: false, exits: false }
    }
}

/// Architecture of a 64-bit call, in `seccomp_data.arch`.
pub const ARCH_X86_64: u32 = 0xc000_003e;
/// Architecture of a 32-bit call.
pub const ARCH_I386: u32 = 0x4000_0003;

/// A call that came, with its arguments in one form for both architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `ioctl`.
    Ioctl {
        /// Descriptor.
        fd: i32,
        /// Number.
        cmd: u32,
        /// Argument.
        arg: u64,
    },
    /// `pread64` and `pwrite64`.
    Buffer {
        /// Descriptor.
        fd: i32,
        /// Whether the client writes.
        write: bool,
        /// Its buffer.
        address: u64,
        /// Its size.
        size: u64,
        /// Where in the file.
        offset: u64,
    },
    /// `preadv`, `pwritev`, `preadv2`, `pwritev2`.
    Vector {
        /// Descriptor.
        fd: i32,
        /// Whether the client writes.
        write: bool,
        /// Address of its `struct iovec`s.
        iov: u64,
        /// How many.
        count: u64,
        /// Where in the file.
        offset: u64,
        /// `RWF_*`.
        flags: u32,
        /// Whether `struct iovec` has 32-bit fields.
        compat: bool,
    },
    /// `mmap`, `mmap2`.
    Mmap {
        /// Wanted address.
        address: u64,
        /// Size.
        size: u64,
        /// `PROT_*`.
        prot: u32,
        /// `MAP_*`.
        flags: u32,
        /// Descriptor.
        fd: i32,
        /// Where in the file.
        offset: u64,
    },
    /// `exit_group`.
    Exit,
}

/// Reads a notification; `None` for a call that is none of ours and should go on.
pub fn classify(arch: u32, nr: i32, args: [u64; 6]) -> Option<Call> {
    let compat = match arch {
        ARCH_X86_64 => false,
        ARCH_I386 => true,
        _ => return None,
    };
    let [a, b, c, d, e, f] = args;
    // Descriptors and flags are ints: the upper half of the register is not looked at.
    let fd = a as i32;
    let numbers = if compat { &I386 } else { &X86_64 };
    let split = if compat { (e << 32) | (d & 0xffff_ffff) } else { d };
    let nr = u32::try_from(nr).ok()?;
    let call = match Kind::of(nr, numbers)? {
        Kind::Ioctl => Call::Ioctl { fd, cmd: b as u32, arg: c },
        Kind::Buffer { write } => Call::Buffer { fd, write, address: b, size: c, offset: split },
        Kind::Vector { write, flags } => {
            let flags = if flags { f as u32 } else { 0 };
            Call::Vector { fd, write, iov: b, count: c, offset: split, flags, compat }
        }
        Kind::Mmap => Call::Mmap {
            address: a,
            size: b,
            prot: c as u32,
            flags: d as u32,
            fd: e as i32,
            offset: if compat { (f & 0xffff_ffff) << 12 } else { f },
        },
        Kind::Exit => Call::Exit,
    };
    Some(call)
}

/// Numbers of the calls: ioctl, then pread64, pwrite64, preadv, pwritev, preadv2, pwritev2, then
/// mmap, then io_uring_setup, then exit_group.
struct Numbers {
    ioctl: u32,
    at: [u32; 6],
    mmap: u32,
    io_uring_setup: u32,
    exit_group: u32,
}

const X86_64: Numbers = Numbers {
    ioctl: 16,
    at: [17, 18, 295, 296, 327, 328],
    mmap: 9,
    io_uring_setup: 425,
    exit_group: 231,
};
const I386: Numbers = Numbers {
    ioctl: 54,
    at: [180, 181, 333, 334, 378, 379],
    mmap: 192,
    io_uring_setup: 425,
    exit_group: 252,
};

enum Kind {
    Ioctl,
    Buffer { write: bool },
    Vector { write: bool, flags: bool },
    Mmap,
    Exit,
}

impl Kind {
    fn of(nr: u32, numbers: &Numbers) -> Option<Kind> {
        if nr == numbers.ioctl {
            return Some(Kind::Ioctl);
        }
        if nr == numbers.mmap {
            return Some(Kind::Mmap);
        }
        if nr == numbers.exit_group {
            return Some(Kind::Exit);
        }
        let index = numbers.at.iter().position(|&n| n == nr)?;
        let write = index % 2 == 1;
        Some(if index < 2 {
            Kind::Buffer { write }
        } else {
            Kind::Vector { write, flags: index >= 4 }
        })
    }
}

// linux/filter.h, linux/seccomp.h. Values are as on x86: little-endian halves of 64-bit arguments.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQ: u16 = 0x15;
const IF_GE: u16 = 0x35;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const ENOSYS: u32 = 0x0005_0000 | 38;
const NR: u32 = 0;
const ARCH: u32 = 4;
const fn low(argument: u32) -> u32 {
    16 + 8 * argument
}
const fn high(argument: u32) -> u32 {
    low(argument) + 4
}

/// The first offset that concerns us.
const FIRST_OFFSET: u64 = 1 << 40;

/// The filter's program.
pub(crate) fn program(filter: Filter) -> Vec<Instruction> {
    let x86_64 = branch(&X86_64, filter, false);
    let i386 = branch(&I386, filter, true);
    let mut all = vec![
        op(LOAD, ARCH),
        jump(IF_EQ, ARCH_X86_64, 3, 0),
        jump(IF_EQ, ARCH_I386, 1, 0),
        op(RETURN, ENOSYS),
        op(JUMP, x86_64.len() as u32),
    ];
    all.extend(x86_64);
    all.extend(i386);
    all
}

/// A program that lets everything pass.
pub(super) fn allow_all() -> [Instruction; 1] {
    [op(RETURN, ALLOW)]
}

/// One architecture's: number by number, each with its test behind it.
fn branch(numbers: &Numbers, filter: Filter, compat: bool) -> Vec<Instruction> {
    let mut all = vec![op(LOAD, NR)];
    if !compat {
        all.extend([jump(IF_GE, 0x4000_0000, 0, 1), op(RETURN, ENOSYS)]);
    }
    let notify_if = |load: &[Instruction], test: &[Instruction]| {
        let mut block = load.to_vec();
        block.extend_from_slice(test);
        block
    };
    let ioctl = notify_if(
        &[op(LOAD, low(1)), op(AND, 0xff00)],
        &[jump(IF_EQ, (b';' as u32) << 8, 0, 1), op(RETURN, NOTIFY), op(RETURN, ALLOW)],
    );
    // Positive, and not below the first offset.
    let far = |first: u32| {
        [
            jump(IF_GE, 0x8000_0000, 1, 0),
            jump(IF_GE, first, 1, 0),
            op(RETURN, ALLOW),
            op(RETURN, NOTIFY),
        ]
    };
    let position = if compat { low(4) } else { high(3) };
    let at = notify_if(&[op(LOAD, position)], &far((FIRST_OFFSET >> 32) as u32));
    // mmap2 counts pages, and all 32 bits of them.
    let mmap = if compat {
        let pages = (FIRST_OFFSET >> 12) as u32;
        notify_if(
            &[op(LOAD, low(5))],
            &[jump(IF_GE, pages, 0, 1), op(RETURN, NOTIFY), op(RETURN, ALLOW)],
        )
    } else {
        notify_if(&[op(LOAD, high(5))], &far((FIRST_OFFSET >> 32) as u32))
    };
    let refuse = vec![op(RETURN, ENOSYS)];

    let mut cases: Vec<(Vec<u32>, Vec<Instruction>)> =
        vec![(vec![numbers.ioctl], ioctl), (numbers.at.to_vec(), at)];
    if filter.mmap {
        cases.push((vec![numbers.mmap], mmap));
    }
    if filter.refuse_io_uring {
        cases.push((vec![numbers.io_uring_setup], refuse));
    }
    if filter.exits {
        cases.push((vec![numbers.exit_group], vec![op(RETURN, NOTIFY)]));
    }
    for (numbers, block) in cases {
        // A match jumps over the remaining comparisons and the jump that skips the block.
        let count = numbers.len();
        for (index, number) in numbers.into_iter().enumerate() {
            all.push(jump(IF_EQ, number, (count - index) as u8, 0));
        }
        all.push(op(JUMP, block.len() as u32));
        all.extend(block);
    }
    all.push(op(RETURN, ALLOW));
    all
}

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false: 0, k }
}

fn jump(code: u16, k: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does, on the one call.
    fn run(program: &[Instruction], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let load = |at: u32| match at {
            NR => nr,
            ARCH => arch,
            _ => {
                let argument = args[(at as usize - 16) / 8];
                if at.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
        };
        let (mut pc, mut a) = (0, 0);
        loop {
            let Instruction { code, if_true, if_false, k } = program[pc];
            pc += 1;
            let take = |yes: bool| usize::from(if yes { if_true } else { if_false });
            match code {
                LOAD => a = load(k),
                AND => a &= k,
                JUMP => pc += k as usize,
                IF_EQ => pc += take(a == k),
                IF_GE => pc += take(a >= k),
                RETURN => return k,
                _ => panic!("no such instruction: {code:#x}"),
            }
        }
    }

    fn ask(filter: Filter, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        run(&program(filter), arch, nr, args)
    }

    #[test]
    fn ioctls_by_their_type() {
        for (arch, nr) in [(ARCH_X86_64, 16), (ARCH_I386, 54)] {
            let ask = |cmd| ask(Filter::default(), arch, nr, [3, cmd, 0, 0, 0, 0]);
            assert_eq!(ask(0x3b64), NOTIFY);
            assert_eq!(ask(0xdead_beef_0000_3b71), NOTIFY);
            assert_eq!(ask(0xc008_3b64), NOTIFY);
            assert_eq!(ask(0x5401), ALLOW);
            assert_eq!(ask(0x3b_0000), ALLOW);
        }
    }

    #[test]
    fn transfers_by_their_offset() {
        for nr in X86_64.at {
            let ask = |offset| ask(Filter::default(), ARCH_X86_64, nr, [3, 0, 0, offset, 0, 0]);
            assert_eq!(ask(0), ALLOW);
            assert_eq!(ask((1 << 40) - 1), ALLOW);
            assert_eq!(ask(1 << 40), NOTIFY);
            assert_eq!(ask(7 << 40), NOTIFY);
            assert_eq!(ask(i64::MAX as u64), NOTIFY);
            assert_eq!(ask(1 << 63), ALLOW);
            assert_eq!(ask(u64::MAX), ALLOW);
        }
        for nr in I386.at {
            let ask = |low, high| ask(Filter::default(), ARCH_I386, nr, [3, 0, 0, low, high, 0]);
            assert_eq!(ask(0xffff_ffff, 0xff), ALLOW);
            assert_eq!(ask(0, 0x700), NOTIFY);
            assert_eq!(ask(0xffff_ffff, 0xffff_ffff), ALLOW);
        }
    }

    #[test]
    fn mappings_by_their_offset_and_only_if_wanted() {
        let map = |filter, arch, nr, offset| ask(filter, arch, nr, [0, 4096, 3, 1, 5, offset]);
        let both = Filter::default();
        assert_eq!(map(both, ARCH_X86_64, 9, 1 << 40), NOTIFY);
        assert_eq!(map(both, ARCH_X86_64, 9, 4096), ALLOW);
        assert_eq!(map(both, ARCH_I386, 192, 1 << 28), NOTIFY);
        assert_eq!(map(both, ARCH_I386, 192, (1 << 28) - 1), ALLOW);
        let none = Filter { mmap: false, ..both };
        assert_eq!(map(none, ARCH_X86_64, 9, 1 << 40), ALLOW);
    }

    #[test]
    fn the_rest_is_allowed_and_x32_is_not_there() {
        for nr in 0..=500 {
            let known = nr == X86_64.ioctl || nr == X86_64.mmap || X86_64.at.contains(&nr);
            if !known {
                let args = [u64::MAX >> 1; 6];
                assert_eq!(ask(Filter::default(), ARCH_X86_64, nr, args), ALLOW, "{nr}");
            }
        }
        assert_eq!(ask(Filter::default(), ARCH_X86_64, 0x4000_0010, [0; 6]), ENOSYS);
        assert_eq!(ask(Filter::default(), 0xc000_00b7, 29, [0; 6]), ENOSYS);
        assert_eq!(ask(Filter::default(), ARCH_X86_64, 425, [0; 6]), ALLOW);
        let strict = Filter { refuse_io_uring: true, ..Filter::default() };
        assert_eq!(ask(strict, ARCH_X86_64, 425, [0; 6]), ENOSYS);
        assert_eq!(ask(strict, ARCH_I386, 425, [0; 6]), ENOSYS);
        let exits = Filter { exits: true, ..Filter::default() };
        assert_eq!(ask(exits, ARCH_X86_64, 231, [0; 6]), NOTIFY);
        assert_eq!(ask(exits, ARCH_I386, 252, [0; 6]), NOTIFY);
        assert_eq!(ask(exits, ARCH_X86_64, 60, [0; 6]), ALLOW);
        assert_eq!(classify(ARCH_I386, 252, [0; 6]), Some(Call::Exit));
    }

    #[test]
    fn both_architectures_read_alike() {
        let (x86_64, i386) = (ARCH_X86_64, ARCH_I386);
        let read = Call::Buffer { fd: 3, write: false, address: 16, size: 4, offset: 7 << 40 | 4 };
        assert_eq!(classify(x86_64, 17, [3, 16, 4, 7 << 40 | 4, 0, 0]), Some(read));
        assert_eq!(classify(i386, 180, [3, 16, 4, 4, 0x700, 0]), Some(read));
        let map = Call::Mmap { address: 0, size: 4096, prot: 3, flags: 1, fd: 5, offset: 1 << 40 };
        assert_eq!(classify(x86_64, 9, [0, 4096, 3, 1, 5, 1 << 40]), Some(map));
        assert_eq!(classify(i386, 192, [0, 4096, 3, 1, 5, 1 << 28]), Some(map));
        assert_eq!(classify(x86_64, 0, [0; 6]), None);
        let Some(Call::Vector { write: true, flags: 8, .. }) =
            classify(x86_64, 328, [3, 0, 1, 1 << 40, 0, 8])
        else {
            panic!("pwritev2 has flags");
        };
    }
}
