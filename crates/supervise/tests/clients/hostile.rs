//! A client that means harm, with no idea.

use std::time::{Duration, Instant};

use super::raw::{self, Vfio};
use super::{becoming, well_behaved};

/// How long it tries.
const TIME: Duration = Duration::from_secs(2);

/// Does its worst in children, which may die of it; then everything must work.
pub(super) fn run() {
    let start = Instant::now();
    let mut seed = 1;
    while start.elapsed() < TIME {
        let mut child =
            becoming("hostile child").env("SOFTVFIO_E2E_SEED", seed.to_string()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > TIME * 2 {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        seed += 1;
    }
    println!("{} children", seed - 1);
    well_behaved();
}

fn bar(device: i32, len: usize) -> *mut u32 {
    let (prot, at) = (libc::PROT_READ | libc::PROT_WRITE, raw::region(device, 0).cast_signed());
    unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, device, at).cast() }
}

/// Writes to registers that cannot be written, and to doorbells of queues that are not there.
pub(super) fn scribble() {
    let vfio = Vfio::open();
    let registers = bar(vfio.nvme, 0x2000);
    assert_ne!(registers.cast(), libc::MAP_FAILED);
    for at in (0..4).chain(0x400..0x410) {
        unsafe { registers.add(at).write_volatile(1) };
    }
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(unsafe { libc::munmap(registers.cast(), 0x2000) }, 0);
    vfio.close();
    well_behaved();
}

pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A word as requests have them: mostly a small number, an address, or a flag.
    fn word(&mut self, memory: u64) -> u64 {
        match self.below(8) {
            0 => self.next(),
            1 => u64::MAX - self.below(0x2000),
            2 => memory + (self.below(64) << 12),
            3 => 0x10_0000 + (self.below(64) << 12),
            4 => 1 << self.below(64),
            5 => self.below(6) << 32 | self.below(80),
            _ => self.below(0x2000),
        }
    }
}

pub(super) fn child() {
    let seed: u64 = std::env::var("SOFTVFIO_E2E_SEED").unwrap().parse().unwrap();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let vfio = Vfio::open();
    let len = 64 << 12;
    let memory = raw::memory(len, libc::MAP_SHARED);
    assert_eq!(raw::map(vfio.container, memory, 0x10_0000, len as u64), 0);
    let bars = [(bar(vfio.edu, 4096), 1024), (bar(vfio.nvme, 0x2000), 2048)];
    let fds = [vfio.container, vfio.groups[0], vfio.groups[1], vfio.edu, vfio.nvme];
    let mut argument = [0_u64; 32];
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(200) {
        let mut fd = fds[random.below(5) as usize];
        match random.below(12) {
            0..=3 => {
                argument.fill_with(|| random.word(memory as u64));
                if random.below(4) != 0 {
                    // A plausible length and flags.
                    argument[0] =
                        random.below(8) << 32 | [8, 20, 24, 32, 40][random.below(5) as usize];
                }
                let number = 0x3b64 + random.below(21) as u32;
                let address = match random.below(8) {
                    0 => random.word(memory as u64),
                    _ => argument.as_mut_ptr() as u64,
                };
                raw::request(fd, number, address);
            }
            4 => {
                let index = random.below(10);
                let at = if index == 0 { 0x10 << 40 } else { index << 40 };
                let at = at + random.below(0x4000);
                let mut data = [0; 64];
                let part = &mut data[..random.below(65) as usize];
                if random.below(2) == 0 {
                    part.fill_with(|| random.below(256) as u8);
                    raw::pwrite(fd, part, at);
                } else {
                    raw::pread(fd, part, at);
                }
            }
            5..=8 => {
                let (bar, words) = bars[random.below(2) as usize];
                if bar.cast() != libc::MAP_FAILED {
                    let at = match random.below(2) {
                        0 => random.below(0x40),
                        _ => random.below(words),
                    };
                    let value = random.word(0x10_0000) as u32;
                    unsafe { bar.add(at as usize).write_volatile(value) };
                }
            }
            9 => {
                // What queues are made of.
                let at = random.below(len as u64 / 8);
                unsafe { memory.cast::<u64>().add(at as usize).write_volatile(random.word(0)) };
            }
            10 => {
                if let (bar, 2048) = bars[1]
                    && bar.cast() != libc::MAP_FAILED
                {
                    // A controller that is on.
                    let words =
                        [(9, 0x001f_001f), (10, 0x10_0000), (11, 0), (12, 0x10_1000), (13, 0)];
                    for (at, value) in words.into_iter().chain([(5, 0x0046_0001)]) {
                        unsafe { bar.add(at).write_volatile(value) };
                    }
                }
            }
            _ => {
                fd = unsafe { libc::dup(fd) };
                if fd >= 0 {
                    raw::request(fd, raw::DEVICE_RESET, 0);
                    raw::close(fd);
                }
            }
        }
    }
}
