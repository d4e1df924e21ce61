//! `softvfio ctl`: a running session is told something from outside.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use supervise::control;

/// Tell a running session something: `softvfio run --control PATH`.
#[derive(Args)]
pub(crate) struct Ctl {
    /// The session's socket
    #[arg(long, value_name = "PATH")]
    control: PathBuf,

    #[command(subcommand)]
    request: Request,
}

#[derive(Subcommand)]
enum Request {
    /// The devices, and who has each: free, open, leaving or gone
    Devices,
    /// Take a device from the program: its REQ interrupt asks for it; waits until the device is gone
    Unplug {
        /// The device's address: 0000:01:00.0
        address: String,
        /// Ask, and do not wait
        #[arg(long)]
        no_wait: bool,
    },
}

impl Ctl {
    pub(crate) fn run(&self) -> ExitCode {
        let request = match &self.request {
            Request::Devices => "devices".into(),
            Request::Unplug { address, no_wait: false } => format!("unplug {address}"),
            Request::Unplug { address, no_wait: true } => format!("unplug {address} now"),
        };
        let answer = control::ask(&self.control, &request, |line| println!("{line}"));
        match answer {
            Ok(Ok(rest)) => {
                if !rest.is_empty() {
                    println!("{rest}");
                }
                ExitCode::SUCCESS
            }
            Ok(Err(why)) => {
                eprintln!("softvfio: {why}");
                ExitCode::FAILURE
            }
            Err(error) => {
                eprintln!("softvfio: {}: {error}", self.control.display());
                ExitCode::FAILURE
            }
        }
    }
}
