//! Pictures as text: a row for each part of the axis, each kind a character of its own, colours only
//! where they are wanted. No line is wider than asked for, down to [`NARROWEST`].

use std::fmt::Write;

use crate::axis::Axis;
use crate::film::{Film, many};
use crate::scene::{Column, Kind, MarkKind, Scene};
use crate::size::{bytes, count, cut, human, span, wrap};

/// The least width that is kept to.
pub const NARROWEST: usize = 40;

/// The greatest width that is made use of.
const WIDEST: usize = 1000;

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Characters of a line.
    pub width: usize,
    /// Whether to use colours (ANSI escape sequences).
    pub colour: bool,
}

impl Style {
    /// The width that is kept to.
    fn width(self) -> usize {
        self.width.clamp(NARROWEST, WIDEST)
    }
}

/// A line with its colours, of which the width is known.
struct Line {
    text: String,
    used: usize,
    style: Style,
}

impl Line {
    fn new(style: Style) -> Self {
        Self { text: String::new(), used: 0, style }
    }

    /// Adds as much of `text` as there is room for.
    fn put(&mut self, text: &str, colour: &str) {
        let room = self.style.width().saturating_sub(self.used);
        // A name from a trace may be anything; a terminal must not obey it.
        let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        let text: String = cut(text, room).chars().map(safe).collect();
        self.used += text.chars().count();
        if self.style.colour && !colour.is_empty() && !text.is_empty() {
            let _ = write!(self.text, "\u{1b}[{colour}m{text}\u{1b}[0m");
        } else {
            self.text.push_str(&text);
        }
    }

    fn end(self, out: &mut String) {
        out.push_str(self.text.trim_end());
        out.push('\n');
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";

/// The character and the colour of a kind.
const fn fill(kind: Kind) -> (char, &'static str) {
    match kind {
        Kind::Mapping => ('\u{2588}', "34"),
        Kind::Ram => ('\u{2593}', "32"),
        Kind::Bar => ('\u{2551}', "36"),
        Kind::Window => ('\u{2591}', "35"),
        Kind::Doorbell => ('\u{25a0}', "95"),
        Kind::Msi => ('\u{2573}', "33"),
        Kind::Reserved => ('\u{2571}', "31"),
        Kind::Relaxable => ('\u{2500}', "37"),
    }
}

const fn sign(kind: MarkKind) -> (char, &'static str) {
    match kind {
        MarkKind::Refused | MarkKind::Collision => ('\u{2717}', "1;31"),
        MarkKind::Fault => ('\u{25b2}', "1;33"),
    }
}

/// What is said beside a row.
struct Said {
    sign: char,
    colour: &'static str,
    name: String,
    note: String,
}

/// A row of what is said; what belongs to the row before has no sign.
struct Row {
    sign: Option<(char, &'static str)>,
    name: String,
    note: String,
}

/// Rows of `room` characters each: a note that does not fit beside its name stands below it.
fn lines_of(said: Vec<Said>, room: usize) -> Vec<Row> {
    const LEAST: usize = 16;
    const NOTE: usize = 3;
    let mut all = Vec::new();
    for Said { sign, colour, name, note } in said {
        let sign = Some((sign, colour));
        if name.chars().count() + 2 + note.chars().count() <= room || room < LEAST {
            all.push(Row { sign, name, note });
            continue;
        }
        all.push(Row { sign, name, note: String::new() });
        let notes = wrap(&note, room, NOTE).into_iter();
        all.extend(notes.map(|note| Row { sign: None, name: String::new(), note }));
    }
    all
}

/// Writes a scene.
#[must_use]
pub fn scene(scene: &Scene, style: Style) -> String {
    let scene = &scene.gathered();
    let mut out = String::new();
    heading(&mut out, &scene.title, &scene.subtitle, style);
    let areas = || scene.columns.iter().take(2).flat_map(|c| &c.areas);
    let ranges: Vec<_> = areas()
        .map(|a| a.range)
        .chain(scene.columns.iter().flat_map(|c| c.apertures.iter().copied().skip(1)))
        .chain(scene.marks.iter().filter_map(|m| m.range))
        .collect();
    let axis = Axis::new(scene.span(), &ranges);
    let mut beside: Vec<Vec<Said>> = axis.segments().iter().map(|_| Vec::new()).collect();
    for area in areas() {
        let (sign, colour) = fill(area.kind);
        let note = match area.note.as_str() {
            "" => span(area.range),
            note => format!("{} \u{b7} {note}", span(area.range)),
        };
        if let Some(list) = beside.get_mut(axis.reach(area.range).start) {
            list.push(Said { sign, colour, name: area.name.clone(), note });
        }
    }
    for mark in &scene.marks {
        let Some(range) = mark.range else { continue };
        let (sign, colour) = sign(mark.kind);
        if let Some(list) = beside.get_mut(axis.reach(range).start) {
            list.push(Said { sign, colour, name: mark.name(), note: mark.text.clone() });
        }
    }
    let titles: Vec<&str> = scene.columns.iter().take(2).map(|c| c.title.as_str()).collect();
    if titles.len() == 2 {
        let mut line = Line::new(style);
        line.put(&format!("{:18} {}, {}", "", titles[0], titles[1]), DIM);
        line.end(&mut out);
    }
    let room = style.width().saturating_sub(19 + 11 * scene.columns.len().min(2) + 3);
    for (place, (segment, said)) in axis.segments().iter().zip(beside).enumerate() {
        let said = lines_of(said, room);
        let rows = rows(segment.weight).max(said.len());
        let mut said = said.into_iter();
        for row in 0..if segment.broken { rows.max(2) } else { rows } {
            let mut line = Line::new(style);
            let address = format!("{:#x}", segment.range.first());
            line.put(&format!("{:>18} ", if row == 0 { &address } else { "" }), DIM);
            for column in scene.columns.iter().take(2) {
                cell(&mut line, column, &axis, place, segment.broken && row > 0);
                line.put(" ", "");
            }
            match said.next() {
                Some(row) => {
                    line.put(" ", "");
                    say(&mut line, &row);
                }
                None if segment.broken && row > 0 => {
                    let gap = format!(" {} left out", human(bytes(segment.range)));
                    line.put(&gap, DIM);
                }
                None => {}
            }
            line.end(&mut out);
        }
    }
    last(&mut out, &axis, style);
    for mark in scene.marks.iter().filter(|m| m.range.is_none()) {
        tell(&mut out, mark.kind, &mark.sentence(), style);
    }
    let kinds = |k: &Kind| scene.columns.iter().any(|c| c.areas.iter().any(|a| a.kind == *k));
    legend(&mut out, kinds, style);
    out
}

/// Rows of a segment.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn rows(weight: f64) -> usize {
    (weight / 1.6).floor().max(1.0) as usize
}

/// What a column shows of a segment.
fn cell(line: &mut Line, column: &Column, axis: &Axis, place: usize, broken: bool) {
    let range = axis.segments()[place].range;
    let exists = column.apertures.is_empty() || column.apertures.iter().any(|a| a.overlaps(range));
    if broken {
        line.put("\u{2506}", DIM);
        line.put("   \u{2248}\u{2248}   ", DIM);
        return line.put("\u{2506}", DIM);
    }
    // The innermost area says what it is.
    let area = column.areas.iter().rev().find(|a| a.range.overlaps(range));
    let starts = column.areas.iter().any(|a| a.range.first() == range.first());
    let edge = if starts { "\u{251c}" } else { "\u{2502}" };
    line.put(if exists { edge } else { " " }, "");
    match area {
        Some(area) => {
            let (c, colour) = fill(area.kind);
            line.put(&c.to_string().repeat(8), colour);
        }
        None => line.put(&" ".repeat(8), ""),
    }
    line.put(if exists { "\u{2502}" } else { " " }, "");
}

fn say(line: &mut Line, row: &Row) {
    match row.sign {
        Some((sign, colour)) => line.put(&format!("{sign} "), colour),
        None => line.put("  ", ""),
    }
    line.put(&row.name, BOLD);
    line.put(if row.name.is_empty() { "" } else { "  " }, "");
    line.put(&row.note, "");
}

fn heading(out: &mut String, title: &str, subtitle: &str, style: Style) {
    let mut line = Line::new(style);
    line.put(title, BOLD);
    line.end(out);
    for text in wrap(subtitle, style.width(), 3) {
        let mut line = Line::new(style);
        line.put(&text, DIM);
        line.end(out);
    }
    out.push('\n');
}

/// The last address.
fn last(out: &mut String, axis: &Axis, style: Style) {
    if let Some(segment) = axis.segments().last() {
        let mut line = Line::new(style);
        line.put(&format!("{:>18}", format!("{:#x}", segment.range.last())), DIM);
        line.end(out);
    }
}

/// A mark in a sentence of its own.
fn tell(out: &mut String, kind: MarkKind, text: &str, style: Style) {
    let (c, colour) = sign(kind);
    for (at, text) in wrap(text, style.width() - 2, 4).iter().enumerate() {
        let mut line = Line::new(style);
        line.put(&if at == 0 { format!("{c} ") } else { "  ".into() }, colour);
        line.put(text, "");
        line.end(out);
    }
}

fn legend(out: &mut String, shown: impl Fn(&Kind) -> bool, style: Style) {
    out.push('\n');
    let mut line = Line::new(style);
    for kind in Kind::ALL.iter().filter(|k| shown(k)) {
        let (c, colour) = fill(*kind);
        let text = kind.legend();
        if line.used > 0 && line.used + text.len() + 4 > style.width() {
            std::mem::replace(&mut line, Line::new(style)).end(out);
        }
        line.put(&c.to_string().repeat(2), colour);
        line.put(&format!(" {text}   "), "");
    }
    if line.used > 0 {
        line.end(out);
    }
}

/// Writes a film.
#[must_use]
pub fn film(film: &Film, style: Style) -> String {
    const ADDRESS: usize = 19;
    const LISTED: usize = 20;
    let mut out = String::new();
    heading(&mut out, &film.title, &film.subtitle, style);
    let width = style.width();
    let plot = (width.saturating_sub(ADDRESS + 2) * 6 / 10).max(12);
    let plot = usize::try_from(film.requests).unwrap_or(usize::MAX).min(plot).max(12);
    let room = width.saturating_sub(ADDRESS + 1 + plot + 2 + 2);
    let mut ranges: Vec<_> = film.tracks.iter().map(|t| t.range).collect();
    let page = |range: iommu::IovaRange| {
        iommu::IovaRange::new(range.first() & !0xfff, range.first() | 0xfff)
    };
    ranges.extend(film.marks.iter().take(LISTED).filter_map(|m| page(m.range?)));
    let axis = Axis::new(film.span(), &ranges);
    let column = |request: u64| {
        let wide = u128::from(request.saturating_sub(1)) * plot as u128 / u128::from(film.requests);
        usize::try_from(wide).unwrap_or(0).min(plot - 1)
    };
    let mut tracks: Vec<&crate::film::Track> = film.tracks.iter().collect();
    tracks.sort_by_key(|t| std::cmp::Reverse(bytes(t.range)));
    for (place, segment) in axis.segments().iter().enumerate() {
        let begin = film.tracks.iter().filter(|t| axis.reach(t.range).start == place);
        let said = begin.map(|track| {
            let (sign, colour) = fill(track.kind);
            let note = format!("{} \u{b7} {}", human(bytes(track.range)), track.note);
            Said { sign, colour, name: track.name.clone(), note }
        });
        let said = lines_of(said.collect(), room);
        let rows = rows(segment.weight).max(said.len()).max(1 + usize::from(segment.broken));
        for row in 0..rows {
            let mut line = Line::new(style);
            let address = format!("{:#x}", segment.range.first());
            line.put(&format!("{:>18} ", if row == 0 { &address } else { "" }), DIM);
            let mut cells = vec![(' ', ""); plot];
            for track in tracks.iter().filter(|t| t.range.overlaps(segment.range)) {
                let ends = track.steps.iter().skip(1).map(|s| column(s.request)).chain([plot]);
                for (step, end) in track.steps.iter().zip(ends) {
                    let from = column(step.request);
                    if step.part > 0.0 {
                        cells[from..end.max(from + 1).min(plot)].fill(fill(track.kind));
                    }
                }
            }
            if segment.broken && row > 0 {
                cells.fill(('\u{2248}', DIM));
            }
            for mark in &film.marks {
                if row == 0 && mark.range.is_some_and(|r| segment.range.contains(r.first())) {
                    cells[column(mark.request)] = sign(mark.kind);
                }
            }
            line.put("\u{2502}", "");
            let mut at = 0;
            while at < plot {
                let same = cells[at..].iter().take_while(|c| **c == cells[at]).count();
                line.put(&cells[at].0.to_string().repeat(same), cells[at].1);
                at += same;
            }
            line.put("\u{2502} ", "");
            if let Some(row) = said.get(row) {
                say(&mut line, row);
            } else if segment.broken && row > 0 {
                line.put(&format!("{} left out", human(bytes(segment.range))), DIM);
            }
            line.end(&mut out);
        }
    }
    last(&mut out, &axis, style);
    let mut line = Line::new(style);
    let end = count(film.requests);
    let ruler = format!("{:ADDRESS$} 1{end:>1$}", "", plot - 1);
    line.put(&ruler, DIM);
    line.put("  requests", DIM);
    line.end(&mut out);
    for mark in film.marks.iter().take(LISTED) {
        tell(&mut out, mark.kind, &mark.sentence(), style);
    }
    let listed = film.marks.len().min(LISTED);
    let more = many(&film.marks[listed..]) + film.more_marks;
    if more > 0 {
        let _ = writeln!(out, "  and {} more refused or faulted", count(more));
    }
    legend(&mut out, |k| film.tracks.iter().any(|t| t.kind == *k), style);
    out
}
