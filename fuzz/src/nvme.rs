//! Bytes as what a driver does with the NVM Express controller.
//!
//! The first byte chooses. A *correct* driver keeps to its rings, though its commands ask for
//! anything; then [`books`] says what must hold. A *wild* one writes what it likes where it likes;
//! then only work must end and storage be touched inside its bounds.

mod books;

use devices::nvme::{Backend, BackendError, MemoryBackend};
use devices::{Nvme, NvmeConfig};
use pci::{Aborted, Device, DmaBus};

use self::books::{Books, Kind};
use crate::Input;

/// Memory: the rings of queues 0 to 3, two pages each, then data.
const BASE: u64 = 0x10_0000;
const SIZE: usize = 256 << 10;
const DATA: u64 = BASE + QUEUES as u64 * 0x2000;
const QUEUES: usize = 4;
/// Bytes of the disk, which do not end with a block.
const DISK: u64 = (1 << 20) + 100;
/// Steps of one input at most.
const STEPS: usize = 400;
/// Calls of `run` after which work should have ended.
const CALLS: usize = 2000;

/// The rings of a queue: commands, completions.
const fn rings(id: usize) -> (u64, u64) {
    (BASE + id as u64 * 0x2000, BASE + id as u64 * 0x2000 + 0x1000)
}

/// A disk that knows its bounds, with a part that is broken.
struct Disk(MemoryBackend);

impl Disk {
    fn check(offset: u64, len: u64) -> Result<(), BackendError> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= DISK), "beyond the disk");
        assert!((offset | len) & 0x1ff == 0, "not a block");
        if offset >> 16 == 9 { Err(BackendError) } else { Ok(()) }
    }
}

impl Backend for Disk {
    fn size(&self) -> u64 {
        DISK
    }
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), BackendError> {
        Self::check(offset, data.len() as u64)?;
        self.0.read(offset, data)
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BackendError> {
        Self::check(offset, data.len() as u64)?;
        self.0.write(offset, data)
    }
    fn flush(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
    fn write_zeroes(&mut self, offset: u64, len: u64) -> Result<(), BackendError> {
        Self::check(offset, len)?;
        self.0.write_zeroes(offset, len)
    }
    fn discard(&mut self, offset: u64, len: u64) -> Result<(), BackendError> {
        Self::check(offset, len)?;
        self.0.discard(offset, len)
    }
}

/// Memory, and whoever watches what is written to completion queues.
struct Machine {
    bytes: Vec<u8>,
    books: Option<Books>,
}

impl Machine {
    fn at(&mut self, addr: u64, len: usize) -> Option<&mut [u8]> {
        let at = usize::try_from(addr.checked_sub(BASE)?).ok()?;
        self.bytes.get_mut(at..at.checked_add(len)?)
    }
}

impl DmaBus for Machine {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Aborted> {
        data.fill(0);
        data.copy_from_slice(self.at(addr, data.len()).ok_or(Aborted)?);
        Ok(())
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Aborted> {
        if let Some(books) = &mut self.books
            && (BASE..DATA).contains(&addr)
        {
            books.posted(addr, data);
        }
        self.at(addr, data.len()).ok_or(Aborted)?.copy_from_slice(data);
        Ok(())
    }

    fn set_intx(&mut self, _asserted: bool) {}
}

/// A controller and its driver.
struct Rig {
    nvme: Nvme,
    machine: Machine,
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut config = NvmeConfig::new("fuzz", vec![Box::new(Disk(MemoryBackend::new(DISK)))]);
    (config.queues, config.vectors) = (QUEUES as u16 - 1, 2);
    let wild = input.u8() & 3 == 0;
    let books = if wild { None } else { Some(Books::default()) };
    let machine = Machine { bytes: vec![0; SIZE], books };
    let mut rig = Rig { nvme: Nvme::new(config), machine };
    rig.start();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        if wild {
            rig.anything(&mut input);
        } else {
            rig.step(&mut input);
        }
    }
    if !wild {
        rig.finish();
    }
}

impl Rig {
    fn write(&mut self, offset: u64, value: u32) {
        self.nvme.bar_write(0, offset, &value.to_le_bytes(), &mut self.machine);
    }

    fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.nvme.bar_read(0, offset, &mut data, &mut self.machine);
        u32::from_le_bytes(data)
    }

    fn books(&mut self) -> &mut Books {
        self.machine.books.as_mut().expect("a correct driver")
    }

    /// Resets, and starts with admin queues of 4 and 3 entries.
    fn start(&mut self) {
        let (sq, cq) = rings(0);
        for (offset, value) in [
            (0x14, 0),
            (0x24, 2 << 16 | 3),
            (0x28, sq as u32),
            (0x2c, 0),
            (0x30, cq as u32),
            (0x34, 0),
            (0x14, 4 << 20 | 6 << 16 | 1),
        ] {
            self.write(offset, value);
        }
        assert_eq!(self.read(0x1c), 1);
        if let Some(books) = &mut self.machine.books {
            *books = Books::started(4, 3);
        }
    }

    fn work(&mut self) {
        for _ in 0..CALLS {
            if !self.nvme.run(&mut self.machine) {
                return;
            }
        }
        panic!("work without end");
    }

    /// What a correct driver may do.
    fn step(&mut self, input: &mut Input) {
        match input.u8() & 15 {
            0..=6 => {
                let id = usize::from(input.u8() & 3);
                let (entry, kind) = self.command(id, input);
                self.submit(id, entry, kind);
            }
            7 | 8 => self.work(),
            9 => drop(self.nvme.run(&mut self.machine)),
            10..=12 => {
                let id = usize::from(input.u8() & 3);
                let count = u32::from(input.u8() & 7);
                self.take(id, count);
            }
            13 => {
                // A value that no doorbell takes.
                let (register, value) =
                    (u64::from(input.u8() & 7), u32::from(input.u16()) | 0x1000);
                let before = self.read(0x1000 + 4 * register);
                self.write(0x1000 + 4 * register, value);
                assert_eq!(self.read(0x1000 + 4 * register), before);
            }
            14 => {
                let at = DATA + (u64::from(input.u16()) & 0x7ff8);
                let value = address(input).to_le_bytes();
                self.machine.at(at, 8).expect("memory").copy_from_slice(&value);
            }
            _ if input.u8() & 15 == 0 => self.start(),
            _ => {}
        }
    }

    /// Puts a command into a queue, if there is one with room, and rings.
    fn submit(&mut self, id: usize, mut entry: [u8; 64], kind: Kind) {
        let Some((cid, slot, tail)) = self.books().submit(id, kind) else { return };
        entry[2..4].copy_from_slice(&cid.to_le_bytes());
        let at = rings(id).0 + u64::from(slot) * 64;
        self.machine.at(at, 64).expect("memory").copy_from_slice(&entry);
        self.write(0x1000 + 8 * id as u64, tail);
        assert_eq!(self.read(0x1000 + 8 * id as u64), tail);
    }

    /// Takes up to `count` completions, and rings.
    fn take(&mut self, id: usize, count: u32) {
        let Some(head) = self.books().take(id, count) else { return };
        self.write(0x1004 + 8 * id as u64, head);
        assert_eq!(self.read(0x1004 + 8 * id as u64), head);
    }

    /// Everything that was submitted completes, but for requests of events.
    fn finish(&mut self) {
        for _ in 0..100 {
            self.work();
            for id in 0..QUEUES {
                self.take(id, u32::MAX);
            }
        }
        self.books().finished();
    }

    /// A command of any kind; those that make queues put them where their rings are.
    fn command(&self, id: usize, input: &mut Input) -> ([u8; 64], Kind) {
        let opcode = input.pick(&[0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 1, 5, 2, 13]);
        let mut cdw = [input.u32() & 0x1ffff, 0, u32::from(input.u8()), 0];
        let (mut prp1, prp2) = (address(input), address(input));
        let mut kind = Kind::Other;
        if id == 0 {
            let queue = usize::from(input.u8() & 3);
            let size = u32::from(input.u8() & 15) + 1;
            let new = (size - 1) << 16 | queue as u32;
            match opcode {
                0 => (kind, cdw[0]) = (Kind::DeleteSq(queue), queue as u32),
                1 => {
                    let cqid = u32::from(input.u8() & 3);
                    prp1 = rings(queue).0;
                    kind = Kind::CreateSq(queue, size, cqid as usize);
                    (cdw[0], cdw[1]) = (new, cqid << 16 | 1);
                }
                4 => (kind, cdw[0]) = (Kind::DeleteCq(queue), queue as u32),
                5 => {
                    prp1 = rings(queue).1;
                    kind = Kind::CreateCq(queue, size);
                    (cdw[0], cdw[1]) = (new, u32::from(input.u8() & 1) << 1 | 1);
                }
                12 => kind = Kind::Event,
                _ => cdw[1] = u32::from(input.u8()),
            }
        } else if input.u8() & 7 == 0 {
            // Around the end of the disk.
            cdw[0] = 2049 - u32::from(input.u8() & 3);
        }
        let mut entry = [0; 64];
        entry[0] = opcode;
        entry[1] = if input.u8() == 1 { 0x40 } else { 0 };
        entry[4..8].copy_from_slice(&input.pick(&[1_u32, 1, 1, 0, 2, u32::MAX]).to_le_bytes());
        entry[24..32].copy_from_slice(&prp1.to_le_bytes());
        entry[32..40].copy_from_slice(&prp2.to_le_bytes());
        for (i, word) in cdw.iter().enumerate() {
            entry[40 + 4 * i..44 + 4 * i].copy_from_slice(&word.to_le_bytes());
        }
        (entry, kind)
    }

    /// What a wild driver does.
    fn anything(&mut self, input: &mut Input) {
        match input.u8() & 7 {
            0 => {
                let size = 1 << (input.u8() & 3);
                let offset = u64::from(input.u16() & 0x3fff) & !(size as u64 - 1);
                let value = wild_value(input).to_le_bytes();
                self.nvme.bar_write(0, offset, &value[..size], &mut self.machine);
                self.nvme.bar_read(0, offset, &mut [0; 8][..size], &mut self.machine);
            }
            1 => {
                let (offset, value) = (u64::from(input.u8() & 0x3c), wild_value(input));
                self.write(offset, value as u32);
            }
            2 => self.write(0x1000 + u64::from(input.u8() & 0x1c), u32::from(input.u8() & 15)),
            3 => {
                let at = BASE + (u64::from(input.u16()) & !7) * 2;
                let value = wild_value(input).to_le_bytes();
                self.machine.at(at, 8).expect("memory").copy_from_slice(&value);
            }
            4 | 5 => {
                let id = usize::from(input.u8() & 3);
                let at = rings(id).0 + u64::from(input.u8() & 15) * 64;
                let (entry, _) = self.command(id, input);
                self.machine.at(at, 64).expect("memory").copy_from_slice(&entry);
            }
            6 if input.u8() & 15 == 0 => {
                self.nvme.reset();
                self.start();
            }
            _ => self.work(),
        }
    }
}

/// Where a command's data or list lies: never in the rings, mostly in memory.
fn address(input: &mut Input) -> u64 {
    let how = input.u8();
    let page = DATA + u64::from(how & 15) * 0x1000;
    match how >> 4 {
        0..=9 => page,
        10 => page + 8 * u64::from(input.u16() & 0x1ff),
        11 => page + 0xff8,
        12 => page + u64::from(input.u8()),
        13 => BASE + SIZE as u64 - 0x1000,
        14 => BASE + SIZE as u64,
        _ => u64::MAX - 7,
    }
}

fn wild_value(input: &mut Input) -> u64 {
    match input.u8() & 3 {
        0 => input.scaled(),
        1 => BASE + u64::from(input.u16()) * 8,
        _ => BASE + (u64::from(input.u8()) << 12),
    }
}
