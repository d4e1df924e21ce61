//! Lines, whole.

use std::io;
use std::sync::Arc;

use devices::edu::Edu;
use iommu::{FaultReason, MapRefusal, Prot};
use uapi::ioctl;
use vfio::{ContainerId, GroupId, Refusal};

use super::*;
use crate::session::{EmulatedDevice, Session};
use crate::watch::Piece;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn call(request: u32, arg: u64, bytes: &[u8], written: &[(u64, &[u8])]) -> Call {
    let piece = |addr, bytes: &[u8]| Piece { addr, bytes: bytes.to_vec() };
    let written = written.iter().map(|(at, bytes)| piece(arg + at, bytes)).collect();
    Call::Ioctl { request, arg, read: vec![piece(arg, bytes)], written }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn requests_as_strace_shows_them() {
    let edu = EmulatedDevice::new("edu", Box::new(Edu::new()), Edu::bars());
    let ready = Session::new().device(edu).place().unwrap();
    let lines = Lines::default();
    let show = Show::new(Box::new(lines.clone()), ready.placed());
    let container = Target::Container(ContainerId(0));
    let (group, device) = (Target::Group(GroupId(1)), Target::Device(DeviceId(0)));
    let map = words(&[32, 3, 0x1000, 0x7f00, 0x10_0000, 0, 0x1_0000, 0]);
    let full = MapRefusal::NoEntriesLeft { limit: 1 };
    let mut number = 8;
    let mut tell = |target, call, answer: Result<i64, i32>, refusal| {
        number += 1;
        show.request(&Request { number, pid: 1, target, call, answer, refusal });
    };
    tell(container, Call::Open, Ok(0), None);
    tell(container, call(ioctl::VFIO_CHECK_EXTENSION, 3, &[], &[]), Ok(1), None);
    tell(container, call(ioctl::VFIO_IOMMU_MAP_DMA, 0x9000, &map, &[]), Ok(0), None);
    let refused = Some(Refusal::Map(full));
    tell(container, call(ioctl::VFIO_IOMMU_MAP_DMA, 0x9000, &map, &[]), Err(28), refused);
    let unmap = words(&[24, 0, 0x10_0000, 0, 0x20_0001, 0]);
    let size = 0x1_0000_u64.to_le_bytes();
    let unmap = call(ioctl::VFIO_IOMMU_UNMAP_DMA, 0x9000, &unmap, &[(16, &size)]);
    tell(container, unmap, Ok(0), None);
    tell(group, call(ioctl::VFIO_GROUP_GET_DEVICE_FD, 9, b"0000:01:00.0\0", &[]), Ok(7), None);
    let irqs = words(&[28, 0x24, 1, 0, 2, 5, u32::MAX]);
    tell(device, call(ioctl::VFIO_DEVICE_SET_IRQS, 9, &irqs, &[]), Ok(0), None);
    tell(device, call(ioctl::VFIO_DEVICE_GET_INFO, 9, &words(&[24, 0]), &[]), Ok(0), None);
    tell(device, call(0x3bff, 9, &[], &[]), Err(25), None);
    tell(device, Call::Read { offset: 7 << 40, count: 4, data: vec![1, 2, 3, 4] }, Ok(4), None);
    tell(device, Call::Write { offset: 0x10 << 40 | 0x98, data: vec![7; 20] }, Ok(20), None);
    tell(device, Call::Map { offset: 0x10 << 40, len: 4096, shared: true }, Ok(0), None);
    tell(device, Call::Close, Ok(0), None);
    let fault = Fault { iova: 0x5000, access: Prot::READ, reason: FaultReason::NotMapped };
    show.fault(21, DeviceId(0), &fault);
    show.trouble("something happened");
    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    assert_eq!(
        text,
        "     9 container0 open() = 0
    10 container0 CHECK_EXTENSION(VFIO_TYPE1v2_IOMMU) = 1
    11 container0 MAP_DMA(iova=0x100000, size=64K, vaddr=0x7f0000001000, READ|WRITE) = 0
    12 container0 MAP_DMA(iova=0x100000, size=64K, vaddr=0x7f0000001000, READ|WRITE) = -1 ENOSPC \
     (the container already holds its limit of 1 mappings (dma_entry_limit))
    13 container0 UNMAP_DMA(iova=0x100000, size=0x200001 => size=64K) = 0
    14 group1 GET_DEVICE_FD(\"0000:01:00.0\") = 7
    15 0000:01:00.0 SET_IRQS(MSI_IRQ_INDEX, DATA_EVENTFD|ACTION_TRIGGER, start=0, count=2, \
         [5, -1]) = 0
    16 0000:01:00.0 GET_INFO(argsz=24, flags=0x0) = 0
    17 0000:01:00.0 ioctl(0x3bff, 0x9) = -1 ENOTTY
    18 0000:01:00.0 read(CONFIG+0x0, 4) <01020304> = 4
    19 0000:01:00.0 write(BAR0+0x98, 20) <07070707070707070707070707070707...> = 20
    20 0000:01:00.0 mmap(BAR0+0x0, 0x1000, SHARED) = 0
    21 0000:01:00.0 close() = 0
    21 0000:01:00.0 FAULT: read of 0x5000: nothing is mapped there
       something happened
"
    );
}
