//! Pictures of I/O address spaces, as text and as SVG, and what is in them as JSON.
//!
//! ```text
//!   host, layout ──────────────► Scene ──┐
//!   trace ──► Story (who, what, when) ───┤──► Axis, labels ──► text
//!                    │                   │                └──► Picture ──► SVG
//!                    └──► Film ──────────┘
//! ```
//!
//! A [`Scene`] is an address space at one moment: one or two [`Column`]s of [`Area`]s. A [`Film`] is
//! one over time: requests on one axis, addresses on the other. Both are drawn on a broken
//! [`Axis`](axis::Axis), on which a page and a terabyte can both be seen. Whatever there is too much
//! of is [gathered](gather) first, so a picture has a bounded number of parts.
//!
//! What holds: labels never overlap and nothing leaves the picture, for every scene; every kind of
//! area has a pattern of its own, so that a picture says the same in grey.

pub mod axis;
mod ends;
pub mod film;
pub mod gather;
pub mod host;
pub mod json;
pub mod layout;
pub mod picture;
pub mod place;
pub mod scene;
pub mod size;
pub mod story;
pub mod svg;
pub mod text;

pub use film::Film;
pub use picture::Picture;
pub use scene::{Again, Area, Column, Kind, Mark, MarkKind, Scene};
pub use story::Story;
