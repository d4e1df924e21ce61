//! How a program chooses where its interrupts are written, and runs where it cannot as well.
//!
//! It takes every device that is bound to vfio-pci, asks whether MSIs need a window, registers one
//! if so, enables MSI or MSI-X, lets the devices raise interrupts and waits for them. Nothing in
//! it asks what host it is on: under `user` it registers a window, under `fixed` and `implicit` the
//! kernel has done the work. `docs/msi-windows.md` explains the steps; `msi_window.c` is the same in C.
//!
//! ```console
//! $ cargo build -p softvfio-supervise --example msi_window
//! $ softvfio run --host arm-smmuv3-its-user --device edu -- target/debug/examples/msi_window
//! ```
//!
//! With `--wait` it then waits until the host asks for the devices back (`softvfio ctl unplug`).

#![allow(unsafe_code, reason = "the program asks the kernel itself")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

type Any<T> = Result<T, Box<dyn std::error::Error>>;

// Requests, of <linux/vfio.h>: _IO(';', 100 + n).
const CHECK_EXTENSION: u32 = 0x3b65;
const SET_IOMMU: u32 = 0x3b66;
const GROUP_SET_CONTAINER: u32 = 0x3b68;
const GROUP_GET_DEVICE_FD: u32 = 0x3b6a;
const DEVICE_GET_REGION_INFO: u32 = 0x3b6c;
const DEVICE_GET_IRQ_INFO: u32 = 0x3b6d;
const DEVICE_SET_IRQS: u32 = 0x3b6e;
const IOMMU_GET_INFO: u32 = 0x3b70;
const IOMMU_MAP_DMA: u32 = 0x3b71;
const IOMMU_UNMAP_DMA: u32 = 0x3b72;

const TYPE1V2: u64 = 3;
const READ_WRITE: u32 = 3;
const BAR0: u32 = 0;
const CONFIG: u32 = 7;
const MSI: u32 = 1;
const MSIX: u32 = 2;
const REQ: u32 = 4;

// Of include/softvfio.h.
const MSI_WINDOWS: u64 = 0x8001;
const RESERVED_MSI_IOVA: u32 = 1 << 31;
const REQUIRE_MSI_MAP: u32 = 1 << 31;
const CAP_IOVA_RANGES: u16 = 1;
const CAP_RESERVED_REGIONS: u16 = 0x8001;
const CAP_MSI_WINDOWS: u16 = 0x8002;
const KINDS: [&str; 6] = ["direct", "direct-relaxable", "reserved", "msi", "sw-msi", "window"];

/// Where the program's memory is for devices: as if it were a guest's.
const MEMORY: u64 = 0x10_0000;
const MEMORY_SIZE: usize = 0x10_0000;

/// One request. An answer below zero is an errno.
fn ioctl(file: &File, request: u32, arg: u64) -> io::Result<i32> {
    // SAFETY: `arg` is a number, or the address of what the request takes, alive until it returns.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), u64::from(request), arg) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// The same with a structure of 32-bit words.
fn ioctl_words(file: &File, request: u32, words: &mut [u32]) -> io::Result<i32> {
    ioctl(file, request, words.as_mut_ptr() as u64)
}

fn main() -> ExitCode {
    match run(std::env::args().any(|arg| arg == "--wait")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("msi_window: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All of it.
pub(crate) fn run(wait: bool) -> Any<()> {
    // The container comes first, and a group of each device into it.
    let open = |path: &str| OpenOptions::new().read(true).write(true).open(path);
    let container = open("/dev/vfio/vfio")?;
    // 1. Ask. Before SET_IOMMU: can windows be registered with any IOMMU here?
    let any = ioctl(&container, CHECK_EXTENSION, MSI_WINDOWS)? == 1;
    println!("windows on this host: {}", if any { "yes" } else { "no" });
    let found = devices()?;
    let mut groups: Vec<(u32, File)> = Vec::new();
    for (name, number) in &found {
        if groups.iter().any(|(known, _)| known == number) {
            continue;
        }
        let group = open(&format!("/dev/vfio/{number}"))?;
        let mut fd = container.as_raw_fd();
        ioctl(&group, GROUP_SET_CONTAINER, &raw mut fd as u64)?;
        if groups.is_empty() {
            ioctl(&container, SET_IOMMU, TYPE1V2)?;
        }
        groups.push((*number, group));
        println!("{name}: group {number} is in the container");
    }
    if groups.is_empty() {
        return Err("no device is bound to vfio-pci".into());
    }

    // The program's memory, for devices.
    let memory = Memory::new()?;
    map(&container, READ_WRITE, memory.address, MEMORY, MEMORY_SIZE as u64)?;

    // 2. Look.
    let info = Info::of(&container)?;
    info.print();

    // 3., 4. Size and register, where nothing of ours is.
    let mut window = None;
    if info.require_msi_map {
        let size = u64::from(info.pages_needed.max(1)) << info.page_shift;
        let first = info.free(size, 1 << info.page_shift).ok_or("no room for a window")?;
        map(&container, RESERVED_MSI_IOVA | READ_WRITE, 0, first, size)?;
        println!("window {first:#x}-{:#x} registered", first + size - 1);
        window = Some((first, size));
    }

    // 5. Enable, and take interrupts.
    let mut devices = Vec::new();
    for (name, number) in &found {
        let (_, group) = groups.iter().find(|(g, _)| g == number).ok_or("its group")?;
        let mut device = Device::open(group, name)?;
        device.enable()?;
        device.work(&memory)?;
        devices.push(device);
    }
    if let Some((first, size)) = window {
        let used: u32 = Info::of(&container)?.windows.iter().map(|w| w.used_pages).sum();
        println!("{used} pages of the window hold a doorbell");
        let busy = unmap(&container, RESERVED_MSI_IOVA, first, size);
        println!("removing it now: {}", busy.err().map_or("done".into(), |e| e.to_string()));
    }
    if wait {
        for device in devices.drain(..) {
            device.wait_for_request()?;
        }
    }

    // 7. Devices are closed, which gives the doorbells back; then the window can go.
    drop(devices);
    if let Some((first, size)) = window {
        // The group of a device that was unplugged took the IOMMU along, and windows with it.
        match unmap(&container, RESERVED_MSI_IOVA, first, size) {
            Ok(removed) => println!("{removed:#x} bytes of windows removed"),
            Err(error) if wait => println!("the windows are gone ({error})"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Addresses and groups of the PCI functions that vfio-pci has.
fn devices() -> Any<Vec<(String, u32)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/sys/bus/pci/devices")? {
        let path = entry?.path();
        let last = |link: &str| {
            let target = std::fs::read_link(path.join(link)).ok()?;
            Some(target.file_name()?.to_str()?.to_owned())
        };
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        if last("driver").as_deref() == Some("vfio-pci")
            && let Some(group) = last("iommu_group").and_then(|g| g.parse().ok())
        {
            found.push((name, group));
        }
    }
    found.sort();
    Ok(found)
}

fn map(container: &File, flags: u32, vaddr: u64, iova: u64, size: u64) -> io::Result<()> {
    // struct vfio_iommu_type1_dma_map: argsz, flags, vaddr, iova, size
    let arg = [32 | u64::from(flags) << 32, vaddr, iova, size];
    ioctl(container, IOMMU_MAP_DMA, arg.as_ptr() as u64).map(drop)
}

/// What was unmapped, in bytes.
fn unmap(container: &File, flags: u32, iova: u64, size: u64) -> io::Result<u64> {
    // struct vfio_iommu_type1_dma_unmap: argsz, flags, iova, size
    let mut arg = [24 | u64::from(flags) << 32, iova, size];
    ioctl(container, IOMMU_UNMAP_DMA, arg.as_mut_ptr() as u64)?;
    Ok(arg[2])
}

struct Window {
    first: u64,
    last: u64,
    used_pages: u32,
}

/// What VFIO_IOMMU_GET_INFO says.
#[derive(Default)]
struct Info {
    require_msi_map: bool,
    /// Where mappings and windows may be.
    valid: Vec<(u64, u64)>,
    /// first, last, kind, group
    reserved: Vec<(u64, u64, u32, u32)>,
    pages_needed: u32,
    pages_host: u32,
    page_shift: u32,
    max_windows: u32,
    windows: Vec<Window>,
}

impl Info {
    fn of(container: &File) -> Any<Self> {
        // struct vfio_iommu_type1_info: argsz, flags, iova_pgsizes, cap_offset, pad
        let mut bytes = vec![0_u8; 24];
        for _ in 0..2 {
            let size = bytes.len() as u32;
            bytes[..4].copy_from_slice(&size.to_ne_bytes());
            ioctl(container, IOMMU_GET_INFO, bytes.as_mut_ptr() as u64)?;
            // The kernel says how much it would have liked to write.
            let needed = word(&bytes, 0)? as usize;
            bytes.resize(needed.max(bytes.len()), 0);
        }
        let flags = word(&bytes, 4)?;
        let mut info = Self { require_msi_map: flags & REQUIRE_MSI_MAP != 0, ..Self::default() };
        let mut at = if flags & 2 != 0 { word(&bytes, 16)? as usize } else { 0 };
        while at != 0 {
            // struct vfio_info_cap_header: u16 id, u16 version, u32 next
            let head = word(&bytes, at)?;
            match (head & 0xffff) as u16 {
                CAP_IOVA_RANGES => {
                    for n in 0..word(&bytes, at + 8)? as usize {
                        let entry = at + 16 + 16 * n;
                        info.valid.push((long(&bytes, entry)?, long(&bytes, entry + 8)?));
                    }
                }
                CAP_RESERVED_REGIONS => {
                    let size = word(&bytes, at + 12)? as usize;
                    for n in 0..word(&bytes, at + 8)? as usize {
                        let entry = at + 16 + size * n;
                        info.reserved.push((
                            long(&bytes, entry)?,
                            long(&bytes, entry + 8)?,
                            word(&bytes, entry + 16)?,
                            word(&bytes, entry + 24)?,
                        ));
                    }
                }
                CAP_MSI_WINDOWS => {
                    info.pages_needed = word(&bytes, at + 8)?;
                    info.pages_host = word(&bytes, at + 12)?;
                    info.page_shift = word(&bytes, at + 16)?;
                    info.max_windows = word(&bytes, at + 20)?;
                    for n in 0..word(&bytes, at + 24)? as usize {
                        let entry = at + 32 + 24 * n;
                        info.windows.push(Window {
                            first: long(&bytes, entry)?,
                            last: long(&bytes, entry + 8)?,
                            used_pages: word(&bytes, entry + 16)?,
                        });
                    }
                }
                _ => {}
            }
            at = word(&bytes, at + 4)? as usize;
        }
        Ok(info)
    }

    fn print(&self) {
        println!("interrupts need a window: {}", if self.require_msi_map { "yes" } else { "no" });
        for (first, last, kind, group) in &self.reserved {
            let kind = KINDS.get(*kind as usize).unwrap_or(&"unknown");
            println!("reserved {first:#x}-{last:#x} {kind}, group {group}");
        }
        if self.require_msi_map {
            println!(
                "pages needed: {} for what is attached, {} for all of the host, {} bytes each; windows allowed: {}",
                self.pages_needed,
                self.pages_host,
                1_u64 << self.page_shift,
                self.max_windows
            );
        }
    }

    /// The lowest address with so much room above our memory (as a guest would have it, from 0 on) where
    /// no window is.
    fn free(&self, size: u64, align: u64) -> Option<u64> {
        let windows = self.windows.iter().map(|w| (w.first, w.last));
        let taken: Vec<_> = windows.chain([(0, MEMORY + MEMORY_SIZE as u64 - 1)]).collect();
        for (first, last) in &self.valid {
            let mut at = first.checked_next_multiple_of(align)?;
            while let Some((_, end)) =
                taken.iter().find(|(start, end)| at <= *end && *start <= at + (size - 1))
            {
                at = (end + 1).checked_next_multiple_of(align)?;
            }
            if at >= *first && at + (size - 1) <= *last {
                return Some(at);
            }
        }
        None
    }
}

fn word(bytes: &[u8], at: usize) -> Any<u32> {
    let four = bytes.get(at..at + 4).ok_or("the capabilities end too early")?;
    Ok(u32::from_ne_bytes(four.try_into()?))
}

fn long(bytes: &[u8], at: usize) -> Any<u64> {
    let eight = bytes.get(at..at + 8).ok_or("the capabilities end too early")?;
    Ok(u64::from_ne_bytes(eight.try_into()?))
}

/// Memory that devices reach at [`MEMORY`].
struct Memory {
    address: u64,
}

impl Memory {
    fn new() -> io::Result<Self> {
        let (rw, anonymous) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_ANONYMOUS);
        let flags = libc::MAP_PRIVATE | anonymous;
        // SAFETY: fresh memory; it is never unmapped.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), MEMORY_SIZE, rw, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { address: at as u64 })
    }

    fn put(&self, at: usize, word: u32) {
        assert!(at.is_multiple_of(4) && at < MEMORY_SIZE);
        // SAFETY: within the memory, and aligned. Devices see it as well.
        unsafe { std::ptr::write_volatile((self.address as usize + at) as *mut u32, word) };
    }

    fn get(&self, at: usize) -> u32 {
        assert!(at.is_multiple_of(4) && at < MEMORY_SIZE);
        // SAFETY: as above.
        unsafe { std::ptr::read_volatile((self.address as usize + at) as *const u32) }
    }
}

struct Device {
    name: String,
    file: File,
    /// Where its regions begin in the file.
    bar0: u64,
    config: u64,
    /// One for each vector.
    events: Vec<File>,
    request: Option<File>,
}

impl Device {
    fn open(group: &File, name: &str) -> Any<Self> {
        let text = std::ffi::CString::new(name)?;
        let fd = ioctl(group, GROUP_GET_DEVICE_FD, text.as_ptr() as u64)?;
        // SAFETY: the descriptor is new, and ours.
        let file = unsafe { File::from_raw_fd(fd) };
        let region = |index: u32| -> Any<u64> {
            // struct vfio_region_info: argsz, flags, index, cap_offset, size, offset
            let mut info = [32, 0, index, 0, 0, 0, 0, 0];
            ioctl_words(&file, DEVICE_GET_REGION_INFO, &mut info)?;
            Ok(u64::from(info[6]) | u64::from(info[7]) << 32)
        };
        let (bar0, config) = (region(BAR0)?, region(CONFIG)?);
        let mut device =
            Self { name: name.into(), file, bar0, config, events: Vec::new(), request: None };
        // Memory decoding and bus mastering: without the latter not even MSIs leave the device.
        let command = device.config_word(4)? as u16 | 6;
        device.file.write_all_at(&command.to_ne_bytes(), device.config + 4)?;
        // The host asks with this interrupt for the device back.
        let request = eventfd()?;
        if device.set_irqs(REQ, &[request.as_raw_fd()]).is_ok() {
            device.request = Some(request);
        }
        Ok(device)
    }

    fn config_word(&self, at: u64) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.file.read_exact_at(&mut bytes, self.config + at)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn write(&self, at: u64, value: u32) -> io::Result<()> {
        self.file.write_all_at(&value.to_ne_bytes(), self.bar0 + at)
    }

    fn read(&self, at: u64) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.file.read_exact_at(&mut bytes, self.bar0 + at)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    /// Eventfds for the vectors from 0 on.
    fn set_irqs(&self, index: u32, fds: &[i32]) -> io::Result<i32> {
        // struct vfio_irq_set: argsz, flags (DATA_EVENTFD, ACTION_TRIGGER), index, start, count, data
        let count = fds.len() as u32;
        let mut arg = vec![20 + 4 * count, 0x24, index, 0, count];
        arg.extend(fds.iter().map(|fd| fd.cast_unsigned()));
        ioctl_words(&self.file, DEVICE_SET_IRQS, &mut arg)
    }

    /// MSI-X if it has that, or else MSI; at most two vectors.
    fn enable(&mut self) -> Any<()> {
        for (index, name) in [(MSIX, "MSI-X"), (MSI, "MSI")] {
            // struct vfio_irq_info: argsz, flags, index, count
            let mut info = [16, 0, index, 0];
            ioctl_words(&self.file, DEVICE_GET_IRQ_INFO, &mut info)?;
            if info[3] == 0 {
                continue;
            }
            for _ in 0..info[3].min(2) {
                self.events.push(eventfd()?);
            }
            let fds: Vec<i32> = self.events.iter().map(AsRawFd::as_raw_fd).collect();
            self.set_irqs(index, &fds).map_err(|e| format!("{}: {name}: {e}", self.name))?;
            println!("{}: {name} enabled, vectors: {}", self.name, fds.len());
            return Ok(());
        }
        Err(format!("{}: neither MSI nor MSI-X", self.name).into())
    }

    /// Lets it raise interrupts, each in its own way.
    fn work(&self, memory: &Memory) -> Any<()> {
        let identity = self.config_word(0)?;
        match (identity, self.config_word(8)? >> 16) {
            (0x11e8_1234, _) => self.edu(memory),
            (0x11e9_1234, _) => {
                for vector in 0..self.events.len() {
                    self.write(0x60, vector as u32)?;
                    self.arrived(vector, "told to")?;
                }
                Ok(())
            }
            (_, 0x0108) => self.nvme(memory),
            _ => {
                println!("{}: {identity:08x} is not known here", self.name);
                Ok(())
            }
        }
    }

    fn edu(&self, memory: &Memory) -> Any<()> {
        self.write(0x60, 1)?;
        self.arrived(0, "told to")?;
        self.write(0x64, 1)?;
        // 4 bytes of memory into its buffer and back beside them, with an interrupt at the end.
        memory.put(0, 0x5eed_cafe);
        for (source, destination, command) in [(MEMORY, 0x4_0000, 1), (0x4_0000, MEMORY + 64, 7)] {
            for (at, value) in [(0x80, source), (0x88, destination), (0x90, 4), (0x98, command)] {
                self.file.write_all_at(&value.to_ne_bytes(), self.bar0 + at)?;
            }
        }
        self.arrived(0, "end of a DMA")?;
        self.write(0x64, 0x100)?;
        let moved = memory.get(64) == 0x5eed_cafe;
        if moved { Ok(()) } else { Err(format!("{}: the DMA went wrong", self.name).into()) }
    }

    /// The controller is started, and identifies itself: one command, one interrupt.
    fn nvme(&self, memory: &Memory) -> Any<()> {
        const SUBMISSION: usize = 0x1000;
        const COMPLETION: usize = 0x2000;
        const DATA: usize = 0x3000;
        let iova = |at: usize| MEMORY + at as u64;
        self.write(0x14, 0)?; // CC: off
        while self.read(0x1c)? & 1 != 0 {}
        self.write(0x24, 0x000f_000f)?; // AQA: 16 entries each
        self.write(0x28, iova(SUBMISSION) as u32)?; // ASQ, ACQ
        self.write(0x2c, 0)?;
        self.write(0x30, iova(COMPLETION) as u32)?;
        self.write(0x34, 0)?;
        self.write(0x14, 0x0046_0001)?; // CC: entries of 64 and 16 bytes, on
        while self.read(0x1c)? & 1 == 0 {}
        for word in 0..16 {
            memory.put(SUBMISSION + 4 * word, 0);
        }
        memory.put(SUBMISSION, 0x0001_0006); // Identify, command 1
        memory.put(SUBMISSION + 24, iova(DATA) as u32); // PRP1
        memory.put(SUBMISSION + 40, 1); // of the controller
        self.write(0x1000, 1)?; // the queue's doorbell
        self.arrived(0, "Identify completed")?;
        let status = memory.get(COMPLETION + 12) >> 17;
        self.write(0x1004, 1)?;
        if status == 0 { Ok(()) } else { Err(format!("{}: status {status:#x}", self.name).into()) }
    }

    /// Waits for the interrupt of a vector.
    fn arrived(&self, vector: usize, why: &str) -> Any<()> {
        let event = self.events.get(vector).ok_or("the vector")?;
        if !wait_for(event, 10_000)? {
            return Err(format!("{}: no interrupt of vector {vector} ({why})", self.name).into());
        }
        println!("{}: vector {vector}: {why}", self.name);
        Ok(())
    }

    /// Waits until the host asks for it; closes it then.
    fn wait_for_request(self) -> Any<()> {
        let request = self.request.as_ref().ok_or("the device has no REQ interrupt")?;
        println!("{}: waiting until the host asks for it", self.name);
        wait_for(request, -1)?;
        println!("{}: the host asks for it; closing it", self.name);
        Ok(())
    }
}

fn eventfd() -> io::Result<File> {
    // SAFETY: a new descriptor, ours.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(fd)) }
    }
}

/// Waits until an eventfd is signalled, and reads it back to 0. Whether it was.
fn wait_for(event: &File, milliseconds: i32) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, alive.
    let ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
    if ready == 1 {
        let mut count = [0; 8];
        (&*event).read_exact(&mut count)?;
    }
    Ok(ready == 1)
}
