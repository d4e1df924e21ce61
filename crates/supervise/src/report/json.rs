//! A report for programs: docs/report.md says what each member is.

use std::os::unix::process::ExitStatusExt;

use iommu::Prot;
use serde_json::{Map, Value, json};

use super::finding::{Finding, Owner, Problem};
use super::{DeviceReport, Report};

/// The format's name; another number when a member goes or means something else.
const FORMAT: &str = "softvfio-report/1";

impl Report {
    /// The report as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let device = |device: &DeviceReport| {
            json!({
                "name": device.name,
                "kind": device.kind,
                "group": device.group,
                "mmio": device.mmio.to_string(),
                "bytes_read": device.read,
                "bytes_written": device.written,
            })
        };
        let peak = &self.peak;
        json!({
            "format": FORMAT,
            "exit_code": self.status.code(),
            "signal": self.status.signal(),
            "devices": self.devices.iter().map(device).collect::<Vec<_>>(),
            "requests": self.requests,
            "refused": self.refused,
            "interrupts": self.interrupts,
            "peak": {
                "mappings": peak.mappings,
                "entry_limit": peak.entry_limit,
                "mapped_bytes": peak.mapped,
                "locked_bytes": peak.locked,
                "memlock_limit": peak.memlock,
                "exceeds_memlock": peak.exceeds_memlock(),
            },
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "more_findings": self.more_findings,
            "shadowed": self.shadowed.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
            "timed_out_after_ms": self.timed_out.map(|limit| limit.as_millis() as u64),
            "stopped": self.stopped.map(|s| json!({"signal": s.signal, "killed": s.killed})),
        })
    }
}

fn finding(finding: &Finding) -> Value {
    let access =
        finding.access.map(|access| if access.contains(Prot::WRITE) { "write" } else { "read" });
    json!({
        "name": finding.problem.name(),
        "severity": finding.severity().to_string(),
        "device": finding.device,
        "iova": finding.iova.map(|iova| format!("{iova:#x}")),
        "access": access,
        "request": finding.request,
        "times": finding.times,
        "text": finding.to_string(),
        "legal": finding.legal(),
        "about": about(&finding.problem),
    })
}

fn owner(owner: &Owner) -> Value {
    json!({
        "first": format!("{:#x}", owner.range.first()),
        "last": format!("{:#x}", owner.range.last()),
        "request": owner.request,
    })
}

/// The requests that a problem is about.
fn about(problem: &Problem) -> Value {
    let mut about = Map::new();
    let mut put = |name: &str, value| about.insert(name.into(), value);
    match problem {
        Problem::UnmappedEarlier { mapping, unmapped } => {
            put("mapping", owner(mapping));
            put("unmapped_by", json!(unmapped));
        }
        Problem::MapRefused { asked, answer } => {
            put("asked", owner(asked));
            put("answer", json!(answer));
        }
        Problem::OtherMapping { asked, answer, existing } => {
            put("asked", owner(asked));
            put("answer", json!(answer));
            put("mapping", owner(existing));
        }
        Problem::UnmapFellShort { asked, removed, existing, refused } => {
            put("asked", owner(asked));
            put("removed", json!(removed));
            put("mapping", owner(existing));
            put("refused", json!(refused));
        }
        Problem::NotPermitted { mapping: Some(mapping), .. }
        | Problem::MemoryGone { mapping: Some(mapping), .. } => {
            put("mapping", owner(mapping));
        }
        Problem::ClosedWindow { window, closed } => {
            put("window", owner(window));
            put("closed_by", json!(closed));
        }
        Problem::LiveMappings { count, bytes, first } => {
            put("count", json!(count));
            put("bytes", json!(bytes));
            put("mapping", owner(first));
        }
        Problem::LiveWindows { count, first } => {
            put("count", json!(count));
            put("window", owner(first));
        }
        Problem::LiveInterrupts { enabled, .. } => {
            put("enabled_by", json!(enabled));
        }
        _ => {}
    }
    Value::Object(about)
}
