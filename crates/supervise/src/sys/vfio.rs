//! VFIO from the other side, as its users see it: requests, memory for DMA, mapped registers.
//!
//! What a device may write at any time is only reached by volatile accesses, and memory stays for as
//! long as a device may reach it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use uapi::group::GroupStatus;
use uapi::irq::{IrqInfo, IrqSet};
use uapi::region::RegionInfo;
use uapi::type1::{DmaMap, DmaUnmap, MapFlags, Type1Info};
use uapi::{device::DeviceInfo, ioctl};
use zerocopy::IntoBytes;

use super::last_error;

fn answer(value: libc::c_int) -> io::Result<i32> {
    if value < 0 { Err(last_error()) } else { Ok(value) }
}

/// A request that takes a number, or nothing.
///
/// # Errors
/// The kernel's; `InvalidInput` for a request of another kind.
pub(crate) fn by_value(fd: BorrowedFd<'_>, request: u32, value: u32) -> io::Result<i32> {
    match request {
        ioctl::VFIO_GET_API_VERSION
        | ioctl::VFIO_CHECK_EXTENSION
        | ioctl::VFIO_SET_IOMMU
        | ioctl::VFIO_GROUP_UNSET_CONTAINER
        | ioctl::VFIO_DEVICE_RESET => {}
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    // SAFETY: none of these requests takes its argument for an address.
    answer(unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), libc::c_ulong::from(value)) })
}

/// A request with a structure that begins with `argsz`, which is set to its length; what follows the
/// structure belongs to it.
///
/// # Errors
/// The kernel's; `InvalidInput` for a request of another kind, or a buffer shorter than its structure.
pub(crate) fn by_structure(
    fd: BorrowedFd<'_>,
    request: u32,
    structure: &mut [u8],
) -> io::Result<i32> {
    let least = match request {
        ioctl::VFIO_GROUP_GET_STATUS => size_of::<GroupStatus>(),
        ioctl::VFIO_IOMMU_GET_INFO => size_of::<Type1Info>(),
        ioctl::VFIO_DEVICE_GET_INFO => size_of::<DeviceInfo>(),
        ioctl::VFIO_DEVICE_GET_REGION_INFO => size_of::<RegionInfo>(),
        ioctl::VFIO_DEVICE_GET_IRQ_INFO => size_of::<IrqInfo>(),
        ioctl::VFIO_DEVICE_SET_IRQS => size_of::<IrqSet>(),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let len = u32::try_from(structure.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    if structure.len() < least {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    structure[..4].copy_from_slice(&len.to_ne_bytes());
    // SAFETY: the kernel reads and writes at most `argsz` bytes, the length of `structure`, and finds
    // no address in it.
    answer(unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), structure.as_mut_ptr()) })
}

/// `VFIO_GROUP_SET_CONTAINER`
///
/// # Errors
/// The kernel's.
pub(crate) fn set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<i32> {
    let fd = container.as_raw_fd();
    let request = ioctl::VFIO_GROUP_SET_CONTAINER;
    // SAFETY: the kernel reads one `int`.
    answer(unsafe { libc::ioctl(group.as_raw_fd(), request.into(), &raw const fd) })
}

/// `VFIO_GROUP_GET_DEVICE_FD`
///
/// # Errors
/// The kernel's.
pub(crate) fn device_fd(group: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let request = ioctl::VFIO_GROUP_GET_DEVICE_FD;
    // SAFETY: the kernel reads a string up to its NUL.
    let fd = answer(unsafe { libc::ioctl(group.as_raw_fd(), request.into(), name.as_ptr()) })?;
    // SAFETY: the kernel made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pages of a mapping, reached by volatile accesses.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: accesses are volatile loads and stores of integers; another thread's are as a device's.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn map(len: usize, prot: i32, flags: i32, fd: i32, offset: u64) -> io::Result<Self> {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping where the kernel chooses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset) };
        if at == libc::MAP_FAILED {
            return Err(last_error());
        }
        let start = NonNull::new(at.cast()).ok_or(io::ErrorKind::Other)?;
        Ok(Self { start, len })
    }

    /// Where a `T` is, aligned and inside.
    fn at<T>(&self, offset: usize) -> *mut T {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.len) && offset.is_multiple_of(size_of::<T>()),
            "{} bytes at {offset:#x} of {:#x}",
            size_of::<T>(),
            self.len
        );
        self.start.as_ptr().wrapping_add(offset).cast()
    }

    fn load<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: `at` is inside the mapping and aligned; users of `load` take integers.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    fn store<T: Copy>(&self, offset: usize, value: T) {
        // SAFETY: as above.
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A part of a device's BAR, mapped. Accesses that leave it, or are not aligned, panic.
#[derive(Debug)]
pub struct Registers(Pages);

impl Registers {
    /// Maps `len` bytes at `offset` of a device's file.
    pub(crate) fn map(device: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        Pages::map(len, prot, libc::MAP_SHARED, device.as_raw_fd(), offset).map(Self)
    }

    /// Loads a register of 32 bits.
    #[must_use]
    pub fn read32(&self, offset: usize) -> u32 {
        u32::from_le(self.0.load(offset))
    }

    /// Stores to a register of 32 bits. Memory written before is there when the device sees it.
    pub fn write32(&self, offset: usize, value: u32) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.0.store(offset, value.to_le());
    }

    /// Stores to a register of 64 bits.
    pub fn write64(&self, offset: usize, value: u64) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.0.store(offset, value.to_le());
    }
}

/// Memory that devices can reach at an IOVA, until it is unmapped. Accesses that leave it, or are not
/// aligned, panic.
#[derive(Debug)]
pub struct DmaMemory {
    /// `None` when it is unmapped.
    pages: Option<Pages>,
    container: Arc<OwnedFd>,
    iova: u64,
}

impl DmaMemory {
    /// Makes `len` bytes of zeros and maps them at `iova`: `VFIO_IOMMU_MAP_DMA`.
    pub(crate) fn map(container: &Arc<OwnedFd>, iova: u64, len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let pages = Pages::map(len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)?;
        let map = DmaMap {
            argsz: size_of::<DmaMap>() as u32,
            flags: (MapFlags::READ | MapFlags::WRITE).bits(),
            vaddr: pages.start.as_ptr() as u64,
            iova,
            size: len as u64,
        };
        let request = ioctl::VFIO_IOMMU_MAP_DMA;
        // SAFETY: the kernel reads a `DmaMap`. The memory that it names is only reached by volatile
        // accesses, and stays until it is unmapped.
        answer(unsafe { libc::ioctl(container.as_raw_fd(), request.into(), &raw const map) })?;
        Ok(Self { pages: Some(pages), container: Arc::clone(container), iova })
    }

    /// Where devices find it.
    #[must_use]
    pub const fn iova(&self) -> u64 {
        self.iova
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.as_ref().map_or(0, |pages| pages.len)
    }

    /// Whether it is unmapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn pages(&self) -> &Pages {
        self.pages.as_ref().expect("memory that is mapped")
    }

    /// Loads 32 bits; what was loaded later is not older.
    #[must_use]
    pub fn read32(&self, offset: usize) -> u32 {
        let value = u32::from_le(self.pages().load(offset));
        std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
        value
    }

    /// Copies from it.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = self.pages().load(at);
        }
    }

    /// Copies to it.
    pub fn write(&self, offset: usize, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            self.pages().store(at, *byte);
        }
    }

    /// Takes it from the devices: `VFIO_IOMMU_UNMAP_DMA`; how many bytes were unmapped.
    ///
    /// # Errors
    /// The kernel's. The memory stays as long as the process then.
    pub fn unmap(mut self) -> io::Result<u64> {
        self.take()
    }

    fn take(&mut self) -> io::Result<u64> {
        let Some(pages) = self.pages.take() else { return Ok(0) };
        let mut unmap = DmaUnmap {
            argsz: size_of::<DmaUnmap>() as u32,
            flags: 0,
            iova: self.iova,
            size: pages.len as u64,
        };
        let request = ioctl::VFIO_IOMMU_UNMAP_DMA;
        let fd = self.container.as_raw_fd();
        // SAFETY: the kernel reads and writes a `DmaUnmap`, which without flags has no address.
        let done =
            answer(unsafe { libc::ioctl(fd, request.into(), unmap.as_mut_bytes().as_mut_ptr()) });
        if done.is_err() || unmap.size != pages.len as u64 {
            // A device may still write there.
            std::mem::forget(pages);
        }
        done.map(|_| unmap.size)
    }
}

impl Drop for DmaMemory {
    fn drop(&mut self) {
        // Nobody is there to be told; what could not be unmapped stays.
        let _ = self.take();
    }
}
