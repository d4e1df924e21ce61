//! A film on paper: requests from left to right, addresses from top to bottom.

use iommu::IovaRange;

use super::label::{self, Label, NOTE};
use super::space::{heading, legend, rupture, ticks};
use crate::axis::{Axis, Scale};
use crate::film::{Film, Track, many};
use crate::picture::{Anchor, CHARACTER, Frame, Look, Picture};
use crate::scene::{Kind, Mark, MarkKind};
use crate::size::{bytes, count, human, span, wrap};

const MARGIN: f64 = 18.0;
const WIDTH: f64 = 880.0;
/// Where requests begin and end.
const LEFT: f64 = MARGIN + 112.0;
const RIGHT: f64 = 560.0;
/// Where labels begin.
const LABEL: f64 = RIGHT + 34.0;
/// The length of a segment of weight 1.
const UNIT: f64 = 15.0;
/// Marks that are listed.
const LISTED: usize = 12;

/// Draws a film.
#[must_use]
pub fn time(film: &Film) -> Picture {
    let mut ranges: Vec<IovaRange> = film.tracks.iter().map(|t| t.range).collect();
    let shown = film.marks.iter().filter_map(|m| m.range);
    ranges.extend(shown.take(LISTED).map(page));
    let axis = Axis::new(film.span(), &ranges);
    let mut picture = Picture { width: WIDTH, about: film.title.clone(), ..Picture::default() };
    let top = heading(&mut picture, &film.title, &film.subtitle) + 4.0;

    let rough = axis.scaled(0.0, 1.0);
    let length = (axis.weight() * UNIT).max(label::needed(&labels(film, &rough)));
    let scale = axis.scaled(top, length / axis.weight());
    let bottom = scale.end();

    picture.rect(LEFT, top, RIGHT, bottom, Look::Aperture);
    for (request, x) in request_ticks(film) {
        picture.line(&[(x, top), (x, bottom + 4.0)], Look::Grid);
        let text = count(request);
        picture.text(x, bottom + 15.0, 9.5, Anchor::Middle, Look::Note, &text);
    }
    let mut tracks: Vec<&Track> = film.tracks.iter().collect();
    tracks.sort_by_key(|t| std::cmp::Reverse(bytes(t.range)));
    for track in tracks {
        draw_track(&mut picture, film, track, &scale);
    }
    for (place, segment) in axis.segments().iter().enumerate() {
        if segment.broken {
            let middle = (scale.start_of(place) + scale.start_of(place + 1)) / 2.0;
            rupture(&mut picture, LEFT - 3.0, RIGHT + 3.0, middle, &human(bytes(segment.range)));
        }
    }
    for points in [
        [(LEFT, top), (LEFT, bottom)],
        [(RIGHT, top), (RIGHT, bottom)],
        [(LEFT, top), (RIGHT, top)],
        [(LEFT, bottom), (RIGHT, bottom)],
    ] {
        picture.line(&points, Look::Frame);
    }
    ticks(&mut picture, &axis, &scale, LEFT);
    signs(&mut picture, film, &scale, (top, bottom));
    let mut labels = labels(film, &scale);
    label::draw(&mut picture, &mut labels, (RIGHT, LABEL), (top, bottom));

    let mut y = bottom + 30.0;
    let middle = (LEFT + RIGHT) / 2.0;
    picture.text(middle, y, NOTE, Anchor::Middle, Look::Note, "request \u{2192}");
    y = list(&mut picture, film, y + 10.0);
    let kinds = |k: &Kind| film.tracks.iter().any(|t| t.kind == *k);
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(kinds).collect();
    let mut marks: Vec<MarkKind> = film.marks.iter().map(|m| m.kind).collect();
    marks.sort_unstable();
    marks.dedup();
    let mut says = "addresses from top to bottom, lengths grow with the logarithm".to_owned();
    if axis.segments().iter().any(|s| s.broken) {
        says += "; at a zigzag a gap is left out";
    }
    if film.tracks.iter().any(|t| t.gathered) {
        says += "; height of gathered ranges: the part in use";
    }
    picture.height = legend(&mut picture, y + 4.0, &kinds, &marks, &says) + MARGIN - 6.0;
    picture
}

/// What a mark takes of the axis: no more than where it begins.
fn page(range: IovaRange) -> IovaRange {
    let first = range.first() & !0xfff;
    IovaRange::new(first, first | 0xfff).unwrap_or(range)
}

/// Where the moment of a request is; `part` says where within it.
#[expect(clippy::cast_precision_loss, reason = "a length on paper")]
fn at(film: &Film, request: u64, part: f64) -> f64 {
    let each = (RIGHT - LEFT) / film.requests as f64;
    (LEFT + (request.saturating_sub(1) as f64 + part) * each).clamp(LEFT, RIGHT)
}

/// Round numbers of requests, as many as have room, and where they are.
#[expect(clippy::cast_precision_loss, reason = "a few characters")]
fn request_ticks(film: &Film) -> Vec<(u64, f64)> {
    let wide = (count(film.requests).len() + 2) as f64 * 9.5 * CHARACTER;
    let most = label::fit(RIGHT - LEFT, wide / CHARACTER).min(8) as u64;
    let mut step = 1;
    for factor in [2, 5, 10].into_iter().cycle() {
        if film.requests / step <= most {
            break;
        }
        let decade = 10u64.pow(step.ilog10());
        step = if factor == 10 { decade * 10 } else { decade * factor };
    }
    let first = if step == 1 { 1 } else { step };
    let all = (first..=film.requests).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    all.map(|request| (request, at(film, request, 0.5))).collect()
}

/// The times that something of a track was there.
fn draw_track(picture: &mut Picture, film: &Film, track: &Track, scale: &Scale<'_>) {
    let (top, bottom) = scale.range(track.range);
    let ends = track.steps.iter().skip(1).map(|s| at(film, s.request, 0.0)).chain([RIGHT]);
    let tip = format!("{}: {}, {}", track.name, span(track.range), track.note);
    let mut run: Vec<(f64, f64, f64)> = Vec::new();
    for (step, right) in track.steps.iter().zip(ends) {
        let left = at(film, step.request, 0.0);
        if step.part > 0.0 {
            let height = ((bottom - top) * step.part).max(1.0);
            run.push((left, right.max(left), bottom - height));
        } else {
            draw_run(picture, track.kind, &std::mem::take(&mut run), bottom, &tip);
        }
    }
    draw_run(picture, track.kind, &run, bottom, &tip);
}

/// A time without a break: left, right and height of each part.
fn draw_run(picture: &mut Picture, kind: Kind, run: &[(f64, f64, f64)], bottom: f64, tip: &str) {
    match *run {
        [] => {}
        [(left, right, top)] => {
            let frame = Frame { left, top, right, bottom };
            picture.tipped(frame, Look::Area(kind), tip.to_owned());
        }
        [(left, ..), .., (_, right, _)] => {
            let mut points = vec![(left, bottom)];
            points
                .extend(run.iter().flat_map(|(left, right, top)| [(*left, *top), (*right, *top)]));
            points.push((right, bottom));
            picture.area(&points, Look::Area(kind));
        }
    }
}

/// The labels of tracks.
fn labels(film: &Film, scale: &Scale<'_>) -> Vec<Label> {
    let label = |track: &Track| {
        let (from, to) = scale.range(track.range);
        let y = (from + to.min(from + 22.0)) / 2.0;
        let notes = [span(track.range), track.note.clone()];
        let notes: Vec<&str> = notes.iter().map(String::as_str).collect();
        Label::new((RIGHT, y), WIDTH - MARGIN - LABEL, &track.name, &notes, None)
    };
    film.tracks.iter().map(label).collect()
}

/// The signs of what went wrong, the numbers of their requests where there is room.
#[expect(clippy::cast_precision_loss, reason = "a few characters")]
fn signs(picture: &mut Picture, film: &Film, scale: &Scale<'_>, (top, bottom): (f64, f64)) {
    const SIZE: f64 = 9.5;
    let mut taken: Vec<Frame> = picture
        .shapes
        .iter()
        .filter(|s| matches!(s, crate::picture::Shape::Text { .. }))
        .map(crate::picture::Shape::frame)
        .collect();
    let around =
        |x: f64, y: f64| Frame { left: x - 5.0, top: y - 5.0, right: x + 5.0, bottom: y + 5.0 };
    let placed: Vec<(&Mark, f64, f64)> = film
        .marks
        .iter()
        .filter_map(|mark| {
            let y = scale.at(mark.range?.first()).clamp(top, bottom);
            let x = at(film, mark.request, 0.5).clamp(LEFT + 5.0, RIGHT - 5.0);
            Some((mark, x, (y + 4.0).clamp(top + 5.0, bottom - 5.0)))
        })
        .collect();
    let mut seen: Vec<Frame> = Vec::new();
    for (mark, x, y) in &placed {
        // One sign says as much as many on one spot.
        let frame = around(*x, *y);
        let same =
            |f: &&Frame| (f.left - frame.left).abs() < 3.0 && (f.top - frame.top).abs() < 3.0;
        if seen.iter().any(|f| same(&f)) {
            continue;
        }
        seen.push(frame);
        taken.push(frame);
        picture.sign(*x, *y, mark.kind);
    }
    let mut named: Vec<u64> = Vec::new();
    for (mark, x, y) in placed {
        if named.contains(&mark.request) {
            continue;
        }
        let text = mark.request.to_string();
        let wide = text.len() as f64 * SIZE * CHARACTER;
        let (beside, level) = (7.0, y + 3.5);
        let tries = [
            (x + beside, level, Anchor::Start),
            (x - beside, level, Anchor::End),
            (x, y - 8.0, Anchor::Middle),
            (x, y + 14.0, Anchor::Middle),
            (x + beside, y - 6.0, Anchor::Start),
            (x + beside, y + 13.0, Anchor::Start),
        ];
        for (x, y, anchor) in tries {
            let left = match anchor {
                Anchor::Start => x,
                Anchor::Middle => x - wide / 2.0,
                Anchor::End => x - wide,
            };
            let frame =
                Frame { left, top: y - SIZE * 0.8, right: left + wide, bottom: y + SIZE * 0.25 };
            let inside = Frame { left: LEFT, top, right: RIGHT, bottom }.holds(&frame);
            if inside && !taken.iter().any(|t| t.overlaps(&frame)) {
                picture.text(x, y, SIZE, anchor, Look::Number, &text);
                taken.push(frame);
                named.push(mark.request);
                break;
            }
        }
    }
}

/// What went wrong, in sentences; where the list ends.
fn list(picture: &mut Picture, film: &Film, mut y: f64) -> f64 {
    let columns = label::fit(WIDTH - 2.0 * MARGIN - 16.0, NOTE);
    for mark in film.marks.iter().take(LISTED) {
        picture.sign(MARGIN + 5.0, y + 7.0, mark.kind);
        for line in wrap(&mark.sentence(), columns, 3) {
            picture.text(MARGIN + 16.0, y + 11.0, NOTE, Anchor::Start, Look::Note, &line);
            y += 14.0;
        }
        y += 3.0;
    }
    let more = many(&film.marks[film.marks.len().min(LISTED)..]) + film.more_marks;
    if more > 0 {
        let text = format!("and {} more refused or faulted", count(more));
        picture.text(MARGIN + 16.0, y + 11.0, NOTE, Anchor::Start, Look::Note, &text);
        y += 17.0;
    }
    y
}
