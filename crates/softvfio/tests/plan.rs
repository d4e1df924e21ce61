//! `softvfio host` and `softvfio plan` as commands: what one writes another reads. What they print is
//! held by `tests/commands`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the command where the trees are.
fn softvfio(args: impl IntoIterator<Item = OsString>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_softvfio"))
        .args(args)
        .current_dir(root().join("crates/plan/tests"))
        .env_remove("NO_COLOR")
        .output()
        .unwrap()
}

#[test]
fn the_picture_on_the_page() {
    let path = root().join("docs/pictures/hypertransport.svg");
    let args = ["plan", "--host", "x86-amd", "--layout", "qemu-q35", "--ram", "1T", "--svg", "-"];
    let now = String::from_utf8(softvfio(args.map(OsString::from)).stdout).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        return fs::write(path, now).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == now, "UPDATE=1 rewrites it; now it is:\n{now}");
}

#[test]
fn what_is_captured_can_be_planned_for() {
    let dir = std::env::temp_dir().join(format!("softvfio-plan-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    for tree in ["vtd-desktop", "amd-server", "arm-smmuv3-its"] {
        let file = dir.join(format!("{tree}.json"));
        let args =
            ["host", "--capture", "--root", &format!("trees/{tree}"), file.to_str().unwrap()];
        let out = softvfio(args.map(OsString::from));
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        let again = softvfio(args.map(OsString::from));
        assert_eq!(again.status.code(), Some(2), "a file is not written over");
        let args = ["plan", "--host", file.to_str().unwrap(), "--ram", "1G@0x10000000"];
        let out = softvfio(args.map(OsString::from));
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        // Every other command takes it too.
        let script = dir.join("script.jsonl");
        fs::write(&script, "{}\n{\"op\":\"open_container\"}\n").unwrap();
        let args =
            ["replay", "--answers", "--host", file.to_str().unwrap(), script.to_str().unwrap()];
        let out = softvfio(args.map(OsString::from));
        assert_eq!(out.status.code(), Some(0), "{out:?}");
    }
    let odd = dir.join(OsString::from_vec(b"odd-\xff.json".to_vec()));
    for missing in [true, false] {
        if !missing {
            fs::copy(dir.join("amd-server.json"), &odd).unwrap();
        }
        let args = [
            "plan".into(),
            "--host".into(),
            odd.clone().into_os_string(),
            "--ram".into(),
            "1G@0".into(),
        ];
        let out = softvfio(args);
        assert_eq!(out.status.code(), Some(if missing { 2 } else { 0 }), "{out:?}");
        assert_eq!(out.stderr.iter().filter(|b| **b == b'\n').count(), usize::from(missing));
    }
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn json_goes_round() {
    let dir = std::env::temp_dir().join(format!("softvfio-plan-json-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let list = softvfio(["host", "--json"].map(OsString::from));
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    for host in list.as_array().unwrap() {
        let name = host["name"].as_str().unwrap();
        let shown = softvfio(["host", name, "--json"].map(OsString::from));
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!(shown["format"], "softvfio-host/1");
        let args =
            ["plan", "--host", name, "--ram", "4G@0", "--bar", "b=16K@0x8000000000", "--json"];
        let out = softvfio(args.map(OsString::from));
        let plan: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(plan["host"], shown, "{name}");
        let code = if plan["legal"] == true { 0 } else { 1 };
        assert_eq!(out.status.code(), Some(code), "{name}");
        // A layout that is proposed is legal where it was proposed.
        if let Some(layout) = plan["proposal"].get("layout") {
            let file = dir.join("layout.json");
            fs::write(&file, layout.to_string()).unwrap();
            let args = ["plan", "--host", name, "--layout", file.to_str().unwrap(), "--json"];
            let again = softvfio(args.map(OsString::from));
            let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
            assert_eq!(
                again["maps"].as_array().unwrap().iter().filter(|m| m["legal"] != true).count(),
                0,
                "{name}"
            );
            assert_eq!(again["layout"]["ram"], layout["ram"]);
        }
    }
    fs::remove_dir_all(&dir).unwrap();
}

/// What is proposed as arguments is what a shell makes of them.
#[test]
fn proposed_arguments_go_round() {
    let name = "gpu's own BAR=0";
    let bar = format!("{name}=16G@0x8000000000");
    let args = ["plan", "--host", "x86-intel-39bit", "--ram", "1G@0", "--bar", &bar];
    let out = softvfio(args.map(OsString::from));
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let said = String::from_utf8(out.stdout).unwrap();
    let proposed = said.lines().find_map(|l| l.trim().strip_prefix("as arguments: ")).unwrap();
    let line = format!("\"$0\" plan --json --host x86-intel-39bit {proposed}");
    let mut shell = Command::new("sh");
    let out = shell.args(["-c", &line, env!("CARGO_BIN_EXE_softvfio")]).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{line}: {out:?}");
    let plan: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(plan["layout"]["bars"][0]["name"], name);
}

#[test]
fn colour_is_for_terminals() {
    // Output of a test is no terminal.
    let out = softvfio(["plan", "--host", "x86-amd", "--ram", "2T@0"].map(OsString::from));
    assert!(!out.stdout.contains(&0x1b));
}
