//! `softvfio ctl`: a running session is told something from outside.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use supervise::control;

use crate::output::{print, write};

/// The output cannot be written.
const UNWRITABLE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  softvfio run --control s.control --device edu -- ./my-driver &
  softvfio ctl --control s.control devices
  softvfio ctl --control s.control unplug 0000:01:00.0
  softvfio ctl --control s.control devices --json   # docs/msi-windows.md

Exit status: 0 when it is done, 1 when the session refuses or is not there.";

/// Tell a running session something: `softvfio run --control PATH`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ctl {
    /// The session's socket
    #[arg(long, value_name = "PATH")]
    control: PathBuf,

    /// Write JSON for programs
    #[arg(long, global = true)]
    json: bool,

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
        // What it is told to do is done, whoever reads of it.
        let say = |line: &str| _ = write(&format!("{line}\n"));
        let mut lines = Vec::new();
        let answer = control::ask(&self.control, &request, |line| {
            if self.json { lines.push(line.to_owned()) } else { say(line) }
        });
        match answer {
            Ok(answer) if self.json => {
                let status = u8::from(answer.is_err());
                print(&format!("{:#}\n", self.document(&lines, &answer)), status, UNWRITABLE)
            }
            Ok(Ok(rest)) => {
                if !rest.is_empty() {
                    say(&rest);
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

    /// A `softvfio-ctl/1`, from the lines of an answer and its end.
    fn document(&self, lines: &[String], answer: &Result<String, String>) -> Value {
        let error = answer.as_ref().err();
        match &self.request {
            Request::Devices => {
                let devices: Vec<Value> = lines.iter().filter_map(|line| device(line)).collect();
                json!({"format": "softvfio-ctl/1", "devices": devices, "error": error})
            }
            Request::Unplug { address, .. } => {
                let asked =
                    lines.first().and_then(|line| line.split_once(':')).map(|(word, _)| word);
                // Without a word on waiting it was gone; and the answer says when it is.
                let gone = error.is_none()
                    && (asked.is_none() || answer.as_ref().is_ok_and(|a| !a.is_empty()));
                json!({
                    "format": "softvfio-ctl/1", "device": address, "asked": asked, "gone": gone,
                    "error": error,
                })
            }
        }
    }
}

/// A line `ADDRESS KIND group NUMBER STATE`.
fn device(line: &str) -> Option<Value> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [address, kind, "group", group, state] = words[..] else { return None };
    let group: u32 = group.parse().ok()?;
    Some(json!({"address": address, "kind": kind, "group": group, "state": state}))
}
