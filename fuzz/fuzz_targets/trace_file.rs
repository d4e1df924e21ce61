//! Bytes as a trace.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| softvfio_fuzz::trace_file::run(bytes));
