//! The command: VFIO of Linux in user space.

/// As that of std, but no panic where standard error is gone or full: whom it does not reach reads the
/// exit status.
macro_rules! eprintln {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}

mod ctl;
mod demo;
mod doctor;
mod draw;
mod explain;
mod host;
mod import;
mod input;
mod manual;
mod output;
mod picture;
mod plan;
mod progress;
mod replay;
mod run;
mod topology;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// Linux VFIO, type1 and MSI doorbells in user space.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Examples:
  softvfio demo                                              what it does
  softvfio run -d nvme,file=disk.img -- qemu-img info nvme://0000:01:00.0/1
  softvfio plan --host arm-smmuv3-its --ram 4G@0             would it be mapped?
  softvfio explain --map 0x8000000+2M --host arm-smmuv3-its  why it is refused
  softvfio draw x86-amd                                      what is left free

Each command has --help, with more of them."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show it at work: a VFIO program drives two emulated devices.
    Demo(demo::Demo),
    /// The program of the demonstration.
    #[command(hide = true)]
    DemoClient(demo::DemoClient),
    /// Run a program on a software IOMMU with emulated devices.
    Run(run::Run),
    /// Try what `run` needs, and say what to enable.
    Doctor(doctor::Doctor),
    /// Tell a running session something: take a device away.
    Ctl(ctl::Ctl),
    /// Show a host as VFIO sees it, or capture this machine into a profile.
    Host(host::Host),
    /// Check a guest's memory layout against a host, and propose one that is legal.
    Plan(plan::Plan),
    /// Draw what is where in an I/O address space: of a trace, a host or a layout.
    Draw(draw::Draw),
    /// Explain one request: why it was refused, by which check, what is in the way, what was legal.
    Explain(explain::Explain),
    /// Carry out recorded VFIO requests and compare the answers with what kernels gave.
    Replay(replay::Replay),
    /// Make traces from what other programs log.
    #[command(subcommand)]
    Trace(import::Trace),
    /// Write completions for a shell to standard output.
    Completions(manual::Completions),
    /// Write the man pages into a folder.
    Man(manual::Man),
}

/// The exit code for an argument that cannot be used.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_run(&error),
    };
    match cli.command {
        Command::Demo(demo) => demo.run(),
        Command::DemoClient(client) => client.run(),
        Command::Host(host) => host.run(),
        Command::Plan(plan) => plan.run(),
        Command::Replay(replay) => replay.run(),
        Command::Draw(draw) => draw.run(),
        Command::Explain(explain) => explain.run(),
        Command::Trace(trace) => trace.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
        Command::Run(run) => run.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Ctl(ctl) => ctl.run(),
    }
}

/// The argument that is not UTF-8 and should be, which clap does not say: others may be any bytes.
fn not_utf8() -> OsString {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    for at in 0..args.len() {
        if args[at].to_str().is_some() {
            continue;
        }
        let text = args[at].to_string_lossy().into_owned().into();
        let bad = std::mem::replace(&mut args[at], text);
        let kind = Cli::try_parse_from(&args).err().map(|error| error.kind());
        if kind != Some(ErrorKind::InvalidUtf8) {
            return bad;
        }
    }
    OsString::new()
}

/// A command line that runs nothing: it asks for help, or has an error.
fn not_run(error: &clap::Error) -> ExitCode {
    // A program may exit with any code; ours is one that few do.
    let run = std::env::args_os().nth(1).is_some_and(|command| command == "run");
    let failed = if run { run::FAILED } else { UNUSABLE };
    match error.kind() {
        ErrorKind::DisplayHelp => {
            return output::print(&output::help(error, &std::io::stdout()), 0, failed);
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprintln!("{}", output::help(error, &std::io::stderr()).trim_end());
        }
        ErrorKind::InvalidUtf8 => {
            eprintln!("softvfio: {}: expected an argument in UTF-8", not_utf8().display());
        }
        _ if error.use_stderr() && run => {
            let text = error.render().to_string();
            eprintln!("softvfio: {}", text.strip_prefix("error: ").unwrap_or(&text).trim_end());
        }
        _ => error.exit(),
    }
    ExitCode::from(failed)
}
