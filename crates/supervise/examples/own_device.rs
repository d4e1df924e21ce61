//! A device of one's own, and a test of a program that drives it.
//!
//! The device adds numbers that it fetches from memory. Its driver stands at the end, on the crate
//! `vfio-ioctls`, and knows nothing of softvfio; in one's own project it is the program under test. It runs
//! twice here: as it should, and with a count that is too large.
//!
//! `cargo run -p softvfio-supervise --example own_device`

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use softvfio_supervise::pci::{Bar, BarKind, ConfigSize, ConfigSpace, Device, DmaBus, Msi, regs};
use softvfio_supervise::session::{EmulatedDevice, Program, Session};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioOps};
use vmm_sys_util::eventfd::EventFd;

/// Registers, in bytes from the start of BAR0.
const SOURCE: u64 = 0x00;
const COUNT: u64 = 0x08;
const SUM: u64 = 0x10;
const FAILED: u64 = 0x14;

/// Adds `COUNT` words from IOVA `SOURCE` on when `COUNT` is written; then come `SUM` and an MSI.
struct Adder {
    config: ConfigSpace,
    source: u64,
    sum: u32,
    failed: u32,
}

impl Adder {
    fn bars() -> [Option<Bar>; 7] {
        let kind = BarKind::Memory { prefetchable: false, is_64: false };
        [Some(Bar { start: 0, size: 4096, kind }), None, None, None, None, None, None]
    }

    fn new() -> Self {
        let parts: &[(u16, &[u8])] = &[
            (regs::VENDOR_ID, &[0x34, 0x12, 0xdd, 0x0a]),
            (regs::STATUS, &[0x10, 0]),
            (regs::CAPABILITIES, &[0x40]),
            // One MSI with a 64-bit address.
            (0x40, &[regs::cap::MSI, 0, 0x80, 0]),
        ];
        let config = ConfigSpace::from_parts(parts, ConfigSize::Conventional, &Self::bars());
        Self { config, source: 0, sum: 0, failed: 0 }
    }

    fn add(&mut self, count: u32, bus: &mut dyn DmaBus) {
        let mut bytes = vec![0; count.min(0x1_0000) as usize * 4];
        self.failed = bus.read(self.source, &mut bytes).is_err().into();
        let words = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
        self.sum = words.fold(0, u32::wrapping_add);
        if let Some(msi) = Msi::find(&self.config) {
            // The bus may refuse it, which the report tells.
            let _ = msi.fire(&mut self.config, 0, bus);
        }
    }
}

impl Device for Adder {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bar_read(&mut self, _bar: u8, offset: u64, data: &mut [u8], _bus: &mut dyn DmaBus) {
        let value = match offset {
            SUM => self.sum,
            FAILED => self.failed,
            _ => 0,
        };
        data.fill(0);
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    }

    fn bar_write(&mut self, _bar: u8, offset: u64, data: &[u8], bus: &mut dyn DmaBus) {
        match (offset, data) {
            (SOURCE, &[a, b, c, d, e, f, g, h]) => {
                self.source = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            }
            (COUNT, &[a, b, c, d]) => self.add(u32::from_le_bytes([a, b, c, d]), bus),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        (self.source, self.sum, self.failed) = (0, 0, 0);
    }
}

/// Says to the program under test how many numbers to add.
const COUNTS: &str = "NUMBERS_TO_ADD";

/// Both.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    match std::env::var(COUNTS) {
        Ok(count) => drive("0000:01:00.0", count.parse()?),
        Err(_) => test(&Program::new("/proc/self/exe")),
    }
}

/// Runs the program, and looks at what it printed and at the report.
pub(crate) fn test(program: &Program<'_>) -> Result<(), Box<dyn Error>> {
    for (count, findings) in [("1000", &[][..]), ("2000", &["never-mapped"])] {
        let adder = EmulatedDevice::new("adder", Box::new(Adder::new()), Adder::bars());
        let session = Session::new().host("arm-smmuv3-its").device(adder);
        let output = session.output(&program.clone().env(COUNTS, count))?;
        let report = output.report;
        print!("{}{report}", String::from_utf8(output.stdout)?);
        assert!(report.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Where no bug is expected: `assert!(report.findings.is_empty(), "{report}")`.
        let found: Vec<_> = report.findings.iter().map(|f| f.problem.name()).collect();
        assert_eq!(found, findings);
    }
    Ok(())
}

/// The program under test: lets the device add the numbers from 1 to 1000.
#[allow(unsafe_code, reason = "memory for a device")]
fn drive(bdf: &str, count: u32) -> Result<(), Box<dyn Error>> {
    const IOVA: u64 = 0x10_0000;

    #[repr(align(4096))]
    struct Page([u32; 1024]);

    let container = Arc::new(VfioContainer::new(None)?);
    let path = Path::new("/sys/bus/pci/devices").join(bdf);
    let device = VfioDevice::new(&path, Arc::clone(&container) as Arc<dyn VfioOps>, true)?;
    let mut page = Box::new(Page([0; 1024]));
    page.0.iter_mut().zip(1..=1000).for_each(|(word, number)| *word = number);
    // SAFETY: the page is there until the container is gone, and the device only reads it.
    unsafe { container.vfio_dma_map(IOVA, 4096, (&raw mut *page).cast())? };
    let done = EventFd::new(0)?;
    device.enable_msi(vec![&done])?;
    let configuration = 7;
    let memory_and_master = [6, 0];
    device.region_write(configuration, &memory_and_master, 4);
    device.region_write(0, &IOVA.to_le_bytes(), SOURCE);
    device.region_write(0, &count.to_le_bytes(), COUNT);
    done.read()?;
    let [mut sum, mut failed] = [[0; 4]; 2];
    device.region_read(0, &mut sum, SUM);
    device.region_read(0, &mut failed, FAILED);
    match u32::from_le_bytes(failed) {
        0 => println!("the sum of {count} numbers is {}", u32::from_le_bytes(sum)),
        _ => println!("{count} numbers cannot be fetched"),
    }
    container.vfio_dma_unmap(IOVA, 4096)?;
    Ok(())
}
