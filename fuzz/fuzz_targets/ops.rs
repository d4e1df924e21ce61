//! Operation sequences on the engine.

#![no_main]

use softvfio_fuzz::{ops, planted};

libfuzzer_sys::fuzz_target!(init: planted::from_environment(), |bytes: &[u8]| ops::run(bytes));
