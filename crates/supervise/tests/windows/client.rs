//! The clients: what each does stands in its name's function. Group and device numbers follow the
//! session's order: device 1 is 0000:01:00.0 in group 1.

use std::io::Write;

use libc::{EBUSY, EEXIST, EINVAL, ENODEV, ENOMEM, ENOSPC};

use super::vfio::*;

/// Where windows are put.
pub(crate) const BASE: u64 = 0x4000_0000;
/// The ITS' register in its doorbell page.
pub(crate) const REGISTER: u64 = 0x40;

/// Runs the client of that name.
pub(crate) fn run(name: &str) {
    match name {
        "interrupts" => interrupts(),
        "two_doorbells" => two_doorbells(),
        "late" => late(),
        "does_not_suit" => does_not_suit(),
        "other_policies" => other_policies(),
        "is_refused" => is_refused(),
        "of_2016" => of_2016(),
        "strays" => strays(),
        "other_doorbell" => other_doorbell(),
        "lets_go" => lets_go(),
        "cannot_be_asked" => cannot_be_asked(),
        "is_slow" => is_slow(),
        "is_killed" => is_killed(),
        "lets_go_at_once" => lets_go_at_once(),
        "example" => super::example::run(false).unwrap(),
        _ => panic!("no client {name}"),
    }
}

/// To whoever started the session.
fn say(word: &str) {
    println!("{word}");
    std::io::stdout().flush().unwrap();
}

/// edu, nvme and msi-test on any host.
fn interrupts() {
    let (c, groups) = Container::with(&[1, 2, 3]);
    let events = [(); 3].map(|()| Event::new());
    let devices: Vec<Device> = groups.iter().map(|g| g.device().unwrap()).collect();
    let kinds = [MSI, MSIX, MSIX];
    let needs = c.info().flags & WINDOW != 0;
    assert_eq!(needs, c.takes_windows());
    if needs {
        for (device, (kind, event)) in devices.iter().zip(kinds.iter().zip(&events)) {
            assert_eq!(device.enable(*kind, event), Err(EINVAL));
        }
        let needed = c.info().needed.into();
        c.add_window(BASE, needed).unwrap();
        assert_eq!(c.add_window(BASE, needed), Err(EEXIST));
    }
    for (device, (kind, event)) in devices.iter().zip(kinds.iter().zip(&events)) {
        device.enable(*kind, event).unwrap();
    }
    let at = memory(4);
    c.map(3, at, 0x10_0000, 4 * PAGE).unwrap();
    let fire = |times: u32| {
        for n in 0..times {
            devices[0].write(0x60, 1);
            assert!(events[0].arrived());
            devices[0].write(0x64, 1);
            devices[2].write(0x60, 0);
            assert!(events[2].arrived());
            identify(&devices[1], at, n);
            assert!(events[1].arrived());
        }
    };
    start(&devices[1]);
    fire(5);
    // Everything is unmapped in the middle: windows are no mappings.
    assert_eq!(c.unmap(ALL, 0, 0), Ok(4 * PAGE));
    devices[0].write(0x60, 1);
    assert!(events[0].arrived());
    devices[2].write(0x60, 0);
    assert!(events[2].arrived());
    if needs {
        let pages = c.info().needed.into();
        assert_eq!(c.unmap(0, BASE, pages * PAGE), Ok(0));
        assert_eq!(c.remove_window(BASE, pages), Err(EBUSY));
        assert_eq!(c.unmap(WINDOW | ALL, 0, 0), Err(EBUSY));
        assert_eq!(c.map(3, at, BASE, PAGE), Err(EEXIST));
        assert_eq!(c.windows(), [(BASE, BASE + pages * PAGE - 1, 1)]);
        // A device gives its doorbells back as it is closed.
        drop(devices);
        assert_eq!(c.windows(), [(BASE, BASE + pages * PAGE - 1, 0)]);
        assert_eq!(c.remove_window(BASE, pages), Ok(pages * PAGE));
        assert_eq!(c.remove_window(BASE, pages), Ok(0));
        assert_eq!(c.windows(), []);
        c.map(3, at, BASE, PAGE).unwrap();
    }
}

/// Enables an NVMe controller with its queues at 0x100000 and 0x101000.
fn start(nvme: &Device) {
    nvme.write(0x14, 0);
    while nvme.read(0x1c) & 1 != 0 {}
    nvme.write(0x24, 0x003f_003f);
    nvme.write_long(0x28, 0x10_0000);
    nvme.write_long(0x30, 0x10_1000);
    nvme.write(0x14, 0x0046_0001);
    while nvme.read(0x1c) & 1 == 0 {}
}

/// Its `n`th Identify.
fn identify(nvme: &Device, memory: u64, n: u32) {
    let command = [6 | (n + 1) << 16, 0, 0, 0, 0, 0, 0x10_2000, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    for (word, value) in (0..).zip(command) {
        // SAFETY: our own memory.
        unsafe {
            std::ptr::write_volatile((memory + 64 * u64::from(n) + 4 * word) as *mut u32, value)
        };
    }
    nvme.write(0x1000, n + 1);
}

/// edu at the first ITS and msi-test at the second, in one domain.
fn two_doorbells() {
    let (c, groups) = Container::with(&[1, 2]);
    let (edu, test) = (groups[0].device().unwrap(), groups[1].device().unwrap());
    let events = [(); 2].map(|()| Event::new());
    assert_eq!((c.info().needed, c.info().host, c.info().most), (2, 2, 4));
    // Read-only, in which no doorbell can be.
    let written = c.map(WINDOW | 1, 0, BASE + 0x30_000, PAGE);
    c.add_window(BASE, 1).unwrap();
    edu.enable(MSI, &events[0]).unwrap();
    assert_eq!(test.enable(MSIX, &events[1]), Err(ENOSPC));
    assert_eq!(test.enable(MSI, &events[1]), Err(ENOSPC));
    c.add_window(BASE + 0x10_000, 1).unwrap();
    test.enable(MSIX, &events[1]).unwrap();
    edu.write(0x60, 1);
    test.write(0x60, 0);
    assert!(events[0].arrived() && events[1].arrived());
    let used: Vec<u32> = c.windows().iter().map(|w| w.2).collect();
    assert_eq!(&used[..2], [1, 1]);
    assert_eq!(used.len(), 2 + usize::from(written.is_ok()));
    // The first is let go: its page is free, the other's is not.
    edu.disable(MSI).unwrap();
    assert_eq!(c.remove_window(BASE, 1), Ok(PAGE));
    assert_eq!(c.remove_window(BASE + 0x10_000, 1), Err(EBUSY));
    assert_eq!(edu.enable(MSI, &events[0]), Err(ENOSPC));
    test.write(0x60, 0);
    assert!(events[1].arrived());
}

/// edu, and edu behind another SMMU, which comes later.
fn late() {
    let (c, groups) = Container::with(&[1]);
    let events = [(); 2].map(|()| Event::new());
    let first = groups[0].device().unwrap();
    c.add_window(BASE, 1).unwrap();
    first.enable(MSI, &events[0]).unwrap();
    let second_group = Group::open(2);
    for _ in 0..2 {
        // Each domain has a pool of its own in the same window.
        second_group.join(&c).unwrap();
        let second = second_group.device().unwrap();
        second.enable(MSI, &events[1]).unwrap();
        assert_eq!(c.windows(), [(BASE, BASE + PAGE - 1, 1)]);
        first.write(0x60, 1);
        second.write(0x60, 1);
        assert!(events[0].arrived() && events[1].arrived());
        first.write(0x64, 1);
        assert_eq!(second_group.leave(), Err(EBUSY));
        drop(second);
        second_group.leave().unwrap();
        assert_eq!(second_group.status(), Ok(VIABLE));
    }
    first.write(0x60, 1);
    assert!(events[0].arrived());
    drop(first);
    // The last group takes the windows along.
    groups[0].leave().unwrap();
    groups[0].join(&c).unwrap();
    assert_eq!(c.add_window(BASE, 1), Err(EINVAL));
    c.set_iommu().unwrap();
    assert_eq!(c.windows(), []);
    let first = groups[0].device().unwrap();
    assert_eq!(first.enable(MSI, &events[0]), Err(EINVAL));
    c.add_window(BASE, 1).unwrap();
    first.enable(MSI, &events[0]).unwrap();
    first.write(0x60, 1);
    assert!(events[0].arrived());
    // A container whose descriptor is closed lives on in its groups.
    drop(c);
    first.write(0x64, 1);
    first.write(0x60, 1);
    assert!(events[0].arrived());
}

/// The second group may have nothing mapped at 0x8090000-0x809ffff.
fn does_not_suit() {
    let (c, groups) = Container::with(&[1]);
    let events = [(); 2].map(|()| Event::new());
    c.add_window(0x809_f000, 2).unwrap();
    let device = groups[0].device().unwrap();
    device.enable(MSI, &events[0]).unwrap();
    let second = Group::open(2);
    assert_eq!(second.join(&c), Err(EINVAL));
    assert_eq!(second.status(), Ok(VIABLE));
    assert_eq!(c.windows(), [(0x809_f000, 0x80a_0fff, 1)]);
    device.write(0x60, 1);
    assert!(events[0].arrived());
    device.disable(MSI).unwrap();
    c.remove_window(0x809_f000, 2).unwrap();
    c.add_window(0x80a_0000, 1).unwrap();
    second.join(&c).unwrap();
    let other = second.device().unwrap();
    for (device, event) in [&device, &other].into_iter().zip(&events) {
        device.enable(MSI, event).unwrap();
        device.write(0x64, 1);
        device.write(0x60, 1);
        assert!(event.arrived());
    }
    assert_eq!(c.windows(), [(0x80a_0000, 0x80a_0fff, 1)]);
}

/// On `mixed`: the second group's MSIs are untranslated, the third's go through the kernel's window.
fn other_policies() {
    let (c, groups) = Container::with(&[1, 2, 3]);
    let events = [(); 3].map(|()| Event::new());
    let devices: Vec<Device> = groups.iter().map(|g| g.device().unwrap()).collect();
    devices[1].enable(MSI, &events[1]).unwrap();
    devices[2].enable(MSI, &events[2]).unwrap();
    assert_eq!(devices[0].enable(MSI, &events[0]), Err(EINVAL));
    // What is reserved for one is for all.
    assert_eq!(c.add_window(0x809_f000, 2), Err(EINVAL));
    c.add_window(BASE, 1).unwrap();
    devices[0].enable(MSI, &events[0]).unwrap();
    for (device, event) in devices.iter().zip(&events) {
        device.write(0x60, 1);
        assert!(event.arrived());
    }
    assert_eq!(c.windows(), [(BASE, BASE + PAGE - 1, 1)]);
}

/// The numbers of the proposal's sixth version; edu and msi-test at two ITS.
fn of_2016() {
    let (c, groups) = Container::with(&[1, 2]);
    let events = [(); 2].map(|()| Event::new());
    let (edu, test) = (groups[0].device().unwrap(), groups[1].device().unwrap());
    // PGSIZES and REQUIRE_MSI_MAP, which stands where CAPS is today.
    let mut info = [24_u32, 0, 0, 0, 0, 0];
    c.raw_info(&mut info);
    assert_eq!(info[1], 3);
    assert_eq!(edu.enable(MSI, &events[0]), Err(EINVAL));
    assert_eq!(c.map(WINDOW | 3, 0, BASE, PAGE), Err(EINVAL));
    // Neither READ nor WRITE is both.
    c.map(WINDOW_V6, 0, BASE, PAGE).unwrap();
    edu.enable(MSI, &events[0]).unwrap();
    assert_eq!(test.enable(MSIX, &events[1]), Err(ENOMEM));
    c.map(WINDOW_V6 | 3, 0, BASE + PAGE, PAGE).unwrap();
    test.enable(MSIX, &events[1]).unwrap();
    edu.write(0x60, 1);
    test.write(0x60, 0);
    assert!(events[0].arrived() && events[1].arrived());
    assert_eq!(c.unmap(WINDOW_V6, BASE, PAGE), Err(EBUSY));
    drop((edu, test));
    assert_eq!(c.unmap(WINDOW_V6, BASE, PAGE), Ok(PAGE));
    assert_eq!(c.unmap(WINDOW_V6, BASE + PAGE, PAGE), Ok(PAGE));
}

/// edu and msi-test at one ITS, a window of two pages: writes and reads that are no interrupts.
fn strays() {
    let (c, groups) = Container::with(&[1, 2]);
    let events = [(); 2].map(|()| Event::new());
    let (edu, test) = (groups[0].device().unwrap(), groups[1].device().unwrap());
    c.add_window(0x80_0000, 2).unwrap();
    test.enable(MSIX, &events[1]).unwrap();
    // 1. edu has no interrupt enabled: no vector is its own.
    edu.edu_dma(0x80_0000 + REGISTER, 4, true);
    // 2. Of its own it has one; the number that it writes is of none.
    edu.enable(MSI, &events[0]).unwrap();
    let at = memory(1);
    // SAFETY: our own memory.
    unsafe { std::ptr::write_volatile(at as *mut u32, 0xdead_beef) };
    c.map(3, at, 0x10_0000, PAGE).unwrap();
    edu.edu_dma(0x10_0000, 4, false);
    edu.edu_dma(0x80_0000 + REGISTER, 4, true);
    // 3. Eight bytes are no message. 4. Nor is a read. 5. Nor another register of the page.
    edu.edu_dma(0x80_0000 + REGISTER, 8, true);
    edu.edu_dma(0x80_0000 + REGISTER, 4, false);
    edu.edu_dma(0x80_0000 + 0x80, 4, true);
    // 6. The window's second page has no doorbell.
    edu.edu_dma(0x80_0000 + PAGE + REGISTER, 4, true);
    // 7. A message that was under way as its interrupt was taken down.
    test.write(0x68, 0);
    test.disable(MSIX).unwrap();
    test.write(0x6c, 0);
    // 8. And as the doorbell's last user let go.
    edu.disable(MSI).unwrap();
    test.write(0x6c, 0);
    assert_eq!(test.read(0x64), 2);
    // 9. And the window.
    c.remove_window(0x80_0000, 2).unwrap();
    test.write(0x6c, 0);
    assert_eq!((events[0].count(0), events[1].count(0)), (0, 0));
}

/// edu at the first ITS writes to the doorbell of msi-test, which is at the second, in one domain.
fn other_doorbell() {
    let (c, groups) = Container::with(&[1, 2]);
    let events = [(); 2].map(|()| Event::new());
    let (edu, test) = (groups[0].device().unwrap(), groups[1].device().unwrap());
    c.add_window(0x80_0000, 2).unwrap();
    edu.enable(MSI, &events[0]).unwrap();
    test.enable(MSIX, &events[1]).unwrap();
    edu.edu_dma(0x80_0000 + PAGE + REGISTER, 4, true);
    assert_eq!((events[0].count(100), events[1].count(0)), (0, 0));
    test.write(0x60, 0);
    assert!(events[1].arrived());
}

/// Closes its device when it is asked to; the group's only one.
fn lets_go() {
    let (c, groups) = Container::with(&[1]);
    let (event, request) = (Event::new(), Event::new());
    let device = groups[0].device().unwrap();
    c.add_window(BASE, 1).unwrap();
    device.enable(MSI, &event).unwrap();
    device.enable(REQ, &request).unwrap();
    say("READY");
    assert_eq!(request.count(60_000), 1);
    // It works until it is closed; no other descriptor is given out.
    device.write(0x60, 1);
    assert!(event.arrived());
    assert_eq!(groups[0].device().err(), Some(ENODEV));
    assert_eq!(groups[0].status(), Ok(VIABLE | CONTAINER_SET));
    assert_eq!(c.remove_window(BASE, 1), Err(EBUSY));
    drop(device);
    // The group went with its device; windows with the container's last group.
    assert_eq!(c.remove_window(BASE, 1), Err(EINVAL));
    assert_eq!(groups[0].status(), Err(ENODEV));
    assert_eq!(groups[0].join(&c), Err(ENODEV));
    assert_eq!(groups[0].leave(), Err(EINVAL));
    assert_eq!(groups[0].device().err(), Some(ENODEV));
}

/// Two devices in a group; the first is taken, with no eventfd to ask with.
fn cannot_be_asked() {
    let (c, groups) = Container::with(&[1]);
    let group = &groups[0];
    let events = [(); 2].map(|()| Event::new());
    let first = group.named("0000:01:00.0").unwrap();
    let second = group.named("0000:02:00.0").unwrap();
    c.add_window(BASE, 1).unwrap();
    first.enable(MSI, &events[0]).unwrap();
    second.enable(MSI, &events[1]).unwrap();
    say("READY");
    let start = std::time::Instant::now();
    while group.named("0000:01:00.0").err() != Some(ENODEV) {
        assert!(start.elapsed().as_secs() < 60, "the device is never taken");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    first.write(0x60, 1);
    assert!(events[0].arrived());
    drop(first);
    assert_eq!(group.named("0000:01:00.0").err(), Some(ENODEV));
    // The other goes on, through the same page.
    assert_eq!(group.status(), Ok(VIABLE | CONTAINER_SET));
    second.write(0x60, 1);
    assert!(events[1].arrived());
    assert_eq!(c.windows(), [(BASE, BASE + PAGE - 1, 1)]);
    drop(second);
    assert_eq!(c.remove_window(BASE, 1), Ok(PAGE));
    group.named("0000:02:00.0").unwrap();
}

/// The device of group 1, and what it is asked for with.
fn can_be_asked() -> (Container, Vec<Group>, Event, Device) {
    let (container, groups) = Container::with(&[1]);
    let request = Event::new();
    let device = groups[0].device().unwrap();
    device.enable(REQ, &request).unwrap();
    say("READY");
    (container, groups, request, device)
}

/// Is asked twice.
fn is_slow() {
    let (_container, _groups, request, _device) = can_be_asked();
    assert_eq!(request.count(60_000), 1);
    // Ten seconds are between them.
    assert_eq!(request.count(1_000), 0);
    assert_eq!(request.count(60_000), 1);
}

/// Lets go as soon as it is asked for the second time.
fn lets_go_at_once() {
    let (_container, _groups, request, device) = can_be_asked();
    let mut asked = 0;
    while asked < 2 {
        let more = request.count(60_000);
        assert_ne!(more, 0);
        asked += more;
    }
    drop(device);
}

/// Is killed with its device open.
fn is_killed() {
    let (_container, _groups, request, _device) = can_be_asked();
    assert_eq!(request.count(60_000), 1);
    std::process::abort();
}

/// On a host whose interrupts are not isolated.
fn is_refused() {
    let (c, group) = (Container::open(), Group::open(1));
    group.join(&c).unwrap();
    assert_eq!(c.set_iommu(), Err(libc::EPERM));
}
