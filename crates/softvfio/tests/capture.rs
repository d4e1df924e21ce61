//! `softvfio host --capture` as a VFIO client like any other: under `softvfio run`, where every host
//! can be captured. What is captured is the host it runs on.
//!
//! Where a world cannot be made the tests print `skipped:` and why.

mod common;

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use self::common::{SOFTVFIO, can_run};

fn softvfio(args: &[&str]) -> Output {
    Command::new(SOFTVFIO).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder of a test's own, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("softvfio-capture-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).unwrap();
        self.file(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn json(args: &[&str]) -> Value {
    let output = softvfio(args);
    assert!(!output.stdout.is_empty(), "{args:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Captures a host under the door, into a file; what was said on standard error.
fn capture(host: &str, options: &[&str], devices: &[String], capture: &[&str]) -> (String, String) {
    let mut args = vec!["run", "--quiet", "--host", host];
    args.extend(options);
    for device in devices {
        args.extend(["--device", device]);
    }
    args.extend(["--", SOFTVFIO, "host", "--capture"]);
    args.extend(capture);
    let output = softvfio(&args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// A device behind each IOMMU of a host.
fn devices(host: &Value) -> Vec<String> {
    match host["iommus"].as_array().unwrap().len() {
        1 => vec!["edu".into()],
        _ => host["iommus"]
            .as_array()
            .unwrap()
            .iter()
            .map(|iommu| format!("edu,iommu={}", iommu["name"].as_str().unwrap()))
            .collect(),
    }
}

#[test]
fn what_is_captured_on_a_host_is_that_host() {
    if !can_run() {
        return;
    }
    let folder = Folder::new("round");
    for host in json(&["host", "--json"]).as_array().unwrap() {
        let name = host["name"].as_str().unwrap();
        let known = json(&["host", name, "--json"]);
        let (header, said) = capture(name, &[], &devices(&known), &[]);
        let file = folder.write(&format!("{name}.json"), &header);
        let captured = json(&["host", &file, "--json"]);
        for member in ["valid", "granule"] {
            assert_eq!(captured[member], known[member], "{name}");
        }
        // Of this host no group can be attached, which the capture found out.
        let refuses = name == "arm-smmuv3-gicv2m";
        assert_eq!(said.lines().count(), usize::from(refuses), "{name}: {said}");
        let asked = captured["asked"].as_array().unwrap().len();
        assert_eq!(asked == 0, refuses, "{name}");
        let unknown = captured["not_known"].to_string();
        assert_eq!(unknown.contains("width"), refuses, "{name}: {unknown}");
        assert!(!unknown.contains("remapping"), "{name}: {unknown}");
        let kinds = |host: &Value| -> Vec<_> {
            let iommus = host["iommus"].as_array().unwrap().iter();
            let facts = |i: &Value| {
                ["kind", "aperture", "page_sizes", "msi", "msi_isolated", "coherent", "max_windows"]
                    .map(|m| i[m].clone())
            };
            let mut kinds: Vec<_> = iommus.map(facts).collect();
            // IOMMUs that are alike are one in a profile.
            kinds.sort_by_key(|k| format!("{k:?}"));
            kinds.dedup();
            kinds
        };
        assert_eq!(kinds(&captured), kinds(&known), "{name}");

        let plan = |host: &str| {
            let args =
                ["plan", "--host", host, "--ram", "16G@0", "--bar", "b=1G@0x7fc0000000", "--json"];
            let plan = json(&args);
            let maps = plan["maps"].as_array().unwrap().iter();
            let maps: Vec<_> = maps.map(|m| (m["first"].clone(), m["errno"].clone())).collect();
            (maps, plan["legal"].clone(), plan["valid"].clone(), plan["proposal"]["layout"].clone())
        };
        assert_eq!(plan(&file), plan(name), "{name}");
        let drawn = softvfio(&["draw", &file]);
        assert!(drawn.status.success(), "{name}: {}", text(&drawn.stderr));
        let script = folder.write(
            "script.jsonl",
            "{}\n{\"op\":\"open_container\"}\n{\"op\":\"open_group\",\"dev\":\"0000:01:00.0\"}\n\
            {\"op\":\"set_container\"}\n{\"op\":\"set_iommu\"}\n{\"op\":\"get_info\"}\n",
        );
        let replayed = softvfio(&["replay", "--answers", "--host", &file, &script]);
        assert!(replayed.status.success(), "{name}: {}", text(&replayed.stderr));
        let last = text(&replayed.stdout).lines().last().unwrap().to_owned();
        let last: Value = serde_json::from_str(&last).unwrap();
        assert_eq!(last["want"]["errno"].is_null(), !refuses, "{name}: {last}");
    }
}

#[test]
fn a_container_knows_what_no_file_says() {
    if !can_run() {
        return;
    }
    let folder = Folder::new("facts");
    for name in ["arm-smmuv3-its", "x86-amd", "virtio-iommu"] {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../trace/data/hosts/{name}.json"));
        let mut header: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        header["host"]["aperture"] = serde_json::json!([["0x0", "0xfffffffffff"]]);
        header["host"]["pgsizes"] = "0x20011000".into();
        header["module_params"]["dma_entry_limit"] = 70_000.into();
        let host = folder.write(&format!("{name}.json"), &header.to_string());
        let (captured, said) = capture(&host, &[], &["edu".into()], &[]);
        assert_eq!(said, "");
        let captured: Value = serde_json::from_str(&captured).unwrap();
        assert_eq!(captured["host"]["aperture"][0][1], "0xfffffffffff", "{name}");
        assert_eq!(captured["host"]["pgsizes"], "0x20011000", "{name}");
        assert_eq!(captured["module_params"]["dma_entry_limit"], 70_000, "{name}");
        // By files alone it is taken for granted, and said.
        let (files, said) = capture(&host, &[], &["edu".into()], &["--no-open"]);
        assert_eq!(said, "");
        let files: Value = serde_json::from_str(&files).unwrap();
        assert_ne!(files["host"]["aperture"], captured["host"]["aperture"], "{name}");
        assert!(files["not_known"].to_string().contains("width") && files["asked"].is_null());
    }
    let unsafe_interrupts = ["--allow-unsafe-interrupts"];
    let (captured, said) = capture("arm-smmuv3-gicv2m", &unsafe_interrupts, &["edu".into()], &[]);
    let captured: Value = serde_json::from_str(&captured).unwrap();
    assert_eq!((said.as_str(), &captured["asked"][0]["group"]), ("", &1.into()));
    assert_eq!(captured["module_params"]["allow_unsafe_interrupts"], true);
}

/// What a capture asks, and what it leaves alone.
#[test]
fn nothing_is_opened_but_a_group_that_nobody_has() {
    if !can_run() {
        return;
    }
    let folder = Folder::new("trace");
    let trace = folder.file("trace.jsonl");
    let (header, _) = capture("x86-amd", &["--trace", &trace], &["edu".into()], &[]);
    assert!(header.contains("\"asked\""));
    // API version, status, extension, type, information twice (for its size), extension.
    let expected = [
        "open_container",
        "0x3b64",
        "open_group",
        "0x3b67",
        "set_container",
        "0x3b65",
        "0x3b66",
        "0x3b70",
        "0x3b70",
        "0x3b65",
        "close",
        "close",
    ];
    let requests: Vec<String> = std::fs::read_to_string(&trace)
        .unwrap()
        .lines()
        .filter_map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            match line["op"].as_str()? {
                "ioctl" => Some(line["cmd"].as_str().unwrap().to_owned()),
                op => Some(op.to_owned()),
            }
        })
        .collect();
    assert_eq!(requests, expected);

    let report = folder.file("report.json");
    capture("x86-amd", &["--report", &report], &["edu".into()], &["--no-open"]);
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(report["requests"], 0, "{report}");
}

/// Whoever may not ask, or finds nobody to ask, is told so, and has a profile all the same.
#[test]
fn a_capture_without_permission_says_so() {
    // Root may open anything, so somebody else does this.
    let folder = Folder::new("denied");
    std::fs::set_permissions(&folder.0, Permissions::from_mode(0o755)).unwrap();
    let program = folder.file("softvfio");
    // By a child: one that another test starts had our descriptor for a while, and a program that is
    // written to cannot be executed.
    assert!(Command::new("cp").args([SOFTVFIO, &program]).status().unwrap().success());
    let cases = [
        ("chmod 0 /dev/vfio/vfio", "/dev/vfio/vfio: Permission denied (os error 13)"),
        ("chmod 0 /dev/vfio/1", "/dev/vfio/1: permission denied"),
        (
            "rm /dev/vfio/1",
            "/dev/vfio/1: it is not there: no device of the group is bound to vfio-pci",
        ),
    ];
    for (before, why) in cases {
        let script = format!("{before}; exec \"$0\" host --capture");
        let mut command = Command::new(&program);
        command.args(["run", "-q", "--host", "x86-amd", "-d", "edu", "--", "sh", "-c", &script]);
        command.arg(&program).stdin(Stdio::null()).current_dir("/");
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(65534).gid(65534);
        }
        let output = command.output().unwrap();
        if output.status.code() == Some(125) {
            println!("skipped: {}", text(&output.stderr));
            return;
        }
        assert_eq!(output.status.code(), Some(0), "{before}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), format!("softvfio: not asked (GET_INFO): {why}\n"));
        let header: Value = serde_json::from_slice(&output.stdout).unwrap();
        let unknown = header["not_known"].to_string();
        assert!(unknown.contains(why) && unknown.contains("64 bits"), "{before}: {unknown}");
        assert!(header["asked"].is_null() && header["host"]["iommu"] == "amd-vi", "{before}");
    }
}
