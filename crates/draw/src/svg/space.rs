//! A scene on paper: addresses from top to bottom, one or two columns, labels beside them.

use iommu::IovaRange;

use super::label::{self, Label, NOTE};
use crate::axis::{Axis, Scale};
use crate::picture::{Anchor, CHARACTER, Frame, Look, Picture};
use crate::scene::{Column, Kind, MarkKind, Scene};
use crate::size::{bytes, cut, human, span, wrap};

/// The margin of a picture.
const MARGIN: f64 = 18.0;
/// The width of a column.
const WIDE: f64 = 104.0;
/// Between two columns.
const BETWEEN: f64 = 22.0;
/// From a column to its labels.
const LEADER: f64 = 34.0;
/// The width of labels.
const LABEL: f64 = 276.0;
/// The length of a segment of weight 1.
const UNIT: f64 = 15.0;

/// Draws a scene.
#[must_use]
pub fn space(scene: &Scene) -> Picture {
    let scene = &scene.gathered();
    let two = scene.columns.len() > 1;
    let ranges: Vec<IovaRange> = scene
        .columns
        .iter()
        .flat_map(|c| c.areas.iter().map(|a| a.range).chain(c.apertures.iter().copied().skip(1)))
        .chain(scene.marks.iter().filter_map(|m| m.range))
        .collect();
    let axis = Axis::new(scene.span(), &ranges);
    let width = if two { 2.0 * (MARGIN + LABEL + LEADER + WIDE) + BETWEEN } else { 680.0 };
    let mut picture = Picture { width, about: scene.title.clone(), ..Picture::default() };
    let mut y = heading(&mut picture, &scene.title, &scene.subtitle);

    // From left to right: labels or ticks, columns, labels.
    let first = if two { MARGIN + LABEL + LEADER } else { MARGIN + 120.0 };
    let lefts: Vec<f64> = if two { vec![first, first + WIDE + BETWEEN] } else { vec![first] };
    let right = lefts.last().copied().unwrap_or(first) + WIDE;
    let label_at = right + LEADER;
    let label_width = width - MARGIN - label_at;
    if two {
        for (column, left) in scene.columns.iter().zip(&lefts) {
            let title = cut(&column.title, label::fit(WIDE + BETWEEN, NOTE) + 6);
            let (x, anchor) =
                if *left == first { (left + WIDE, Anchor::End) } else { (*left, Anchor::Start) };
            picture.text(x, y + 10.0, NOTE, anchor, Look::Note, &title);
        }
        y += 20.0;
    }
    let top = y;

    // Labels first without a place, for the length they need.
    let rough = axis.scaled(0.0, 1.0);
    let need = |place: usize| {
        label::needed(&labels(scene, place, &rough, (0.0, if two { LABEL } else { label_width })))
    };
    let marks = mark_labels(scene, &rough, 0.0, label_width);
    let last = lefts.len() - 1;
    let right_need = need(last) + label::needed(&marks);
    let length = (axis.weight() * UNIT).max(right_need).max(if two { need(0) } else { 0.0 });
    let unit = length / axis.weight();
    let scale = axis.scaled(top, unit);
    let bottom = scale.end();

    for (column, left) in scene.columns.iter().zip(&lefts) {
        draw_column(&mut picture, column, &axis, &scale, *left);
    }
    for mark in scene.marks.iter().filter(|m| m.kind != MarkKind::Fault) {
        let Some(range) = mark.range else { continue };
        let (from, to) = scale.range(range);
        let frame = Frame { left: first - 4.0, top: from, right: right + 4.0, bottom: to };
        picture.tipped(frame, Look::Mark(mark.kind), mark.sentence());
    }
    if two {
        let mut left = labels(scene, 0, &scale, (lefts[0], LABEL));
        label::draw(&mut picture, &mut left, (lefts[0], MARGIN + LABEL), (top, bottom));
    } else {
        ticks(&mut picture, &axis, &scale, first);
    }
    let mut beside = labels(scene, last, &scale, (right, label_width));
    beside.extend(mark_labels(scene, &scale, right, label_width));
    label::draw(&mut picture, &mut beside, (right, label_at), (top, bottom));

    y = bottom + 10.0;
    for mark in scene.marks.iter().filter(|m| m.range.is_none()) {
        picture.sign(MARGIN + 5.0, y + 7.0, mark.kind);
        for line in wrap(&mark.sentence(), label::fit(width - 2.0 * MARGIN - 16.0, NOTE), 4) {
            picture.text(MARGIN + 16.0, y + 11.0, NOTE, Anchor::Start, Look::Note, &line);
            y += 14.0;
        }
        y += 4.0;
    }
    let kinds = |k: &Kind| scene.columns.iter().any(|c| c.areas.iter().any(|a| a.kind == *k));
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(kinds).collect();
    let broken = axis.segments().iter().any(|s| s.broken);
    let says = if broken {
        "lengths grow with the logarithm; at a zigzag a gap is left out"
    } else {
        "lengths grow with the logarithm"
    };
    picture.height = legend(&mut picture, y + 6.0, &kinds, &marked(scene), says) + MARGIN - 6.0;
    picture
}

fn marked(scene: &Scene) -> Vec<MarkKind> {
    let mut kinds: Vec<MarkKind> = scene.marks.iter().map(|m| m.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// Title and subtitle; where what follows begins.
pub(super) fn heading(picture: &mut Picture, title: &str, subtitle: &str) -> f64 {
    let room = picture.width - 2.0 * MARGIN;
    let mut y = MARGIN + 12.0;
    picture.text(MARGIN, y, 15.0, Anchor::Start, Look::Title, &cut(title, label::fit(room, 15.0)));
    for line in wrap(subtitle, label::fit(room, 11.0), 3) {
        y += 17.0;
        picture.text(MARGIN, y, 11.0, Anchor::Start, Look::Note, &line);
    }
    y + 16.0
}

/// What each pattern and sign means; where it ends.
#[expect(clippy::cast_precision_loss, reason = "a few characters")]
pub(super) fn legend(
    picture: &mut Picture,
    top: f64,
    kinds: &[Kind],
    marks: &[MarkKind],
    says: &str,
) -> f64 {
    let (mut x, mut y) = (MARGIN, top);
    let step = |x: &mut f64, y: &mut f64, text: &str, width: f64| {
        let needs = 22.0 + text.chars().count() as f64 * NOTE * CHARACTER + 16.0;
        if *x + needs > width - MARGIN && *x > MARGIN {
            *x = MARGIN;
            *y += 18.0;
        }
        let at = *x;
        *x += needs;
        at
    };
    for kind in kinds {
        let at = step(&mut x, &mut y, kind.legend(), picture.width);
        picture.rect(at, y, at + 16.0, y + 11.0, Look::Area(*kind));
        picture.text(at + 22.0, y + 9.5, NOTE, Anchor::Start, Look::Note, kind.legend());
    }
    for kind in marks {
        let text = kind.legend();
        let at = step(&mut x, &mut y, text, picture.width);
        picture.sign(at + 8.0, y + 5.5, *kind);
        picture.text(at + 22.0, y + 9.5, NOTE, Anchor::Start, Look::Note, text);
    }
    if !kinds.is_empty() || !marks.is_empty() {
        y += 20.0;
    }
    for line in wrap(says, label::fit(picture.width - 2.0 * MARGIN, 10.0), 2) {
        picture.text(MARGIN, y + 8.0, 10.0, Anchor::Start, Look::Note, &line);
        y += 13.0;
    }
    y
}

/// The labels of a column's areas.
fn labels(scene: &Scene, place: usize, scale: &Scale<'_>, (x, width): (f64, f64)) -> Vec<Label> {
    let areas = scene.columns.get(place).map(|c| c.areas.as_slice()).unwrap_or_default();
    let label = |area: &crate::scene::Area| {
        let (from, to) = scale.range(area.range);
        // Beside the first part of it, where nothing else within has begun yet.
        let y = (from + to.min(from + 22.0)) / 2.0;
        Label::new((x, y), width, &area.name, &[&span(area.range), &area.note], None)
    };
    areas.iter().map(label).collect()
}

/// The labels of what went wrong somewhere.
fn mark_labels(scene: &Scene, scale: &Scale<'_>, x: f64, width: f64) -> Vec<Label> {
    let label = |mark: &crate::scene::Mark| {
        let (from, to) = scale.range(mark.range?);
        let notes = [mark.text.as_str()];
        Some(Label::new((x, (from + to) / 2.0), width, &mark.name(), &notes, Some(mark.kind)))
    };
    scene.marks.iter().filter_map(label).collect()
}

/// Apertures, areas, breaks and the frame of a column.
fn draw_column(picture: &mut Picture, column: &Column, axis: &Axis, scale: &Scale<'_>, left: f64) {
    let right = left + WIDE;
    let all = [IovaRange::ALL];
    let apertures = if column.apertures.is_empty() { &all[..] } else { &column.apertures };
    let end = scale.end();
    for aperture in apertures {
        let (top, bottom) = scale.range(*aperture);
        picture.rect(left, top, right, bottom.min(end), Look::Aperture);
    }
    for (at, area) in column.areas.iter().enumerate() {
        let (top, bottom) = scale.range(area.range);
        let outer = |o: &crate::scene::Area| o.range.overlaps(area.range);
        let depth = column.areas[..at].iter().filter(|o| outer(o)).count().min(3);
        #[expect(clippy::cast_precision_loss, reason = "at most 3")]
        let inset = depth as f64 * 10.0;
        let tip = format!("{}: {}", area.name, span(area.range));
        let frame = Frame { left: left + inset, top, right: right - inset, bottom };
        picture.tipped(frame, Look::Area(area.kind), tip);
    }
    let top = scale.start_of(0);
    picture.line(&[(left, top), (left, end)], Look::Frame);
    picture.line(&[(right, top), (right, end)], Look::Frame);
    picture.line(&[(left, top), (right, top)], Look::Frame);
    picture.line(&[(left, end), (right, end)], Look::Frame);
    for (place, segment) in axis.segments().iter().enumerate() {
        if segment.broken {
            let middle = (scale.start_of(place) + scale.start_of(place + 1)) / 2.0;
            rupture(picture, left - 3.0, right + 3.0, middle, &human(bytes(segment.range)));
        }
    }
}

/// A break across a column: two parallel zigzags with nothing but a size between them.
pub(super) fn rupture(picture: &mut Picture, left: f64, right: f64, middle: f64, size: &str) {
    let (half, wave) = (6.5, 2.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few")]
    let teeth = ((right - left) / 9.0) as u8 / 2 * 2;
    let along = |up: f64| {
        (0..=teeth).map(move |tooth| {
            let x = left + (right - left) * f64::from(tooth) / f64::from(teeth);
            (x, middle + up + if tooth % 2 == 0 { -wave } else { wave })
        })
    };
    let (above, below): (Vec<_>, Vec<_>) = (along(-half).collect(), along(half).collect());
    let ground: Vec<(f64, f64)> = above.iter().chain(below.iter().rev()).copied().collect();
    picture.area(&ground, Look::Sheet);
    picture.line(&above, Look::Leader);
    picture.line(&below, Look::Leader);
    let text = cut(size, label::fit(right - left, 9.0));
    picture.text((left + right) / 2.0, middle + 3.2, 9.0, Anchor::Middle, Look::Note, &text);
}

/// Addresses beside the left edge, as many as there is room for.
pub(super) fn ticks(picture: &mut Picture, axis: &Axis, scale: &Scale<'_>, x: f64) {
    let mut free = f64::MIN;
    let end = scale.end();
    for (place, segment) in axis.segments().iter().enumerate() {
        let y = scale.start_of(place);
        if y - free < 11.5 || (place > 0 && end - y < 11.5) {
            continue;
        }
        free = y;
        picture.line(&[(x - 5.0, y), (x, y)], Look::Leader);
        let text = format!("{:#x}", segment.range.first());
        picture.text(x - 8.0, y + 3.5, 9.5, Anchor::End, Look::Note, &text);
    }
    if let Some(last) = axis.segments().last() {
        picture.line(&[(x - 5.0, end), (x, end)], Look::Leader);
        let text = format!("{:#x}", last.range.last());
        picture.text(x - 8.0, end + 3.5, 9.5, Anchor::End, Look::Note, &text);
    }
}
