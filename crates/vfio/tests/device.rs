//! What a device tells of itself, its regions and its resets, held to the recordings of x86-intel
//! (edge-device-*, edge2-*).

mod common;
#[path = "common/recorded.rs"]
mod recorded;

use common::ARGS;
use iommu::Dialect;
use recorded::{
    CONFIG, EDU, NIC, NVME, ROM, SH1, bytes, hex, ioctl, machine, open, opened, read, write,
};
use softvfio_vfio::FdObject;
use softvfio_vfio::device::Mmio;
use uapi::Errno;
use uapi::ioctl::{
    VFIO_DEVICE_GET_INFO, VFIO_DEVICE_GET_IRQ_INFO, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
    VFIO_DEVICE_GET_REGION_INFO, VFIO_DEVICE_PCI_HOT_RESET, VFIO_DEVICE_RESET,
};

#[test]
fn get_info_is_as_long_as_asked() {
    for (dialect, argsz, written) in [
        (&Dialect::V6_1, 0x13, "130000000200000009000000 05000000 aa"),
        (&Dialect::V6_1, 0x18, "180000000200000009000000 05000000 00000000 aa"),
        (&Dialect::V6_12, 0x13, "130000000200000009000000 05000000 000000 aa"),
        (&Dialect::V7_3, 0x20, "200000000200000009000000 05000000 0000000000000000 aa"),
    ] {
        let mut w = machine(dialect);
        open(&mut w, EDU);
        let info = ioctl(&mut w, EDU, VFIO_DEVICE_GET_INFO, &format!("{argsz:02x}000000 aa"));
        let written = bytes(written);
        assert_eq!(info.unwrap()[..written.len()], written, "{} {argsz}", dialect.name);
        let short = ioctl(&mut w, EDU, VFIO_DEVICE_GET_INFO, "0f000000");
        assert_eq!(short, Err(Errno::EINVAL));
    }
}

#[test]
fn the_bar_with_the_msix_table_says_so() {
    let mut w = opened(NVME);
    let mut info = |argsz: &str| {
        let arg = format!("{argsz} 00000000 00000000 00000000");
        ioctl(&mut w, NVME, VFIO_DEVICE_GET_REGION_INFO, &arg).unwrap()
    };
    let without = "280000000f0000000000000000000000004000000000000000000000000000 00aaaaaaaa";
    assert_eq!(info("20000000")[..36], bytes(without));
    let with = "280000000f0000000000000020000000004000000000000000000000000000000300010000000000aa";
    assert_eq!(info("28000000")[..41], bytes(with));
    let mut w = opened(NIC);
    let rom =
        ioctl(&mut w, NIC, VFIO_DEVICE_GET_REGION_INFO, "20000000 00000000 06000000 77000000");
    let expected = "200000000100000006000000770000000000040000000000000000000006000 0";
    assert_eq!(rom.unwrap()[..32], bytes(expected));
}

#[test]
fn vectors_can_be_added_since_6_12() {
    for (dialect, flags) in [(&Dialect::V6_1, 9), (&Dialect::V6_12, 1)] {
        let mut w = machine(dialect);
        open(&mut w, NVME);
        let info = ioctl(&mut w, NVME, VFIO_DEVICE_GET_IRQ_INFO, "10000000 00000000 02000000 00");
        assert_eq!(info.unwrap()[4..16], [flags, 0, 0, 0, 2, 0, 0, 0, 65, 0, 0, 0]);
    }
}

#[test]
fn the_users_configuration_space() {
    let mut w = opened(NIC);
    let header = read(&mut w, NIC, CONFIG, 8).unwrap();
    assert_eq!(header, bytes("8680d31003011000"));
    // BARs answer sizing; ids do not change; the command register has the function's bits.
    for (at, written, read_back) in [
        (0x10, "ffffffff", "0000feff"),
        (0x18, "ffffffff", "e1ffffff"),
        (0x20, "ffffffff", "00000000"),
        (0x30, "ffffffff", "0100fcff"),
        (0x00, "ffffffff", "8680d310"),
        (0x04, "ffff", "0705"),
        (0x3c, "42", "42"),
        // MSI-X is read-only; MSI cannot be enabled here.
        (0xa2, "00c0", "0400"),
        (0xd2, "ffff", "8e00"),
        // The power state is set by the kernel, PME is hidden, the data selector is the user's.
        (0xcc, "fcff", "001e"),
    ] {
        let (written, read_back) = (bytes(written), bytes(read_back));
        write(&mut w, NIC, CONFIG + at, &written).unwrap();
        assert_eq!(read(&mut w, NIC, CONFIG + at, read_back.len()), Ok(read_back), "{at:#x}");
    }
    assert_eq!(read(&mut w, NIC, CONFIG + 4094, 4), Err(Errno::EFAULT));
    assert_eq!(read(&mut w, NIC, CONFIG + 4092, 4), Ok(vec![0; 4]));
}

#[test]
fn d3_turns_memory_off() {
    let mut w = opened(NIC);
    write(&mut w, NIC, CONFIG + 4, &[6, 0]).unwrap();
    write(&mut w, NIC, CONFIG + 0xcc, &[3, 0]).unwrap();
    assert_eq!(read(&mut w, NIC, CONFIG + 0xcc, 2), Ok(vec![3, 0]));
    assert_eq!(read(&mut w, NIC, 0, 4), Err(Errno::EIO));
    let mut data = [0; 4];
    let load = w.device(NIC, |d, up| d.mmio(up, 0, 0, Mmio::Read(&mut data)));
    assert!(load.is_err());
    // Behind the BAR's end too (found by fuzzing).
    let load = w.device(NIC, |d, up| d.mmio(up, 0, 1 << 20, Mmio::Read(&mut data)));
    assert!(load.is_err());
    write(&mut w, NIC, CONFIG + 0xcc, &[0, 0]).unwrap();
    assert_eq!(read(&mut w, NIC, 0, 4), Ok(bytes("41021418")));
    // D1, which the function does not have, is ignored.
    write(&mut w, NIC, CONFIG + 0xcc, &[1, 0]).unwrap();
    assert_eq!(read(&mut w, NIC, CONFIG + 0xcc, 2), Ok(vec![0, 0]));
}

#[test]
fn regions_end_where_they_end() {
    let mut w = opened(NIC);
    for (at, len, answer) in [
        (0x1_fffc, 8, Ok(4)),
        (0x2_0000, 4, Err(Errno::EINVAL)),
        (0x2_0000, 0, Ok(0)),
        ((2 << 40) + 0x1e, 4, Ok(2)),
        (4 << 40, 4, Err(Errno::EINVAL)),
        (ROM + 0x3_fffc, 8, Ok(4)),
        (8 << 40, 4, Err(Errno::EINVAL)),
        (9 << 40, 4, Err(Errno::EINVAL)),
        (u64::MAX - 3, 4, Err(Errno::EINVAL)),
    ] {
        assert_eq!(read(&mut w, NIC, at, len).map(|d| d.len()), answer, "{at:#x}");
    }
    assert_eq!(read(&mut w, NIC, ROM, 6), Ok(bytes("55aa93e9ffff")));
    assert_eq!(write(&mut w, NIC, ROM, &[0]), Err(Errno::EINVAL));
    // Ports that do not decode read as ones; memory that does not is an error, as is the ROM; the
    // MSI-X table is ones anyway.
    write(&mut w, NIC, CONFIG + 4, &[0, 0]).unwrap();
    assert_eq!(read(&mut w, NIC, 2 << 40, 4), Ok(vec![0xff; 4]));
    assert_eq!(read(&mut w, NIC, 0, 4), Err(Errno::EIO));
    assert_eq!(read(&mut w, NIC, ROM, 4), Err(Errno::ENOMEM));
    assert_eq!(read(&mut w, NIC, 3 << 40, 4), Ok(vec![0xff; 4]));
}

#[test]
fn reads_are_as_wide_as_the_kernel_has_them() {
    // QEMU's edu answers ones to 8 bytes of its narrow registers.
    for (dialect, data) in
        [(&Dialect::V6_1, "ed00000100000000"), (&Dialect::V6_12, "ffffffffffffffff")]
    {
        let mut w = machine(dialect);
        open(&mut w, EDU);
        assert_eq!(read(&mut w, EDU, 0, 8), Ok(bytes(data)));
    }
    let mut w = opened(EDU);
    assert_eq!(read(&mut w, EDU, 1, 8), Ok(bytes("0000000000000000")));
}

#[test]
fn the_msix_table_is_there_for_mappings_only() {
    let mut w = opened(NVME);
    let mut store = |data: &[u8]| {
        w.device(NVME, |d, up| d.mmio(up, 0, 0x2000, Mmio::Write(data))).unwrap();
    };
    store(&[1, 2, 3, 4]);
    let mut data = [0; 4];
    w.device(NVME, |d, up| d.mmio(up, 0, 0x2000, Mmio::Read(&mut data))).unwrap();
    assert_eq!(data, [1, 2, 3, 4]);
    assert_eq!(read(&mut w, NVME, 0x2000, 4), Ok(vec![0xff; 4]));
    write(&mut w, NVME, 0x2000, &[9; 4]).unwrap();
    w.device(NVME, |d, up| d.mmio(up, 0, 0x2000, Mmio::Read(&mut data))).unwrap();
    assert_eq!(data, [1, 2, 3, 4]);
}

#[test]
fn what_can_be_mapped() {
    let mut w = opened(NIC);
    let mut mmap = |offset, len, shared| {
        let answer = w.device(NIC, |d, _| d.mmap(offset, len, shared));
        answer.map(|m| (m.bar, m.range)).map_err(|r| r.errno(&Dialect::V6_12))
    };
    assert_eq!(mmap(0x1000, 0x1_f000, true), Ok((0, 0x1000..0x2_0000)));
    assert_eq!(mmap(3 << 40, 0x4000, true), Ok((3, 0..0x4000)));
    for (offset, len, shared) in [
        (0, 0x1000, false),
        (0x1000, 0x2_0000, true),
        (2 << 40, 0x1000, true),
        (4 << 40, 0x1000, true),
        (ROM, 0x1000, true),
        (CONFIG, 0x1000, true),
        (0, u64::MAX, true),
    ] {
        assert_eq!(mmap(offset, len, shared), Err(Errno::EINVAL), "{offset:#x} {len:#x}");
    }
}

#[test]
fn bar_0_may_begin_elsewhere() {
    let mut w = opened(EDU);
    w.devices.get_mut(EDU).unwrap().set_bar0_base(0x10 << 40);
    assert_eq!(read(&mut w, EDU, 0x10 << 40, 4), Ok(bytes("ed000001")));
    assert_eq!(read(&mut w, EDU, 0, 4), Err(Errno::EINVAL));
    let info =
        ioctl(&mut w, EDU, VFIO_DEVICE_GET_REGION_INFO, "20000000 00000000 00000000 00000000");
    assert_eq!(info.unwrap()[24..32], (0x10_u64 << 40).to_ne_bytes());
}

#[test]
fn resets() {
    for (device, answer) in [(EDU, Err(Errno::EINVAL)), (NIC, Ok(())), (SH1, Err(Errno::EINVAL))] {
        let mut w = opened(device);
        write(&mut w, device, CONFIG + 4, &[6, 0]).unwrap();
        write(&mut w, device, CONFIG + 0x10, &[0xff; 4]).unwrap();
        let sized = read(&mut w, device, CONFIG + 0x10, 4);
        let reset = ioctl(&mut w, device, VFIO_DEVICE_RESET, "");
        assert_eq!(reset.map(|_| ()), answer);
        assert_eq!(read(&mut w, device, CONFIG + 4, 2), Ok(vec![6, 0]));
        assert_eq!(read(&mut w, device, CONFIG + 0x10, 4), sized);
    }
}

#[test]
fn hot_reset_takes_the_bus() {
    let info = VFIO_DEVICE_GET_PCI_HOT_RESET_INFO;
    let mut w = opened(SH1);
    assert_eq!(ioctl(&mut w, SH1, info, "0c0000000000000000000000"), Err(Errno::ENOSPC));
    assert_eq!(w.client.args[..16], bytes("0c000000000000000300000 0aaaaaaaa"));
    let all = "240000000000000003000000080000000000030808000000000003100800000000000318aaaa";
    assert_eq!(ioctl(&mut w, SH1, info, "24000000").unwrap()[..38], bytes(all));
    let group = |fd: i32| format!("10000000 00000000 01000000 {}", hex(&fd.to_ne_bytes()));
    w.client.fds.insert(70, FdObject::Other);
    for (arg, answer) in [
        (group(60), Ok(())),
        (group(70), Err(Errno::EINVAL)),
        (group(71), Err(Errno::EBADF)),
        ("10000000 00000000 00000000".into(), Err(Errno::EINVAL)),
        ("10000000 00000000 04000000".into(), Err(Errno::EINVAL)),
        ("0b000000 00000000 00000000".into(), Err(Errno::EINVAL)),
    ] {
        let reset = ioctl(&mut w, SH1, VFIO_DEVICE_PCI_HOT_RESET, &arg);
        assert_eq!(reset.map(|_| ()), answer, "{arg}");
    }
    for (dialect, answer, header) in
        [(&Dialect::V6_1, Errno::ENODEV, [0, 1]), (&Dialect::V6_12, Errno::EINVAL, [7, 9])]
    {
        // Memory ends with the header.
        let mut w = machine(dialect);
        open(&mut w, NVME);
        let at = w.client.args.len() - 12;
        w.client.args[at..].copy_from_slice(&bytes("140000000700000009000000"));
        let told = w.with(|s, ctx| s.device_ioctl(NVME, ctx, info, ARGS + at as u64));
        assert_eq!(w.errno(told), Err(Errno::EFAULT));
        assert_eq!([w.client.args[at + 4], w.client.args[at + 8]], header);

        let mut w = machine(dialect);
        open(&mut w, EDU);
        let reset = ioctl(&mut w, EDU, VFIO_DEVICE_PCI_HOT_RESET, "0c0000000000000000000000");
        assert_eq!(reset, Err(answer));
        assert_eq!(ioctl(&mut w, EDU, info, "0c000000"), Err(Errno::ENODEV));
    }
}
