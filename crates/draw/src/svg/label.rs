//! Labels beside a column: a name and notes, with a leader line to what they are about.

use crate::picture::{Anchor, CHARACTER, Look, Picture};
use crate::place::{Wish, spread};
use crate::scene::MarkKind;
use crate::size::{cut, wrap};

/// The size of names.
pub(super) const NAME: f64 = 12.0;
/// The size of notes.
pub(super) const NOTE: f64 = 10.5;
/// Between two base lines.
const LINE: f64 = 13.5;
/// Between two labels.
const GAP: f64 = 7.0;
/// Lines of a note.
const LINES: usize = 3;

/// A label and where it would like to be.
pub(super) struct Label {
    /// The height of what it is about.
    pub(super) y: f64,
    /// Where the leader line begins.
    pub(super) x: f64,
    name: String,
    notes: Vec<String>,
    sign: Option<MarkKind>,
}

/// How many characters of a size fit.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
pub(super) fn fit(width: f64, size: f64) -> usize {
    (width / (size * CHARACTER)).max(1.0) as usize
}

impl Label {
    /// A label as wide as `width`.
    pub(super) fn new(
        (x, y): (f64, f64),
        width: f64,
        name: &str,
        notes: &[&str],
        sign: Option<MarkKind>,
    ) -> Self {
        let columns = fit(width, NOTE);
        let name = cut(name, fit(width - if sign.is_some() { 14.0 } else { 0.0 }, NAME));
        let notes = notes.iter().filter(|n| !n.is_empty());
        let notes = notes.flat_map(|n| wrap(n, columns, LINES)).collect();
        Self { y, x, name, notes, sign }
    }

    #[expect(clippy::cast_precision_loss, reason = "a few lines")]
    fn height(&self) -> f64 {
        (self.notes.len() + 1) as f64 * LINE + GAP
    }
}

/// The length that labels need at least.
pub(super) fn needed(labels: &[Label]) -> f64 {
    labels.iter().map(Label::height).sum()
}

/// Draws labels, their leader lines between `edge` and `at`; names begin (or, on the left, end) at
/// `at`.
pub(super) fn draw(
    picture: &mut Picture,
    labels: &mut [Label],
    (edge, at): (f64, f64),
    (top, bottom): (f64, f64),
) {
    labels.sort_by(|a, b| a.y.total_cmp(&b.y));
    let wishes: Vec<Wish> =
        labels.iter().map(|l| Wish { centre: l.y, length: l.height() }).collect();
    let starts = spread(&wishes, top, bottom);
    let (anchor, side) = if at < edge { (Anchor::End, -1.0) } else { (Anchor::Start, 1.0) };
    for (label, start) in labels.iter().zip(starts) {
        let middle = start + (label.height() - GAP) / 2.0;
        let end = at - side * 5.0;
        picture.line(
            &[
                (label.x, label.y),
                (edge + side * 4.0, label.y),
                (end - side * 4.0, middle),
                (end, middle),
            ],
            Look::Leader,
        );
        let mut y = start + 11.0;
        let mut x = at;
        if let Some(kind) = label.sign {
            picture.sign(at + side * 5.0, y - 4.0, kind);
            x += side * 14.0;
        }
        picture.text(x, y, NAME, anchor, Look::Name, &label.name);
        for note in &label.notes {
            y += LINE;
            picture.text(at, y, NOTE, anchor, Look::Note, note);
        }
    }
}
