//! Pictures as SVG: one file, no scripts, no fonts, legible on light and dark pages and in grey.

mod label;
mod space;
mod style;
mod time;

use std::fmt::Write;

pub use space::space;
pub use time::time;

use crate::picture::{Anchor, Look, Picture, Shape};
use crate::scene::{Kind, MarkKind};

/// A picture as an SVG file, on a sheet of its own.
#[must_use]
pub fn write(picture: &Picture) -> String {
    let (width, height) = (picture.width, picture.height);
    let mut out = String::with_capacity(picture.shapes.len() * 120 + 8192);
    let about = escape(&picture.about);
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" \
         height=\"{h}\" role=\"img\" aria-label=\"{about}\">\n<title>{about}</title>",
        w = short(width),
        h = short(height),
    );
    style::definitions(&mut out, &kinds(picture));
    let _ = writeln!(
        out,
        "<rect class=\"sheet\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"8\"/>",
        short(width - 1.0),
        short(height - 1.0)
    );
    for shape in &picture.shapes {
        self::shape(&mut out, shape);
    }
    out.push_str("</svg>\n");
    out
}

/// The kinds that a picture shows.
fn kinds(picture: &Picture) -> Vec<Kind> {
    let shown = |kind: &Kind| {
        picture.shapes.iter().any(|s| match s {
            Shape::Rect { look, .. } | Shape::Line { look, .. } => *look == Look::Area(*kind),
            Shape::Text { .. } => false,
        })
    };
    Kind::ALL.into_iter().filter(shown).collect()
}

fn shape(out: &mut String, shape: &Shape) {
    let _ = match shape {
        Shape::Rect { frame, round, look, tip } => {
            let _ = write!(
                out,
                "<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"",
                class(*look),
                short(frame.left),
                short(frame.top),
                short(frame.right - frame.left),
                short(frame.bottom - frame.top),
            );
            if *round > 0.0 {
                let _ = write!(out, " rx=\"{}\"", short(*round));
            }
            if tip.is_empty() {
                writeln!(out, "/>")
            } else {
                writeln!(out, "><title>{}</title></rect>", escape(tip))
            }
        }
        Shape::Line { points, closed, look } => {
            let _ = write!(out, "<path class=\"{}\" d=\"", class(*look));
            for (at, (x, y)) in points.iter().enumerate() {
                let _ =
                    write!(out, "{}{} {}", if at == 0 { "M" } else { "L" }, short(*x), short(*y));
            }
            writeln!(out, "{}\"/>", if *closed { "Z" } else { "" })
        }
        Shape::Text { x, y, size, anchor, look, text } => {
            let anchor = match anchor {
                Anchor::Start => "",
                Anchor::Middle => " text-anchor=\"middle\"",
                Anchor::End => " text-anchor=\"end\"",
            };
            writeln!(
                out,
                "<text class=\"{}\" x=\"{}\" y=\"{}\" font-size=\"{}\"{anchor}>{}</text>",
                class(*look),
                short(*x),
                short(*y),
                short(*size),
                escape(text)
            )
        }
    };
}

/// The class of a look.
fn class(look: Look) -> &'static str {
    match look {
        Look::Sheet => "sheet",
        Look::Aperture => "aperture",
        Look::Area(kind) => style::class(kind),
        Look::Leader => "leader",
        Look::Frame => "frame",
        Look::Grid => "grid",
        Look::Break => "break",
        Look::Mark(MarkKind::Refused | MarkKind::Collision) => "refused",
        Look::Mark(MarkKind::Fault) => "fault",
        Look::Sign(MarkKind::Refused | MarkKind::Collision) => "cross",
        Look::Sign(MarkKind::Fault) => "triangle",
        Look::Title => "title",
        Look::Name => "name",
        Look::Note => "note",
        Look::Halo => "halo",
        Look::Number => "number",
    }
}

/// A number with at most one decimal.
fn short(number: f64) -> String {
    let rounded = (number * 10.0).round() / 10.0;
    // No negative zero.
    let rounded = if rounded == 0.0 { 0.0 } else { rounded };
    rounded.to_string()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not allowed in XML at all.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
