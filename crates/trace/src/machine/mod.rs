//! From a trace's header to a machine: host, devices, the shape of a process on it.

mod build;
mod facts;
mod header;
mod host;
mod kernel;

pub(crate) use build::{DeviceSpec, Machine};
pub use facts::Facts;
pub(crate) use facts::Intx;
pub(crate) use header::{BadHeader, Header};
pub use kernel::dialect_of;
