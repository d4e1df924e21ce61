//! Operation sequences on the engine.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| softvfio_fuzz::ops::run(bytes));
