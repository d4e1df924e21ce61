//! How things look: each kind has a colour, for light and for dark pages, and a pattern that says the
//! same in grey.

use std::fmt::Write;

use crate::scene::Kind;

/// The class of a kind.
pub(super) const fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Relaxable => "relaxable",
        other => other.word(),
    }
}

/// Ground and ink on light pages, the same on dark ones, and the strokes of the pattern.
const fn look(kind: Kind) -> ([&'static str; 4], &'static str) {
    match kind {
        Kind::Mapping => (["#9ec5f0", "#1f5fa8", "#1d4675", "#79b8ff"], ""),
        Kind::Ram => (["#c3e6c6", "#2a6b32", "#1e4a2b", "#7ee08c"], "M0 1H1M4 5H5"),
        Kind::Bar => (["#d9f0ee", "#1b6e66", "#123c3a", "#5fd3c6"], "M2 0V8M6 0V8"),
        Kind::Window => (["#efe3fb", "#6f3fb0", "#33214f", "#c297ff"], "M0 2H2M4 6H6"),
        Kind::Doorbell => (["#6f3fb0", "#4a2580", "#c297ff", "#e3d0ff"], ""),
        Kind::Msi => (["#fdeccf", "#9a5b00", "#4a3208", "#f0b44c"], "M0 0L8 8M8 0L0 8"),
        Kind::Reserved => {
            (["#fbdedb", "#b3261e", "#4f1b1a", "#ff8f86"], "M-2 2L2 -2M0 8L8 0M6 10L10 6")
        }
        Kind::Relaxable => (["#f3f3f3", "#6b6b6b", "#2c2c2c", "#b5b5b5"], "M0 4H8"),
    }
}

/// Everything else: class, rule on light pages, rule on dark pages.
const RULES: &[(&str, &str, &str)] = &[
    ("sheet", "fill:#fff;stroke:#d0d7de", "fill:#0d1117;stroke:#30363d"),
    ("aperture", "fill:#f3f5f7;stroke:none", "fill:#1b2129;stroke:none"),
    ("frame", "fill:none;stroke:#6e7781", "stroke:#8b949e"),
    ("grid", "fill:none;stroke:#d8dee4", "stroke:#30363d"),
    ("leader", "fill:none;stroke:#8c959f;stroke-width:.8", "stroke:#7d8590"),
    ("break", "fill:#fff;stroke:#6e7781", "fill:#0d1117;stroke:#8b949e"),
    ("refused", "fill:none;stroke:#b3261e;stroke-width:1.6;stroke-dasharray:4 2", "stroke:#ff8f86"),
    ("fault", "fill:none;stroke:#9a5b00;stroke-dasharray:1 2", "stroke:#f0b44c"),
    ("halo", "fill:none;stroke:#fff;stroke-width:5;stroke-linecap:round", "stroke:#0d1117"),
    ("cross", "fill:none;stroke:#b3261e;stroke-width:2.2", "stroke:#ff8f86"),
    ("triangle", "fill:#ffd33d;stroke:#5c3900;stroke-width:1", "fill:#f0b44c;stroke:#fff4d6"),
    ("title", "fill:#1f2328;font-weight:600", "fill:#f0f6fc"),
    ("name", "fill:#1f2328;font-weight:600", "fill:#f0f6fc"),
    (
        "number",
        "fill:#1f2328;font-weight:600;stroke:#fff;stroke-width:3;paint-order:stroke;stroke-linejoin:round",
        "fill:#f0f6fc;stroke:#0d1117",
    ),
    ("note", "fill:#59636e", "fill:#9da7b1"),
];

/// Styles and patterns.
pub(super) fn definitions(out: &mut String, kinds: &[Kind]) {
    let _ = writeln!(
        out,
        "<style>\ntext{{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',\
         'Liberation Mono',monospace}}"
    );
    for (class, light, _) in RULES {
        let _ = writeln!(out, ".{class}{{{light}}}");
    }
    for kind in kinds {
        let (name, ([ground, ink, ..], strokes)) = (class(*kind), look(*kind));
        let fill = if strokes.is_empty() { ground.to_owned() } else { format!("url(#p-{name})") };
        let _ = writeln!(out, ".{name}{{fill:{fill};stroke:{ink}}}");
        if !strokes.is_empty() {
            let _ = writeln!(out, ".g-{name}{{fill:{ground}}}.i-{name}{{fill:none;stroke:{ink}}}");
        }
    }
    let _ = writeln!(out, "@media(prefers-color-scheme:dark){{");
    for (class, _, dark) in RULES {
        let _ = writeln!(out, ".{class}{{{dark}}}");
    }
    for kind in kinds {
        let (name, ([_, _, ground, ink], strokes)) = (class(*kind), look(*kind));
        if strokes.is_empty() {
            let _ = writeln!(out, ".{name}{{fill:{ground};stroke:{ink}}}");
        } else {
            let _ = writeln!(
                out,
                ".{name}{{stroke:{ink}}}.g-{name}{{fill:{ground}}}.i-{name}{{stroke:{ink}}}"
            );
        }
    }
    out.push_str("}\n</style>\n");
    for kind in kinds {
        let (name, (_, strokes)) = (class(*kind), look(*kind));
        if !strokes.is_empty() {
            let _ = writeln!(
                out,
                "<pattern id=\"p-{name}\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\">\
                 <rect class=\"g-{name}\" width=\"8\" height=\"8\"/><path class=\"i-{name}\" \
                 d=\"{strokes}\"/></pattern>"
            );
        }
    }
}
