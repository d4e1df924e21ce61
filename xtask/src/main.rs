//! The project's own commands: `cargo xtask test` is everything that must hold before a commit
//! lands; the other commands are its parts.

mod bench;
mod command;
mod fuzz;
mod nostd;
mod pages;
mod steps;
mod traces;

use std::env;
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  test                   every step below, in this order; stops at the first that fails
  fmt                    formatting of all workspaces
  clippy                 lints, warnings are errors
  unit                   cargo test --workspace
  planted                the model catches every bug planted in the engine
  pages                  the examples run; README and docs show what is true
  doc                    rustdoc, warnings are errors
  nostd                  the no_std crates link without std, and the check can fail
  traces                 replays the recorded traces, where they are (SOFTVFIO_TRACES or
                         ../shared/traces)
  fuzz                   finds the planted bug of every target, then runs each without it
  fuzz TARGET [--seconds N] [--planted]
                         fuzzes one target (60 s unless told); what it finds stays in the target folder
  bench [OPTIONS]        the benchmarks, then their medians as ratios to the peers'; OPTIONS are
                         criterion's (a filter, --measurement-time 1, ...); then pictures of
                         large traces, and the door
  bench draw [MAPS]      pictures alone: draw, replay and explain of traces with a million maps
  bench door             the door's alone: requests, start-up, qemu-img

With CI=true a step that is skipped for want of something that .ci/run installs is a failure.
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[&str]) -> Result<(), String> {
    match args {
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        ["test"] => steps::run(steps::ALL),
        ["bench", "door"] => bench::door(),
        ["bench", "draw", options @ ..] => bench::draw(options),
        ["bench", options @ ..] => bench::bench(options),
        ["fuzz", target, options @ ..] => fuzz::one(target, options),
        [name] => steps::run_named(name).map_err(|why| format!("{why} (cargo xtask help)")),
        _ => Err(format!("a command is needed\n\n{USAGE}")),
    }
}
