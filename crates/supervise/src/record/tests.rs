//! Requests told to a recorder, and the lines it writes.

use std::io;
use std::sync::Arc;

use devices::edu::Edu;
use uapi::ioctl;
use vfio::{ContainerId, DeviceId, Refusal};

use super::*;
use crate::session::{EmulatedDevice, Session};
use crate::watch::{Call, Piece, Target};

const C: Target = Target::Container(ContainerId(3));
const G: Target = Target::Group(GroupId(1));
const D: Target = Target::Device(DeviceId(0));

#[derive(Clone, Default)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn call(request: u32, arg: u64, words: &[u32], written: &[(u64, &[u8])]) -> Call {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let written = written.iter().map(|(at, b)| Piece { addr: arg + at, bytes: b.to_vec() });
    Call::Ioctl { request, arg, read: vec![Piece { addr: arg, bytes }], written: written.collect() }
}

/// A line without what says which request of the run it is.
fn plain(line: &str) -> String {
    match line.split_once(",\"run_request\":") {
        Some((line, number)) if number.trim_end_matches('}').parse::<u64>().is_ok() => {
            format!("{line}}}")
        }
        _ => line.to_owned(),
    }
}

/// Records requests, told in this order with their numbers; the lines after the header, plain.
fn record(
    memlock: Option<u64>,
    requests: &[(u64, Target, Call, Result<i64, i32>)],
) -> (Vec<String>, Recorded) {
    let (lines, recorded) = record_all(memlock, requests);
    (lines.iter().map(|line| plain(line)).collect(), recorded)
}

fn record_all(
    memlock: Option<u64>,
    requests: &[(u64, Target, Call, Result<i64, i32>)],
) -> (Vec<String>, Recorded) {
    let edu = EmulatedDevice::new("edu", Box::new(Edu::new()), Edu::bars());
    let ready = Session::new().device(edu).place().unwrap();
    let bytes = Bytes::default();
    let recorder = Recorder::start(Box::new(bytes.clone()), ready.placed(), memlock).unwrap();
    recorder.joined(3, GroupId(1), Some(ContainerId(3)));
    for (number, target, call, answer) in requests {
        let refusal = answer.err().map(|_| Refusal::BadFd(9));
        let (number, target, call, answer) = (*number, *target, call.clone(), *answer);
        recorder.request(&Request { number, pid: 1, target, call, answer, refusal });
    }
    let recorded = recorder.finish().unwrap();
    let text = String::from_utf8(bytes.0.lock().clone()).unwrap();
    (text.lines().skip(1).map(str::to_owned).collect(), recorded)
}

#[test]
fn requests_are_written_in_the_order_of_their_numbers() {
    let join = call(ioctl::VFIO_GROUP_SET_CONTAINER, 0x100, &[7], &[]);
    let (lines, recorded) =
        record(None, &[(3, G, join, Ok(0)), (9, G, Call::Close, Ok(0)), (1, G, Call::Open, Ok(0))]);
    assert_eq!(
        lines,
        [
            r#"{"op":"open_group","g":0,"dev":"edu0","want":{"ret":0}}"#,
            // The container was never asked anything: the group meets it first.
            r#"{"op":"open_container","c":0,"want":{"ret":0}}"#,
            r#"{"op":"set_container","g":0,"fd":"c0","want":{"ret":0}}"#,
            r#"{"op":"close","fd":"g0","want":{"ret":0}}"#,
        ]
    );
    assert_eq!(recorded, Recorded { requests: 3, notes: 0 });
}

/// What the report and `-v` call request 3 is found in the trace, whatever else stands before it.
#[test]
fn a_line_says_which_request_of_the_run_it_is() {
    let join = call(ioctl::VFIO_GROUP_SET_CONTAINER, 0x100, &[7], &[]);
    let (lines, _) = record_all(None, &[(3, G, join, Ok(0)), (1, G, Call::Open, Ok(0))]);
    let numbers: Vec<_> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["run_request"].as_u64())
        .collect();
    assert_eq!(numbers, [Some(1), None, Some(3)], "{lines:?}");
}

#[test]
fn structures_end_where_they_were_written() {
    let info = call(ioctl::VFIO_IOMMU_GET_INFO, 0x100, &[8, 0, 5, 6], &[(12, &[1, 2])]);
    let (lines, _) = record(Some(0x1000), &[(1, C, info, Ok(0))]);
    assert_eq!(lines[0], r#"{"op":"rlimit_memlock","value":"0x1000"}"#);
    assert_eq!(lines[1], r#"{"op":"setuid"}"#);
    assert_eq!(
        lines[3],
        r#"{"op":"ioctl","fd":"c0","cmd":"0x3b70","data":"0800000000000000","out":14,"want":{"ret":0,"data":"0800000000000000aaaaaaaa0102"}}"#
    );
}

#[test]
fn addresses_are_places_in_memories() {
    let map = |iova: u32, size: u32, vaddr: u32| {
        call(ioctl::VFIO_IOMMU_MAP_DMA, 0x100, &[32, 3, vaddr, 0, iova, 0, size, 0], &[])
    };
    let requests = [
        (1, C, map(0x1_0000, 0x1000, 0x1234_5000), Ok(0)),
        (2, C, map(0x2_0000, 0x2000, 0x1234_6000), Ok(0)),
        // A refusal that memory has no part in.
        (3, C, map(0x1_0000, 0x1000, 0x1234_5000), Err(17)),
    ];
    let (lines, _) = record(None, &requests);
    assert_eq!(
        lines[1..],
        [
            r#"{"op":"mem","name":"rw","kind":"shared","prot":"rw","size":"0x20000","align":"0x10000"}"#,
            r#"{"op":"map","c":0,"iova":"0x10000","size":"0x1000","vaddr":"rw+0x5000","flags":3,"argsz":32,"want":{"ret":0}}"#,
            r#"{"op":"map","c":0,"iova":"0x20000","size":"0x2000","vaddr":"rw+0x6000","flags":3,"argsz":32,"want":{"ret":0}}"#,
            r#"{"op":"map","c":0,"iova":"0x10000","size":"0x1000","vaddr":"0x12345000","flags":3,"argsz":32,"want":{"errno":"EEXIST"}}"#,
        ]
    );
}

#[test]
fn what_has_no_form_is_a_note_and_what_is_not_known_not_asked() {
    let open = call(ioctl::VFIO_GROUP_GET_DEVICE_FD, 0x100, &name(), &[]);
    let irqs = call(ioctl::VFIO_DEVICE_SET_IRQS, 0x100, &[28, 0x24, 1, 0, 2, 5, u32::MAX], &[]);
    let read = |region: u64| Call::Read { offset: region << 40, count: 2, data: vec![1, 2] };
    let requests = [
        (1, D, Call::Map { offset: 0, len: 4096, shared: false }, Ok(0)),
        (2, G, Call::Open, Ok(0)),
        (4, G, open, Ok(9)),
        (5, D, irqs, Ok(0)),
        (6, D, read(7), Ok(2)),
        (7, D, read(16), Ok(2)),
        (8, D, Call::Map { offset: 0, len: 4096, shared: false }, Ok(0)),
    ];
    let (lines, recorded) = record(None, &requests);
    assert_eq!(recorded, Recorded { requests: 7, notes: 2 });
    assert!(lines[0].starts_with(r#"{"note":"request 1 "#) && lines[7].contains("private mapping"));
    assert_eq!(
        lines[2..7],
        [
            r#"{"op":"get_device_fd","g":0,"d":0,"name":"0000:01:00.0","want":{"ret":0}}"#,
            r#"{"op":"eventfd","e":0,"want":{"ret":0}}"#,
            r#"{"op":"set_irqs","d":0,"argsz":28,"flags":36,"index":1,"start":0,"count":2,"fds":["e0","-1"],"want":{"ret":0}}"#,
            r#"{"op":"region_read","d":0,"region":7,"offset":"0x0","size":2,"want":{"ret":2,"data":"0102"}}"#,
            r#"{"op":"region_read","d":0,"region":0,"offset":"0x0","size":2}"#,
        ]
    );
}

/// A second unmask eventfd is taken when the first was closed only, also if its descriptor is the same.
#[test]
fn an_unmask_eventfd_that_follows_another_is_a_new_one() {
    const EVENTFD: u32 = 4;
    const UNMASK: u32 = 16;
    const TRIGGER: u32 = 32;
    let open = call(ioctl::VFIO_GROUP_GET_DEVICE_FD, 0x100, &name(), &[]);
    let irqs = |flags: u32, fds: &[u32]| {
        let count = fds.len() as u32;
        let words = [&[20 + 4 * count, flags, 0, 0, count], fds].concat();
        call(ioctl::VFIO_DEVICE_SET_IRQS, 0x100, &words, &[])
    };
    let requests = [
        (1, G, Call::Open, Ok(0)),
        (2, G, open, Ok(9)),
        (4, D, irqs(EVENTFD | TRIGGER, &[7]), Ok(0)),
        (5, D, irqs(EVENTFD | UNMASK, &[8]), Ok(0)),
        (6, D, irqs(EVENTFD | UNMASK, &[8]), Err(16)),
        (7, D, irqs(EVENTFD | UNMASK, &[8]), Ok(0)),
        (8, D, irqs(1 | TRIGGER, &[]), Ok(0)),
        (9, D, irqs(EVENTFD | UNMASK, &[8]), Ok(0)),
    ];
    let (lines, _) = record(None, &requests);
    let ops = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<String> = ops
        .map(|op| format!("{} {}{}{}", op["op"], op["fd"], op["e"], op["fds"]).replace("null", ""))
        .map(|text| text.replace('"', ""))
        .collect();
    assert_eq!(
        told[2..],
        [
            "eventfd 0",
            "set_irqs [e0]",
            "eventfd 1",
            "set_irqs [e1]",
            "set_irqs [e1]",
            "close e1",
            "eventfd 1",
            "set_irqs [e1]",
            "set_irqs ",
            "set_irqs [e1]",
        ]
    );
}

fn name() -> Vec<u32> {
    let bytes = b"0000:01:00.0\0\0\0\0";
    bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}
