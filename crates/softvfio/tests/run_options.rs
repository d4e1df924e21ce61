//! `softvfio run`'s options and exit codes, as a user sees them.
//!
//! Where a world cannot be made, or a program is missing, the tests print `skipped:` and why.

mod common;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use self::common::{SOFTVFIO, can_run};

fn softvfio(args: &[&str]) -> Command {
    let mut command = Command::new(SOFTVFIO);
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    softvfio(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file of this test's own, removed in the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("softvfio-run-{}-{name}", std::process::id())))
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn doctor_says_the_same_to_people_and_programs() {
    let (people, programs) = (run(&["doctor"]), run(&["doctor", "--json"]));
    assert_eq!(people.status.code(), programs.status.code());
    let document: serde_json::Value = serde_json::from_slice(&programs.stdout).unwrap();
    assert_eq!(document["format"], "softvfio-doctor/1");
    assert_eq!(document["works"] == true, programs.status.success());
    let text = String::from_utf8(people.stdout).unwrap();
    let checks = document["checks"].as_array().unwrap();
    assert!(checks.len() >= 8, "{document}");
    for check in checks {
        let [name, verdict] = ["name", "verdict"].map(|member| check[member].as_str().unwrap());
        let line = text
            .lines()
            .find(|line| line.get(5..).is_some_and(|l| l.starts_with(&format!("{name}: "))));
        let line = line.unwrap_or_else(|| panic!("{name}: {text}"));
        assert!(line.to_lowercase().starts_with(verdict), "{line}");
        assert_eq!(check["remedy"].is_null(), verdict == "ok", "{check}");
    }
}

#[test]
fn exit_codes_are_the_programs() {
    if !can_run() {
        return;
    }
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -1 $$", 129)] {
        let output = run(&["run", "--strict", "-d", "edu,mmio=none", "--", "sh", "-c", script]);
        assert_eq!(output.status.code(), Some(code), "{script}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
        let lines = stderr(&output).lines().count();
        assert_eq!(lines, 7, "{}", stderr(&output));
    }
}

#[test]
fn what_fails_is_one_line_and_125() {
    for (args, says) in [
        (&["run", "--nonsense", "--", "true"][..], "unexpected argument '--nonsense'"),
        (&["run"], "a program is missing"),
        (&["run", "-d", "moon", "--", "true"], "--device: there is no device \"moon\""),
        (
            &["run", "--host", "moon", "--", "true"],
            "moon: expected a file, or a built-in host: x86-intel, ",
        ),
        (&["run", "--memlock", "much", "--", "true"], "--memlock: expected unlimited"),
        (&["run", "--dialect", "5", "--", "true"], "[possible values: 6.1, 6.12, 7.3]"),
        (
            &["run", "--topology", "/nonexistent", "--", "true"],
            "/nonexistent: expected a readable file: No such file",
        ),
        (&["run", "--report", "/nonexistent/a", "--", "true"], "/nonexistent/a: No such file"),
        (&["run", "--trace", "/nonexistent/a", "--", "true"], "/nonexistent/a: No such file"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(125), "{args:?}: {}", stderr(&output));
        let text = stderr(&output);
        assert!(text.starts_with("softvfio: ") && text.contains(says), "{args:?}: {text}");
    }
}

#[test]
fn help_lists_what_there_is() {
    for (args, says) in [
        (&["run", "--host", "help"][..], "x86-intel"),
        (&["run", "--device", "help"], "    file=PATH "),
        (&["run", "--help"], "softvfio run -d nvme,file=disk.img -- qemu-img info"),
        (&["help", "run"], "[possible values: kernel, reviewed, msi-v6]"),
        (&["-h"], "softvfio run -d nvme,file=disk.img -- qemu-img info"),
    ] {
        let output = run(args);
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout);
        let wide = text.lines().filter(|line| line.chars().count() > 80).collect::<Vec<_>>();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(says.trim()), "{args:?}: {text}");
        assert!(args.contains(&"--host") || wide.is_empty(), "{args:?}: {wide:?}");
    }
}

#[test]
fn quiet_is_silent_and_files_are_written() {
    if !can_run() {
        return;
    }
    let [json, trace, topology] = ["json", "trace", "toml"].map(Temporary::new);
    std::fs::write(
        &topology.0,
        "host = \"x86-amd\"\n[[device]]\nkind = \"edu\"\ngroup = 5\nmmio = \"none\"\n",
    )
    .unwrap();
    let files = ["--report", json.name(), "--trace", trace.name(), "--topology", topology.name()];
    let args = [&["run", "-q"], &files[..], &["--", "true"]].concat();
    let output = run(&args);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json.0).unwrap()).unwrap();
    assert_eq!((&report["format"], &report["exit_code"]), (&"softvfio-report/1".into(), &0.into()));
    assert_eq!(report["devices"][0]["group"], 5);
    let text = std::fs::read_to_string(&trace.0).unwrap();
    let header: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(header["bar0_base"], "0x100000000000");
    assert_eq!(header["devices"]["edu0"]["mappable"], false);
}

/// The name of a disk's file may be any bytes, commas doubled.
#[test]
fn a_disk_has_any_name() {
    if !can_run() {
        return;
    }
    let plain = std::env::temp_dir().join(format!("softvfio-run-{}-odd", std::process::id()));
    let plain = plain.as_os_str().as_bytes();
    let disk = Temporary(OsString::from_vec([plain, b"=\xff,\n"].concat()).into());
    let file = [b",file=", plain, b"=\xff,,\n"].concat();
    std::fs::write(&disk.0, vec![0; 1 << 20]).unwrap();
    let attempt = |kind: &[u8]| {
        let mut command = softvfio(&["run", "--device"]);
        command.arg(OsString::from_vec([kind, &file].concat())).args([
            "--",
            SOFTVFIO,
            "demo-client",
        ]);
        command.args(["--nvme", "0000:01:00.0"]).output().unwrap()
    };
    let refused = attempt(b"nvme,size=1M");
    assert_eq!(refused.status.code(), Some(125));
    assert!(stderr(&refused).contains("size to be left out with a file"), "{refused:?}");
    let output = attempt(b"nvme");
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("2048 blocks of 512 bytes"), "{printed}");
}

/// A device's file may have any name; the one that is wrong is told.
#[test]
fn the_argument_that_must_be_text_is_named() {
    let odd = |text: &[u8]| OsString::from_vec([text, b"\xff"].concat());
    let mut command = softvfio(&["run", "--device"]);
    command.arg(odd(b"nvme,file=")).arg("--memlock").arg(odd(b"5")).args(["--", "true"]);
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(125));
    assert_eq!(stderr(&refused), "softvfio: 5\u{fffd}: expected an argument in UTF-8\n");
}

/// A qemu-img run, recorded and shown, and its replay.
#[test]
fn qemu_img_is_recorded_and_replayed() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        return println!("skipped: qemu-img is not installed");
    }
    if !can_run() {
        return;
    }
    let [trace, disk] = ["qemu", "disk"].map(Temporary::new);
    std::fs::write(&disk.0, vec![0; 1 << 20]).unwrap();
    let device = format!("nvme,file={}", disk.name());
    let output = run(&[
        "run",
        "-v",
        "--strict",
        "--trace",
        trace.name(),
        "-d",
        &device,
        "--",
        "qemu-img",
        "info",
        "nvme://0000:01:00.0/1",
    ]);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains(" MAP_DMA(iova=0x10000, size=") && text.contains("findings   none"),
        "{text}"
    );
    assert!(!text.contains("only notes"), "{text}");
    let replayed = run(&["replay", trace.name()]);
    let said = String::from_utf8_lossy(&replayed.stdout);
    assert!(replayed.status.success(), "{said}");
    let counts: Vec<u64> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(counts[0] > 20 && counts[0] == counts[1], "{said}");
}
