//! Each kind of bug, planted in a client: the report has exactly that finding. What was recorded
//! replays without a difference.
//!
//! The client is this program, started again with a bug's name. Where a world cannot be made the tests
//! print `skipped:` and why.

mod client;

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use devices::edu::Edu;
use iommu::Dialect;
use softvfio_supervise::record::Recorder;
use softvfio_supervise::report::{Report, Severity};
use softvfio_supervise::session::{EmulatedDevice, MmioMode, Program, Session, SessionError};
use trace::{Options, Reader, Step, Tally};

/// Names the bug.
const BUG: &str = "REPORT_BUG";

#[derive(Clone, Default)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn session(host: &str) -> Session {
    let mut edu = EmulatedDevice::new("edu", Box::new(Edu::new()), Edu::bars());
    edu.mmio = Some(MmioMode::None);
    Session::new().host(host).device(edu)
}

/// Runs a client with a bug, and replays what was recorded; `None`, said aloud, where no world can be
/// made.
fn run(session: Session, bug: &str) -> Option<Report> {
    let ready = session.place().unwrap();
    let bytes = Bytes::default();
    let recorder = Recorder::start(Box::new(bytes.clone()), ready.placed(), None).unwrap();
    let recorder = Arc::new(recorder);
    let ready = ready.watch(Arc::clone(&recorder) as _);
    let program = Program::new(std::env::current_exe().unwrap())
        .args(["client", "--exact", "--nocapture", "--test-threads=1"])
        .env(BUG, bug);
    let report = match ready.run(&program) {
        Err(SessionError::Launch(error)) => {
            println!("skipped: {error}");
            return None;
        }
        report => report.unwrap(),
    };
    let recorded = recorder.finish().unwrap();
    let text = bytes.0.lock().unwrap().clone();
    assert_eq!(recorded.notes, 0, "{}", String::from_utf8_lossy(&text));
    let mut replay =
        trace::Session::start(Reader::new(&text[..], "recorded"), &Options::default()).unwrap();
    let mut tally = Tally::default();
    while let Some(step) = replay.step().unwrap() {
        if let Step::Request(outcome) = step {
            tally.add(&outcome);
        }
    }
    let line = tally.line();
    let counts: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert_eq!(counts[0], counts[1], "{bug}: {line}\n{}", String::from_utf8_lossy(&text));
    assert!(counts[0] > 10);
    Some(report)
}

/// The names of a report's findings.
fn names(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(|finding| finding.problem.name()).collect()
}

#[test]
fn client() {
    if let Ok(bug) = std::env::var(BUG) {
        client::run(&bug);
    }
}

#[test]
fn exactly_the_finding_that_was_planted() {
    for (bug, expected) in [
        ("nothing", &[][..]),
        ("never", &["never-mapped"]),
        ("unmapped", &["unmapped-earlier"]),
        ("read-only", &["not-permitted"]),
        ("freed", &["memory-gone"]),
        ("mapped-twice", &["other-mapping"]),
        ("misaligned", &["map-refused"]),
        ("v1-unmap-of-a-part", &["unmap-fell-short"]),
        ("no-master", &["bus-master-off"]),
        ("left", &["live-interrupts", "live-mappings"]),
        ("killed", &["live-mappings"]),
    ] {
        let Some(report) = run(session("x86-intel"), bug) else { return };
        assert_eq!(names(&report), expected, "{bug}: {}", report);
        let ended =
            if bug == "killed" { report.status.code().is_none() } else { report.status.success() };
        assert!(ended, "{bug}: {:?}", report.status);
        for finding in &report.findings {
            let about_device = finding.severity() > Severity::Note;
            assert_eq!(finding.device.is_some() && finding.iova.is_some(), about_device, "{bug}");
            assert!(finding.request > 0 && finding.request <= report.requests + 8);
            assert!(!finding.legal().is_empty());
        }
    }
}

#[test]
fn interrupts_without_a_window() {
    let Some(report) = run(session("arm-smmuv3-its-user"), "no-window") else { return };
    assert_eq!(names(&report), ["no-window"], "{}", report);
}

#[test]
fn older_kernels_record_and_replay_too() {
    for dialect in Dialect::ALL {
        let session = session("x86-amd").dialect(Some(dialect));
        let Some(report) = run(session, "nothing") else { return };
        assert_eq!(names(&report), [""; 0], "{}", report);
    }
}
