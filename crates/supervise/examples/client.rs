//! A program that uses VFIO: it drives an educational device, an NVMe controller, or both, and says
//! what happened. [`softvfio_supervise::client`] is all of it.
//!
//! On a machine with such devices, bound to `vfio-pci`:
//! `cargo run -p softvfio-supervise --example client -- --nvme 0000:03:00.0`
//! (the controller's last 4 KiB are written, and put back). On any other:
//! `softvfio run -d edu -d nvme -- target/debug/examples/client --edu 0000:01:00.0 --nvme 0000:02:00.0`

use std::process::ExitCode;

use softvfio_supervise::client::{Devices, run};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut devices = Devices::default();
    for pair in args.chunks(2) {
        match pair {
            [key, bdf] if key == "--edu" => devices.edu = Some(bdf),
            [key, bdf] if key == "--nvme" => devices.nvme = Some(bdf),
            _ => {
                eprintln!("usage: client [--edu DDDD:BB:DD.F] [--nvme DDDD:BB:DD.F]");
                return ExitCode::FAILURE;
            }
        }
    }
    match run(devices, &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("client: {failure}");
            ExitCode::FAILURE
        }
    }
}
