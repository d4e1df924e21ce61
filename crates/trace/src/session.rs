//! A trace being replayed: one world, one request after the other.

use std::io::BufRead;

use iommu::{Dialect, Host};
use serde_json::{Map, Value};
use vfio::device::Device;
use vfio::{Abi, Container, ContainerId, Refusal};

use crate::compare::{Difference, compare, same};
use crate::deviation::{self, Deviation};
use crate::fields::Fields;
use crate::hosts;
use crate::machine::{Facts, Header, Machine};
use crate::members::{Members, Raw};
use crate::ops::{self, Answer, Stop};
use crate::order::Order;
use crate::reader::{Line, ReadError, Reader};
use crate::request::Request;
use crate::span;
use crate::watch::Change;
use crate::world::World;

/// How to replay.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Answer as this kernel, whatever the header says.
    pub dialect: Option<&'static Dialect>,
    /// Speak these numbers, whatever the header says.
    pub abi: Option<Abi>,
    /// What no header carries.
    pub facts: Facts,
    /// A header whose machine takes the place of the trace's own.
    pub machine: Option<Map<String, Value>>,
}

/// Members of a header that describe the machine, in the order that recordings have them after the
/// script's own.
const MACHINE: [&str; 7] =
    ["format", "kernel", "machine", "page_size", "module_params", "host", "devices"];

/// How a recorded answer compares.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Nothing was recorded.
    Unasked,
    /// The same.
    Matched,
    /// Different, and every difference is on the list.
    Deviates(&'static Deviation),
    /// Different. Empty when there is no such operation.
    Mismatched(Vec<Difference>),
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The line in the file, from 1.
    pub line: u64,
    /// Which request of the file this is, from 1.
    pub request: u64,
    /// The line's text.
    pub text: String,
    /// What we answer.
    pub got: Fields,
    /// Why we refuse, for people.
    pub why: Option<String>,
    /// The same, for programs, when it was VFIO that refused.
    pub refusal: Option<Refusal>,
    /// How the two compare.
    pub verdict: Verdict,
    /// The request, without `want`, and what was recorded: they stand in the text.
    asked: Members,
    want: Option<Raw>,
}

impl Outcome {
    /// The request, without `want`.
    #[must_use]
    pub fn asked(&self) -> Map<String, Value> {
        self.asked.to_map(&self.text)
    }

    /// The request as it was read.
    pub(crate) fn request_text(&self) -> Request<'_> {
        Request::new(&self.text, &self.asked)
    }

    /// What was recorded.
    #[must_use]
    pub fn want(&self) -> Option<Value> {
        self.want.as_ref().map(|want| want.to_value(&self.text))
    }

    /// What the request is called; nothing when its name is no string.
    #[must_use]
    pub fn op(&self) -> &str {
        self.text_of("op").unwrap_or_default()
    }

    /// A member of the request, when it is a string.
    #[must_use]
    pub fn text_of(&self, member: &str) -> Option<&str> {
        match self.asked.get(&self.text, member)? {
            Raw::String(string) => Some(string.get(&self.text)),
            _ => None,
        }
    }

    /// Whether the request has a member.
    #[must_use]
    pub fn has(&self, member: &str) -> bool {
        self.asked.get(&self.text, member).is_some()
    }

    /// A member of the request, when it can be read as a number, as whoever carries it out does.
    #[must_use]
    pub fn number(&self, member: &str) -> Option<u64> {
        let value = self.asked.get(&self.text, member)?;
        self.request_text().number_of(member, value).ok()?
    }

    /// A member of the request, other than `want`.
    #[must_use]
    pub fn member(&self, member: &str) -> Option<Value> {
        self.asked.get(&self.text, member).map(|value| value.to_value(&self.text))
    }
}

/// A line of a trace.
#[derive(Clone, Debug)]
pub enum Step {
    /// Nothing to carry out: the text.
    Note(String),
    /// A request.
    Request(Box<Outcome>),
}

/// A trace being replayed.
pub struct Session<R> {
    reader: Reader<R>,
    world: World,
    dialect: Dialect,
    header: String,
    notes: Vec<String>,
    requests: u64,
    needs_known: bool,
}

impl<R: BufRead> Session<R> {
    /// Reads the header and builds its machine.
    ///
    /// # Errors
    /// [`ReadError`] when there is no header or it cannot be used.
    pub fn start(mut reader: Reader<R>, options: &Options) -> Result<Self, ReadError> {
        let file = reader.file().to_owned();
        let Some(line) = reader.read_line()? else {
            let expected = "a header on the first line, found an empty file".into();
            return Err(ReadError { file, line: 1, column: 0, expected });
        };
        if line.members.get(&line.text, "op").is_some() {
            let column = span::column(&line.text, "op");
            let expected = "a header before the first request".into();
            return Err(ReadError { file, line: line.number, column, expected });
        }
        let (mut members, mut header) = match &options.machine {
            Some(machine) => on_machine(&line, machine, &file),
            None => (line.to_map(), line.text.clone()),
        };
        if let Some(abi) = options.abi
            && members.get("abi").and_then(Value::as_str) != Some(abi.name())
        {
            members.insert("abi".into(), abi.name().into());
            header = Value::Object(members.clone()).to_string();
        }
        let (dialect, abi) = (options.dialect, options.abi);
        let built = hosts::complete(&mut members)
            .and_then(|()| Header::read(&members))
            .and_then(|header| Machine::build(&header, &options.facts, dialect, abi));
        let machine = built.map_err(|bad| {
            let own = line.members.get(&line.text, &bad.member).is_some();
            let column = if own { span::column(&line.text, &bad.member) } else { 1 };
            ReadError { file: file.clone(), line: line.number, column, expected: bad.expected }
        })?;
        Ok(Self {
            world: World::new(&machine),
            dialect: machine.host.dialect.clone(),
            notes: machine.notes,
            reader,
            header,
            requests: 0,
            needs_known: false,
        })
    }

    /// The header's line, as a recording on the machine would have it.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// What the user should know of how the header was taken.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The dialect that answers.
    pub fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        self.reader.file()
    }

    /// Takes an operation that there is not for an unreadable line, and not for a mismatch.
    pub fn need_known_operations(&mut self) {
        self.needs_known = true;
    }

    /// Keeps what changes from now on for [`take_changes`](Self::take_changes).
    pub fn watch(&mut self) {
        self.world.watch();
    }

    /// What has changed since the last time, in order; nothing unless it is
    /// [watched](Self::watch).
    pub fn take_changes(&mut self) -> std::vec::Drain<'_, Change> {
        self.world.take_changes()
    }

    /// The machine that answers.
    pub fn host(&self) -> &Host {
        self.world.host()
    }

    /// A container, while it is open or has groups.
    pub fn container(&self, id: ContainerId) -> Option<&Container> {
        self.world.container(id)
    }

    /// The checks that the request meets which was carried out last, in their order.
    pub fn order(&self, outcome: &Outcome) -> Order {
        self.order_of(outcome.request_text())
    }

    /// The same of any request.
    pub(crate) fn order_of(&self, request: Request<'_>) -> Order {
        crate::order::of(&self.world, request)
    }

    /// The container that a request is about, as descriptors are now.
    pub fn container_of(&self, outcome: &Outcome) -> Option<ContainerId> {
        crate::order::container_of(&self.world, outcome.request_text())
    }

    /// The device in a request's slot `d`, as it is now.
    pub fn device_of(&self, outcome: &Outcome) -> Option<&Device> {
        let slots = &self.world.slots.d;
        self.world.device_at(slots[outcome.request_text().slot("d", slots.len()).ok()?])
    }

    /// Takes an outcome that nobody wants any more; whoever has many of them is faster for it.
    pub fn spent(&mut self, outcome: Box<Outcome>) {
        let Outcome { text, asked, want, .. } = *outcome;
        self.reader.give_back((text, asked, want));
    }

    /// Carries out the next line; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`] for a line that cannot be read, or a member that cannot be used.
    pub fn step(&mut self) -> Result<Option<Step>, ReadError> {
        let Some(mut line) = self.reader.read_line()? else { return Ok(None) };
        // A line with an answer and no operation is no note: the answer counts.
        let has_op =
            line.members.get(&line.text, "op").is_some_and(|op| !matches!(op, Raw::Array(_)));
        if !has_op && (self.needs_known || line.members.get(&line.text, "want").is_none()) {
            return Ok(Some(Step::Note(line.text)));
        }
        self.requests += 1;
        let want = line.members.remove(&line.text, "want");
        let (answer, known) =
            match ops::run(&mut self.world, Request::new(&line.text, &line.members)) {
                Ok(answer) => (answer, true),
                Err(Stop::Killed(signal)) => (Answer::killed(signal), true),
                Err(Stop::Unknown(name)) if !self.needs_known => {
                    let why = Some(if has_op {
                        format!("there is no operation {name:?}")
                    } else {
                        "the line names no operation".into()
                    });
                    (Answer { fields: Fields::default(), why, refusal: None }, false)
                }
                Err(Stop::Unknown(name)) => {
                    return Err(self.error(
                        &line,
                        "op",
                        format!("a known operation, found {name:?}"),
                    ));
                }
                Err(Stop::Bad(bad)) => return Err(self.error(&line, &bad.member, bad.expected)),
            };
        let verdict = self.judge(&line, want.as_ref(), &answer, known);
        Ok(Some(Step::Request(Box::new(Outcome {
            line: line.number,
            request: self.requests,
            text: line.text,
            got: answer.fields,
            why: answer.why,
            refusal: answer.refusal,
            verdict,
            asked: line.members,
            want,
        }))))
    }

    fn judge(&self, line: &Line, want: Option<&Raw>, answer: &Answer, known: bool) -> Verdict {
        let Some(want) = want else { return Verdict::Unasked };
        if !known {
            return Verdict::Mismatched(Vec::new());
        }
        if same(&line.text, want, &answer.fields) {
            return Verdict::Matched;
        }
        let got = answer.fields.to_map();
        let differences = match want.to_value(&line.text) {
            Value::Object(want) => compare(&want, &got),
            other => vec![Difference {
                field: "want".into(),
                want: Some(other),
                got: Some(Value::Object(got)),
            }],
        };
        let Some(first) = differences.first() else { return Verdict::Matched };
        let asked = &line.to_map();
        let row = deviation::find(&self.dialect, asked, first);
        match row {
            Some(row)
                if differences
                    .iter()
                    .all(|d| deviation::find(&self.dialect, asked, d).is_some()) =>
            {
                Verdict::Deviates(row)
            }
            _ => Verdict::Mismatched(differences),
        }
    }

    fn error(&self, line: &Line, member: &str, expected: String) -> ReadError {
        let column = span::column(&line.text, member);
        ReadError { file: self.file().to_owned(), line: line.number, column, expected }
    }
}

/// A header's members with the machine of another, and its text as a recording has it.
fn on_machine(
    line: &Line,
    machine: &Map<String, Value>,
    file: &str,
) -> (Map<String, Value>, String) {
    let mut members = Map::new();
    let stem = file.rsplit('/').next().unwrap_or(file);
    members.insert("trace".into(), stem.strip_suffix(".jsonl").unwrap_or(stem).into());
    for name in ["platform", "qemu"] {
        if let Some(value) = machine.get(name) {
            members.insert(name.into(), value.clone());
        }
    }
    let of_machine =
        |name: &str| MACHINE.contains(&name) || ["platform", "qemu", "built_in"].contains(&name);
    for (name, value) in line.to_map() {
        if !of_machine(&name) {
            members.insert(name, value);
        }
    }
    for name in MACHINE {
        if let Some(value) = machine.get(name) {
            members.insert(name.into(), value.clone());
        }
    }
    // The numbers that a script speaks are its own.
    for name in ["built_in", "abi"] {
        if let Some(value) = machine.get(name).filter(|_| !members.contains_key(name)) {
            members.insert(name.into(), value.clone());
        }
    }
    let text = Value::Object(members.clone()).to_string();
    (members, text)
}

/// An outcome's line with our answer as `want`.
#[must_use]
pub fn answered(outcome: &Outcome) -> String {
    span::with_want(&outcome.text, &outcome.got.to_string())
}
