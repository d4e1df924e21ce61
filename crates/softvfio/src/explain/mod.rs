//! `softvfio explain`: one request in full.

mod ask;
mod find;
mod held;
mod json;
mod legal;
mod odd;
mod report;
mod request;
mod way;

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::Args;
use iommu::Dialect;
use trace::{MAX_LINE, Options};
use vfio::Abi;

use self::find::{Case, Source, Wanted};
use crate::input::{cannot_open, exists, shown};
use crate::output::{for_terminal, terminal_width, wants_colour};
use crate::{input, output};

/// The input cannot be read.
const UNREADABLE: u8 = 2;

/// Options of `softvfio explain`.
#[derive(Args)]
#[command(after_help = "Examples:
  softvfio explain trace.jsonl              the first request that was refused
  softvfio explain trace.jsonl:17           request 17, the first being 1
  softvfio explain -- -:17 < trace.jsonl    the same of standard input
  softvfio explain --map 0x8000000+2M --host arm-smmuv3-its
  softvfio explain --window 0x8000000+64K --map 0+1G --host arm-smmuv3-its-user

Requests on the command line are carried out in this order: windows, maps,
unmaps, interrupts; the first that is refused is explained, else the last. Exit
status: 0, or 2 when an input cannot be read (file:line:column: what was
expected).")]
pub(crate) struct Explain {
    /// A trace or script, and which request of it.
    #[arg(value_name = "TRACE[:REQUEST]", required_unless_present_any = ["host", "map", "unmap", "window", "enable_msi"])]
    trace: Option<OsString>,
    /// The machine: a built-in host, or the header of a file.
    #[arg(long, value_name = "NAME|FILE")]
    host: Option<OsString>,
    /// Map memory there: IOVA+SIZE, as in 0x8000000+2M.
    #[arg(long, value_name = "IOVA+SIZE", requires = "host", conflicts_with = "trace")]
    map: Vec<String>,
    /// Unmap that: IOVA+SIZE.
    #[arg(long, value_name = "IOVA+SIZE", requires = "host", conflicts_with = "trace")]
    unmap: Vec<String>,
    /// Register an MSI window there: IOVA+SIZE.
    #[arg(long, value_name = "IOVA+SIZE", requires = "host", conflicts_with = "trace")]
    window: Vec<String>,
    /// Enable the MSI interrupt of this device.
    #[arg(long, value_name = "DEVICE", requires = "host", conflicts_with = "trace")]
    enable_msi: Vec<String>,
    /// A device whose group the container has; the host's first when none is named.
    #[arg(long, value_name = "NAME", requires = "host", conflicts_with = "trace")]
    device: Vec<String>,
    /// Which type1 the container is: version 1 may unmap more than asked, or nothing.
    #[arg(long, value_name = "VERSION", value_parser = ["v1", "v2"], default_value = "v2",
          requires = "host", conflicts_with = "trace")]
    type1: String,
    /// Answer as this kernel, whatever the header says.
    #[arg(long, value_name = "NAME", value_parser = Dialect::ALL.map(|d| d.name))]
    dialect: Option<String>,
    /// Speak these numbers, whatever the header says.
    #[arg(long, value_name = "NAME", value_parser = Abi::ALL.map(|a| a.name()))]
    abi: Option<String>,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

impl Explain {
    /// Explains, and says how it went.
    pub(crate) fn run(self) -> ExitCode {
        let done = self.case().and_then(|case| {
            let text = match (&case, self.json) {
                (Some(case), true) => json::json(case).to_string() + "\n",
                (Some(case), false) => {
                    let colour = wants_colour(&io::stdout());
                    let width = terminal_width().map_or(report::WIDTH, |w| w.min(report::WIDTH));
                    for_terminal(report::text(case, colour, width))
                }
                (None, true) => "null\n".into(),
                (None, false) => "nothing was refused, and nothing looks suspicious\n".into(),
            };
            output::write(&text).map_err(|error| format!("cannot write: {error}"))
        });
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("softvfio: {why}");
                ExitCode::from(UNREADABLE)
            }
        }
    }

    fn case(&self) -> Result<Option<Case>, String> {
        let header = match &self.host {
            None => None,
            Some(name) => Some(input::host(name)?),
        };
        let mut options = Options {
            dialect: self.dialect.as_deref().and_then(Dialect::named),
            abi: self.abi.as_deref().and_then(Abi::named),
            ..Options::default()
        };
        let Some(trace) = &self.trace else {
            let (Some(host), Some(header)) = (&self.host, header) else {
                return Err("expected a TRACE, or --host and --map, --unmap or the like".into());
            };
            // With what it takes from a built-in host.
            let host =
                trace::profile::read(&header).map_err(|why| format!("{}: {why}", shown(host)))?;
            let script = ask::script(self, &host.header)?;
            let source = Source::Text { name: "the command line".into(), text: script.into() };
            return find::explained(&source, Wanted::Asked, &options);
        };
        options.machine = header;
        let (file, request) = split(trace);
        let source = if file == "-" {
            let text = lines(io::stdin().lock());
            let text = text.map_err(|error| cannot_open(file, &error).to_string())?;
            Source::Text { name: "-".into(), text: text.into() }
        } else {
            Source::File(file.to_owned())
        };
        let wanted = request.map_or(Wanted::First, Wanted::Number);
        find::explained(&source, wanted, &options)
    }
}

/// All lines, to be read more than once; none after one that is too long for a trace.
fn lines(mut input: impl BufRead) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let line = (&mut input).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut text)?;
        if line == 0 || !text.ends_with(b"\n") {
            return Ok(text);
        }
    }
}

/// A trace's name, and the request that follows it.
fn split(trace: &OsStr) -> (&OsStr, Option<u64>) {
    let bytes = trace.as_bytes();
    if exists(trace) {
        return (trace, None);
    }
    let parts = bytes.iter().rposition(|byte| *byte == b':').map(|at| bytes.split_at(at));
    let number = |text: &[u8]| std::str::from_utf8(text.get(1..)?).ok()?.parse().ok();
    match parts.and_then(|(file, rest)| Some((file, number(rest)?))) {
        Some((file, number)) => (OsStr::from_bytes(file), Some(number)),
        None => (trace, None),
    }
}
