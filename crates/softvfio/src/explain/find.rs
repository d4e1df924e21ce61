//! Which request is explained, and what led to it.

use std::ffi::OsString;
use std::io::{BufRead, Cursor};
use std::sync::Arc;

use draw::story::{Recorder, Story};
use indicatif::ProgressBar;
use iommu::Dialect;
use trace::{Options, Order, Outcome, Reader, Session, Step};
use vfio::ContainerId;

use super::held::Holders;
use super::odd::{self, Probes};
use super::request::answer;
use crate::input::shown;
use crate::progress;

/// A request and what led to it.
pub(crate) struct Case {
    /// The file.
    pub(crate) file: String,
    /// There is no file: its requests stand on the command line.
    pub(crate) typed: bool,
    /// The request.
    pub(crate) outcome: Outcome,
    /// Its checks.
    pub(crate) order: Order,
    /// The container it is about.
    pub(crate) container: Option<ContainerId>,
    /// What is in address spaces, before or, of a refused request, also after it.
    pub(crate) stories: Vec<Story>,
    /// Who has what, besides addresses.
    pub(crate) holders: Holders,
    /// What looks odd about it, although it was not refused.
    pub(crate) suspicion: Option<String>,
    /// What it changed, although it was refused.
    pub(crate) effect: Option<String>,
    /// The name of the kernel that answered.
    pub(crate) kernel: &'static str,
    /// Requests after it that were refused too.
    pub(crate) other: Vec<(u64, String)>,
    /// Answers of every kernel.
    pub(crate) kernels: Vec<Answer>,
}

/// What a kernel answers.
pub(crate) struct Answer {
    /// The kernel.
    pub(crate) kernel: &'static str,
    /// The errno, or the number.
    pub(crate) answer: String,
    /// The reason of a refusal.
    pub(crate) why: Option<String>,
}

/// Where requests come from; read once for each kernel.
pub(super) enum Source {
    File(OsString),
    Text { name: String, text: Arc<[u8]> },
}

/// Which request is to be explained.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Wanted {
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

    fn open(&self) -> Result<(Box<dyn BufRead + Send>, ProgressBar), String> {
        match self {
            Self::File(file) => progress::reader(file).map_err(|error| error.to_string()),
            Self::Text { text, .. } => {
                Ok((Box::new(Cursor::new(Arc::clone(text))), ProgressBar::hidden()))
            }
        }
    }
}

/// The request that is wanted, under every kernel.
pub(super) fn explained(
    source: &Source,
    wanted: Wanted,
    options: &Options,
) -> Result<Option<Case>, String> {
    let Some(mut case) = found(source, wanted, options)? else { return Ok(None) };
    let number = case.outcome.request;
    for dialect in Dialect::ALL {
        let kernel = dialect.name;
        let options = Options { dialect: Some(dialect), ..options.clone() };
        let other = match kernel == case.kernel {
            true => None,
            false => found(source, Wanted::Number(number), &options)?,
        };
        let outcome = other.as_ref().map_or(&case.outcome, |other| &other.outcome);
        let (answer, why) = (answer(outcome), outcome.why.clone());
        case.kernels.push(Answer { kernel, answer, why });
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
    let found = replay(progress::lines(reader, source.name(), &bar), wanted, options);
    bar.finish_and_clear();
    match found? {
        Found::Case(case) => Ok(Some(*case)),
        Found::At(number) => self::found(source, Wanted::Number(number), options),
        Found::Nothing => Ok(None),
    }
}

fn replay<R: BufRead>(
    reader: Reader<R>,
    wanted: Wanted,
    options: &Options,
) -> Result<Found, String> {
    let name = reader.file().to_owned();
    let mut session = Session::start(reader, options).map_err(|error| error.to_string())?;
    session.watch();
    let mut recorder = Recorder::default();
    let (mut holders, mut probes) = (Holders::default(), Probes::default());
    let mut requests = 0;
    let mut chosen: Option<Case> = None;
    while let Some(step) = session.step().map_err(|error| error.to_string())? {
        let Step::Request(outcome) = step else { continue };
        requests = outcome.request;
        if let Some(case) = &mut chosen {
            drop(session.take_changes());
            if outcome.refusal.is_some() {
                case.other.push((outcome.request, outcome.op().to_owned()));
            }
            session.spent(outcome);
            continue;
        }
        recorder.note(&outcome, &mut session);
        let odd = odd::of(&outcome, &session, recorder.faults());
        let this = match wanted {
            Wanted::Number(number) => outcome.request == number,
            Wanted::First | Wanted::Asked => outcome.refusal.is_some(),
        };
        if this {
            let order = session.order(&outcome);
            chosen = Some(Case {
                file: name.clone(),
                typed: wanted == Wanted::Asked,
                order,
                container: session.container_of(&outcome),
                effect: odd::effect(&outcome, &session),
                stories: std::mem::take(&mut recorder).finish(),
                holders: std::mem::take(&mut holders),
                suspicion: odd.map(|odd| odd.says),
                kernel: session.dialect().name,
                outcome: *outcome,
                other: Vec::new(),
                kernels: Vec::new(),
            });
            if matches!(wanted, Wanted::Number(_)) {
                break;
            }
        } else {
            holders.note(&outcome);
            if wanted == Wanted::First {
                probes.note(&outcome, odd);
            }
            session.spent(outcome);
        }
    }
    match (chosen, wanted) {
        (Some(case), _) => Ok(Found::Case(Box::new(case))),
        (None, Wanted::Number(number)) => {
            Err(format!("{name}: expected a request from 1 to {requests}, found {number}"))
        }
        (None, Wanted::Asked) => Ok(Found::At(requests)),
        (None, Wanted::First) => Ok(probes.first().map_or(Found::Nothing, Found::At)),
    }
}
