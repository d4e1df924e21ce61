//! Sessions as a reporter is told of them, and what it finds.

mod golden;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use devices::edu::Edu;
use iommu::{
    BindRefusal, Consumer, Event, Fault, FaultReason, IovaRange, MapRefusal, MmId, Prot, Window,
};
use uapi::ioctl;
use vfio::device::{DeviceRefusal, IrqRefusal};
use vfio::{ContainerId, DeviceId, GroupId, Refusal};

use super::{Report, Reporter, Severity};
use crate::session::{EmulatedDevice, Session};
use crate::watch::{Call, Piece, Request, Target, Watch};

const C: ContainerId = ContainerId(0);
const D: DeviceId = DeviceId(0);
const ARG: u64 = 0x7000;

/// A session with one device, in a container.
struct Told {
    reporter: Reporter,
    number: u64,
    pid: i32,
}

impl Told {
    fn new() -> Self {
        let edu = EmulatedDevice::new("edu", Box::new(Edu::new()), Edu::bars());
        let ready = Session::new().device(edu).place().unwrap();
        let reporter = Reporter::new(ready.placed());
        reporter.joined(1, GroupId(1), Some(C));
        Self { reporter, number: 1, pid: std::process::id().cast_signed() }
    }

    fn tell(&self, target: Target, call: Call, answer: Result<i64, i32>, refusal: Option<Refusal>) {
        let (number, pid) = (self.number, self.pid);
        self.reporter.request(&Request { number, pid, target, call, answer, refusal });
    }

    fn ioctl(&self, target: Target, request: u32, read: &[u8], written: Option<u64>) {
        self.tell(target, call(request, read, written), Ok(0), None);
    }

    fn change(&mut self, event: Event) {
        self.number += 1;
        self.reporter.change(self.number, Some(C), &event);
    }

    fn map(&mut self, first: u64, last: u64, vaddr: u64) {
        let (range, prot) = (range(first, last), Prot::READ);
        self.change(Event::Mapped { range, vaddr, mm: MmId(0), prot });
        let arg = map_arg(vaddr, range);
        self.ioctl(Target::Container(C), ioctl::VFIO_IOMMU_MAP_DMA, &arg, None);
    }

    fn map_refused(&mut self, first: u64, last: u64, vaddr: u64) {
        self.number += 1;
        let wanted = range(first, last);
        let call = call(ioctl::VFIO_IOMMU_MAP_DMA, &map_arg(vaddr, wanted), None);
        let refusal =
            Refusal::Map(MapRefusal::Overlaps { existing: wanted, nearest: Default::default() });
        self.tell(Target::Container(C), call, Err(17), Some(refusal));
    }

    fn unmap(&mut self, first: u64, last: u64, removed: bool) {
        let range = range(first, last);
        if removed {
            self.change(Event::Unmapped { range });
        } else {
            self.number += 1;
        }
        let arg = [words(&[24, 0]), longs(&[range.first(), range.size()])].concat();
        let size = if removed { range.size() } else { 0 };
        self.ioctl(Target::Container(C), ioctl::VFIO_IOMMU_UNMAP_DMA, &arg, Some(size));
    }

    fn irqs(&mut self, flags: u32, count: u32) {
        self.number += 1;
        let arg = words(&[24, flags, 1, 0, count, 5]);
        self.ioctl(Target::Device(D), ioctl::VFIO_DEVICE_SET_IRQS, &arg, None);
    }

    fn fault(&self, iova: u64, access: Prot, reason: FaultReason) {
        self.reporter.fault(self.number, D, &Fault { iova, access, reason });
    }

    fn moved(&self, iova: u64) {
        self.reporter.moved(D, iova, Prot::WRITE, 16);
    }

    fn close(&mut self, target: Target) {
        self.tell(target, Call::Close, Ok(0), None);
        self.number += 1;
    }

    fn report(&self) -> Report {
        self.reporter.report(ExitStatus::from_raw(0), Vec::new())
    }

    /// The findings, as a name and two sentences each.
    fn found(&self) -> Vec<String> {
        let text = |f: &super::Finding| format!("{}: {f}. {}", f.problem.name(), f.legal());
        self.report().findings.iter().map(text).collect()
    }
}

fn call(request: u32, read: &[u8], written: Option<u64>) -> Call {
    let piece = |addr, bytes: &[u8]| Piece { addr, bytes: bytes.to_vec() };
    let written = written.map(|size| piece(ARG + 16, &size.to_le_bytes()));
    let (read, written) = (vec![piece(ARG, read)], written.into_iter().collect());
    Call::Ioctl { request, arg: ARG, read, written }
}

fn range(first: u64, last: u64) -> IovaRange {
    IovaRange::new(first, last).unwrap()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_le_bytes()).collect()
}

fn map_arg(vaddr: u64, range: IovaRange) -> Vec<u8> {
    [words(&[32, 3]), longs(&[vaddr, range.first(), range.size()])].concat()
}

#[test]
fn a_correct_program_has_no_findings() {
    let mut told = Told::new();
    told.map(0x1000, 0x1fff, 0x70_0000);
    told.irqs(0x24, 1);
    told.moved(0x1000);
    // An unmap that finds nothing, a mapping that exists already with the same memory.
    told.unmap(0x8000, 0x8fff, false);
    told.map_refused(0x1000, 0x1fff, 0x70_0000);
    told.moved(0x1800);
    // Some are left to the container's end, which the program brings about.
    told.close(Target::Container(C));
    told.change(Event::Unmapped { range: range(0x1000, 0x1fff) });
    told.close(Target::Device(D));
    let report = told.report();
    assert_eq!(report.findings, []);
    assert_eq!((report.requests, report.refused), (4, 1));
    assert_eq!((report.peak.mappings, report.peak.mapped, report.peak.locked), (1, 4096, 4096));
    assert_eq!((report.devices[0].written, report.devices[0].read), (32, 0));
    assert!(!report.has_bugs() && report.worst().is_none());
}

#[test]
fn never_mapped_with_its_neighbours_counted() {
    let mut told = Told::new();
    told.fault(0x5000, Prot::READ, FaultReason::NotMapped);
    told.map(0x1000, 0x1fff, 0x70_0000);
    told.map(0x9000, 0x9fff, 0x70_1000);
    told.fault(0x5000, Prot::WRITE, FaultReason::NotMapped);
    told.fault(0x6000, Prot::WRITE, FaultReason::NotMapped);
    assert_eq!(
        told.found(),
        [
            "never-mapped: 0000:01:00.0 read 0x5000, which was never mapped. nothing: the \
             container has no mapping at that time",
            "never-mapped: 0000:01:00.0 wrote 0x5000, which was never mapped (2 times). the \
             nearest mappings are 0x1000..=0x1fff (request 2) and 0x9000..=0x9fff (request 3)",
        ]
    );
    assert_eq!(told.report().findings[1].request, 3);
    assert_eq!(told.report().worst(), Some(Severity::Error));
}

#[test]
fn unmapped_earlier_and_by_whom() {
    let mut told = Told::new();
    told.map(0x1000, 0x2fff, 0x70_0000);
    told.unmap(0x1000, 0x2fff, true);
    told.fault(0x2000, Prot::READ, FaultReason::NotMapped);
    assert_eq!(
        told.found(),
        [
            "unmapped-earlier: 0000:01:00.0 read 0x2000, of 0x1000..=0x2fff (request 2), which request \
          3 had unmapped. 0x1000..=0x2fff before request 3"
        ]
    );
}

#[test]
fn the_last_answer_is_the_cause() {
    let mut told = Told::new();
    told.map(0x1000, 0x1fff, 0x70_0000);
    told.unmap(0x1000, 0x1fff, true);
    told.map_refused(0x1000, 0x2fff, 0x70_0000);
    told.fault(0x1000, Prot::READ, FaultReason::NotMapped);
    let found = told.found();
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with(
        "map-refused: 0000:01:00.0 read 0x1000, whose mapping 0x1000..=0x2fff (request 4) was \
         refused: EEXIST, "
    ));
}

#[test]
fn against_permission_and_memory_that_was_freed() {
    let mut told = Told::new();
    told.map(0x1000, 0x1fff, 0x70_0000);
    told.fault(0x1010, Prot::WRITE, FaultReason::NotPermitted { prot: Prot::READ });
    told.fault(0x1020, Prot::READ, FaultReason::MemoryGone);
    assert_eq!(
        told.found(),
        [
            "not-permitted: 0000:01:00.0 wrote 0x1010 of 0x1000..=0x1fff (request 2), which is \
             read-only. to ask for WRITE in request 2",
            "memory-gone: 0000:01:00.0 read 0x1020 of 0x1000..=0x1fff (request 2), whose memory at \
             0x700020 the program has freed. to unmap the IOVA before the memory is freed",
        ]
    );
    // A device that is still at work as its process ends is no bug of anybody's.
    let mut told = Told::new();
    told.pid = i32::MAX;
    told.map(0x1000, 0x1fff, 0x70_0000);
    told.fault(0x1020, Prot::READ, FaultReason::MemoryGone);
    assert_eq!(told.report().worst(), Some(Severity::Note));
    assert!(!told.report().has_bugs());
}

#[test]
fn a_mapping_that_exists_is_another() {
    let mut told = Told::new();
    told.map(0x1000, 0x1fff, 0x70_0000);
    told.map_refused(0x1000, 0x1fff, 0x90_0000);
    told.moved(0x1000);
    told.moved(0x1010);
    let found = told.found();
    assert_eq!(found.len(), 1);
    assert!(
        found[0]
            .starts_with("other-mapping: 0000:01:00.0 wrote 0x1000: 0x1000..=0x1fff (request 2)")
            && found[0].contains("(request 3), which was refused: EEXIST")
            && found[0].contains("(2 times)"),
        "{found:?}"
    );
    // After it was put right there is nothing more to say.
    told.unmap(0x1000, 0x1fff, true);
    told.map(0x1000, 0x1fff, 0x90_0000);
    told.moved(0x1000);
    assert_eq!(told.report().findings[0].times, 2);
}

#[test]
fn an_unmap_that_removed_nothing() {
    let mut told = Told::new();
    told.map(0x1000, 0x3fff, 0x70_0000);
    told.unmap(0x2000, 0x2fff, false);
    told.moved(0x1000);
    assert_eq!(told.found(), [""; 0]);
    told.moved(0x2000);
    told.map_refused(0x2000, 0x2fff, 0x71_0000);
    assert_eq!(
        told.found(),
        [
            "unmap-fell-short: request 3 unmapped 0x0 of 0x1000 bytes at 0x2000 and left \
             0x1000..=0x3fff (request 2), which 0000:01:00.0 wrote at 0x2000. to unmap \
             0x1000..=0x3fff (request 2) as a whole, and to look at the size that comes back",
            "unmap-fell-short: request 3 unmapped 0x0 of 0x1000 bytes at 0x2000 and left \
             0x1000..=0x3fff (request 2), for which request 4 was refused. to unmap \
             0x1000..=0x3fff (request 2) as a whole, and to look at the size that comes back",
        ]
    );
}

#[test]
fn interrupts_and_windows() {
    let mut told = Told::new();
    told.number += 1;
    let none = BindRefusal::NoWindow { group: 1, needed: 1 };
    let refusal = Refusal::Device(DeviceRefusal::Irq(IrqRefusal::Doorbell(none)));
    let call = call(ioctl::VFIO_DEVICE_SET_IRQS, &[], None);
    told.tell(Target::Device(D), call, Err(22), Some(refusal));
    let window =
        Window { range: range(0x10_0000, 0x10_0fff), prot: Prot::WRITE, consumer: Consumer(0) };
    told.change(Event::WindowAdded { window });
    told.change(Event::WindowRemoved { range: window.range });
    told.fault(0x10_0040, Prot::WRITE, FaultReason::NotMapped);
    told.fault(0xfee0_0000, Prot::WRITE, FaultReason::UnknownVector);
    told.fault(0xfee0_0000, Prot::READ, FaultReason::Doorbell);
    told.fault(0x1000, Prot::READ, FaultReason::BusMasterOff);
    told.fault(0x1000, Prot::READ, FaultReason::NoDomain);
    let found = told.found();
    let names: Vec<_> = found.iter().map(|text| text.split(':').next().unwrap()).collect();
    let expected = [
        "no-window",
        "closed-window",
        "unknown-vector",
        "doorbell-misused",
        "bus-master-off",
        "no-domain",
    ];
    assert_eq!(names, expected);
    assert!(found[0].contains("no MSI window is registered"));
    assert!(found[1].contains("(request 3), which request 4 had closed"));
}

#[test]
fn what_is_left_at_the_end() {
    let mut told = Told::new();
    told.tell(Target::Group(GroupId(1)), Call::Open, Ok(0), None);
    told.map(0x1000, 0x1fff, 0x70_0000);
    told.map(0x9000, 0x9fff, 0x70_1000);
    told.irqs(0x24, 1);
    told.reporter.exiting(told.pid);
    told.close(Target::Device(D));
    let number = told.number;
    for first in [0x1000, 0x9000] {
        let event = Event::Unmapped { range: range(first, first + 0xfff) };
        told.reporter.change(number, Some(C), &event);
    }
    told.close(Target::Group(GroupId(1)));
    told.close(Target::Container(C));
    assert_eq!(
        told.found(),
        [
            "live-interrupts: the program ended with MSI of 0000:01:00.0 enabled (request 4). \
             SET_IRQS with DATA_NONE and count 0, or closing the device",
            "live-mappings: the program ended with 2 live mapping(s), 0x2000 bytes, the first \
             0x1000..=0x1fff (request 2). UNMAP_DMA, or closing the container",
        ]
    );
    assert!(!told.report().has_bugs());
}

/// Closing a file has a number too, and a finding names a request by it.
#[test]
fn the_last_request_before_a_finding_may_have_closed_something() {
    let mut told = Told::new();
    told.map(0x1000, 0x1fff, 0x5000);
    told.close(Target::Device(D));
    told.map(0x3000, 0x3fff, 0x5000);
    told.map_refused(0x1000, 0x1fff, 0x9000);
    let last = told.number;
    told.moved(0x1000);
    told.reporter.trouble("trouble");
    let report = told.report();
    assert_eq!((report.requests, last), (3, 5));
    let found: Vec<_> = report.findings.iter().map(|f| (f.problem.name(), f.request)).collect();
    assert!(found.starts_with(&[("other-mapping", last), ("other", last)]), "{found:?}");
}

#[test]
fn findings_are_bounded() {
    let mut told = Told::new();
    for n in 0..300 {
        told.reporter.trouble(&format!("trouble {n}"));
    }
    told.reporter.trouble("trouble 7");
    let report = told.report();
    assert_eq!((report.findings.len(), report.more_findings), (200, 100));
    assert_eq!(report.findings[7].times, 2);
    told.number += 1;
}
