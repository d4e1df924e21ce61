//! A client that serves its own page faults, and needs VFIO for it, while DMA waits for the page and an
//! unmap waits for the DMA; or while the request itself waits, whose argument lies there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::raw::{self, EduRegisters, Vfio};

const PAGE: u64 = 4096;
const IOVA: u64 = 0x10_0000;
const OTHER: u64 = 0x20_0000;

pub(super) fn run(role: &str) -> Option<()> {
    if role == "fault of an argument" {
        return argument();
    }
    let nvme = match role {
        "fault of edu" => false,
        "fault of nvme" => true,
        _ => return None,
    };
    let Some(faults) = Faults::new() else {
        println!("\nskipped: userfaultfd is not permitted");
        return Some(());
    };
    let vfio = Vfio::open();
    let memory = raw::memory(PAGE as usize, libc::MAP_PRIVATE);
    let other = raw::memory(PAGE as usize, libc::MAP_PRIVATE) as u64;
    faults.register(memory as u64, PAGE);
    assert_eq!(raw::map(vfio.container, memory, IOVA, PAGE), 0);
    assert_eq!(raw::map(vfio.container, other as *const u8, OTHER, PAGE), 0);
    let unmapping = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The device wants the page.
            let at = faults.wait();
            unmapping.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(100));
            // An unmap waits now for the device, and the device for us.
            assert_eq!(raw::iommu_info(vfio.container), 0);
            assert_eq!(raw::unmap(vfio.container, OTHER, PAGE), PAGE as i64);
            assert_eq!(raw::map(vfio.container, other as *const u8, OTHER + PAGE, PAGE), 0);
            let idle = if nvme { vfio.edu } else { vfio.nvme };
            assert_eq!(raw::device_info(idle), 0);
            assert_eq!(raw::pread(idle, &mut [0; 4], raw::CONFIG), 4);
            faults.serve(at);
        });
        scope.spawn(|| {
            while !unmapping.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            assert_eq!(raw::unmap(vfio.container, IOVA, PAGE), PAGE as i64);
        });
        if nvme { fetch_by_nvme(vfio.nvme) } else { EduRegisters::new(vfio.edu).fetch(IOVA, 64) }
    });
    assert_eq!(raw::map(vfio.container, memory, IOVA, PAGE), 0);
    vfio.close();
    Some(())
}

/// A request on a device whose argument's second page needs the same device to come.
fn argument() -> Option<()> {
    let Some(faults) = Faults::new() else {
        println!("\nskipped: userfaultfd is not permitted");
        return Some(());
    };
    let vfio = Vfio::open();
    let memory = raw::memory(2 * PAGE as usize, libc::MAP_PRIVATE);
    faults.register(memory as u64 + PAGE, PAGE);
    // vfio_irq_set: argsz, flags (DATA_BOOL, ACTION_TRIGGER), index (MSI-X), start, count; its data is
    // in the other page.
    const COUNT: u32 = 2;
    let argument = memory.wrapping_add(PAGE as usize - 20);
    let header = [20 + COUNT, 1 << 1 | 1 << 5, 2, 0, COUNT].map(u32::to_le_bytes);
    unsafe { argument.copy_from(header.as_ptr().cast(), 20) };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let at = faults.wait();
            assert_eq!(raw::device_info(vfio.nvme), 0);
            assert_eq!(raw::pread(vfio.nvme, &mut [0; 4], raw::CONFIG), 4);
            faults.serve(at);
        });
        const SET_IRQS: u64 = 0x3b6e;
        let answer = unsafe { libc::ioctl(vfio.nvme, SET_IRQS, argument) };
        // Nothing is enabled that could be triggered.
        let error = std::io::Error::last_os_error().raw_os_error();
        assert_eq!((answer, error), (-1, Some(libc::EINVAL)));
    });
    vfio.close();
    Some(())
}

/// Lets the controller look for a command in the page.
fn fetch_by_nvme(nvme: i32) {
    let base = raw::region(nvme, 0);
    let write = |at: u64, value: u32| {
        assert_eq!(raw::pwrite(nvme, &value.to_le_bytes(), base + at), 4);
    };
    for (at, value) in [(0x24, 0x000f_000f), (0x28, IOVA), (0x2c, 0), (0x30, 0x7000_0000)] {
        write(at, value as u32);
    }
    write(0x34, 0);
    write(0x14, 0x0046_0001);
    let mut status = [0; 4];
    while status[0] & 1 == 0 {
        assert_eq!(raw::pread(nvme, &mut status, base + 0x1c), 4);
    }
    write(0x1000, 1);
}

/// Faults of pages that were never there.
pub(super) struct Faults(i32);

impl Faults {
    pub(super) fn new() -> Option<Self> {
        let mut fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) } as i32;
        if fd < 0 {
            const NEW: u64 = 0xaa00;
            let path = c"/dev/userfaultfd";
            let control = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
            if control < 0 {
                return None;
            }
            fd = unsafe { libc::ioctl(control, NEW, libc::O_CLOEXEC) };
            raw::close(control);
        }
        // uffdio_api: version, features, requests
        const API: u64 = 0xc018_aa3f;
        let mut api = [0xaa_u64, 0, 0];
        (fd >= 0 && unsafe { libc::ioctl(fd, API, api.as_mut_ptr()) } == 0).then_some(Self(fd))
    }

    pub(super) fn register(&self, start: u64, len: u64) {
        // uffdio_register: range, missing pages, requests
        const REGISTER: u64 = 0xc020_aa00;
        let mut argument = [start, len, 1, 0];
        assert_eq!(unsafe { libc::ioctl(self.0, REGISTER, argument.as_mut_ptr()) }, 0);
    }

    /// The page of the next fault.
    pub(super) fn wait(&self) -> u64 {
        // uffd_msg: the event's number, flags, the address
        let mut message = [0_u64; 4];
        let bytes = unsafe { libc::read(self.0, message.as_mut_ptr().cast(), 32) };
        assert_eq!((bytes, message[0] & 0xff), (32, 0x12));
        message[2] & !(PAGE - 1)
    }

    pub(super) fn serve(&self, page: u64) {
        assert!(self.offer(page));
    }

    /// The same; `false` when the page is there, or its memory is gone.
    pub(super) fn offer(&self, page: u64) -> bool {
        // uffdio_zeropage: range, mode, bytes done
        const ZEROPAGE: u64 = 0xc020_aa04;
        let mut argument = [page, PAGE, 0, 0];
        unsafe { libc::ioctl(self.0, ZEROPAGE, argument.as_mut_ptr()) == 0 }
    }
}
