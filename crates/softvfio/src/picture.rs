//! What commands draw, and where a picture goes.

use std::ffi::OsStr;
use std::io;

use draw::{Column, Film, Picture, Scene, Story, host, svg};
use iommu::Host;

use crate::input::shown;
use crate::output::{self, if_read};

/// What is to be drawn.
pub(crate) enum Drawing {
    /// An address space at one moment.
    Scene(Scene),
    /// One over time, and what it is gathered from.
    Film(Film, Box<Story>),
}

/// Writes a picture of all drawings to a file, `-` being standard output.
pub(crate) fn write_svg(drawings: &[Drawing], file: &OsStr) -> Result<(), String> {
    if file.is_empty() {
        return Err("--svg: expected a file's name, or - for standard output".into());
    }
    let mut picture = Picture::default();
    for drawing in drawings {
        picture.append(match drawing {
            Drawing::Scene(scene) => svg::space(scene),
            Drawing::Film(film, _) => svg::time(film),
        });
    }
    let text = svg::write(&picture);
    if file == "-" {
        return written(output::write(&text), "-");
    }
    written(std::fs::write(file, text), &shown(file))
}

/// A guest beside each kind of group of a host, with what collides marked.
pub(crate) fn beside(host: &Host, name: &str, title: &str, guest: &Column) -> Vec<Scene> {
    let scene = |mut scene: Scene| {
        scene.subtitle = format!("on {}: {}", stem(name), scene.subtitle);
        scene.columns.push(guest.clone());
        scene.collide();
        scene
    };
    host::scenes(host, title).into_iter().map(scene).collect()
}

/// A file's name without folder and ending.
pub(crate) fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    [".jsonl", ".json"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// How writing went, in a sentence.
pub(crate) fn written(done: io::Result<()>, file: &str) -> Result<(), String> {
    if_read(done).map_err(|error| format!("{file}: cannot write: {error}"))
}
