//! Bytes as a driver of the NVM Express controller.

#![no_main]

use softvfio_fuzz::{nvme, planted};

libfuzzer_sys::fuzz_target!(init: planted::from_environment(), |bytes: &[u8]| nvme::run(bytes));
