//! Containers, groups and devices, as `Documentation/driver-api/vfio.rst` has them used.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use uapi::cap::Caps;
use uapi::container::Extension;
use uapi::device::{DeviceFlags, DeviceInfo};
use uapi::group::{GroupFlags, GroupStatus};
use uapi::ioctl::{
    VFIO_CHECK_EXTENSION, VFIO_DEVICE_GET_INFO, VFIO_DEVICE_GET_IRQ_INFO,
    VFIO_DEVICE_GET_REGION_INFO, VFIO_DEVICE_RESET, VFIO_DEVICE_SET_IRQS, VFIO_GET_API_VERSION,
    VFIO_GROUP_GET_STATUS, VFIO_IOMMU_GET_INFO, VFIO_SET_IOMMU,
};
use uapi::irq::{IrqIndex, IrqInfo, IrqSet, IrqSetFlags};
use uapi::region::{RegionFlags, RegionIndex, RegionInfo};
use uapi::type1::{IovaRangeCap, Type1Info};
use zerocopy::{FromBytes, IntoBytes};

pub use crate::sys::vfio::{DmaMemory, Registers};

use crate::sys::vfio as sys;

/// Says what failed. Every error of this client is such a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Failure {
    what: String,
    why: String,
}

impl Failure {
    /// What was being done, and what happened instead.
    pub fn new(what: impl Into<String>, why: impl ToString) -> Self {
        Self { what: what.into(), why: why.to_string() }
    }
}

/// Adds what was being done to an error.
pub(super) fn doing<E: ToString>(what: impl Into<String>) -> impl FnOnce(E) -> Failure {
    move |error| Failure::new(what, error)
}

/// An I/O address space: `/dev/vfio/vfio`.
pub struct Container {
    fd: Arc<OwnedFd>,
    /// Has it an IOMMU yet? It takes a group to know which.
    ready: bool,
}

/// What may be mapped in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IovaSpace {
    /// One bit per page size.
    pub page_sizes: u64,
    /// First and last bytes of what may be mapped.
    pub ranges: Vec<(u64, u64)>,
}

impl IovaSpace {
    /// The lowest place at or above `least` for `len` bytes that ends below `limit`.
    #[must_use]
    pub fn place(&self, least: u64, len: u64, limit: u64) -> Option<u64> {
        let granule = 1 << self.page_sizes.trailing_zeros().min(63);
        self.ranges.iter().find_map(|(first, last)| {
            let start = (*first).max(least).checked_next_multiple_of(granule)?;
            let end = start.checked_add(len - 1)?;
            (end <= *last && end < limit).then_some(start)
        })
    }
}

impl Container {
    /// Opens a container.
    ///
    /// # Errors
    /// There is no VFIO, or another than this client knows.
    pub fn open() -> Result<Self, Failure> {
        let path = "/dev/vfio/vfio";
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(doing(format!("opening {path}")))?;
        let version = sys::by_value(file.as_fd(), VFIO_GET_API_VERSION, 0);
        match version.map_err(doing("asking for the API's version"))? {
            0 => {}
            version => return Err(Failure::new("the API", format!("version {version}, not 0"))),
        }
        let container = Self { fd: Arc::new(file.into()), ready: false };
        if !container.has(Extension::Type1V2)? {
            return Err(Failure::new("the container", "it knows no type1 IOMMU, version 2"));
        }
        Ok(container)
    }

    fn has(&self, extension: Extension) -> Result<bool, Failure> {
        let answer = sys::by_value(self.fd.as_fd(), VFIO_CHECK_EXTENSION, extension.number());
        Ok(answer.map_err(doing(format!("asking for {extension}")))? != 0)
    }

    /// Takes a PCI function's group in, and opens the function.
    ///
    /// # Errors
    /// The function is not VFIO's, or not alone in its group.
    pub fn open_device(&mut self, bdf: &str) -> Result<Device, Failure> {
        // Its group is a link in sysfs, whose last part is the group's number.
        let link = format!("/sys/bus/pci/devices/{bdf}/iommu_group");
        let group = std::fs::read_link(&link).map_err(doing(format!("reading {link}")))?;
        let number = group.file_name().and_then(|name| name.to_str());
        let number = number.ok_or_else(|| Failure::new(&link, "it has no number"))?;
        let path = format!("/dev/vfio/{number}");
        let group = OpenOptions::new().read(true).write(true).open(&path);
        let group = group.map_err(doing(format!("opening {path}")))?;

        let mut status = GroupStatus::default();
        sys::by_structure(group.as_fd(), VFIO_GROUP_GET_STATUS, status.as_mut_bytes())
            .map_err(doing(format!("asking for the status of group {number}")))?;
        if !GroupFlags::from_bits_retain(status.flags).contains(GroupFlags::VIABLE) {
            let why = "a driver other than vfio-pci has one of its devices";
            return Err(Failure::new(format!("group {number}"), why));
        }
        sys::set_container(group.as_fd(), self.fd.as_fd())
            .map_err(doing(format!("putting group {number} in the container")))?;
        if !self.ready {
            sys::by_value(self.fd.as_fd(), VFIO_SET_IOMMU, Extension::Type1V2.number())
                .map_err(doing("choosing the type1 IOMMU"))?;
            self.ready = true;
        }

        let name = CString::new(bdf).map_err(doing(bdf))?;
        let fd = sys::device_fd(group.as_fd(), &name).map_err(doing(format!("opening {bdf}")))?;
        let device =
            Device { file: fd.into(), _group: group, bdf: bdf.into(), group: number.into() };
        device.check()?;
        Ok(device)
    }

    /// Asks what may be mapped.
    ///
    /// # Errors
    /// The kernel's.
    pub fn iova_space(&self) -> Result<IovaSpace, Failure> {
        let what = "asking the IOMMU for information";
        // The first answer says how many bytes the whole takes.
        let mut bytes = vec![0; size_of::<Type1Info>()];
        let info = loop {
            sys::by_structure(self.fd.as_fd(), VFIO_IOMMU_GET_INFO, &mut bytes)
                .map_err(doing(what))?;
            let (info, _) = Type1Info::read_from_prefix(&bytes).map_err(doing(what))?;
            if info.argsz as usize <= bytes.len() {
                break info;
            }
            bytes = vec![0; info.argsz as usize];
        };
        let caps = Caps::new(&bytes, info.cap_offset).filter_map(Result::ok);
        let ranges = caps.filter_map(|cap| cap.read_list::<IovaRangeCap>()).flatten();
        let ranges: Vec<_> = ranges.map(|range| (range.start, range.end)).collect();
        if ranges.is_empty() {
            return Err(Failure::new(what, "it does not say what may be mapped"));
        }
        Ok(IovaSpace { page_sizes: info.iova_pgsizes, ranges })
    }

    /// Makes memory that the container's devices find at `iova`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn map(&self, iova: u64, len: usize) -> Result<DmaMemory, Failure> {
        DmaMemory::map(&self.fd, iova, len)
            .map_err(doing(format!("mapping {len:#x} bytes at IOVA {iova:#x}")))
    }
}

/// A PCI function. Its group stays open with it.
pub struct Device {
    file: File,
    _group: File,
    bdf: String,
    group: String,
}

impl Device {
    /// Its group's number.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    fn doing<E: ToString>(&self, what: impl Into<String>) -> impl FnOnce(E) -> Failure {
        doing(format!("{}: {}", self.bdf, what.into()))
    }

    fn check(&self) -> Result<(), Failure> {
        let mut info = DeviceInfo::default();
        sys::by_structure(self.file.as_fd(), VFIO_DEVICE_GET_INFO, info.as_mut_bytes())
            .map_err(self.doing("asking for information"))?;
        if DeviceFlags::from_bits_retain(info.flags).contains(DeviceFlags::PCI) {
            return Ok(());
        }
        Err(Failure::new(&self.bdf, "it is no PCI device"))
    }

    /// Where a region is in the device's file, and what may be done with it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn region(&self, index: RegionIndex) -> Result<RegionInfo, Failure> {
        let mut info = RegionInfo { index: index.number(), ..RegionInfo::default() };
        sys::by_structure(self.file.as_fd(), VFIO_DEVICE_GET_REGION_INFO, info.as_mut_bytes())
            .map_err(self.doing(format!("asking for region {index}")))?;
        Ok(info)
    }

    /// Reads from configuration space.
    ///
    /// # Errors
    /// The kernel's.
    pub fn config_read<const N: usize>(&self, at: u64) -> Result<[u8; N], Failure> {
        let config = self.region(RegionIndex::Config)?;
        let mut data = [0; N];
        self.file
            .read_exact_at(&mut data, config.offset + at)
            .map_err(self.doing(format!("reading configuration space at {at:#x}")))?;
        Ok(data)
    }

    /// Writes to configuration space.
    ///
    /// # Errors
    /// The kernel's.
    pub fn config_write(&self, at: u64, data: &[u8]) -> Result<(), Failure> {
        let config = self.region(RegionIndex::Config)?;
        self.file
            .write_all_at(data, config.offset + at)
            .map_err(self.doing(format!("writing configuration space at {at:#x}")))
    }

    /// Lets the device answer to accesses of its memory, and reach ours.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enable(&self) -> Result<(), Failure> {
        const COMMAND: u64 = 4;
        const MEMORY_AND_MASTER: u16 = 2 | 4;
        let command = u16::from_le_bytes(self.config_read(COMMAND)?);
        self.config_write(COMMAND, &(command | MEMORY_AND_MASTER).to_le_bytes())
    }

    /// Maps the first `len` bytes of BAR 0; all of it when it is shorter.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn map_bar0(&self, len: usize) -> Result<Registers, Failure> {
        let region = self.region(RegionIndex::Bar0)?;
        if !RegionFlags::from_bits_retain(region.flags).contains(RegionFlags::MMAP) {
            return Err(Failure::new(&self.bdf, "its BAR 0 cannot be mapped"));
        }
        let len = len.min(usize::try_from(region.size).unwrap_or(usize::MAX));
        Registers::map(self.file.as_fd(), region.offset, len)
            .map_err(self.doing(format!("mapping {len:#x} bytes of BAR 0")))
    }

    /// Resets the function, where it can be.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reset(&self) -> Result<(), Failure> {
        let reset = sys::by_value(self.file.as_fd(), VFIO_DEVICE_RESET, 0);
        reset.map(drop).map_err(self.doing("resetting"))
    }

    /// How many vectors interrupts of a kind have.
    ///
    /// # Errors
    /// The kernel's.
    pub fn vectors(&self, index: IrqIndex) -> Result<u32, Failure> {
        let mut info = IrqInfo { index: index.number(), ..IrqInfo::default() };
        sys::by_structure(self.file.as_fd(), VFIO_DEVICE_GET_IRQ_INFO, info.as_mut_bytes())
            .map_err(self.doing(format!("asking for {index}")))?;
        Ok(info.count)
    }

    /// Enables the first `count` vectors, each with an eventfd of its own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enable_vectors(&self, index: IrqIndex, count: u32) -> Result<Vec<Interrupt>, Failure> {
        let one = || eventfd(0, EventfdFlags::CLOEXEC).map(Interrupt);
        let interrupts: Result<Vec<_>, _> = (0..count).map(|_| one()).collect();
        let interrupts = interrupts.map_err(self.doing("making an eventfd"))?;
        let fds = interrupts.iter().flat_map(|i| i.0.as_raw_fd().to_ne_bytes());
        self.set_irqs(index, IrqSetFlags::DATA_EVENTFD, count, fds)?;
        Ok(interrupts)
    }

    /// Disables all vectors of a kind.
    ///
    /// # Errors
    /// The kernel's.
    pub fn disable_vectors(&self, index: IrqIndex) -> Result<(), Failure> {
        self.set_irqs(index, IrqSetFlags::DATA_NONE, 0, [])
    }

    fn set_irqs(
        &self,
        index: IrqIndex,
        data_type: IrqSetFlags,
        count: u32,
        data: impl IntoIterator<Item = u8>,
    ) -> Result<(), Failure> {
        let flags = (data_type | IrqSetFlags::ACTION_TRIGGER).bits();
        let set = IrqSet { argsz: 0, flags, index: index.number(), start: 0, count };
        let mut bytes = set.as_bytes().to_vec();
        bytes.extend(data);
        sys::by_structure(self.file.as_fd(), VFIO_DEVICE_SET_IRQS, &mut bytes)
            .map(drop)
            .map_err(self.doing(format!("setting {count} vectors of {index}")))
    }
}

/// An interrupt vector's eventfd.
pub struct Interrupt(OwnedFd);

impl Interrupt {
    /// Waits for the vector; how often it fired since the last time.
    ///
    /// # Errors
    /// It does not fire.
    pub fn wait(&self, limit: Duration) -> Result<u64, Failure> {
        let what = "waiting for an interrupt";
        let limit = Timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: limit.subsec_nanos().into(),
        };
        loop {
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit)) {
                Ok(0) => return Err(Failure::new(what, "none came")),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Failure::new(what, error)),
            }
        }
        let mut count = [0; 8];
        rustix::io::read(&self.0, &mut count).map_err(doing(what))?;
        Ok(u64::from_ne_bytes(count))
    }
}

/// Waits until something holds.
pub(super) fn wait_for(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> bool,
) -> Result<(), Failure> {
    let start = std::time::Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            let error = io::Error::from(io::ErrorKind::TimedOut);
            return Err(Failure::new(format!("waiting until {what}"), error));
        }
        std::hint::spin_loop();
    }
    Ok(())
}
