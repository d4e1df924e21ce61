//! What the fuzz targets do with their bytes, apart from libFuzzer: `fuzz_targets/` only calls in
//! here.
//!
//! Each target turns bytes into requests that mostly make sense ([`Input::near`] is the trick), and
//! panics as soon as an invariant does not hold.

pub mod client;
pub mod hosts;
pub mod input;
pub mod invariants;
pub mod ioat;
pub mod ioctl;
pub mod nvme;
pub mod ops;
pub mod pins;
pub mod planted;
pub mod trace_file;

pub use input::Input;
pub use pins::Pins;
