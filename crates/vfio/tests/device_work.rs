//! What a device does: features, eventfd writes, DMA, messages; held to the recordings of x86-intel.

mod common;
#[path = "common/recorded.rs"]
mod recorded;

use common::{BUF, World};
use iommu::Dialect;
use recorded::{
    CONFIG, EDU, NIC, NVME, SH1, bytes, hex, ioctl, machine, open, opened, read, write,
};
use softvfio_vfio::{DeviceId, EventId, FdObject};
use uapi::Errno;
use uapi::ioctl::{
    VFIO_DEVICE_FEATURE, VFIO_DEVICE_GET_INFO, VFIO_DEVICE_IOEVENTFD, VFIO_DEVICE_SET_IRQS,
    VFIO_GROUP_GET_DEVICE_FD, VFIO_IOMMU_MAP_DMA,
};

#[test]
fn features_in_their_order() {
    let ask = |w: &mut World, arg: &str| ioctl(w, EDU, VFIO_DEVICE_FEATURE, arg).map(|_| ());
    let mut w = opened(EDU);
    for (arg, answer) in [
        ("0800000000000500", Err(Errno::ENOTTY)),
        ("0800000003000500", Err(Errno::EINVAL)),
        ("0800000003000600", Ok(())),
        ("0800000003000400", Ok(())),
        ("0800000003000000", Err(Errno::EINVAL)),
        ("080000000b000500", Err(Errno::ENOTTY)),
        ("0400000000000400", Err(Errno::EINVAL)),
        ("0800000000000300", Err(Errno::EINVAL)),
        ("0800000000000800", Err(Errno::EINVAL)),
        // Low power: entered once, ended any number of times.
        ("0800000005000200", Ok(())),
        ("0800000003000200", Ok(())),
        ("0800000003000200", Err(Errno::EINVAL)),
        ("0800000005000200", Ok(())),
        ("0c000000040002000000000000000000", Err(Errno::EINVAL)),
    ] {
        assert_eq!(ask(&mut w, arg), answer, "{arg}");
    }
    let mut w = machine(&Dialect::V7_3);
    open(&mut w, EDU);
    assert_eq!(ask(&mut w, "080000000b000500"), Ok(()));
    assert_eq!(ask(&mut w, "080000000c000400"), Err(Errno::EINVAL));
}

#[test]
fn the_next_access_wakes_and_signals() {
    let mut w = opened(EDU);
    w.client.fds.insert(80, FdObject::Other);
    let enter = format!("1000000004000200{}00000000", hex(&80_i32.to_ne_bytes()));
    ioctl(&mut w, EDU, VFIO_DEVICE_FEATURE, &enter).unwrap();
    assert_eq!(w.client.signals.get(&EventId(80)), None);
    read(&mut w, EDU, 0, 4).unwrap();
    read(&mut w, EDU, 0, 4).unwrap();
    assert_eq!(w.client.signals.get(&EventId(80)), Some(&1));
}

#[test]
fn an_eventfd_writes_a_register() {
    let mut w = opened(EDU);
    w.client.fds.insert(80, FdObject::Other);
    let ask = |w: &mut World, flags: u8, at: u64, fd: i32| {
        let (at, fd) = (hex(&at.to_ne_bytes()), hex(&fd.to_ne_bytes()));
        let arg = format!("20000000 {flags:02x}000000 {at} 0500000000000000 {fd} 00000000");
        ioctl(w, EDU, VFIO_DEVICE_IOEVENTFD, &arg).map(|_| ())
    };
    assert_eq!(ask(&mut w, 4, 0x60, -1), Err(Errno::ENODEV));
    assert_eq!(ask(&mut w, 4, 0x60, 80), Ok(()));
    assert_eq!(ask(&mut w, 4, 0x60, 80), Err(Errno::EEXIST));
    for (flags, at, fd, answer) in [
        (3, 0x60, 80, Errno::EINVAL),
        (4, 0x60, -2, Errno::EINVAL),
        (8, 0xf_fffc, 80, Errno::EINVAL),
        (4, CONFIG, 80, Errno::EINVAL),
        (4, 0x64, 81, Errno::EBADF),
    ] {
        assert_eq!(ask(&mut w, flags, at, fd), Err(answer));
    }
    w.device(EDU, |d, up| {
        d.event_fired(up, EventId(80));
        Ok(())
    })
    .unwrap();
    assert_eq!(read(&mut w, EDU, 0x24, 4), Ok(vec![5, 0, 0, 0]));
    // Two registers on one eventfd: the kernel writes both before it takes an interrupt.
    w.client.fds.insert(81, FdObject::Other);
    let events = hex(&81_i32.to_ne_bytes());
    let enable = format!("18000000 24000000 01000000 00000000 01000000 {events}");
    ioctl(&mut w, EDU, VFIO_DEVICE_SET_IRQS, &enable).unwrap();
    write(&mut w, EDU, CONFIG + 4, &[6, 0]).unwrap();
    assert_eq!(ask(&mut w, 8, 0x60, 80), Ok(()));
    assert_eq!(ask(&mut w, 4, 0x61, 80), Ok(()));
    assert_eq!(ask(&mut w, 2, 0x60, 80), Ok(()));
    w.device(EDU, |d, up| {
        d.event_fired(up, EventId(80));
        Ok(())
    })
    .unwrap();
    assert_eq!(w.client.signals.get(&EventId(81)), Some(&1));
    assert_eq!(ask(&mut w, 4, 0x60, -1), Ok(()));
}

#[test]
fn eventfds_that_wait_together_are_woken_newest_first() {
    let mut w = opened(EDU);
    w.client.fds.extend([(80, FdObject::Other), (81, FdObject::Other)]);
    let ask = |w: &mut World, data: u8, fd: i32| {
        let fd = hex(&fd.to_ne_bytes());
        let arg = format!("20000000 04000000 0400000000000000 {data:02x}00000000000000 {fd} 00");
        ioctl(w, EDU, VFIO_DEVICE_IOEVENTFD, &arg).map(|_| ())
    };
    // The register reads as the complement of what is written.
    let liveness = |w: &mut World| read(w, EDU, 4, 4).unwrap()[0];
    ask(&mut w, 1, 80).unwrap();
    ask(&mut w, 2, 80).unwrap();
    w.device(EDU, |d, up| {
        d.event_fired(up, EventId(80));
        Ok(())
    })
    .unwrap();
    assert_eq!(liveness(&mut w), !1);
    // Signalled before: the new write happens at once, alone; leaving reads the counter.
    w.client.pending.insert(EventId(80));
    ask(&mut w, 3, 80).unwrap();
    assert_eq!(liveness(&mut w), !3);
    assert!(w.client.pending.contains(&EventId(80)));
    for data in [3, 1, 2] {
        ask(&mut w, data, -1).unwrap();
    }
    assert!(w.client.pending.is_empty());
    // As many as a device may have: what exists is looked for first, the descriptor last.
    for data in 0..1000_u16 {
        let data = hex(&data.to_ne_bytes());
        let arg = format!("20000000 04000000 0800000000000000 {data} 000000000000 51000000 00");
        ioctl(&mut w, EDU, VFIO_DEVICE_IOEVENTFD, &arg).unwrap();
    }
    assert_eq!(ask(&mut w, 1, 81), Err(Errno::ENOSPC));
    assert_eq!(ask(&mut w, 1, 99), Err(Errno::ENOSPC));
    assert_eq!(ask(&mut w, 1, -1), Err(Errno::ENODEV));
}

#[test]
fn an_unmask_eventfd_that_is_closed_makes_room() {
    let mut w = opened(EDU);
    w.client.fds.extend((80..83).map(|fd| (fd, FdObject::Other)));
    let irq = |w: &mut World, action: u8, fd: u8| {
        let arg = format!("18000000 {action:02x}000000 00000000 00000000 01000000 {fd:02x}000000");
        ioctl(w, EDU, VFIO_DEVICE_SET_IRQS, &arg).map(|_| ())
    };
    irq(&mut w, 0x24, 80).unwrap();
    irq(&mut w, 0x14, 81).unwrap();
    assert_eq!(irq(&mut w, 0x14, 82), Err(Errno::EBUSY));
    assert_eq!(w.devices.watching(EventId(81)), [EDU]);
    for closed in [80, 81] {
        w.device(EDU, |d, up| {
            d.event_closed(up.platform, EventId(closed));
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(w.devices.watching(EventId(81)), []);
    assert_eq!(irq(&mut w, 0x14, 82), Ok(()));
}

#[test]
fn dma_is_translated_page_by_page() {
    let mut w = opened(EDU);
    let container = softvfio_vfio::ContainerId(0);
    let mut map = |iova: u64, at: u64| {
        let fields = [BUF + at, iova, 0x1000].map(|v: u64| hex(&v.to_ne_bytes())).concat();
        let arg = bytes(&format!("20000000 03000000 {fields}"));
        w.container_with(container, VFIO_IOMMU_MAP_DMA, &arg).unwrap();
    };
    map(0x10_0000, 0);
    map(0x10_2000, 0x8000);
    w.client.buf[0xff8..0x1000].fill(0x11);
    w.client.buf[0x8000..0x8008].fill(0x22);
    let dma = |w: &mut World, command: u8, at: u64, count: u64| {
        let (source, target) = if command == 1 { (at, 0x4_0000) } else { (0x4_0000, at) };
        for (register, value) in [(0x80, source), (0x88, target), (0x90, count)] {
            write(w, EDU, register, &value.to_le_bytes()).unwrap();
        }
        write(w, EDU, 0x98, &[command, 0, 0, 0]).unwrap();
    };
    // Without bus mastering nothing moves.
    dma(&mut w, 1, 0x10_0ff8, 0x10);
    write(&mut w, EDU, CONFIG + 4, &[6, 0]).unwrap();
    dma(&mut w, 3, 0x10_2100, 8);
    assert_eq!(w.client.buf[0x8100..0x8108], [0; 8]);
    // 8 bytes, a page of nothing, 8 bytes: what is mapped moves, the rest reads as zeros.
    w.client.buf[0x8100..0x8108].fill(0x77);
    dma(&mut w, 1, 0x10_0ff8, 0x1000);
    dma(&mut w, 3, 0x10_2100, 0x10);
    assert_eq!(w.client.buf[0x8100..0x8110], bytes("11111111111111110000000000000000"));
    dma(&mut w, 1, 0x10_1ff8, 0x10);
    dma(&mut w, 3, 0x10_2100, 0x10);
    assert_eq!(w.client.buf[0x8100..0x8110], bytes("00000000000000002222222222222222"));
}

#[test]
fn an_msi_goes_all_the_way() {
    let mut w = opened(EDU);
    w.client.fds.insert(80, FdObject::Other);
    let enable =
        format!("18000000 24000000 01000000 00000000 01000000 {}", hex(&80_i32.to_ne_bytes()));
    ioctl(&mut w, EDU, VFIO_DEVICE_SET_IRQS, &enable).unwrap();
    write(&mut w, EDU, 0x60, &[1, 0, 0, 0]).unwrap();
    assert_eq!(w.client.signals.get(&EventId(80)), None, "bus mastering is off");
    write(&mut w, EDU, CONFIG + 4, &[6, 0]).unwrap();
    write(&mut w, EDU, 0x60, &[1, 0, 0, 0]).unwrap();
    assert_eq!(w.client.signals.get(&EventId(80)), Some(&1));
    // While MSI is enabled the user's own enable bit counts.
    write(&mut w, EDU, CONFIG + 0x42, &[0x80, 0]).unwrap();
    write(&mut w, EDU, 0x60, &[1, 0, 0, 0]).unwrap();
    assert_eq!(w.client.signals.get(&EventId(80)), Some(&1));
}

#[test]
fn the_last_close_leaves_the_function_as_it_was() {
    let mut w = opened(NIC);
    write(&mut w, NIC, CONFIG + 4, &[6, 0]).unwrap();
    write(&mut w, NIC, CONFIG + 0xcc, &[3, 0]).unwrap();
    w.with(|s, ctx| s.close_device(NIC, ctx));
    assert_eq!(read(&mut w, NIC, CONFIG, 4), Err(Errno::ENODEV));
    let name = b"0000:00:05.0\0";
    w.group_with(softvfio_vfio::GroupId(3), uapi::ioctl::VFIO_GROUP_GET_DEVICE_FD, name).unwrap();
    assert_eq!(read(&mut w, NIC, CONFIG + 4, 2), Ok(vec![3, 1]));
    assert_eq!(read(&mut w, NIC, CONFIG + 0xcc, 2), Ok(vec![0, 0]));
}

/// Nothing a client sends may panic or overflow: tests are built with overflow checks.
#[test]
fn closing_once_more_than_opened_leaves_the_others_open() {
    let mut w = opened(SH1);
    let group = w.system.function(SH1).unwrap().group;
    w.group_with(group, VFIO_GROUP_GET_DEVICE_FD, b"0000:03:02.0\0").unwrap();
    for _ in 0..2 {
        w.with(|s, ctx| s.close_device(SH1, ctx));
    }
    w.with(|s, ctx| s.close_group(group, ctx));
    assert!(w.system.container_of(group).is_some());
    w.with(|s, ctx| s.close_device(DeviceId(SH1.0 + 1), ctx));
    assert_eq!(w.system.container_of(group), None);
}

#[test]
fn any_request_is_answered() {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for device in [EDU, NIC, NVME, SH1] {
        let mut w = opened(device);
        w.client.fds.insert(80, FdObject::Other);
        for _ in 0..4000 {
            let region = [next() % 12, 7, 7, 0][(next() % 4) as usize];
            let offset = [next(), next() % 0x110, next() % 0x1100][(next() % 3) as usize];
            let at = (region << 40).wrapping_add(offset);
            let len = [1, 2, 3, 4, 8, 17, 300][(next() % 7) as usize];
            match next() % 4 {
                0 => _ = read(&mut w, device, at, len),
                1 => {
                    let data: Vec<u8> = (0..len).map(|_| next() as u8).collect();
                    _ = write(&mut w, device, at, &data);
                }
                2 => _ = w.device(device, |d, _| d.mmap(at, len as u64, true)),
                _ => {
                    let mut arg = [next() % 64, next(), next() % 8, next() % 3, next() % 100]
                        .map(|v| (v as u32).to_ne_bytes())
                        .concat();
                    arg.extend(at.to_ne_bytes());
                    arg.extend(80_u32.to_ne_bytes());
                    let request = VFIO_DEVICE_GET_INFO + (next() % 12) as u32;
                    _ = ioctl(&mut w, device, request, &hex(&arg));
                }
            }
        }
    }
}
