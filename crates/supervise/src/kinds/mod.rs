//! The devices that can be had by name: `nvme,file=disk.img,addr=0000:03:00.0`.

mod file;
mod spec;

use std::sync::atomic::{AtomicU32, Ordering};

use devices::edu::Edu;
use devices::ioat::{Ioat, IoatConfig};
use devices::msi_test::MsiTest;
use devices::nvme::{Backend, BlockSize, MemoryBackend, Nvme, NvmeConfig};

pub use self::file::FileBackend;
pub use self::spec::{BadSpec, DeviceSpec, size};

use crate::session::{EmulatedDevice, MmioMode};

/// Bytes of an NVMe disk that no file stands behind.
const DEFAULT_DISK: u64 = 1 << 30;

/// A kind of device, for people.
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its own keys, and what each means.
    pub keys: &'static [(&'static str, &'static str)],
    make: fn(&mut spec::Keys) -> Result<EmulatedDevice, BadSpec>,
}

/// The keys that every device takes.
pub const COMMON_KEYS: &[(&str, &str)] = &[
    ("addr=DDDD:BB:DD.F", "its address; the first free bus by default"),
    ("group=N", "its IOMMU group; one of its own by default"),
    ("iommu=NAME", "the IOMMU it is behind, or the host's own device whose place it takes"),
    ("mmio=poll|trap|none", "how programs reach its mapped registers"),
];

/// The kinds.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "nvme",
        about: "an NVM Express 1.4 controller with one namespace",
        keys: &[
            ("file=PATH", "the disk's bytes: a raw image or a block device"),
            ("size=BYTES", "without a file: so many bytes of memory (K, M, G, T; 1G)"),
            ("block=512|4096", "bytes of a logical block (512)"),
            ("serial=TEXT", "its serial number (softvfio; softvfio-2 for the second disk)"),
            ("vectors=N", "MSI-X vectors (65)"),
            ("queues=N", "pairs of I/O queues (64)"),
            ("readonly", "writes are refused"),
        ],
        make: nvme,
    },
    Kind {
        name: "ioat",
        about: "Intel's DMA engine: copy, fill, one channel",
        keys: &[
            ("version=3.3|3.4", "its version: 3.4 reports errors (3.4)"),
            ("xfercap=N", "log2 of the bytes of the largest transfer, 12 to 20 (20)"),
        ],
        make: ioat,
    },
    Kind {
        name: "edu",
        about: "QEMU's educational device: a factorial, a DMA engine, one MSI",
        keys: &[],
        make: edu,
    },
    Kind {
        name: "msi-test",
        about: "for tests of interrupts: two vectors, MSI or MSI-X, sent when told, or too late",
        keys: &[],
        make: msi_test,
    },
];

/// A serial number that no other disk of this process has: drivers take equal ones for one subsystem,
/// and refuse the second.
fn next_serial() -> String {
    static DISKS: AtomicU32 = AtomicU32::new(0);
    match DISKS.fetch_add(1, Ordering::Relaxed) {
        0 => "softvfio".into(),
        n => format!("softvfio-{}", n.wrapping_add(1)),
    }
}

fn nvme(keys: &mut spec::Keys) -> Result<EmulatedDevice, BadSpec> {
    let read_only = keys.flag("readonly")?;
    let size = keys.size("size")?;
    let backend: Box<dyn Backend> = match keys.path("file")? {
        Some(_) if size.is_some() => return Err(keys.bad("size", "left out with a file")),
        Some(path) => match FileBackend::open(path.as_ref(), read_only) {
            Ok(file) => Box::new(file),
            Err(error) => return Err(BadSpec(format!("nvme: {}: {error}", path.display()))),
        },
        None => Box::new(MemoryBackend::new(size.unwrap_or(DEFAULT_DISK))),
    };
    let serial = keys.text("serial")?.unwrap_or_else(next_serial);
    let mut config = NvmeConfig::new(&serial, vec![backend]);
    config.block_size = match keys.number("block")? {
        None | Some(512) => BlockSize::B512,
        Some(4096) => BlockSize::B4096,
        Some(_) => return Err(keys.bad("block", "512 or 4096")),
    };
    if let Some(vectors) = keys.number("vectors")? {
        let fits = u16::try_from(vectors).ok().filter(|n| (1..=256).contains(n));
        config.vectors = fits.ok_or_else(|| keys.bad("vectors", "1 to 256"))?;
    }
    if let Some(queues) = keys.number("queues")? {
        let fits = u16::try_from(queues).ok().filter(|n| (1..=511).contains(n));
        config.queues = fits.ok_or_else(|| keys.bad("queues", "1 to 511"))?;
    }
    let mut device = EmulatedDevice::new("nvme", Box::new(Nvme::new(config)), Nvme::bars());
    device.reset_method = "flr".into();
    Ok(device)
}

fn ioat(keys: &mut spec::Keys) -> Result<EmulatedDevice, BadSpec> {
    let version = match keys.text("version")?.as_deref() {
        None | Some("3.4") => 0x34,
        Some("3.3") => 0x33,
        Some(_) => return Err(keys.bad("version", "3.3 or 3.4")),
    };
    // Drivers look at its state right after they have started it, which a poller may be late for.
    let mut config = IoatConfig { version, polled: keys.polled(), ..IoatConfig::default() };
    if let Some(shift) = keys.number("xfercap")? {
        let fits = u8::try_from(shift).ok().filter(|n| (12..=20).contains(n));
        config.transfer_shift = fits.ok_or_else(|| keys.bad("xfercap", "12 to 20"))?;
    }
    let mut device = EmulatedDevice::new("ioat", Box::new(Ioat::new(config)), Ioat::bars());
    device.reset_method = "flr".into();
    device.mmio = Some(MmioMode::Trap);
    Ok(device)
}

fn edu(_: &mut spec::Keys) -> Result<EmulatedDevice, BadSpec> {
    Ok(EmulatedDevice::new("edu", Box::new(Edu::new()), Edu::bars()))
}

fn msi_test(_: &mut spec::Keys) -> Result<EmulatedDevice, BadSpec> {
    Ok(EmulatedDevice::new("msi-test", Box::new(MsiTest::new()), MsiTest::bars()))
}
