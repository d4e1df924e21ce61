//! Requests that VMMs make of a device's slot and its pin.

use std::os::fd::RawFd;

use softvfio_supervise::client;

use super::raw::{self, Vfio};

const HOT_RESET_INFO: u32 = 0x3b70;
const HOT_RESET: u32 = 0x3b71;

/// Plays a role of this file.
pub(super) fn run(role: &str) -> Option<()> {
    match role {
        "hot reset" => hot_reset(),
        "unmask" => unmask(),
        "two disks" => two_disks(),
        "bar 0 at 0" => bar_0_at_0(),
        "asks for the size" => asks_for_the_size(),
        "many eventfds" => {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) }, 0);
            assert_eq!(limit.rlim_cur, super::FEW_BYTES);
            assert_eq!(many_eventfds(), 0);
        }
        "too many eventfds" => assert_eq!(many_eventfds(), -i64::from(libc::EBADF)),
        _ => return None,
    }
    Some(())
}

/// Each device is alone on its bus, and comes back.
fn hot_reset() {
    let vfio = Vfio::open();
    for (group, device, bus) in [(vfio.groups[0], vfio.edu, 1), (vfio.groups[1], vfio.nvme, 2)] {
        let mut info = [12_u32, 0, 0, 0, 0];
        let answer = raw::request(device, HOT_RESET_INFO, info.as_mut_ptr() as u64);
        assert_eq!((answer, info[2]), (-i64::from(libc::ENOSPC), 1));
        info[0] = 20;
        assert_eq!(raw::request(device, HOT_RESET_INFO, info.as_mut_ptr() as u64), 0);
        // Group, then segment, bus and function in one word.
        assert_eq!(info[2..], [1, bus, bus << 16]);
        let mut command = [0; 2];
        let none = [12_u32, 0, 0];
        let refused = raw::request(device, HOT_RESET, none.as_ptr() as u64);
        assert_eq!(refused, -i64::from(libc::EINVAL));
        let reset = [16, 0, 1, group as u32];
        assert_eq!(raw::request(device, HOT_RESET, reset.as_ptr() as u64), 0);
        assert_eq!(raw::pread(device, &mut command, raw::CONFIG + 4), 2);
        println!("command register after the reset of bus {bus}: {command:x?}");
    }
    vfio.close();
}

/// Drivers that know where Linux has BAR 0 do not ask (Micron's unvme).
fn bar_0_at_0() {
    const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
    let (cap, aqa, cc, csts) = (0, 0x24 / 4, 0x14 / 4, 0x1c / 4);
    let vfio = Vfio::open();
    let map = |offset: u64| -> *mut u32 {
        let shared = libc::MAP_SHARED;
        let offset = offset.try_into().unwrap();
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, READ_WRITE, shared, vfio.nvme, offset)
        };
        assert_ne!(at, libc::MAP_FAILED);
        at.cast()
    };
    let asked = map(raw::region(vfio.nvme, 0));
    let low = map(0);
    let load = |registers: *mut u32, at: usize| unsafe { registers.add(at).read_volatile() };
    let store = |at: usize, value: u32| unsafe { low.add(at).write_volatile(value) };
    assert_ne!(load(low, cap), 0);
    assert_eq!(load(low, cap), load(asked, cap));
    store(aqa, 0x1f_001f);
    // A command set that it does not know: it does not start, and says so.
    store(cc, 4 << 20 | 6 << 16 | 1 << 4 | 1);
    while load(low, csts) == 0 {
        std::thread::yield_now();
    }
    assert_eq!((load(low, csts), load(asked, csts)), (2, 2));
    assert_eq!(load(asked, aqa), 0x1f_001f);
    store(cc, 0);
    while load(asked, csts) != 0 {
        std::thread::yield_now();
    }
    vfio.close();
}

/// Some languages compare a mapping with the size of the file, and refuse it.
fn asks_for_the_size() {
    let vfio = Vfio::open();
    let mut stat = unsafe { std::mem::zeroed::<libc::stat>() };
    assert_eq!(unsafe { libc::fstat(vfio.edu, &mut stat) }, 0);
    let (offset, len) = (raw::region(vfio.edu, 0), 1 << 20);
    assert!(stat.st_size >= offset.cast_signed() + len, "{}", stat.st_size);
    // Nor can anybody make room for pages there, or make others' registers go.
    for mode in [0, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE] {
        unsafe { libc::fallocate(vfio.edu, mode, offset.cast_signed(), 4096) };
    }
    assert_eq!(unsafe { libc::pwrite(vfio.edu, [1_u8].as_ptr().cast(), 1, 4096) }, -1);
    let shared = libc::MAP_SHARED;
    let (any, read) = (std::ptr::null_mut(), libc::PROT_READ);
    let len = len as usize;
    let at = unsafe { libc::mmap(any, len, read, shared, vfio.edu, offset.cast_signed()) };
    assert_ne!(at, libc::MAP_FAILED);
    assert_eq!(unsafe { at.cast::<u32>().read_volatile() }, 0x0100_00ed);
    unsafe { libc::ftruncate(vfio.edu, 0) };
    assert_eq!(unsafe { at.cast::<u32>().read_volatile() }, 0x0100_00ed);
    vfio.close();
}

fn eventfd() -> RawFd {
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    assert!(fd >= 0);
    fd
}

/// Of the pin of a device: what is done, by an eventfd.
fn intx(device: RawFd, action: u32, fd: RawFd) -> i64 {
    const DATA_EVENTFD: u32 = 4;
    let set = [24, DATA_EVENTFD | action, 0, 0, 1, fd as u32];
    raw::request(device, raw::SET_IRQS, set.as_ptr() as u64)
}

/// While one that unmasks is open there is no other.
pub(super) fn two_unmasks(device: RawFd) {
    let [first, second] = [eventfd(), eventfd()];
    assert_eq!(intx(device, 32, eventfd()), 0);
    assert_eq!(intx(device, 16, first), 0);
    assert_eq!(intx(device, 16, second), -i64::from(libc::EBUSY));
    raw::close(first);
    assert_eq!(intx(device, 16, second), 0);
}

/// An eventfd for each vector of nvme: what comes of setting them.
fn many_eventfds() -> i64 {
    const VECTORS: u32 = 65;
    // As the supervisor's was before it was raised.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    assert_eq!(limit.rlim_cur, super::FEW_DESCRIPTORS);
    limit.rlim_cur = limit.rlim_max;
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let vfio = Vfio::open();
    let mut set = vec![20 + 4 * VECTORS, 4 | 32, 2, 0, VECTORS];
    set.extend((0..VECTORS).map(|_| eventfd() as u32));
    let answer = raw::request(vfio.nvme, raw::SET_IRQS, set.as_ptr() as u64);
    // What failed left nothing behind.
    assert_eq!(raw::device_info(vfio.nvme), 0);
    answer
}

/// QEMU closes it and sets another when it changes how interrupts reach its guest.
fn unmask() {
    const UNMASK: u32 = 16;
    const TRIGGER: u32 = 32;
    const BUSY: i64 = -(libc::EBUSY as i64);
    let vfio = Vfio::open();
    assert_eq!(intx(vfio.edu, TRIGGER, eventfd()), 0);
    let [first, second] = [eventfd(), eventfd()];
    assert_eq!(intx(vfio.edu, UNMASK, first), 0);
    assert_eq!(intx(vfio.edu, UNMASK, second), BUSY);
    let kept = unsafe { libc::dup(first) };
    raw::close(first);
    assert_eq!(intx(vfio.edu, UNMASK, second), BUSY);
    let child = unsafe { libc::fork() };
    if child == 0 {
        unsafe { libc::pause() };
        unsafe { libc::_exit(0) };
    }
    raw::close(kept);
    assert_eq!(intx(vfio.edu, UNMASK, second), BUSY, "a child has it");
    unsafe { libc::kill(child, libc::SIGKILL) };
    assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
    assert_eq!(intx(vfio.edu, UNMASK, second), 0);
    assert_eq!(intx(vfio.edu, UNMASK, second), BUSY);
    vfio.close();
}

/// Linux takes two controllers with the same serial number for one subsystem, and refuses the second.
fn two_disks() {
    let serial = |nvme| {
        let mut told = Vec::new();
        let devices = client::Devices { edu: None, nvme: Some(nvme) };
        client::run(devices, &mut told).unwrap_or_else(|failure| panic!("{failure}"));
        let told = String::from_utf8(told).unwrap();
        let serial = told.split("serial \"").nth(1).and_then(|rest| rest.split('"').next());
        serial.expect("a serial number").to_owned()
    };
    // The addresses are those of edu and nvme elsewhere.
    let [first, second] = [raw::EDU, raw::NVME].map(serial);
    assert_eq!((&*first, &*second), ("softvfio", "softvfio-2"));
}
