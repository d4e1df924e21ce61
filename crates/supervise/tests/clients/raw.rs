//! VFIO by bare requests.

use std::ffi::CString;
use std::io::Error;
use std::os::fd::RawFd;

pub(crate) const API_VERSION: u32 = 0x3b64;
pub(crate) const CHECK_EXTENSION: u32 = 0x3b65;
pub(crate) const SET_IOMMU: u32 = 0x3b66;
pub(crate) const GROUP_STATUS: u32 = 0x3b67;
pub(crate) const SET_CONTAINER: u32 = 0x3b68;
pub(crate) const GET_DEVICE_FD: u32 = 0x3b6a;
pub(crate) const DEVICE_INFO: u32 = 0x3b6b;
pub(crate) const REGION_INFO: u32 = 0x3b6c;
pub(crate) const SET_IRQS: u32 = 0x3b6e;
pub(crate) const DEVICE_RESET: u32 = 0x3b6f;
pub(crate) const IOMMU_INFO: u32 = 0x3b70;
pub(crate) const MAP: u32 = 0x3b71;
pub(crate) const UNMAP: u32 = 0x3b72;

/// Configuration space in a device's file, as the kernel has it.
pub(crate) const CONFIG: u64 = 7 << 40;

/// The value, or the error's number as a negative one.
pub(crate) fn request(fd: RawFd, request: u32, arg: u64) -> i64 {
    let value = unsafe { libc::ioctl(fd, request.into(), arg) };
    if value < 0 { -i64::from(errno()) } else { value.into() }
}

pub(crate) fn errno() -> i32 {
    Error::last_os_error().raw_os_error().unwrap()
}

pub(crate) fn open(path: &str) -> RawFd {
    let path = CString::new(path).unwrap();
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    assert!(fd >= 0, "{path:?}: {}", Error::last_os_error());
    fd
}

pub(crate) fn close(fd: RawFd) {
    assert_eq!(unsafe { libc::close(fd) }, 0);
}

pub(crate) fn map(container: RawFd, vaddr: *const u8, iova: u64, size: u64) -> i64 {
    let argument = [3 << 32 | 32, vaddr as u64, iova, size];
    request(container, MAP, argument.as_ptr() as u64)
}

/// Bytes unmapped, or the error.
pub(crate) fn unmap(container: RawFd, iova: u64, size: u64) -> i64 {
    let mut argument = [24, iova, size];
    match request(container, UNMAP, argument.as_mut_ptr() as u64) {
        0 => argument[2].cast_signed(),
        error => error,
    }
}

pub(crate) fn iommu_info(container: RawFd) -> i64 {
    let mut argument = [24_u64, 0, 0];
    request(container, IOMMU_INFO, argument.as_mut_ptr() as u64)
}

pub(crate) fn device_info(device: RawFd) -> i64 {
    let mut argument = [24_u64, 0, 0];
    request(device, DEVICE_INFO, argument.as_mut_ptr() as u64)
}

/// Where a region is in the device's file.
pub(crate) fn region(device: RawFd, index: u32) -> u64 {
    let mut argument = [32_u64, u64::from(index), 0, 0];
    assert_eq!(request(device, REGION_INFO, argument.as_mut_ptr() as u64), 0);
    argument[3]
}

/// Shared or private memory of zeros.
pub(crate) fn memory(len: usize, flags: i32) -> *mut u8 {
    zeros(0, len, flags)
}

/// Private memory of zeros at a place where there is none yet.
pub(crate) fn memory_at(place: u64, len: usize) -> &'static mut [u8] {
    let at = zeros(place, len, libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE);
    assert_eq!(at as u64, place);
    unsafe { std::slice::from_raw_parts_mut(at, len) }
}

fn zeros(place: u64, len: usize, flags: i32) -> *mut u8 {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = flags | libc::MAP_ANONYMOUS;
    let at = unsafe { libc::mmap(place as *mut libc::c_void, len, prot, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED, "{}", Error::last_os_error());
    at.cast()
}

pub(crate) fn pread(fd: RawFd, data: &mut [u8], at: u64) -> isize {
    unsafe { libc::pread64(fd, data.as_mut_ptr().cast(), data.len(), at.cast_signed()) }
}

pub(crate) fn pwrite(fd: RawFd, data: &[u8], at: u64) -> isize {
    unsafe { libc::pwrite64(fd, data.as_ptr().cast(), data.len(), at.cast_signed()) }
}

/// A container with groups 1 and 2 in it: edu and nvme.
pub(crate) struct Vfio {
    pub(crate) container: RawFd,
    pub(crate) groups: [RawFd; 2],
    pub(crate) edu: RawFd,
    pub(crate) nvme: RawFd,
}

pub(crate) const EDU: &str = "0000:01:00.0";
pub(crate) const NVME: &str = "0000:02:00.0";

pub(crate) fn open_device(group: RawFd, bdf: &str) -> RawFd {
    let name = CString::new(bdf).unwrap();
    i32::try_from(request(group, GET_DEVICE_FD, name.as_ptr() as u64)).unwrap()
}

impl Vfio {
    pub(crate) fn open() -> Self {
        let container = open("/dev/vfio/vfio");
        let groups = [open("/dev/vfio/1"), open("/dev/vfio/2")];
        for group in groups {
            assert_eq!(request(group, SET_CONTAINER, (&raw const container) as u64), 0);
        }
        assert_eq!(request(container, SET_IOMMU, 3), 0);
        let [edu, nvme] = [(groups[0], EDU), (groups[1], NVME)].map(|(group, bdf)| {
            let device = open_device(group, bdf);
            assert!(device >= 0, "{bdf}: {device}");
            // Memory and bus master.
            assert_eq!(pwrite(device, &[6, 0], CONFIG + 4), 2);
            device
        });
        Self { container, groups, edu, nvme }
    }

    pub(crate) fn close(self) {
        for fd in [self.edu, self.nvme, self.groups[0], self.groups[1], self.container] {
            close(fd);
        }
    }
}

/// Registers of edu by `pread` and `pwrite`: bytes from the start of its BAR 0.
pub(crate) struct EduRegisters {
    fd: RawFd,
    base: u64,
}

impl EduRegisters {
    pub(crate) fn new(fd: RawFd) -> Self {
        Self { fd, base: region(fd, 0) }
    }

    pub(crate) fn read(&self, at: u64) -> u32 {
        let mut data = [0; 4];
        assert_eq!(pread(self.fd, &mut data, self.base + at), 4);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write(&self, at: u64, value: u64) {
        let len = if at < 0x80 { 4 } else { 8 };
        assert_eq!(pwrite(self.fd, &value.to_le_bytes()[..len], self.base + at), len as isize);
    }

    /// `len` bytes from memory at `iova` to the device.
    pub(crate) fn fetch(&self, iova: u64, len: u64) {
        self.transfer(iova, 0x4_0000, len, 1);
    }

    /// `len` bytes from the device to memory at `iova`.
    pub(crate) fn store(&self, iova: u64, len: u64) {
        self.transfer(0x4_0000, iova, len, 3);
    }

    fn transfer(&self, source: u64, destination: u64, len: u64, command: u64) {
        for (at, value) in [(0x80, source), (0x88, destination), (0x90, len), (0x98, command)] {
            self.write(at, value);
        }
        while self.read(0x98) & 1 != 0 {}
    }
}
