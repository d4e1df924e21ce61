//! Bytes as requests on container, group and device descriptors.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| softvfio_fuzz::ioctl::run(bytes));
