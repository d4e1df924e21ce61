//! `softvfio run`: a program on a software IOMMU.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use clap::Args;
use supervise::kinds::DeviceSpec;
use supervise::session::{Program, Session};

/// The exit code when softvfio itself fails.
const FAILED: u8 = 125;

/// Run a program on a software IOMMU with emulated devices.
#[derive(Args)]
pub(crate) struct Run {
    /// A device: KIND[,key=value...]; `help` lists kinds and keys
    #[arg(long = "device", short = 'd', value_name = "KIND[,KEY=VALUE]")]
    devices: Vec<String>,

    /// The host: a built-in one, or a file with a header; `help` lists the built-in ones
    #[arg(long, value_name = "NAME|FILE")]
    host: Option<String>,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

impl Run {
    pub(crate) fn run(&self) -> ExitCode {
        match self.session() {
            Ok(status) => exit_code(status),
            Err(why) => {
                eprintln!("softvfio: {why}");
                ExitCode::from(FAILED)
            }
        }
    }

    fn session(&self) -> Result<ExitStatus, String> {
        let mut session = Session::new();
        if let Some(host) = &self.host {
            session = session.host(host);
        }
        for text in &self.devices {
            let spec: DeviceSpec = text.parse().map_err(|bad| format!("--device: {bad}"))?;
            session = session.device(spec.make().map_err(|bad| format!("--device: {bad}"))?);
        }
        let (command, args) = self.program.split_first().ok_or("no program")?;
        let ready = session.place().map_err(|error| error.to_string())?;
        let outcome = ready.run(&Program::new(command).args(args));
        Ok(outcome.map_err(|error| error.to_string())?.status)
    }
}

/// The program's own, or 128 and its signal.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(u8::try_from(code.unwrap_or(255)).unwrap_or(255))
}
