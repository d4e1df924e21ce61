//! Bad input and outputs that cannot be written: one line that says which, and exit status 2 (125 of
//! `run`), never a panic. What is wrong inside of files is in `tests/commands/bad.md`.

#![cfg(unix)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const SOFTVFIO: &str = env!("CARGO_BIN_EXE_softvfio");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const TRACE: &str = "examples/msi-window.jsonl";

/// A folder with files of odd names, and the command in it.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("softvfio-bad-{}-{test}", std::process::id()));
        // A run that was killed may have had our number.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    /// A name that is not UTF-8, of a copy of this file.
    fn odd(&self, ending: &str, copied: &str) -> OsString {
        let name = OsStr::from_bytes(b"odd-\xff.").to_owned();
        let name = [&name, OsStr::new(ending)].concat_os();
        fs::copy(Path::new(ROOT).join(copied), self.0.join(&name)).unwrap();
        name
    }

    fn run(&self, args: &[&OsStr]) -> Output {
        let mut command = Command::new(SOFTVFIO);
        command.args(args).current_dir(&self.0).env_remove("NO_COLOR").stdin(Stdio::null());
        command.output().unwrap()
    }

    /// The one line that it says.
    fn refused(&self, args: &[&OsStr], code: i32) -> String {
        let out = self.run(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!((out.status.code(), said.lines().count()), (Some(code), 1), "{args:?}: {said}");
        said.trim_end().strip_prefix("softvfio: ").unwrap().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

trait ConcatOs {
    fn concat_os(&self) -> OsString;
}

impl<T: AsRef<OsStr>> ConcatOs for [T] {
    fn concat_os(&self) -> OsString {
        let mut all = OsString::new();
        self.iter().for_each(|part| all.push(part));
        all
    }
}

fn args<'a>(args: &[&'a dyn AsRef<OsStr>]) -> Vec<&'a OsStr> {
    args.iter().map(|arg| (*arg).as_ref()).collect()
}

#[test]
fn names_need_not_be_utf_8() {
    let place = Place::new("names");
    let trace = place.odd("jsonl", TRACE);
    let layout = place.odd("json", "docs/pictures/guest.json");
    let log = place.odd("log", "crates/softvfio/tests/commands/files/q.log");
    let request = [trace.as_os_str(), OsStr::new(":17")].concat_os();
    let picture = OsStr::from_bytes(b"odd-\xff.svg");
    for (works, expected) in [
        (args(&[&"draw", &trace]), "odd-\u{fffd}"),
        (args(&[&"draw", &layout, &"--host", &trace]), "on odd-\u{fffd}"),
        (args(&[&"draw", &trace, &"--svg", &picture]), ""),
        (args(&[&"explain", &trace]), "request 17 (odd-\u{fffd}.jsonl:20)"),
        (args(&[&"explain", &request]), "request 17 (odd-\u{fffd}.jsonl:20)"),
        (args(&[&"explain", &"--map", &"0+4K", &"--host", &trace]), "answered"),
        (args(&[&"trace", &"import", &log]), "odd-\u{fffd}.log"),
        (args(&[&"replay", &trace]), "33 matched"),
        (args(&[&"replay", &"--host", &trace, &trace]), "33 matched"),
        (args(&[&"host", &trace]), "IOMMU: smmuv3"),
    ] {
        let out = place.run(&works);
        let printed = String::from_utf8_lossy(&out.stdout);
        assert_eq!(out.status.code(), Some(0), "{works:?}: {out:?}");
        assert!(printed.contains(expected), "{works:?}: {printed}");
    }
    assert!(fs::read(place.0.join(picture)).unwrap().starts_with(b"<svg "));

    let missing = OsStr::from_bytes(b"no-\xff/\n");
    for (args, code) in [
        (args(&[&"draw", &missing]), 2),
        (args(&[&"draw", &trace, &"--host", &missing]), 2),
        (args(&[&"draw", &trace, &"--svg", &missing]), 2),
        (args(&[&"explain", &missing]), 2),
        (args(&[&"explain", &"--map", &"0+1", &"--host", &missing]), 2),
        (args(&[&"trace", &"import", &missing]), 2),
        (args(&[&"replay", &missing, &"--json"]), 2),
        (args(&[&"replay", &trace, &"--host", &missing]), 2),
        (args(&[&"replay", &trace, &"--devices", &missing]), 2),
        (args(&[&"host", &missing]), 2),
        (args(&[&"host", &"--root", &missing]), 2),
        (args(&[&"plan", &"--host", &missing, &"--ram", &"1G"]), 2),
        (args(&[&"plan", &"--host", &"x86-amd", &"--layout", &missing]), 2),
        (args(&[&"run", &"--host", &missing, &"--", &"true"]), 125),
        (args(&[&"run", &"--topology", &missing, &"--", &"true"]), 125),
        (args(&[&"run", &"--trace", &missing, &"--", &"true"]), 125),
        (args(&[&"run", &"--report", &missing, &"--", &"true"]), 125),
    ] {
        let said = place.refused(&args, code);
        assert!(said.starts_with("no-\u{fffd}/ : "), "{args:?}: {said}");
    }
    // Where names do not belong it is an error like any other.
    let out = place.run(&args(&[&OsStr::from_bytes(b"\xff")]));
    assert_eq!(out.status.code(), Some(2), "{out:?}");
}

/// What has no end is not read to its end, and what can be read once is not read twice.
#[test]
fn odd_files() {
    let place = Place::new("files");
    for (args, code) in [
        (args(&[&"draw", &"/dev/zero"]), 2),
        (args(&[&"explain", &"/dev/zero"]), 2),
        (args(&[&"replay", &"/dev/zero", &"--answers"]), 2),
        (args(&[&"replay", &"--devices", &"/dev/zero", &"-"]), 2),
        (args(&[&"trace", &"import", &"/dev/zero"]), 2),
        (args(&[&"host", &"/dev/zero"]), 2),
        (args(&[&"plan", &"--host", &"x86-amd", &"--layout", &"/dev/zero"]), 2),
        (args(&[&"run", &"--host", &"/dev/zero", &"--", &"true"]), 125),
        (args(&[&"run", &"--topology", &"/dev/zero", &"--", &"true"]), 125),
        (args(&[&"host", &"/"]), 2),
        (args(&[&"draw", &"/"]), 2),
    ] {
        let said = place.refused(&args, code);
        assert!(said.starts_with('/'), "{args:?}: {said}");
    }
    for command in ["explain", "draw", "replay"] {
        let mut child = Command::new(SOFTVFIO);
        let out = child.args([command, "-"]).stdin(File::open("/dev/zero").unwrap()).output();
        let out = out.unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{command}: {said}");
        assert!(said.contains("-:1:") && said.lines().count() == 1, "{command}: {said}");
    }
    // A host over several lines, from a pipe.
    let header = "{\n\"built_in\":\n\"x86-amd\"}\n";
    for command in ["host /dev/stdin", "host -", "plan --host - --ram 1G", "draw -"] {
        let mut child = Command::new(SOFTVFIO);
        child.args(command.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), header.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let printed = String::from_utf8_lossy(&out.stdout).to_lowercase();
        assert!(out.status.success() && printed.contains("amd-vi"), "{command}: {printed}");
    }
}

/// Each command that prints something.
const PRINT: &[&str] = &[
    "draw trace.jsonl",
    "draw trace.jsonl --svg -",
    "explain trace.jsonl",
    "explain --json trace.jsonl",
    "replay trace.jsonl",
    "replay --json --explain trace.jsonl",
    "replay --answers trace.jsonl",
    "replay --host help",
    "trace import q.log",
    "host",
    "host --json",
    "host x86-amd",
    "host x86-amd --json",
    "host --capture --root tree",
    "plan --host x86-amd --ram 1G",
    "plan --host x86-amd --ram 1G --json",
    "plan --host x86-amd --layout help",
    "completions zsh",
    "run --device help",
    "run --host help",
];

fn printing(place: &Place) -> impl Iterator<Item = (&'static str, Command)> {
    let link = |from: &str, name: &str| {
        let from = Path::new(ROOT).canonicalize().unwrap().join(from);
        std::os::unix::fs::symlink(from, place.0.join(name)).unwrap();
    };
    link(TRACE, "trace.jsonl");
    link("crates/softvfio/tests/commands/files/q.log", "q.log");
    link("crates/plan/tests/trees/amd-server", "tree");
    PRINT.iter().map(|line| {
        let mut command = Command::new(SOFTVFIO);
        command.args(line.split(' ')).current_dir(&place.0).stdin(Stdio::null());
        (*line, command)
    })
}

#[test]
fn a_full_disk_is_one_line() {
    let place = Place::new("full");
    for (line, mut command) in printing(&place) {
        let out = command.stdout(File::create("/dev/full").unwrap()).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        let code = if line.starts_with("run") { 125 } else { 2 };
        assert_eq!((out.status.code(), said.lines().count()), (Some(code), 1), "{line}: {said}");
        assert!(said.contains("cannot write: No space left on device"), "{line}: {said}");
    }
    let picture = args(&[&"draw", &"x86-amd", &"--svg", &"/dev/full"]);
    assert!(place.refused(&picture, 2).starts_with("/dev/full: cannot write: No space"));
    let nowhere = args(&[&"draw", &"x86-amd", &"--svg", &"/proc/self/a"]);
    assert!(place.refused(&nowhere, 2).starts_with("/proc/self/a: cannot write"));
    let capture = args(&[&"host", &"--capture", &"--root", &"tree", &"/proc/self/a"]);
    assert!(place.refused(&capture, 2).starts_with("/proc/self/a: the file cannot be written"));
    let usable = place.run(&args(&[&"run", &"-q", &"--", &"true"])).status.success();
    for option in ["--report", "--trace"].iter().filter(|_| usable) {
        let full = args(&[&"run", &"-q", option, &"/dev/full", &"--", &"true"]);
        assert!(place.refused(&full, 125).starts_with("/dev/full: No space left"));
    }
}

/// What is there of a profile when there is no more room would be in the way of the next capture.
#[test]
fn a_capture_is_whole_or_not_there() {
    let place = Place::new("part");
    let tree = Path::new(ROOT).join("crates/plan/tests/trees/amd-server");
    let line = "trap '' XFSZ; ulimit -f 0; exec \"$0\" host --capture --root \"$1\" part.json";
    let mut shell = Command::new("sh");
    let out = shell.args(["-c", line, SOFTVFIO]).arg(tree).current_dir(&place.0).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("part.json: the file cannot be written: File too large"), "{said}");
    assert!(!place.0.join("part.json").exists());
}

/// The exit status says it then.
#[test]
fn nobody_hears() {
    for (line, code) in [
        ("draw moon", 2),
        ("explain /nowhere", 2),
        ("replay /nowhere", 2),
        ("trace import /nowhere", 2),
        ("host moon", 2),
        ("plan --host moon --ram 1G", 2),
        ("run --device moon -- true", 125),
        ("run --moon", 125),
        ("ctl --control /nowhere devices", 1),
        ("moon", 2),
    ] {
        let run = |stderr: Stdio| {
            let mut command = Command::new(SOFTVFIO);
            command.args(line.split(' ')).stdout(Stdio::null()).stderr(stderr).status().unwrap()
        };
        let full = run(File::create("/dev/full").unwrap().into());
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let gone = run(writer.into());
        assert_eq!((full.code(), gone.code()), (Some(code), Some(code)), "{line}");
    }
}

/// `softvfio ... | head -1`.
#[test]
fn nobody_reads() {
    let place = Place::new("closed");
    let doctor = ("doctor", {
        let mut command = Command::new(SOFTVFIO);
        command.arg("doctor");
        command
    });
    for (line, mut command) in printing(&place).chain([doctor]) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = command.stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!said.contains("panicked"), "{line}: {said}");
        // Whether the answers matched is not known then.
        let codes = if line.starts_with("replay") { 0..=1 } else { 0..=0 };
        let code = out.status.code().unwrap();
        assert!(codes.contains(&code) || line == "doctor", "{line}: {code} {said}");
    }
}
