//! Runs a program in a client's world with one emulated function, 0000:01:00.0 in group 17, and
//! prints how long each part took. Nobody answers the program's requests.
//!
//! `cargo run --release -p softvfio-supervise --example within -- lspci -nnk`

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::Instant;

use softvfio_supervise::sandbox::{Launch, SysFunction, SysGroup, Tree};

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let rounds = match args.first() {
        Some(first) if first == "--rounds" => {
            let rounds = args.get(1).and_then(|n| n.to_str()?.parse().ok()).unwrap_or(1);
            args.drain(..2);
            rounds
        }
        _ => 1,
    };
    let Some((command, args)) = args.split_first() else {
        eprintln!("usage: within [--rounds N] PROGRAM [ARGUMENT...]");
        return ExitCode::FAILURE;
    };
    let mut config = vec![0; 256];
    config[..12].copy_from_slice(&[0x36, 0x1b, 0x10, 0, 6, 0, 0x10, 0, 2, 2, 8, 1]);
    let tree = Tree {
        functions: vec![SysFunction::new("0000:01:00.0", 17, config)],
        groups: vec![SysGroup { number: 17, kind: "DMA".into(), ..SysGroup::default() }],
        ..Tree::default()
    };
    let mut code = 0;
    for _ in 0..rounds {
        let begin = Instant::now();
        let mut launched = match (Launch { args, ..Launch::new(&tree, command) }).start() {
            Ok(launched) => launched,
            Err(error) => {
                eprintln!("within: {error}");
                return ExitCode::FAILURE;
            }
        };
        let started = Instant::now();
        if let Err(error) = launched.processes.go() {
            eprintln!("within: {error}");
            return ExitCode::from(127);
        }
        let executed = Instant::now();
        let status = match launched.processes.wait() {
            Ok(status) => status,
            Err(error) => {
                eprintln!("within: {error}");
                return ExitCode::FAILURE;
            }
        };
        let ended = Instant::now();
        drop(launched);
        let dropped = Instant::now();
        let plain = {
            let begin = Instant::now();
            let _ = (rounds > 1).then(|| Command::new(command).args(args).status());
            begin.elapsed()
        };
        eprintln!(
            "start {:?}, exec {:?}, program {:?}, teardown {:?}, all {:?}; without us {plain:?}",
            started - begin,
            executed - started,
            ended - executed,
            dropped - ended,
            dropped - begin,
        );
        code = status.code().unwrap_or(128);
    }
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
