//! What is drawn as JSON, a `softvfio-scene/1` (docs/draw.md): nothing is gathered, and nothing is held
//! in memory that the drawing does not hold.

use std::io::{self, Write};

use iommu::IovaRange;
use serde_json::{Value, json};

use crate::film::Film;
use crate::scene::{Area, Column, Mark, MarkKind, Scene};
use crate::story::{Life, Story};

const FORMAT: &str = "softvfio-scene/1";

/// Writes drawings, one after the other.
pub struct Writer<W> {
    out: W,
    drawings: usize,
}

impl<W: Write> Writer<W> {
    /// Begins the document.
    ///
    /// # Errors
    /// Of `out`.
    pub fn new(mut out: W) -> io::Result<Self> {
        writeln!(out, "{{\"format\":{},\"drawings\":[", text(FORMAT))?;
        Ok(Self { out, drawings: 0 })
    }

    /// Writes an address space at one moment.
    ///
    /// # Errors
    /// Of the output.
    pub fn scene(&mut self, scene: &Scene) -> io::Result<()> {
        self.head("space", &scene.title, &scene.subtitle)?;
        let out = &mut self.out;
        write!(out, "\"columns\":[")?;
        list(out, scene.columns.iter(), |out, column: &Column| {
            let (title, apertures) = (text(&column.title), ranges(&column.apertures));
            write!(out, "{{\"title\":{title},\"apertures\":{apertures},\"areas\":[")?;
            list(out, column.areas.iter(), |out, area: &Area| write!(out, "{}", area_json(area)))?;
            write!(out, "]}}")
        })?;
        write!(out, "],")?;
        marks(out, &scene.marks)?;
        write!(out, "}}")
    }

    /// Writes one over time: each request that changed something, with what it made and removed.
    ///
    /// # Errors
    /// Of the output.
    pub fn film(&mut self, film: &Film, story: &Story) -> io::Result<()> {
        self.head("time", &film.title, &film.subtitle)?;
        let out = &mut self.out;
        let apertures = ranges(&film.apertures);
        let (container, requests) = (story.container.0, story.requests);
        write!(
            out,
            "\"container\":{container},\"requests\":{requests},\"apertures\":{apertures},\"changes\":["
        )?;
        // They came in the order of requests; they go in any.
        let lives = &story.lives;
        let mut ended: Vec<(u64, usize)> =
            lives.iter().enumerate().filter_map(|(at, life)| Some((life.to?, at))).collect();
        ended.sort_unstable();
        let (mut made, mut ended) = (lives.iter().peekable(), ended.into_iter().peekable());
        let next = |made: Option<&&Life>, ended: Option<&(u64, usize)>| {
            made.map(|life| life.from).into_iter().chain(ended.map(|(to, _)| *to)).min()
        };
        let mut first = true;
        while let Some(request) = next(made.peek(), ended.peek()) {
            let comma = if first { "" } else { "," };
            first = false;
            write!(out, "{comma}\n{{\"request\":{request},\"made\":[")?;
            let now = std::iter::from_fn(|| made.next_if(|life| life.from == request));
            list(out, now, |out, life| write!(out, "{}", life_json(story, life)))?;
            write!(out, "],\"removed\":[")?;
            let now = std::iter::from_fn(|| ended.next_if(|(to, _)| *to == request));
            let now = now.filter_map(|(_, at)| lives.get(at));
            list(out, now, |out, life| write!(out, "{}", life_json(story, life)))?;
            write!(out, "]}}")?;
        }
        write!(out, "],")?;
        marks(out, &film.marks)?;
        write!(out, ",\"more_marks\":{}}}", film.more_marks)
    }

    /// Ends the document.
    ///
    /// # Errors
    /// Of the output.
    pub fn end(mut self) -> io::Result<()> {
        writeln!(self.out, "]}}")?;
        self.out.flush()
    }

    fn head(&mut self, view: &str, title: &str, subtitle: &str) -> io::Result<()> {
        let comma = if self.drawings == 0 { "" } else { ",\n" };
        self.drawings += 1;
        let (title, subtitle) = (text(title), text(subtitle));
        write!(self.out, "{comma}{{\"view\":\"{view}\",\"title\":{title},\"subtitle\":{subtitle},")
    }
}

/// The members of a list, each on a line.
fn list<W: Write, T>(
    out: &mut W,
    members: impl Iterator<Item = T>,
    mut each: impl FnMut(&mut W, T) -> io::Result<()>,
) -> io::Result<()> {
    for (at, member) in members.enumerate() {
        writeln!(out, "{}", if at == 0 { "" } else { "," })?;
        each(out, member)?;
    }
    Ok(())
}

fn marks<W: Write>(out: &mut W, marks: &[Mark]) -> io::Result<()> {
    write!(out, "\"marks\":[")?;
    list(out, marks.iter(), |out, mark| {
        let request = Some(mark.request).filter(|request| *request != 0);
        let value = json!({
            "kind": mark_word(mark.kind), "request": request,
            "first": mark.range.map(|r| hex(r.first())), "last": mark.range.map(|r| hex(r.last())),
            "text": mark.text,
            "times": mark.again.times.saturating_add(1),
            "last_request": request.map(|request| request.max(mark.again.last)),
        });
        write!(out, "{value}")
    })?;
    write!(out, "]")
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}

fn ranges(ranges: &[IovaRange]) -> Value {
    let range = |r: &IovaRange| json!({"first": hex(r.first()), "last": hex(r.last())});
    Value::Array(ranges.iter().map(range).collect())
}

fn area_json(area: &Area) -> Value {
    json!({
        "first": hex(area.range.first()), "last": hex(area.range.last()), "kind": area.kind.word(),
        "name": area.name, "note": area.note,
    })
}

fn life_json(story: &Story, life: &Life) -> Value {
    json!({
        "first": hex(life.range.first()), "last": hex(life.range.last()), "kind": life.kind.word(),
        "name": story.name(life),
    })
}

const fn mark_word(kind: MarkKind) -> &'static str {
    match kind {
        MarkKind::Refused => "refused",
        MarkKind::Fault => "fault",
        MarkKind::Collision => "collision",
    }
}
