//! Recorded VFIO requests: the format, and a replayer that carries the requests out and compares.
//!
//! A trace is JSON Lines: a header that describes a machine, then requests, each with the answer of
//! a real kernel in `want`. The format is described in `docs/trace-format.md`. The requests are
//! those of the program that recorded them; replaying one means doing what that program does, byte
//! for byte, in a modelled process on a modelled machine.
//!
//! ```
//! use softvfio_trace::{Options, Reader, Session, Step};
//!
//! let trace = r#"{"kernel":"6.12.1","devices":{}}
//! {"op":"open_container","want":{"ret":0}}
//! {"op":"api_version","want":{"ret":0}}"#;
//! let mut session = Session::start(Reader::new(trace.as_bytes(), "mine"), &Options::default())?;
//! let mut tally = softvfio_trace::Tally::default();
//! while let Some(step) = session.step()? {
//!     if let Step::Request(outcome) = step {
//!         tally.add(&outcome);
//!     }
//! }
//! assert_eq!(tally.line(), "2 answers, 2 matched, 0 known deviations");
//! # Ok::<(), softvfio_trace::ReadError>(())
//! ```

mod ahead;
mod compare;
pub mod deviation;
mod fields;
pub mod hosts;
pub mod import;
mod machine;
mod members;
mod names;
mod ops;
mod order;
mod process;
pub mod profile;
mod reader;
pub mod report;
mod request;
mod session;
pub mod size;
mod span;
mod watch;
mod world;

#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted {
    /// Nothing is planted where nothing can be.
    pub(crate) const fn is_planted() -> bool {
        false
    }
}

pub use compare::{Difference, compare};
pub use fields::Fields;
pub use machine::{Facts, dialect_of};
pub use order::{Checks, Order};
pub use reader::{Line, MAX_LINE, ReadError, Reader};
pub use report::Tally;
pub use request::parse_number;
pub use session::{Options, Outcome, Session, Step, Verdict, answered};
pub use watch::Change;
