//! The device: memory, a unit that computes, a sum, pages that record and pages that do not answer.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use softvfio_supervise::mmio::{Bars, BusError, Unsupported};

/// Where the registers begin in the file.
pub(crate) const BASE: u64 = 1 << 40;
/// How many bytes a client maps.
pub(crate) const SIZE: u64 = 0x40000;
/// As many bytes of plain memory at the registers' begin; the same bytes are the file's first.
pub(crate) const RAM: u64 = 0x8000;
/// Write a number, wait until STATUS is 0, read the answer.
pub(crate) const COMPUTE: u64 = 0x10000;
pub(crate) const STATUS: u64 = 0x10004;
/// What is stored is added.
pub(crate) const SUM: u64 = 0x18000;
/// No answer.
pub(crate) const DEAD: u64 = 0x20000;
/// Accesses are written down; loads are zeroes.
pub(crate) const LOG: u64 = 0x30000;

/// What the computing unit answers.
pub(crate) fn answer(x: u32) -> u32 {
    x.wrapping_mul(x).wrapping_add(0x1234_5678)
}

pub(crate) struct Model {
    pub(crate) file: File,
    id: (u64, u64),
    /// The operand, and how often STATUS will say busy.
    unit: Mutex<(u32, u32)>,
    pub(crate) sum: AtomicU64,
    pub(crate) accesses: AtomicU64,
    /// Store, offset, length.
    pub(crate) log: Mutex<Vec<(bool, u64, usize)>>,
    pub(crate) unsupported: Mutex<Vec<Unsupported>>,
}

impl Model {
    pub(crate) fn new() -> Self {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = File::from(rustix::fs::memfd_create("bars", flags).unwrap());
        file.set_len(RAM).unwrap();
        let meta = file.metadata().unwrap();
        Self {
            file,
            id: (meta.st_dev(), meta.st_ino()),
            unit: Mutex::default(),
            sum: AtomicU64::new(0),
            accesses: AtomicU64::new(0),
            log: Mutex::default(),
            unsupported: Mutex::default(),
        }
    }

    /// The file, for another process.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

impl Bars for Model {
    fn find(&self, dev: u64, ino: u64) -> Option<u32> {
        (self.id == (dev, ino)).then_some(7)
    }

    fn load(&self, key: u32, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        assert_eq!(key, 7);
        assert!(offset.is_multiple_of(data.len() as u64) && data.len() <= 8);
        self.accesses.fetch_add(1, Ordering::SeqCst);
        let offset = offset - BASE;
        match offset {
            0..RAM => self.file.read_exact_at(data, offset).unwrap(),
            COMPUTE => data.copy_from_slice(&answer(self.unit.lock().unwrap().0).to_le_bytes()),
            STATUS => {
                let mut unit = self.unit.lock().unwrap();
                data.fill(u8::from(unit.1 > 0));
                unit.1 = unit.1.saturating_sub(1);
            }
            SUM => {
                let sum = self.sum.load(Ordering::SeqCst).to_le_bytes();
                data.copy_from_slice(&sum[..data.len()]);
            }
            LOG..SIZE => {
                data.fill(0);
                self.log.lock().unwrap().push((false, offset, data.len()));
            }
            _ => return Err(BusError),
        }
        Ok(())
    }

    fn store(&self, _: i32, key: u32, offset: u64, data: &[u8]) -> Result<(), BusError> {
        assert_eq!(key, 7);
        assert!(offset.is_multiple_of(data.len() as u64) && data.len() <= 8);
        self.accesses.fetch_add(1, Ordering::SeqCst);
        let offset = offset - BASE;
        let word = || u32::from_le_bytes(data.try_into().unwrap());
        match offset {
            0..RAM => self.file.write_all_at(data, offset).unwrap(),
            COMPUTE => *self.unit.lock().unwrap() = (word(), word() % 3),
            SUM => drop(self.sum.fetch_add(word().into(), Ordering::SeqCst)),
            LOG..SIZE => self.log.lock().unwrap().push((true, offset, data.len())),
            _ => return Err(BusError),
        }
        Ok(())
    }

    fn unsupported(&self, what: &Unsupported) {
        eprintln!("{what}");
        self.unsupported.lock().unwrap().push(what.clone());
    }
}
