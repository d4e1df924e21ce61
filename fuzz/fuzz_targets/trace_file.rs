//! Bytes as a trace.

#![no_main]

use softvfio_fuzz::{planted, trace_file};

libfuzzer_sys::fuzz_target!(init: planted::from_environment(), |bytes: &[u8]| trace_file::run(bytes));
