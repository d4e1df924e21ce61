//! `softvfio demo`: a program that uses VFIO, on two emulated devices, with nothing to install.
//!
//! The program is [`supervise::client`], which knows nothing of us: it runs as a process of its own,
//! under the same [`Session`] that `softvfio run` has.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use supervise::client::{self, Devices};
use supervise::kinds::DeviceSpec;
use supervise::session::{Program, Session};

/// The exit code when softvfio itself fails.
const FAILED: u8 = 125;

/// What is emulated, and where it is.
const DEVICES: [(&str, &str); 2] = [("edu", "0000:01:00.0"), ("nvme,size=64M", "0000:02:00.0")];

/// Show it at work: a VFIO program drives two emulated devices.
#[derive(Args)]
#[command(after_help = "Examples:
  softvfio demo      needs nothing; `softvfio doctor` says what is missing

Exit status: 0 when the program drove both devices, 1 when it did not, 125 when
softvfio fails.")]
pub(crate) struct Demo {}

/// The program of the demonstration.
#[derive(Args)]
pub(crate) struct DemoClient {
    /// Address of an educational device
    #[arg(long)]
    edu: Option<String>,

    /// Address of an NVMe controller
    #[arg(long)]
    nvme: Option<String>,
}

impl Demo {
    pub(crate) fn run(&self) -> ExitCode {
        match show() {
            Ok(code) => code,
            Err(why) => {
                eprintln!("softvfio: {why}");
                ExitCode::from(FAILED)
            }
        }
    }
}

fn show() -> Result<ExitCode, String> {
    let mut session = Session::new();
    for (spec, bdf) in DEVICES {
        let spec: DeviceSpec =
            format!("{spec},addr={bdf}").parse().map_err(|bad| format!("{bad}"))?;
        session = session.device(spec.make().map_err(|bad| bad.to_string())?);
    }
    let ready = session.place().map_err(|error| error.to_string())?;
    let mut out = std::io::stdout();
    let mut say = |text: &str| out.write_all(text.as_bytes()).map_err(|error| error.to_string());
    say("This machine, as the program will find it:\n")?;
    for device in &ready.placed().devices {
        let (name, kind, group) = (&device.name, &device.kind, device.group);
        say(&format!("  {name}  {kind}, bound to vfio-pci, in IOMMU group {group}\n"))?;
    }
    say("\nThe program (ordinary VFIO: open, ioctl, mmap, pread, eventfd) prints:\n\n")?;
    let [(_, edu), (_, nvme)] = DEVICES;
    let program =
        Program::new("/proc/self/exe").args(["demo-client", "--edu", edu, "--nvme", nvme]);
    let report = ready.run(&program).map_err(|error| error.to_string())?;
    say("\nWhat the IOMMU and the devices saw:\n\n")?;
    say(&report.text(false))?;
    if report.status.success() {
        say("\nNone of these devices exists. The same with a program of yours:\n")?;
        say("  softvfio run --device nvme,file=disk.img -- PROGRAM\n")?;
    }
    Ok(if report.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl DemoClient {
    pub(crate) fn run(&self) -> ExitCode {
        let devices = Devices { edu: self.edu.as_deref(), nvme: self.nvme.as_deref() };
        match client::run(devices, &mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("client: {failure}");
                ExitCode::FAILURE
            }
        }
    }
}
