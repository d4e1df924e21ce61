//! Bytes as requests on container, group and device descriptors.

#![no_main]

use softvfio_fuzz::{ioctl, planted};

libfuzzer_sys::fuzz_target!(init: planted::from_environment(), |bytes: &[u8]| ioctl::run(bytes));
