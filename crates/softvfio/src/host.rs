//! `softvfio host`: the built-in hosts, one of them readably, or the machine that it runs on.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use plan::capture::{self, Capture, Said, Silent};
use plan::{BadInput, KnownHost, Style};
use supervise::client::inquiry::{self, NoAnswer};
use trace::hosts;

use crate::output::{for_terminal, print};

/// Shown, listed or captured.
const DONE: u8 = 0;
/// There is no IOMMU to capture.
const NO_IOMMU: u8 = 1;
/// A file cannot be used.
const BAD_INPUT: u8 = 2;

/// Options of `softvfio host`.
#[derive(Args)]
#[command(after_help = "Examples:
  softvfio host                        # the built-in hosts
  softvfio host x86-amd                # one of them
  softvfio host --capture              # this machine, as a profile
  softvfio host --capture box.json     # into a file that is not there yet
  softvfio host --capture --no-open    # without a look at /dev/vfio
  softvfio host --root /tmp/box        # a copy of a machine's /sys (and /proc)
  softvfio plan --host box.json --ram 64G    # a profile is a host everywhere

What is read, from DIR or /: sys/kernel/iommu_groups, sys/class/iommu,
sys/bus/pci/devices, sys/module/vfio_iommu_type1/parameters, proc/self/limits,
proc/sys/kernel. On this machine, one group of each IOMMU is then asked what may
be mapped: a group that is bound to vfio-pci and that nobody has is put into a
container (/dev/vfio/vfio), VFIO_IOMMU_GET_INFO is asked, and all is closed
again. No device is opened, nothing mapped. What is not found out is listed as
not known.

Exit status: 0 when done, 1 when there is no IOMMU to capture, 2 when a file
cannot be used.")]
pub(crate) struct Host {
    /// A built-in host, or a file with a header; with --capture the file to write.
    #[arg(value_name = "NAME|FILE")]
    name: Option<OsString>,
    /// Capture this machine into a profile.
    #[arg(long)]
    capture: bool,
    /// Look at a copy of a machine's files, not at this machine.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// With --capture: open nothing in /dev/vfio; files alone are looked at.
    #[arg(long, requires = "capture")]
    no_open: bool,
    /// Write JSON for programs.
    #[arg(long)]
    json: bool,
}

impl Host {
    /// Does it, prints, and says how it went.
    pub(crate) fn run(&self) -> ExitCode {
        let outcome = match &self.name {
            _ if self.capture => self.capture(),
            Some(_) if self.root.is_some() => {
                Err(BadInput::new("--root", "expected --capture beside a file's name"))
            }
            Some(name) => self.show(Path::new(name)),
            None if self.root.is_some() => self.capture(),
            None => return list(self.json),
        };
        outcome.unwrap_or_else(|bad| {
            eprintln!("softvfio: {bad}");
            ExitCode::from(BAD_INPUT)
        })
    }

    fn show(&self, name: &Path) -> Result<ExitCode, BadInput> {
        let host = KnownHost::load(name)?;
        for note in &host.notes {
            eprintln!("softvfio: {}: {note}", host.name);
        }
        Ok(self.print(&host))
    }

    fn print(&self, host: &KnownHost) -> ExitCode {
        if self.json {
            return print(&format!("{:#}\n", host.json()), DONE, BAD_INPUT);
        }
        let text = host.text(Style::for_output(io::stdout().is_terminal()));
        print(&for_terminal(text), DONE, BAD_INPUT)
    }

    fn capture(&self) -> Result<ExitCode, BadInput> {
        let captured = match &self.root {
            // Whose files these are is not known here, nor what a group of theirs would be.
            Some(root) => capture::capture(root)?,
            None if self.no_open => capture::capture(Path::new("/"))?,
            None => {
                let (captured, silent) = capture::capture_asking(Path::new("/"), &mut ask)?;
                if !silent.is_empty() {
                    eprintln!("softvfio: not asked (GET_INFO): {}", silent.join("; "));
                }
                captured
            }
        };
        let header = match captured {
            Capture::Machine(header) => header,
            Capture::NoIommu(why) => {
                eprintln!("softvfio: {why}");
                return Ok(ExitCode::from(NO_IOMMU));
            }
        };
        if !self.capture {
            let root = self.root.as_deref().unwrap_or(Path::new("/")).display().to_string();
            let host = KnownHost::of_header(&header, &root)?;
            return Ok(self.print(&host));
        }
        let line = format!("{}\n", serde_json::Value::Object(header));
        let Some(name) = self.name.as_deref().filter(|name| *name != "-") else {
            return Ok(print(&line, DONE, BAD_INPUT));
        };
        let path = Path::new(name);
        let cannot = |error: io::Error| {
            let what = match error.kind() {
                ErrorKind::AlreadyExists => "expected a file that is not there yet".to_owned(),
                _ => format!("the file cannot be written: {error}"),
            };
            BadInput::new(path.display(), what)
        };
        let mut file = File::create_new(path).map_err(cannot)?;
        if let Err(error) = file.write_all(line.as_bytes()) {
            // A part of a profile is none, and would be in the way of the next capture.
            let _ = std::fs::remove_file(path);
            return Err(cannot(error));
        }
        eprintln!("softvfio: {} is written", path.display());
        Ok(ExitCode::from(DONE))
    }
}

/// Asks the container of a group.
fn ask(group: u32) -> Result<Said, Silent> {
    let info = inquiry::ask(group).map_err(|none| Silent {
        why: none.to_string(),
        is_final: none.is_final(),
        not_isolated: matches!(none, NoAnswer::NotIsolated(_)),
    })?;
    Ok(Said {
        iommu_type: info.iommu_type.into(),
        page_sizes: info.page_sizes,
        ranges: info.ranges,
        dma_avail: info.dma_avail,
        migration: Some(info.migration),
        coherent: info.coherent,
        max_windows: info.max_windows,
    })
}

/// Lists the built-in hosts.
pub(crate) fn list(json: bool) -> ExitCode {
    if json {
        let hosts: Vec<_> = hosts::list()
            .map(|(name, about)| serde_json::json!({"name": name, "about": about}))
            .collect();
        return print(&format!("{:#}\n", serde_json::Value::Array(hosts)), DONE, BAD_INPUT);
    }
    print(&for_terminal(listed()), DONE, BAD_INPUT)
}

/// The built-in hosts, a line each.
pub(crate) fn listed() -> String {
    hosts::list().map(|(name, about)| format!("{name:20} {about}\n")).collect()
}
