//! A report's text and JSON, whole.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use iommu::{IovaRange, Prot};
use serde_json::json;

use crate::report::{DeviceReport, Finding, Owner, Peak, Problem, Report, Stopped};
use crate::session::MmioMode;

fn report() -> Report {
    let mapping = Owner { range: IovaRange::new(0x1000, 0x1fff).unwrap(), request: 12 };
    Report {
        status: ExitStatus::from_raw(2 << 8),
        stopped: None,
        timed_out: None,
        shadowed: Vec::new(),
        devices: vec![DeviceReport {
            name: "0000:01:00.0".into(),
            kind: "nvme".into(),
            group: 1,
            mmio: MmioMode::Poll,
            read: 12288,
            written: 1_048_576 + 524_288,
        }],
        requests: 40,
        refused: 1,
        interrupts: 5,
        peak: Peak {
            mappings: 8,
            entry_limit: 65535,
            mapped: 1 << 20,
            locked: 9 << 20,
            memlock: Some(8 << 20),
        },
        findings: vec![
            Finding {
                problem: Problem::UnmappedEarlier { mapping, unmapped: 14 },
                device: Some("0000:01:00.0".into()),
                iova: Some(0x1010),
                access: Some(Prot::WRITE),
                request: 15,
                times: 3,
            },
            Finding {
                problem: Problem::Other("something else".into()),
                device: None,
                iova: None,
                access: None,
                request: 16,
                times: 1,
            },
        ],
        more_findings: 0,
    }
}

#[test]
fn text() {
    let expected = "\
softvfio: the program ended with exit code 2
  0000:01:00.0 nvme  group 1, mmio=poll: read 12 KiB of memory, wrote 1.5 MiB
  requests   40, 1 refused
  mappings   at most 8 of 65535, 1 MiB
  locked     at most 9 MiB: more than this machine's RLIMIT_MEMLOCK of 8 MiB
  interrupts 5
  error      0000:01:00.0 wrote 0x1010, of 0x1000..=0x1fff (request 12), which request 14 had unmapped (3 times) [unmapped-earlier, request 15]
    legal:   0x1000..=0x1fff before request 14
  warning    something else [other, request 16]
";
    assert_eq!(report().text(false), expected);
    let colour = report().text(true);
    assert!(colour.contains("\x1b[1;31merror     \x1b[0m 0000"));
    let plain =
        colour.split('\x1b').map(|part| part.split_once('m').map_or(part, |(_, rest)| rest));
    assert_eq!(plain.collect::<String>().replace("softvfio", ""), expected.replace("softvfio", ""));
}

#[test]
fn notes_are_no_findings_for_people() {
    let mut report = report();
    report.findings.truncate(1);
    report.findings[0].problem = Problem::LiveInterrupts { kind: "MSI", enabled: 3 };
    let text = report.text(false);
    let lines: Vec<_> = text.lines().skip(6).collect();
    let expected = [
        "  findings   none",
        "  note       the program ended with MSI of 0000:01:00.0 enabled (request 3) (3 times) \
         [live-interrupts, request 15]",
        "    legal:   SET_IRQS with DATA_NONE and count 0, or closing the device",
    ];
    assert_eq!(lines, expected);
    report.findings.clear();
    assert_eq!(report.text(false).lines().last(), Some(expected[0]));
}

#[test]
fn json() {
    let expected = json!({
        "format": "softvfio-report/1",
        "exit_code": 2,
        "signal": null,
        "devices": [{
            "name": "0000:01:00.0",
            "kind": "nvme",
            "group": 1,
            "mmio": "poll",
            "bytes_read": 12288,
            "bytes_written": 1_572_864,
        }],
        "requests": 40,
        "refused": 1,
        "interrupts": 5,
        "peak": {
            "mappings": 8,
            "entry_limit": 65535,
            "mapped_bytes": 1_048_576,
            "locked_bytes": 9_437_184,
            "memlock_limit": 8_388_608,
            "exceeds_memlock": true,
        },
        "findings": [
            {
                "name": "unmapped-earlier",
                "severity": "error",
                "device": "0000:01:00.0",
                "iova": "0x1010",
                "access": "write",
                "request": 15,
                "times": 3,
                "text": "0000:01:00.0 wrote 0x1010, of 0x1000..=0x1fff (request 12), which request \
                         14 had unmapped (3 times)",
                "legal": "0x1000..=0x1fff before request 14",
                "about": {
                    "mapping": {"first": "0x1000", "last": "0x1fff", "request": 12},
                    "unmapped_by": 14,
                },
            },
            {
                "name": "other",
                "severity": "warning",
                "device": null,
                "iova": null,
                "access": null,
                "request": 16,
                "times": 1,
                "text": "something else",
                "legal": "",
                "about": {},
            },
        ],
        "more_findings": 0,
        "shadowed": [],
        "timed_out_after_ms": null,
        "stopped": null,
    });
    assert_eq!(report().json(), expected);
}

#[test]
fn who_stopped_it() {
    let text = |signal, killed, status| {
        let stopped = Some(Stopped { signal, killed });
        let report = Report { stopped, status: ExitStatus::from_raw(status), ..report() };
        assert_eq!(report.json()["stopped"], json!({"signal": signal, "killed": killed}));
        report.text(false).lines().next().unwrap().to_owned()
    };
    assert_eq!(
        text(15, false, 0),
        "softvfio: told to stop by SIGTERM: the program ended with exit code 0"
    );
    assert_eq!(
        text(2, true, 9),
        "softvfio: told to stop by SIGINT: the program did not end, and was killed"
    );
    let late = Report {
        timed_out: Some(Duration::from_millis(1500)),
        status: ExitStatus::from_raw(9),
        ..report()
    };
    assert_eq!(late.json()["timed_out_after_ms"], 1500);
    let line = "softvfio: not over after 1.5s: the program was killed";
    assert_eq!(late.to_string().lines().next(), Some(line));
    assert_eq!(
        text(1, false, 1),
        "softvfio: told to stop by SIGHUP: the program was ended by signal 1"
    );
}
