//! `softvfio run`: a program on a software IOMMU.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;

use clap::Args;
use iommu::Dialect;
use supervise::control::ControlSocket;
use supervise::kinds::{self, COMMON_KEYS, DeviceSpec, KINDS};
use supervise::record::{Recorded, Recorder};
use supervise::report::{Report, own_memlock};
use supervise::sandbox::{Signals, raise_limits};
use supervise::session::{Aftermath, Program, Session};
use supervise::show::Show;
use vfio::Abi;

use crate::output::{for_help, for_terminal, print, wants_colour};
use crate::topology::Topology;
use crate::{host, input};

/// The exit code when softvfio itself fails.
pub(crate) const FAILED: u8 = 125;
/// The exit code of `--strict` when the program has bugs.
const BUGS: u8 = 99;

const EXAMPLES: &str = "\
Examples:
  softvfio run -d nvme,file=disk.img -- qemu-img info nvme://0000:01:00.0/1
  softvfio run -d edu -d edu,group=7 --host arm-smmuv3-its -- ./my-driver
  softvfio run --host arm-smmuv3-gicv2m --allow-unsafe-interrupts -- ./my-driver
  softvfio run --strict --report report.json --topology rig.toml -- cargo test

Exit status: the program's; 128 and its number after a signal; 125 when softvfio
fails; with --strict 99 when the report has an error or a warning.

SIGTERM, SIGINT and SIGHUP are passed on to the program; after 5 seconds, or a
second one, it is killed, with all that it started. The report comes all the
same; the exit status is 128 and the signal's number. Ctrl-C is the program's
own matter, unless it comes twice within 2 seconds.";

/// Run a program on a software IOMMU with emulated devices.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// A device: KIND[,key=value...]; `help` lists kinds and keys
    #[arg(long = "device", short = 'd', value_name = "KIND[,KEY=VALUE]")]
    devices: Vec<OsString>,

    /// The host: a built-in one, or a file with a header; `help` lists the built-in ones
    #[arg(long, value_name = "NAME|FILE")]
    host: Option<OsString>,

    /// A TOML file: host = "NAME", allow_unsafe_interrupts = true, and for each device a table in
    /// `device` with kind = "KIND" and the keys of --device
    #[arg(long, value_name = "FILE.toml")]
    topology: Option<PathBuf>,

    /// Answer as this kernel [default: 7.3]
    #[arg(long, value_name = "NAME", value_parser = ["6.1", "6.12", "7.3"])]
    dialect: Option<String>,

    /// Speak these numbers, whatever the host's default
    #[arg(long, value_name = "NAME", value_parser = ["kernel", "reviewed", "msi-v6"])]
    abi: Option<String>,

    /// RLIMIT_MEMLOCK of the program: unlimited, own (each process' own), or bytes such as 64M
    #[arg(long, value_name = "LIMIT", default_value = "unlimited")]
    memlock: String,

    /// Give it devices whose interrupts are not isolated, as the module parameter does (attaching is
    /// EPERM otherwise: arm-smmuv3-gicv2m)
    #[arg(long)]
    allow_unsafe_interrupts: bool,

    /// The program sees itself as user 0
    #[arg(long)]
    as_root: bool,

    /// The program does not see this machine's own PCI devices
    #[arg(long)]
    only_emulated: bool,

    /// No report on standard error
    #[arg(short, long)]
    quiet: bool,

    /// Write the report as JSON to a file (docs/report.md)
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Exit with 99 when the report has an error or a warning
    #[arg(long)]
    strict: bool,

    /// Exit with this code then; implies --strict
    #[arg(long, value_name = "N")]
    error_exitcode: Option<u8>,

    /// Record every request as a trace, which `softvfio replay` replays (docs/trace-format.md)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Print requests as they happen on standard error
    #[arg(short, long)]
    verbose: bool,

    /// A socket for `softvfio ctl`, there while the session is
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,

    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl Run {
    pub(crate) fn run(&self) -> ExitCode {
        if self.host.as_ref().is_some_and(|host| host == "help") {
            return print(&for_terminal(host::listed()), 0, FAILED);
        }
        if self.devices.iter().any(|device| device == "help") {
            return print(&for_help(&device_help()), 0, FAILED);
        }
        match self.session() {
            Ok(report) => ExitCode::from(self.exit_code(&report)),
            Err(why) => {
                eprintln!("softvfio: {why}");
                ExitCode::from(FAILED)
            }
        }
    }

    fn session(&self) -> Result<Report, String> {
        let missing = "a program is missing: softvfio run [OPTIONS] -- PROGRAM [ARGUMENTS]";
        let (command, args) = self.program.split_first().ok_or(missing)?;
        raise_limits();
        let mut ready = self.machine()?.place().map_err(|error| error.to_string())?;
        let cannot = |path: &PathBuf| {
            let path = input::shown(path.as_os_str());
            move |error: io::Error| format!("{path}: {error}")
        };
        let mut json = None;
        if let Some(path) = &self.report {
            json = Some((File::create(path).map_err(cannot(path))?, path));
        }
        let mut recorder = None;
        if let Some(path) = &self.trace {
            let out = BufWriter::new(File::create(path).map_err(cannot(path))?);
            let limit = self.recorded_memlock()?;
            let started = Recorder::start(Box::new(out), ready.placed(), limit);
            let started = Arc::new(started.map_err(cannot(path))?);
            ready = ready.watch(Arc::clone(&started) as _);
            recorder = Some((started, path));
        }
        if self.verbose {
            let show = Show::new(Box::new(io::stderr()), ready.placed());
            ready = ready.watch(Arc::new(show));
        }
        let socket = self.control.as_ref().map(|path| {
            let control = ControlSocket::open(path, ready.control());
            control.map_err(|error| format!("--control {}: {error}", path.display()))
        });
        let socket = socket.transpose()?;
        let taken = |error| format!("signals: {error}");
        let signals = Arc::new(Signals::take().map_err(taken)?);
        let report = ready.stop_on(Arc::clone(&signals)).run(&Program::new(command).args(args));
        let report = report.map_err(|error| error.to_string())?;
        drop(socket);
        let writing = Aftermath::start(Arc::clone(&signals)).map_err(taken)?;
        if let Some((recorder, path)) = recorder {
            let recorded = recorder.finish().map_err(cannot(path))?;
            if recorded.notes != 0 && !self.quiet {
                let (path, Recorded { notes, requests }) = (path.display(), recorded);
                eprintln!("softvfio: {path}: {notes} of {requests} requests are only notes there");
            }
        }
        if !self.quiet {
            let mut stderr = io::stderr().lock();
            let colour = wants_colour(&stderr);
            // Whom standard error does not reach reads the exit code.
            let _ = stderr.write_all(report.text(colour).as_bytes());
        }
        if let Some((mut file, path)) = json {
            let text = format!("{:#}\n", report.json());
            file.write_all(text.as_bytes()).map_err(cannot(path))?;
        }
        drop(writing);
        // From here on they change nothing: the exit status is known.
        std::mem::forget(signals);
        Ok(report)
    }

    /// The machine that the options describe.
    fn machine(&self) -> Result<Session, String> {
        let mut session = Session::new().as_root(self.as_root).only_emulated(self.only_emulated);
        let topology = self.topology.as_deref().map(Topology::read).transpose()?;
        let topology = topology.unwrap_or_default();
        if let Some(host) = self.host.as_ref().or(topology.host.as_ref()) {
            session = session.host_header(input::host(host)?);
        }
        let unsafe_interrupts = self.allow_unsafe_interrupts || topology.allow_unsafe_interrupts;
        session = session.allow_unsafe_interrupts(unsafe_interrupts);
        if let Some(dialect) = self.dialect.as_deref().and_then(Dialect::named) {
            session = session.dialect(Some(dialect));
        }
        if let Some(abi) = self.abi.as_deref().and_then(Abi::named) {
            session = session.abi(abi);
        }
        session = session.memlock(self.memlock()?);
        for device in topology.devices {
            session = session.device(device);
        }
        for text in &self.devices {
            let device = DeviceSpec::try_from(text.as_os_str()).and_then(|spec| spec.make());
            session = session.device(device.map_err(|bad| format!("--device: {bad}"))?);
        }
        Ok(session)
    }

    /// The limit on locked memory; `None`: each process' own.
    fn memlock(&self) -> Result<Option<u64>, String> {
        let expected = "--memlock: expected unlimited, own, or bytes such as 64M";
        match self.memlock.as_str() {
            "unlimited" => Ok(Some(u64::MAX)),
            "own" => Ok(None),
            text => kinds::size(text).map(Some).ok_or_else(|| expected.into()),
        }
    }

    /// The limit that a trace says; `None`: there is none.
    fn recorded_memlock(&self) -> Result<Option<u64>, String> {
        let bytes = self.memlock()?;
        Ok(bytes.map_or_else(own_memlock, |bytes| Some(bytes).filter(|n| *n != u64::MAX)))
    }

    fn exit_code(&self, report: &Report) -> u8 {
        let strict = self.strict || self.error_exitcode.is_some();
        match strict && report.has_bugs() {
            true => self.error_exitcode.unwrap_or(BUGS),
            false => match report.stopped {
                Some(stopped) => u8::try_from(128 + stopped.signal).unwrap_or(u8::MAX),
                None => exit_code(report.status),
            },
        }
    }
}

/// The program's own, or 128 and its signal.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(255)).unwrap_or(255)
}

fn device_help() -> String {
    let key = |(key, about): &(&str, &str)| format!("    {key:20} {about}\n");
    let mut text = String::new();
    for kind in KINDS {
        text += &format!("{}: {}\n", kind.name, kind.about);
        text.extend(kind.keys.iter().map(key));
    }
    text += "every device:\n";
    text.extend(COMMON_KEYS.iter().map(key));
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use supervise::report::{Finding, Peak, Problem};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: Run,
    }

    fn code(options: &[&str], status: i32, problem: Option<Problem>) -> u8 {
        let finding = |problem| Finding {
            problem,
            device: None,
            iova: None,
            access: None,
            request: 1,
            times: 1,
        };
        let report = Report {
            status: ExitStatus::from_raw(status),
            stopped: None,
            timed_out: None,
            shadowed: Vec::new(),
            devices: Vec::new(),
            requests: 0,
            refused: 0,
            interrupts: 0,
            peak: Peak::default(),
            findings: problem.map(finding).into_iter().collect(),
            more_findings: 0,
        };
        let args = [&["run"], options, &["--", "true"]].concat();
        Cli::parse_from(args).run.exit_code(&report)
    }

    #[test]
    fn exit_codes() {
        let (error, warning) = (Some(Problem::NoDomain), Some(Problem::UnknownVector));
        let note = Some(Problem::LiveInterrupts { kind: "MSI", enabled: 1 });
        assert_eq!(code(&[], 3 << 8, error.clone()), 3);
        assert_eq!(code(&[], 9, error.clone()), 137);
        assert_eq!(code(&["--strict"], 0, error.clone()), 99);
        assert_eq!(code(&["--strict"], 9, warning.clone()), 99);
        assert_eq!(code(&["--strict"], 3 << 8, note), 3);
        assert_eq!(code(&["--strict"], 3 << 8, None), 3);
        assert_eq!(code(&["--error-exitcode", "42"], 0, warning), 42);
        assert_eq!(code(&["--strict", "--error-exitcode", "0"], 3 << 8, error), 0);
    }
}
