//! Hosts shown and captured, and guest memory layouts checked against them, before anything boots.
//!
//! ```text
//!   name or file ──► KnownHost ──► View      what a container with its groups may map
//!   preset, file,                   │
//!   arguments ────► Wishes ──place──► Layout ──check──► Map, Conflict    every reason, each with
//!                                     │                                  its owner
//!                                     ├──propose──► Proposal             the smallest legal change,
//!                                     │                                  carried out by the engine
//!                                     └──► Budget                        mappings, locked memory,
//!                                                                        page tables
//! ```
//!
//! ```
//! use std::path::Path;
//! use softvfio_plan::{KnownHost, Plan, Question, Wish, Wishes};
//!
//! let host = KnownHost::load(Path::new("arm-smmuv3-its"))?;
//! let ram = Wish { name: "ram".into(), size: 1 << 30, first: Some(0) };
//! let plan = Plan::make(Question::new(&host, Wishes { ram: vec![ram], ..Wishes::default() }))?;
//! assert!(!plan.is_legal());
//! assert_eq!(plan.maps[0].conflicts[0].owner, "the MSI window of the SMMU");
//! assert_eq!(plan.proposal.unwrap().moved_bytes, 1 << 20);
//! # Ok::<(), softvfio_plan::BadInput>(())
//! ```

pub mod budget;
pub mod capture;
pub mod check;
pub mod engine;
pub mod error;
pub mod host;
pub mod layout;
pub mod place;
pub mod plan;
pub mod preset;
pub mod propose;
pub mod show;
pub mod size;
pub mod style;
pub mod view;

pub use budget::{Budget, Guest};
pub use check::{Bounds, Conflict, Map, What};
pub use error::BadInput;
pub use host::{KnownHost, Memlock};
pub use layout::{Item, Kind, Layout, Wish, Wishes};
pub use plan::{Plan, Question};
pub use propose::{Change, How, Proposal};
pub use style::Style;
pub use view::{Obstacle, View};
