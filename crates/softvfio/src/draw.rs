//! `softvfio draw`: an I/O address space as a picture, in the terminal and as SVG, or as JSON.

use std::ffi::OsString;
use std::io::{self, BufRead, BufWriter, IsTerminal, Read};
use std::process::ExitCode;

use clap::Args;
use draw::layout::{Layout, is_layout};
use draw::story::Recorder;
use draw::{Film, Scene, Story, host, json, text};
use indicatif::ProgressBar;
use serde_json::{Map, Value};
use trace::{Options, ReadError, Reader, Session, Step, hosts};

use crate::input::{cannot_open, exists, is_no_file, shown};
use crate::output::{terminal_width, wants_colour};
use crate::picture::{Drawing, beside, stem, write_svg, written};
use crate::{input, output, progress};

/// Drawn.
const DRAWN: u8 = 0;
/// The input cannot be read, or the output not written.
const UNREADABLE: u8 = 2;
/// Containers of a trace that are drawn.
const MOST: usize = 4;
/// Bytes of a layout or a host in one JSON object.
const MAX_OBJECT: u64 = 8 << 20;

/// Options of `softvfio draw`.
#[derive(Args)]
#[command(after_help = "Examples:
  softvfio draw arm-smmuv3-its                       what a host leaves free
  softvfio draw trace.jsonl                          what was mapped when
  softvfio draw trace.jsonl --at 12 --svg 12.svg     after request 12
  softvfio draw layout.json --host arm-smmuv3-its    a guest beside its host
  softvfio draw trace.jsonl --json                   softvfio-scene/1

Plain when standard output is no terminal, or NO_COLOR is set. The pictures are
explained in docs/draw.md. Exit status: 0, or 2 when an input cannot be read
(file:line:column: what was expected).")]
pub(crate) struct Draw {
    /// A trace or script, a host (built in, or a file), or a layout; `-` is standard input.
    #[arg(value_name = "TRACE|HOST|LAYOUT")]
    input: OsString,
    /// Of a trace: draw what is where after this request, the first being 1.
    #[arg(long, value_name = "REQUEST")]
    at: Option<u64>,
    /// Write an SVG picture to this file (`-`: standard output) in place of text.
    #[arg(long, value_name = "FILE")]
    svg: Option<OsString>,
    /// Write what is in the picture as JSON for programs.
    #[arg(long, conflicts_with = "svg")]
    json: bool,
    /// Of a layout: show beside it what this host says. Of a trace: replay it on this machine.
    #[arg(long, value_name = "NAME|FILE")]
    host: Option<OsString>,
    /// Of a trace with several containers: draw the one that was opened as this, the first being 0.
    #[arg(long, value_name = "NUMBER")]
    container: Option<u32>,
    /// What to call the picture.
    #[arg(long)]
    title: Option<String>,
    /// Characters of a line; the terminal's, else 100.
    #[arg(long, value_name = "CHARACTERS")]
    width: Option<usize>,
}

type Failure = String;

impl Draw {
    /// Draws, and says how it went.
    pub(crate) fn run(self) -> ExitCode {
        match self.drawings().and_then(|drawings| self.write(&drawings)) {
            Ok(()) => ExitCode::from(DRAWN),
            Err(why) => {
                eprintln!("softvfio: {why}");
                ExitCode::from(UNREADABLE)
            }
        }
    }

    fn write(&self, drawings: &[Drawing]) -> Result<(), Failure> {
        if self.json {
            return written(write_json(drawings), "-");
        }
        let Some(file) = &self.svg else {
            let out = io::stdout();
            let style = text::Style {
                width: self.width.unwrap_or_else(|| width(out.is_terminal())),
                colour: wants_colour(&out),
            };
            let parts = drawings.iter().map(|drawing| match drawing {
                Drawing::Scene(scene) => text::scene(scene, style),
                Drawing::Film(film, _) => text::film(film, style),
            });
            let text = parts.collect::<Vec<_>>().join("\n");
            return written(output::write(&text), "-");
        };
        write_svg(drawings, file)
    }

    fn drawings(&self) -> Result<Vec<Drawing>, Failure> {
        let built_in = self.input.to_str().and_then(hosts::header);
        if let Some(header) = built_in.filter(|_| !exists(&self.input)) {
            return self.host_scenes(&header);
        }
        if is_no_file(&self.input) {
            let names = hosts::names();
            return Err(format!("{}: expected a file, or a host: one of {names}", self.name()));
        }
        let (reader, bar) = progress::reader(&self.input).map_err(|error| error.to_string())?;
        let drawings = self.read(reader, &bar);
        bar.finish_and_clear();
        drawings
    }

    /// The input's name, as it is printed.
    fn name(&self) -> String {
        shown(&self.input)
    }

    /// What to call the picture when nobody says.
    fn title(&self) -> String {
        self.title.clone().unwrap_or_else(|| stem(&self.name()).to_owned())
    }

    /// Finds out by its beginning what an input is.
    fn read(
        &self,
        mut reader: Box<dyn BufRead + Send>,
        bar: &ProgressBar,
    ) -> Result<Vec<Drawing>, Failure> {
        let mut head = Vec::new();
        let cannot = |error: &io::Error| cannot_open(&self.input, error).to_string();
        // The first line that says anything.
        while head.iter().all(u8::is_ascii_whitespace) {
            let read = (&mut reader).take(trace::MAX_LINE as u64 + 1).read_until(b'\n', &mut head);
            if read.map_err(|error| cannot(&error))? == 0 {
                break;
            }
        }
        let first: Option<Map<String, Value>> = serde_json::from_slice(&head).ok();
        match first {
            Some(members) if is_layout(&members) => self.layout(&members),
            Some(_) => {
                self.trace(progress::lines(io::Cursor::new(head).chain(reader), self.name(), bar))
            }
            // An object on several lines: a layout or a host.
            None => {
                let more = (&mut reader).take(MAX_OBJECT).read_to_end(&mut head);
                more.map_err(|error| cannot(&error))?;
                match serde_json::from_slice::<Map<String, Value>>(&head) {
                    Ok(members) if is_layout(&members) => self.layout(&members),
                    Ok(members) => {
                        let line = Value::Object(members).to_string();
                        self.trace(Reader::new(line.as_bytes(), self.name()))
                    }
                    // Whoever reads traces says what is wrong with a first line; else JSON does.
                    Err(_) if !head.starts_with(b"{") || lines(&head) < 2 => {
                        self.trace(Reader::new(head.as_slice(), self.name()))
                    }
                    Err(error) => Err(format!(
                        "{}:{}:{}: expected a trace, a host or a layout: {}",
                        self.name(),
                        error.line(),
                        error.column(),
                        error.to_string().split(" at line").next().unwrap_or_default()
                    )),
                }
            }
        }
    }

    fn layout(&self, members: &Map<String, Value>) -> Result<Vec<Drawing>, Failure> {
        if self.at.is_some() {
            return Err(format!("{}: expected a trace with --at, found a layout", self.name()));
        }
        let layout = Layout::read(members).map_err(|why| format!("{}: {why}", self.name()))?;
        let title = self.title.clone().or(layout.name).unwrap_or_else(|| self.title());
        let Some(name) = &self.host else {
            let columns = vec![layout.column];
            let subtitle = "a guest's layout".into();
            return Ok(vec![Drawing::Scene(Scene { title, subtitle, columns, marks: Vec::new() })]);
        };
        let header = input::host(name)?;
        let name = shown(name);
        let session = machine(&header, &name).map_err(|error| error.to_string())?;
        let scenes = beside(session.host(), &name, &title, &layout.column);
        Ok(scenes.into_iter().map(Drawing::Scene).collect())
    }

    fn host_scenes(&self, header: &Map<String, Value>) -> Result<Vec<Drawing>, Failure> {
        let session = machine(header, &self.name()).map_err(|error| error.to_string())?;
        self.scenes_of(&session)
    }

    fn scenes_of<R: BufRead>(&self, session: &Session<R>) -> Result<Vec<Drawing>, Failure> {
        if self.at.is_some() {
            return Err(format!("{}: expected a trace with --at, found a host", self.name()));
        }
        Ok(host::scenes(session.host(), &self.title()).into_iter().map(Drawing::Scene).collect())
    }

    fn trace<R: BufRead>(&self, reader: Reader<R>) -> Result<Vec<Drawing>, Failure> {
        let mut options = Options::default();
        if let Some(name) = &self.host {
            options.machine = Some(input::host(name)?);
        }
        let mut session = Session::start(reader, &options).map_err(|error| error.to_string())?;
        for note in session.notes() {
            eprintln!("softvfio: {}: {note}", self.name());
        }
        session.watch();
        let mut recorder = Recorder::default();
        let mut requests = 0;
        while self.at.is_none_or(|at| requests < at) {
            match session.step().map_err(|error| error.to_string())? {
                None => break,
                Some(Step::Note(_)) => {}
                Some(Step::Request(outcome)) => {
                    requests = outcome.request;
                    recorder.note(&outcome, &mut session);
                    session.spent(outcome);
                }
            }
        }
        if requests == 0 && self.at != Some(0) {
            return self.scenes_of(&session);
        }
        if let Some(at) = self.at.filter(|at| *at > requests || *at == 0) {
            let file = self.name();
            return Err(format!(
                "{file}: expected a request from 1 to {requests}, found --at {at}"
            ));
        }
        let stories = self.chosen(recorder.finish())?;
        let title = self.title();
        let drawing = |story: Story| match self.at {
            Some(_) if self.json => Drawing::Scene(story.whole_scene(&title)),
            Some(_) => Drawing::Scene(story.scene(&title)),
            None => Drawing::Film(Film::of(&story, &title), Box::new(story)),
        };
        Ok(stories.into_iter().map(drawing).collect())
    }

    /// The containers to draw.
    fn chosen(&self, mut stories: Vec<Story>) -> Result<Vec<Story>, Failure> {
        let file = self.name();
        if let Some(number) = self.container {
            stories.retain(|s| s.container.0 == number);
            if stories.is_empty() {
                return Err(format!("{file}: nothing happened in a container {number}"));
            }
        }
        if stories.is_empty() {
            return Err(format!("{file}: no request of it is about an address space"));
        }
        let left = stories.len().saturating_sub(MOST);
        if left > 0 {
            eprintln!("softvfio: {file}: {left} more containers, see --container");
            stories.truncate(MOST);
        }
        Ok(stories)
    }
}

fn write_json(drawings: &[Drawing]) -> io::Result<()> {
    let mut writer = json::Writer::new(BufWriter::new(io::stdout().lock()))?;
    for drawing in drawings {
        match drawing {
            Drawing::Scene(scene) => writer.scene(scene)?,
            Drawing::Film(film, story) => writer.film(film, story)?,
        }
    }
    writer.end()
}

/// A machine without requests.
fn machine(
    header: &Map<String, Value>,
    name: &str,
) -> Result<Session<io::Cursor<Vec<u8>>>, ReadError> {
    let line = Value::Object(header.clone()).to_string();
    Session::start(Reader::new(io::Cursor::new(line.into_bytes()), name), &Options::default())
}

fn lines(text: &[u8]) -> usize {
    text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count()
}

/// Characters of a line of standard output.
fn width(terminal: bool) -> usize {
    if terminal { terminal_width().unwrap_or(80).max(text::NARROWEST) } else { 100 }
}
