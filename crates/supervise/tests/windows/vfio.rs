//! Bare VFIO for clients: requests that answer with their errno.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

pub(crate) const PAGE: u64 = 0x1000;
/// The flag of a window: of `reviewed`, of 2016.
pub(crate) const WINDOW: u32 = 1 << 31;
pub(crate) const WINDOW_V6: u32 = 1 << 2;
pub(crate) const ALL: u32 = 1 << 1;
pub(crate) const MSI: u32 = 1;
pub(crate) const MSIX: u32 = 2;
pub(crate) const REQ: u32 = 4;

pub(crate) type Answer<T> = Result<T, i32>;

fn ioctl(file: &File, request: u32, arg: u64) -> Answer<i32> {
    // SAFETY: a number, or the address of what the request takes, alive until it returns.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), u64::from(request), arg) };
    if answer < 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap());
    }
    Ok(answer)
}

fn open(path: &str) -> File {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A container.
pub(crate) struct Container(File);

/// What `GET_INFO` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) flags: u32,
    pub(crate) needed: u32,
    pub(crate) host: u32,
    pub(crate) most: u32,
    /// first, last, pages with a doorbell
    pub(crate) windows: Vec<(u64, u64, u32)>,
}

impl Container {
    pub(crate) fn open() -> Self {
        Self(open("/dev/vfio/vfio"))
    }

    /// With these groups in it, of type1 version 2.
    pub(crate) fn with(groups: &[u32]) -> (Self, Vec<Group>) {
        let container = Self::open();
        let groups: Vec<Group> = groups.iter().map(|g| Group::open(*g)).collect();
        groups[0].join(&container).unwrap();
        container.set_iommu().unwrap();
        groups[1..].iter().for_each(|g| g.join(&container).unwrap());
        (container, groups)
    }

    pub(crate) fn set_iommu(&self) -> Answer<()> {
        ioctl(&self.0, 0x3b66, 3).map(drop)
    }

    pub(crate) fn takes_windows(&self) -> bool {
        ioctl(&self.0, 0x3b65, 0x8001).unwrap() == 1
    }

    pub(crate) fn map(&self, flags: u32, vaddr: u64, iova: u64, size: u64) -> Answer<()> {
        let arg = [32 | u64::from(flags) << 32, vaddr, iova, size];
        ioctl(&self.0, 0x3b71, arg.as_ptr() as u64).map(drop)
    }

    pub(crate) fn unmap(&self, flags: u32, iova: u64, size: u64) -> Answer<u64> {
        let mut arg = [24 | u64::from(flags) << 32, iova, size];
        ioctl(&self.0, 0x3b72, arg.as_mut_ptr() as u64)?;
        Ok(arg[2])
    }

    pub(crate) fn add_window(&self, iova: u64, pages: u64) -> Answer<()> {
        self.map(WINDOW | 3, 0, iova, pages * PAGE)
    }

    pub(crate) fn remove_window(&self, iova: u64, pages: u64) -> Answer<u64> {
        self.unmap(WINDOW, iova, pages * PAGE)
    }

    pub(crate) fn info(&self) -> Info {
        let mut words = vec![0_u32; 1024];
        words[0] = 4096;
        ioctl(&self.0, 0x3b70, words.as_mut_ptr() as u64).unwrap();
        let mut info = Info { flags: words[1], ..Info::default() };
        let mut at = if info.flags & 2 != 0 { words[4] as usize / 4 } else { 0 };
        while at != 0 {
            if words[at] & 0xffff == 0x8002 {
                (info.needed, info.host, info.most) = (words[at + 2], words[at + 3], words[at + 5]);
                let long = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
                for n in 0..words[at + 6] as usize {
                    let entry = at + 8 + 6 * n;
                    info.windows.push((long(entry), long(entry + 2), words[entry + 4]));
                }
            }
            at = words[at + 1] as usize / 4;
        }
        info
    }

    /// As it is, where there are no capabilities.
    pub(crate) fn raw_info(&self, words: &mut [u32]) {
        ioctl(&self.0, 0x3b70, words.as_mut_ptr() as u64).unwrap();
    }

    pub(crate) fn windows(&self) -> Vec<(u64, u64, u32)> {
        self.info().windows
    }
}

/// A group.
pub(crate) struct Group {
    number: u32,
    file: File,
}

impl Group {
    pub(crate) fn open(number: u32) -> Self {
        Self { number, file: open(&format!("/dev/vfio/{number}")) }
    }

    pub(crate) fn join(&self, container: &Container) -> Answer<()> {
        let mut fd = container.0.as_raw_fd();
        ioctl(&self.file, 0x3b68, &raw mut fd as u64).map(drop)
    }

    pub(crate) fn leave(&self) -> Answer<()> {
        ioctl(&self.file, 0x3b69, 0).map(drop)
    }

    pub(crate) fn status(&self) -> Answer<u32> {
        let mut status = [8_u32, 0];
        ioctl(&self.file, 0x3b67, status.as_mut_ptr() as u64)?;
        Ok(status[1])
    }

    /// The device of the group that the session places there.
    pub(crate) fn device(&self) -> Answer<Device> {
        self.named(&format!("0000:{:02x}:00.0", self.number))
    }

    pub(crate) fn named(&self, name: &str) -> Answer<Device> {
        let text = CString::new(name).unwrap();
        let fd = ioctl(&self.file, 0x3b6a, text.as_ptr() as u64)?;
        // SAFETY: the descriptor is new, and ours.
        let file = unsafe { File::from_raw_fd(fd) };
        let region = |index: u32| {
            let mut info = [32, 0, index, 0, 0, 0, 0, 0];
            ioctl(&file, 0x3b6c, info.as_mut_ptr() as u64).unwrap();
            u64::from(info[6]) | u64::from(info[7]) << 32
        };
        let (bar0, config) = (region(0), region(7));
        // Memory decoding and bus mastering.
        file.write_all_at(&[6, 0], config + 4).unwrap();
        Ok(Device { file, bar0 })
    }
}

/// A device.
pub(crate) struct Device {
    file: File,
    bar0: u64,
}

impl Device {
    pub(crate) fn write(&self, at: u64, value: u32) {
        self.file.write_all_at(&value.to_ne_bytes(), self.bar0 + at).unwrap();
    }

    pub(crate) fn write_long(&self, at: u64, value: u64) {
        self.file.write_all_at(&value.to_ne_bytes(), self.bar0 + at).unwrap();
    }

    pub(crate) fn read(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.file.read_exact_at(&mut bytes, self.bar0 + at).unwrap();
        u32::from_ne_bytes(bytes)
    }

    pub(crate) fn set_irqs(&self, index: u32, fds: &[i32]) -> Answer<()> {
        let count = fds.len() as u32;
        let mut arg = vec![20 + 4 * count, 0x24, index, 0, count];
        arg.extend(fds.iter().map(|fd| fd.cast_unsigned()));
        ioctl(&self.file, 0x3b6e, arg.as_ptr() as u64).map(drop)
    }

    /// One vector of MSI or MSI-X.
    pub(crate) fn enable(&self, index: u32, event: &Event) -> Answer<()> {
        self.set_irqs(index, &[event.0.as_raw_fd()])
    }

    pub(crate) fn disable(&self, index: u32) -> Answer<()> {
        let arg = [20, 0x21, index, 0, 0];
        ioctl(&self.file, 0x3b6e, arg.as_ptr() as u64).map(drop)
    }

    /// edu's DMA between its buffer and an IOVA.
    pub(crate) fn edu_dma(&self, iova: u64, bytes: u64, to_memory: bool) {
        let ends = if to_memory { (0x4_0000, iova) } else { (iova, 0x4_0000) };
        let command = 1 | u64::from(to_memory) << 1;
        for (at, value) in [(0x80, ends.0), (0x88, ends.1), (0x90, bytes), (0x98, command)] {
            self.write_long(at, value);
        }
    }
}

/// An eventfd.
pub(crate) struct Event(File);

impl Event {
    pub(crate) fn new() -> Self {
        // SAFETY: a new descriptor, ours.
        Self(unsafe { File::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) })
    }

    /// How often it was signalled, waiting for the first time so long.
    pub(crate) fn count(&self, milliseconds: i32) -> u64 {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, alive.
        if unsafe { libc::poll(&raw mut poll, 1, milliseconds) } != 1 {
            return 0;
        }
        let mut count = [0; 8];
        (&self.0).read_exact(&mut count).unwrap();
        u64::from_ne_bytes(count)
    }

    /// Exactly one signal, soon.
    pub(crate) fn arrived(&self) -> bool {
        self.count(60_000) == 1
    }
}

/// Some pages of memory; their address.
pub(crate) fn memory(pages: u64) -> u64 {
    let bytes = vec![0_u8; usize::try_from((pages + 1) * PAGE).unwrap()].leak();
    (bytes.as_ptr() as u64).next_multiple_of(PAGE)
}

/// What the kernel writes where nothing comes after it: `GET_STATUS`.
pub(crate) const VIABLE: u32 = 1;
pub(crate) const CONTAINER_SET: u32 = 2;
