//! Shapes on paper: what a renderer writes and a test can measure.

use crate::scene::{Kind, MarkKind};

/// How wide a character is, in its size. The fonts asked for are all of one width, and none is wider.
pub const CHARACTER: f64 = 0.61;

/// How a shape looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The sheet that everything is on.
    Sheet,
    /// Addresses that exist.
    Aperture,
    /// An area of a kind.
    Area(Kind),
    /// A thin line to a label or a tick.
    Leader,
    /// The frame of a column or plot.
    Frame,
    /// A line that divides the picture.
    Grid,
    /// The edge of a break.
    Break,
    /// What went wrong.
    Mark(MarkKind),
    /// What sets a sign off from whatever is below it.
    Halo,
    /// What a mark's sign is made of.
    Sign(MarkKind),
    /// A title.
    Title,
    /// The name of something.
    Name,
    /// Anything else that is said.
    Note,
    /// A number on top of whatever is there.
    Number,
}

/// Which end of a text its position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

/// A rectangle: left, top, right, bottom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// Left.
    pub left: f64,
    /// Top.
    pub top: f64,
    /// Right.
    pub right: f64,
    /// Bottom.
    pub bottom: f64,
}

impl Frame {
    /// Whether two share more than an edge.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        const NEAR: f64 = 0.01;
        self.left + NEAR < other.right
            && other.left + NEAR < self.right
            && self.top + NEAR < other.bottom
            && other.top + NEAR < self.bottom
    }

    /// Whether `other` lies within.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        self.left <= other.left
            && self.top <= other.top
            && self.right >= other.right
            && self.bottom >= other.bottom
    }
}

/// A shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A rectangle.
    Rect {
        /// Where.
        frame: Frame,
        /// The radius of its corners.
        round: f64,
        /// How.
        look: Look,
        /// What it says when pointed at.
        tip: String,
    },
    /// A line through points.
    Line {
        /// The points.
        points: Vec<(f64, f64)>,
        /// Whether it is an area.
        closed: bool,
        /// How.
        look: Look,
    },
    /// A text on one line.
    Text {
        /// Where its anchor is.
        x: f64,
        /// Its base line.
        y: f64,
        /// The size of its font.
        size: f64,
        /// What its position is.
        anchor: Anchor,
        /// How.
        look: Look,
        /// What it says.
        text: String,
    },
}

impl Shape {
    /// What it covers; of a text, what its line takes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a length on paper")]
    pub fn frame(&self) -> Frame {
        match self {
            Self::Rect { frame, .. } => *frame,
            Self::Line { points, .. } => {
                let nothing =
                    Frame { left: f64::MAX, top: f64::MAX, right: f64::MIN, bottom: f64::MIN };
                points.iter().fold(nothing, |f, (x, y)| Frame {
                    left: f.left.min(*x),
                    top: f.top.min(*y),
                    right: f.right.max(*x),
                    bottom: f.bottom.max(*y),
                })
            }
            Self::Text { x, y, size, anchor, text, .. } => {
                let width = text.chars().count() as f64 * size * CHARACTER;
                let left = match anchor {
                    Anchor::Start => *x,
                    Anchor::Middle => x - width / 2.0,
                    Anchor::End => x - width,
                };
                Frame { left, top: y - size * 0.8, right: left + width, bottom: y + size * 0.25 }
            }
        }
    }
}

/// Shapes on a sheet, in the order in which they are drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
    /// What it is, for those who cannot see it.
    pub about: String,
    /// What is on it.
    pub shapes: Vec<Shape>,
}

impl Picture {
    /// Adds a rectangle.
    pub fn rect(&mut self, left: f64, top: f64, right: f64, bottom: f64, look: Look) {
        let frame = Frame { left, top, right, bottom };
        self.shapes.push(Shape::Rect { frame, round: 0.0, look, tip: String::new() });
    }

    /// Adds a rectangle that says something when pointed at.
    pub fn tipped(&mut self, frame: Frame, look: Look, tip: String) {
        self.shapes.push(Shape::Rect { frame, round: 0.0, look, tip });
    }

    /// Adds a line.
    pub fn line(&mut self, points: &[(f64, f64)], look: Look) {
        self.shapes.push(Shape::Line { points: points.to_vec(), closed: false, look });
    }

    /// Adds an area.
    pub fn area(&mut self, points: &[(f64, f64)], look: Look) {
        self.shapes.push(Shape::Line { points: points.to_vec(), closed: true, look });
    }

    /// Adds a text.
    pub fn text(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, look: Look, text: &str) {
        let text = text.to_owned();
        self.shapes.push(Shape::Text { x, y, size, anchor, look, text });
    }

    /// Adds the sign of a mark: a cross in a circle's stead for a refusal, a triangle for a fault.
    pub fn sign(&mut self, x: f64, y: f64, kind: MarkKind) {
        let r = 4.0;
        match kind {
            MarkKind::Refused | MarkKind::Collision => {
                for look in [Look::Halo, Look::Sign(kind)] {
                    self.line(&[(x - r, y - r), (x + r, y + r)], look);
                    self.line(&[(x - r, y + r), (x + r, y - r)], look);
                }
            }
            MarkKind::Fault => {
                self.area(&[(x, y - r), (x + r, y + r), (x - r, y + r)], Look::Sign(kind));
            }
        }
    }

    /// Puts `other` below.
    pub fn append(&mut self, other: Self) {
        let down = self.height;
        self.width = self.width.max(other.width);
        self.height += other.height;
        self.shapes.extend(other.shapes.into_iter().map(|shape| match shape {
            Shape::Rect { mut frame, round, look, tip } => {
                frame.top += down;
                frame.bottom += down;
                Shape::Rect { frame, round, look, tip }
            }
            Shape::Line { mut points, closed, look } => {
                points.iter_mut().for_each(|p| p.1 += down);
                Shape::Line { points, closed, look }
            }
            Shape::Text { x, y, size, anchor, look, text } => {
                Shape::Text { x, y: y + down, size, anchor, look, text }
            }
        }));
        if !self.about.is_empty() {
            self.about.push_str("; ");
        }
        self.about.push_str(&other.about);
    }
}
