//! `softvfio explain`: one request in full.

mod ask;
mod report;
mod rules;

use std::ffi::{OsStr, OsString};
use std::io::{BufReader, Cursor, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::Args;
use draw::story::{Recorder, Story};
use iommu::Dialect;
use trace::{Options, Outcome, Reader, Session, Step};

use crate::input::{cannot_open, exists, shown};
use crate::output::{for_terminal, terminal_width};
use crate::{input, progress};

/// The kernels whose answers are compared.
const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];
/// The input cannot be read.
const UNREADABLE: u8 = 2;

/// Options of `softvfio explain`.
#[derive(Args)]
#[command(after_help = "Examples:
  softvfio explain trace.jsonl                       the first request that was refused
  softvfio explain trace.jsonl:17                    request 17, the first being 1
  softvfio explain --map 0x8000000+2M --host arm-smmuv3-its
  softvfio explain --window 0x8000000+64K --map 0+1G --enable-msi edu --host arm-smmuv3-its-user

Requests on the command line are carried out in this order: windows, maps, unmaps, interrupts; the
first that is refused is explained, else the last. Exit status: 0, or 2 when an input cannot be
read (file:line:column: what was expected).")]
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
    /// Answer as this kernel, whatever the header says.
    #[arg(long, value_name = "NAME", value_parser = KERNELS)]
    dialect: Option<String>,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

/// A request and what led to it.
pub(crate) struct Case {
    /// The file.
    pub(crate) file: String,
    /// There is no file: its requests stand on the command line.
    pub(crate) typed: bool,
    /// The request.
    pub(crate) outcome: Outcome,
    /// What is in address spaces, before or, of a refused request, also after it.
    pub(crate) stories: Vec<Story>,
    /// Which kernel answered.
    pub(crate) dialect: Dialect,
    /// The version of the container that requests mean; 1 or 2.
    pub(crate) v1: bool,
    /// Requests after it that were refused too.
    pub(crate) other: Vec<(u64, String)>,
    /// Answers of other kernels: name, errno or answer, reason.
    pub(crate) kernels: Vec<(String, String, Option<String>)>,
}

impl Explain {
    /// Explains, and says how it went.
    pub(crate) fn run(self) -> ExitCode {
        let done = self.case().and_then(|case| {
            let out = std::io::stdout();
            let text = match (&case, self.json) {
                (Some(case), true) => report::json(case).to_string() + "\n",
                (Some(case), false) => {
                    let colour = out.is_terminal() && crate::draw::wants_colour();
                    let width = terminal_width().map_or(report::WIDTH, |w| w.min(report::WIDTH));
                    for_terminal(report::text(case, colour, width))
                }
                (None, true) => "null\n".into(),
                (None, false) => "nothing was refused, and nothing looks suspicious\n".into(),
            };
            match out.lock().write_all(text.as_bytes()) {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    Err(format!("cannot write: {error}"))
                }
                _ => Ok(()),
            }
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
        let mut options = Options::default();
        let header = match &self.host {
            None => None,
            Some(name) => Some(input::host(name)?),
        };
        options.dialect = self.dialect.as_deref().and_then(Dialect::named);
        let Some(trace) = &self.trace else {
            let (Some(host), Some(header)) = (&self.host, header) else {
                return Err("expected a TRACE, or --host and --map, --unmap or the like".into());
            };
            // With what it takes from a built-in host.
            let host =
                trace::profile::read(&header).map_err(|why| format!("{}: {why}", shown(host)))?;
            let script = ask::script(self, &host.header)?;
            let source = Source::Text { name: "the command line".into(), text: script };
            return explained(&source, Wanted::Asked, &options);
        };
        options.machine = header;
        let (file, request) = split(trace);
        let source = if file == "-" {
            let mut text = Vec::new();
            let read = std::io::stdin().read_to_end(&mut text);
            read.map_err(|error| cannot_open(file, &error).to_string())?;
            Source::Text { name: "-".into(), text }
        } else {
            Source::File(file.to_owned())
        };
        let wanted = request.map_or(Wanted::First, Wanted::Number);
        explained(&source, wanted, &options)
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

/// Where requests come from; read once for each kernel.
enum Source {
    File(OsString),
    Text { name: String, text: Vec<u8> },
}

/// Which request is to be explained.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    /// The first that was refused, else the first that looks suspicious.
    First,
    /// By its number.
    Number(u64),
    /// The first refused one of those on the command line, else the last.
    Asked,
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::File(name) => shown(name),
            Self::Text { name, .. } => name.clone(),
        }
    }

    fn open(&self) -> Result<(Box<dyn std::io::BufRead + '_>, indicatif::ProgressBar), String> {
        match self {
            Self::File(file) => {
                progress::reader(file).map_err(|error| cannot_open(file, &error).to_string())
            }
            Self::Text { text, .. } => {
                Ok((Box::new(BufReader::new(Cursor::new(text))), indicatif::ProgressBar::hidden()))
            }
        }
    }
}

fn explained(source: &Source, wanted: Wanted, options: &Options) -> Result<Option<Case>, String> {
    let Some(mut case) = found(source, wanted, options)? else { return Ok(None) };
    case.typed = wanted == Wanted::Asked;
    // The same requests under the other kernels.
    let number = case.outcome.request;
    for name in KERNELS {
        if name == case.dialect.name {
            let (answer, why) = (report::answer(&case.outcome), case.outcome.why.clone());
            case.kernels.push((name.into(), answer, why));
            continue;
        }
        let options = Options { dialect: Dialect::named(name), ..options.clone() };
        let (answer, why) = match found(source, Wanted::Number(number), &options)? {
            Some(other) => (report::answer(&other.outcome), other.outcome.why),
            None => ("no answer".into(), None),
        };
        case.kernels.push((name.into(), answer, why));
    }
    Ok(Some(case))
}

/// What a replay found.
enum Found {
    Case(Box<Case>),
    /// It is this request, as the end showed.
    At(u64),
    Nothing,
}

/// Replays up to the request that is wanted; again, when only the end shows which one that is.
fn found(source: &Source, wanted: Wanted, options: &Options) -> Result<Option<Case>, String> {
    let (reader, bar) = source.open()?;
    let found = replay(reader, &source.name(), wanted, options);
    bar.finish_and_clear();
    match found? {
        Found::Case(case) => Ok(Some(*case)),
        Found::At(number) => self::found(source, Wanted::Number(number), options),
        Found::Nothing => Ok(None),
    }
}

fn replay(
    reader: Box<dyn std::io::BufRead + '_>,
    name: &str,
    wanted: Wanted,
    options: &Options,
) -> Result<Found, String> {
    let mut session =
        Session::start(Reader::new(reader, name), options).map_err(|error| error.to_string())?;
    session.watch();
    let mut recorder = Recorder::default();
    let dialect = session.dialect().clone();
    let (mut v1, mut requests) = (false, 0);
    let mut chosen: Option<(Outcome, Vec<Story>)> = None;
    let mut suspicious: Option<u64> = None;
    let mut other = Vec::new();
    while let Some(step) = session.step().map_err(|error| error.to_string())? {
        let Step::Request(outcome) = step else { continue };
        requests = outcome.request;
        if outcome.op() == "set_iommu" && outcome.why.is_none() {
            v1 = outcome.member("type").is_some_and(|t| t == "type1" || t == 1 || t == "1");
        }
        if chosen.is_some() {
            drop(session.take_changes());
            if outcome.refusal.is_some() {
                other.push((outcome.request, outcome.op().to_owned()));
            }
            continue;
        }
        let this = match wanted {
            Wanted::Number(number) => outcome.request == number,
            Wanted::First | Wanted::Asked => outcome.refusal.is_some(),
        };
        recorder.note(&outcome, &mut session);
        if this {
            chosen = Some((*outcome, std::mem::take(&mut recorder).finish()));
            if matches!(wanted, Wanted::Number(_)) {
                break;
            }
        } else if wanted == Wanted::First && rules::suspicion(&outcome).is_some() {
            suspicious.get_or_insert(outcome.request);
        }
    }
    let case = |(outcome, stories): (Outcome, Vec<Story>)| Case {
        file: name.to_owned(),
        typed: false,
        outcome,
        stories,
        dialect,
        v1,
        other,
        kernels: Vec::new(),
    };
    match (chosen, wanted) {
        (Some(chosen), _) => Ok(Found::Case(Box::new(case(chosen)))),
        (None, Wanted::Number(number)) => {
            Err(format!("{name}: expected a request from 1 to {requests}, found {number}"))
        }
        (None, Wanted::Asked) => Ok(Found::At(requests)),
        (None, Wanted::First) => Ok(suspicious.map_or(Found::Nothing, Found::At)),
    }
}
