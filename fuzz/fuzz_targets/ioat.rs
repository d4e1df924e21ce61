//! Bytes as chains of descriptors for the I/OAT engine.

#![no_main]

use softvfio_fuzz::{ioat, planted};

libfuzzer_sys::fuzz_target!(init: planted::from_environment(), |bytes: &[u8]| ioat::run(bytes));
