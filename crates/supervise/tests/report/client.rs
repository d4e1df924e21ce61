//! A program that uses VFIO, right or wrong. It knows nothing of us.

#![allow(unsafe_code, reason = "a program that uses VFIO")]

use std::ffi::{CString, c_void};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

const MAP_DMA: u64 = 0x3b71;
const UNMAP_DMA: u64 = 0x3b72;
const PAGE: usize = 4096;
/// The engine's buffer within `edu`.
const BUFFER: u64 = 0x40000;

/// An open device in a container.
struct Vfio {
    container: File,
    group: File,
    device: File,
    bar0: u64,
}

fn ioctl(file: &File, request: u64, arg: u64) -> i32 {
    // SAFETY: what `arg` points to is as large as the request wants it.
    unsafe { libc::ioctl(file.as_raw_fd(), request, arg) }
}

fn structure<T>(file: &File, request: u64, arg: &mut [T]) -> i32 {
    ioctl(file, request, arg.as_mut_ptr() as u64)
}

/// Memory of so many pages.
fn memory(pages: usize) -> *mut c_void {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), pages * PAGE, prot, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at
}

impl Vfio {
    fn open(iommu: u64) -> Self {
        let open = |path: &str| File::options().read(true).write(true).open(path).unwrap();
        let container = open("/dev/vfio/vfio");
        assert_eq!(ioctl(&container, 0x3b64, 0), 0);
        let group = open("/dev/vfio/1");
        assert_eq!(structure(&group, 0x3b68, &mut [container.as_raw_fd()]), 0);
        assert_eq!(ioctl(&container, 0x3b66, iommu), 0);
        let name = CString::new("0000:01:00.0").unwrap();
        let fd = ioctl(&group, 0x3b6a, name.as_ptr() as u64);
        assert!(fd >= 0);
        // SAFETY: it is ours, just given.
        let device = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut info = [32_u32, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(structure(&device, 0x3b6c, &mut info), 0);
        let bar0 = u64::from(info[6]) | u64::from(info[7]) << 32;
        let vfio = Self { container, group, device, bar0 };
        vfio.set_master(true);
        vfio
    }

    fn set_master(&self, on: bool) {
        let command = if on { 6_u16 } else { 2 };
        self.device.write_all_at(&command.to_le_bytes(), (7 << 40) + 4).unwrap();
    }

    fn map(&self, vaddr: *mut c_void, iova: u64, size: u64, flags: u64) -> i32 {
        structure(&self.container, MAP_DMA, &mut [32 | flags << 32, vaddr as u64, iova, size])
    }

    /// What was removed.
    fn unmap(&self, iova: u64, size: u64) -> u64 {
        let mut arg = [24, iova, size];
        assert_eq!(structure(&self.container, UNMAP_DMA, &mut arg), 0);
        arg[2]
    }

    /// The device writes 16 bytes to memory.
    fn dma(&self, iova: u64) {
        let set = |at: u64, value: u64| {
            self.device.write_all_at(&value.to_le_bytes(), self.bar0 + at).unwrap();
        };
        set(0x80, BUFFER);
        set(0x88, iova);
        set(0x90, 16);
        set(0x98, 3);
        let mut command = [1; 8];
        while u64::from_le_bytes(command) & 1 != 0 {
            self.device.read_exact_at(&mut command, self.bar0 + 0x98).unwrap();
        }
    }

    fn set_msi(&self, count: u32, fd: i32) -> i32 {
        let flags = if count == 0 { 0x21 } else { 0x24 };
        let mut arg = [20 + 4 * count, flags, 1, 0, count, fd.cast_unsigned()];
        structure(&self.device, 0x3b6e, &mut arg)
    }
}

fn eventfd() -> i32 {
    // SAFETY: no pointers.
    unsafe { libc::eventfd(0, 0) }
}

/// Does what its name says.
pub(crate) fn run(name: &str) {
    if name == "v1-unmap-of-a-part" {
        let vfio = Vfio::open(1);
        assert_eq!(vfio.map(memory(4), 0x10_0000, 0x4000, 3), 0);
        assert_eq!(vfio.unmap(0x10_1000, 0x1000), 0);
        return vfio.dma(0x10_1000);
    }
    let vfio = Vfio::open(3);
    let memory_of_two = memory(2);
    assert_eq!(vfio.map(memory_of_two, 0x10_0000, 0x2000, 3), 0);
    vfio.dma(0x10_0000);
    match name {
        "nothing" => {
            let event = eventfd();
            assert_eq!(vfio.set_msi(1, event), 0);
            // What a careful program tries and takes no for an answer to.
            assert_eq!(vfio.set_msi(1, 999), -1);
            assert_eq!(vfio.map(memory_of_two, 0x10_0000, 0x2000, 3), -1);
            assert_eq!(vfio.map(std::ptr::null_mut(), 0x30_0000, 0x1000, 3), -1);
            assert_eq!(vfio.map(memory_of_two, 0x30_0800, 0x1000, 3), -1);
            assert_eq!(ioctl(&vfio.container, 0x3bff, 7), -1);
            assert_eq!(ioctl(&vfio.container, 0x3b70, 0), -1);
            assert_eq!(structure(&vfio.group, 0x3b68, &mut [999]), -1);
            assert_eq!(structure(&vfio.group, 0x3b68, &mut [event]), -1);
            assert_eq!(vfio.unmap(0x40_0000, 0x1000), 0);
            let mut info = [0_u32; 64];
            info[0] = 256;
            assert_eq!(structure(&vfio.container, 0x3b70, &mut info), 0);
            vfio.dma(0x10_1000);
            assert_eq!(ioctl(&vfio.device, 0x3b6f, 0), -1);
        }
        "never" => vfio.dma(0x50_0000),
        "unmapped" => {
            assert_eq!(vfio.unmap(0x10_0000, 0x2000), 0x2000);
            vfio.dma(0x10_1000);
        }
        "read-only" => {
            assert_eq!(vfio.map(memory_of_two, 0x20_0000, 0x1000, 1), 0);
            vfio.dma(0x20_0000);
        }
        "freed" => {
            // SAFETY: nobody uses it.
            unsafe { libc::munmap(memory_of_two, 2 * PAGE) };
            vfio.dma(0x10_1000);
        }
        "mapped-twice" => {
            assert_eq!(vfio.map(memory(1), 0x10_1000, 0x1000, 3), -1);
            vfio.dma(0x10_1000);
        }
        "misaligned" => {
            assert_eq!(vfio.map(memory(1), 0x30_0800, 0x1000, 3), -1);
            vfio.dma(0x30_0800);
        }
        "no-master" => {
            vfio.set_master(false);
            vfio.dma(0x10_0000);
        }
        "no-window" => assert_eq!(vfio.set_msi(1, eventfd()), -1),
        "left" => {
            assert_eq!(vfio.set_msi(1, eventfd()), 0);
            std::process::exit(0);
        }
        "killed" => std::process::abort(),
        name => panic!("{name}?"),
    }
}
