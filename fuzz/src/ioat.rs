//! Bytes as chains of descriptors for the I/OAT engine, beside an interpreter of them that has no
//! batches, no budget and no buffer.
//!
//! With a first byte of a certain kind, bytes are accesses to any register instead; then only work
//! must end.

use devices::{Ioat, IoatConfig};
use pci::{Aborted, Device, DmaBus};

use crate::Input;

/// Memory: a page of 64 descriptors, a page with the completion record, data.
const BASE: u64 = 0x10_0000;
const RECORD: u64 = BASE + 0x1000;
const DATA: u64 = BASE + 0x2000;
const DATA_SIZE: u64 = 64 << 10;
const SIZE: usize = (DATA_SIZE + 0x2000) as usize;
/// Bytes of a descriptor at most.
const LONGEST: u32 = 4096;
/// Chains of one input at most.
const CHAINS: usize = 30;
/// Calls of `run` after which work should have ended.
const CALLS: usize = 2000;

/// Memory. Only data and the record can be written, and the record cannot be read.
#[derive(Clone)]
struct Machine(Vec<u8>);

impl Machine {
    fn part(&mut self, addr: u64, len: usize) -> Option<&mut [u8]> {
        let at = usize::try_from(addr.checked_sub(BASE)?).ok()?;
        self.0.get_mut(at..at.checked_add(len)?)
    }

    fn source(&mut self, addr: u64, len: usize) -> Option<&mut [u8]> {
        let end = addr.checked_add(len as u64)?;
        if end > RECORD && addr < DATA { None } else { self.part(addr, len) }
    }

    fn destination(&mut self, addr: u64, len: usize) -> Option<&mut [u8]> {
        let record = (addr, len) == (RECORD, 8);
        if addr < DATA && !record { None } else { self.part(addr, len) }
    }
}

impl DmaBus for Machine {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Aborted> {
        data.fill(0);
        data.copy_from_slice(self.source(addr, data.len()).ok_or(Aborted)?);
        Ok(())
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Aborted> {
        self.destination(addr, data.len()).ok_or(Aborted)?.copy_from_slice(data);
        Ok(())
    }

    fn set_intx(&mut self, _asserted: bool) {
        unreachable!("there is no pin");
    }
}

/// What should happen.
struct Interpreter {
    machine: Machine,
    current: u64,
    completed: u64,
    first: bool,
    errors: u32,
    /// A descriptor wanted a record.
    told: bool,
}

impl Interpreter {
    fn start(&mut self, chain: u64) {
        (self.current, self.completed, self.first, self.errors) = (chain, 0, true, 0);
    }

    fn run(&mut self, count: u16) {
        self.told = false;
        for _ in 0..count {
            if let Err(error) = self.one() {
                self.errors |= error;
                return;
            }
        }
    }

    fn one(&mut self) -> Result<(), u32> {
        if !self.current.is_multiple_of(64) {
            return Err(if self.first { 1 << 4 } else { 1 << 3 });
        }
        let bytes = self.machine.source(self.current, 64).ok_or(1_u32 << 8)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let (size, control) = (word(0) as u32, (word(0) >> 32) as u32);
        let (source, to, next) = (word(8), word(16), word(24));
        let len = size as usize;
        let null = control >> 24 == 0 && control & 0x20 != 0;
        if control >> 24 > 1 {
            return Err(1 << 10);
        }
        if !null {
            if size == 0 || size > LONGEST {
                return Err(1 << 11);
            }
            let data: Vec<u8> = if control >> 24 == 0 {
                self.machine.source(source, len).ok_or(1_u32)?.to_vec()
            } else {
                source.to_le_bytes().into_iter().cycle().take(len).collect()
            };
            self.machine.destination(to, len).ok_or(2_u32)?.copy_from_slice(&data);
        }
        self.told |= control & 8 != 0;
        (self.completed, self.current, self.first) = (self.current, next, false);
        Ok(())
    }
}

struct Rig {
    ioat: Ioat,
    machine: Machine,
    count: u16,
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let first = input.u8();
    let options = IoatConfig { version: 0x34, transfer_shift: 12, polled: first & 4 != 0 };
    let mut bytes = vec![0; SIZE];
    for (i, byte) in bytes[0x2000..].iter_mut().enumerate() {
        *byte = (i ^ i >> 8) as u8;
    }
    let mut rig = Rig { ioat: Ioat::new(options), machine: Machine(bytes), count: 0 };
    if first & 3 == 0 {
        rig.anything(&mut input);
    } else {
        rig.chains(&mut input);
    }
}

impl Rig {
    fn write(&mut self, offset: u64, size: usize, value: u64) {
        self.ioat.bar_write(0, offset, &value.to_le_bytes()[..size], &mut self.machine);
    }

    fn read(&mut self, offset: u64, size: usize) -> u64 {
        let mut data = [0; 8];
        self.ioat.bar_read(0, offset, &mut data[..size], &mut self.machine);
        u64::from_le_bytes(data)
    }

    fn work(&mut self) {
        for _ in 0..CALLS {
            if !self.ioat.run(&mut self.machine) {
                return;
            }
        }
        panic!("work without end");
    }

    fn start(&mut self, chain: u64) {
        self.write(0x84, 1, 0x20);
        self.work();
        self.write(0x90, 8, chain);
        self.write(0x98, 8, RECORD);
        self.write(0x80, 2, 0x0c);
        self.count = 0;
        assert_eq!(self.read(0x88, 8), 4);
    }

    fn chains(&mut self, input: &mut Input) {
        let machine = self.machine.clone();
        let (told, first) = (false, true);
        let mut model = Interpreter { machine, current: 0, completed: 0, first, errors: 1, told };
        for _ in 0..CHAINS {
            if input.is_empty() {
                return;
            }
            if model.errors != 0 || input.u8() & 7 == 0 {
                let chain = link(input);
                model.start(chain);
                self.start(chain);
            }
            for _ in 0..input.u8() & 31 {
                let (at, descriptor) = descriptor(input);
                for machine in [&mut self.machine, &mut model.machine] {
                    machine.part(at, 32).expect("memory").copy_from_slice(&descriptor);
                }
            }
            let count = input.pick(&[1, 2, 3, 7, 16, 17, 64, 200]);
            self.count = self.count.wrapping_add(count);
            self.machine.part(RECORD, 8).expect("memory").fill(0xff);
            self.write(0x86, 2, self.count.into());
            self.work();
            model.run(count);
            self.compare(&mut model);
        }
    }

    fn compare(&mut self, model: &mut Interpreter) {
        assert_eq!(self.machine.0[0x2000..], model.machine.0[0x2000..], "data differ");
        assert_eq!(self.read(0xa8, 4), u64::from(model.errors), "errors differ");
        let state = if model.errors == 0 { 1 } else { 3 };
        assert_eq!(self.read(0x88, 8), model.completed | state, "status differs");
        let record = self.machine.part(RECORD, 8).expect("memory");
        let record = u64::from_le_bytes(record.try_into().expect("8 bytes"));
        if model.errors != 0 {
            assert_eq!(record, model.completed | state, "the record differs");
        } else {
            assert_eq!(record != u64::MAX, model.told, "a record nobody asked for, or none");
        }
    }

    fn anything(&mut self, input: &mut Input) {
        for _ in 0..400 {
            if input.is_empty() {
                return;
            }
            match input.u8() & 7 {
                0 => {
                    let size = 1 << (input.u8() & 3);
                    let offset = u64::from(input.u16() & 0x3fff) & !(size as u64 - 1);
                    let value = input.scaled();
                    self.write(offset, size, value);
                    self.read(offset, size);
                }
                1 | 2 => {
                    let size = 1 << (input.u8() & 3);
                    let offset = (0x80 + u64::from(input.u8() & 0x2f)) & !(size as u64 - 1);
                    let value = if input.u8() & 1 == 0 { link(input) } else { input.scaled() };
                    self.write(offset, size, value);
                }
                3 => {
                    let value = u64::from(input.u8());
                    self.write(0x86, 2, value);
                }
                4 | 5 => {
                    let (at, descriptor) = descriptor(input);
                    self.machine.part(at, 32).expect("memory").copy_from_slice(&descriptor);
                }
                6 if input.u8() & 15 == 0 => self.ioat.reset(),
                _ => self.work(),
            }
        }
    }
}

/// The address of a descriptor, mostly.
fn link(input: &mut Input) -> u64 {
    let slot = input.u8();
    match slot {
        0xf0 => BASE + 8,
        0xf1 => BASE + 0x1000,
        0xf2 => !0x3f,
        _ => BASE + u64::from(slot % 64) * 64,
    }
}

/// A place in the ring, and what is put there; mostly linked to the place behind it.
fn descriptor(input: &mut Input) -> (u64, [u8; 32]) {
    let (slot, how) = (input.u8() % 64, input.u8());
    let at = BASE + u64::from(slot) * 64;
    let next = if how & 3 == 0 { link(input) } else { BASE + u64::from((slot + 1) % 64) * 64 };
    let size = match how >> 2 & 7 {
        0 => u32::from(input.u16() & 0x1fff),
        1 => 4096 + u32::from(input.u8() & 1),
        _ => u32::from(input.u8()) + 1,
    };
    let control = match how >> 5 {
        0 => u32::from(input.u8()) << 24 | 8,
        1 => 1 << 24 | 8,
        2 => 1 << 5 | 8,
        3 => 0,
        _ => 8,
    };
    let mut place = || match input.u8() {
        0xff => DATA + DATA_SIZE - 8,
        0xfe => BASE,
        0xfd => u64::MAX - 3,
        n => DATA + u64::from(n) * 0xf1,
    };
    let (source, to) = (place(), place());
    let mut bytes = [0; 32];
    let first = u64::from(control) << 32 | u64::from(size);
    for (part, value) in bytes.chunks_mut(8).zip([first, source, to, next]) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    (at, bytes)
}
