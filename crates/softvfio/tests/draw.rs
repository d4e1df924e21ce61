//! `softvfio draw`, `explain` and `trace import` as commands: exit status, messages, files.

mod common;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::Command;

use self::common::{fed, text};

/// What it writes, when it succeeds without a word.
fn shown(arguments: &[&str], input: &[u8]) -> String {
    let out = fed(arguments, input);
    assert_eq!((text(&out.stderr), out.status.code()), ("", Some(0)), "{arguments:?}");
    text(&out.stdout).to_owned()
}

/// The one line that it says when it fails.
fn refused(arguments: &[&str], input: &[u8]) -> String {
    let out = fed(arguments, input);
    assert_eq!((text(&out.stdout), out.status.code()), ("", Some(2)), "{arguments:?}");
    let said = text(&out.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    said.trim_end().strip_prefix("softvfio: ").unwrap().to_owned()
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("softvfio-{}-{name}", std::process::id()))
}

const FIXED: &str = "crates/trace/tests/windows/kernel-abi-fixed.jsonl";
const GUEST: &str = "docs/pictures/guest.json";

fn json(arguments: &[&str], input: &[u8]) -> serde_json::Value {
    let value: serde_json::Value = serde_json::from_str(&shown(arguments, input)).unwrap();
    assert_eq!(value["format"], "softvfio-scene/1");
    value
}

#[test]
fn what_is_drawn_is_json_too() {
    let host = json(&["draw", "x86-amd", "--json"], b"");
    let areas = &host["drawings"][0]["columns"][0]["areas"];
    assert_eq!(
        (&areas[1]["kind"], &areas[1]["first"]),
        (&"reserved".into(), &"0xfd00000000".into())
    );
    let beside = json(&["draw", GUEST, "--host", "arm-smmuv3-its", "--json"], b"");
    let drawing = &beside["drawings"][0];
    assert_eq!(drawing["columns"].as_array().unwrap().len(), 2);
    assert_eq!(drawing["marks"][0]["kind"], "collision");
    let film = json(&["draw", FIXED, "--json"], b"");
    assert_eq!(film["drawings"][0]["view"], "time");
    assert_eq!(film["drawings"][0]["marks"][0]["request"], 8);
    let at = json(&["draw", FIXED, "--at", "8", "--json"], b"");
    assert_eq!(
        (&at["drawings"][0]["view"], &at["drawings"][0]["marks"][0]["kind"]),
        (&"space".into(), &"refused".into())
    );

    // A picture gathers what is much; this does not.
    let mut script = String::from(
        "{\"built_in\":\"x86-amd\"}\n{\"op\":\"mem\",\"size\":\"0x1000\"}\n{\"op\":\"open_container\"}\n\
         {\"op\":\"open_group\",\"dev\":\"edu\"}\n{\"op\":\"set_container\"}\n{\"op\":\"set_iommu\"}\n",
    );
    for page in 0..100 {
        script += &format!(
            "{{\"op\":\"map\",\"iova\":{},\"size\":4096,\"vaddr\":\"buf\"}}\n",
            page << 20
        );
    }
    let last = format!("{script}{{\"op\":\"unmap\",\"iova\":0,\"size\":\"0x2000000\"}}\n");
    let film = json(&["draw", "-", "--json"], last.as_bytes());
    let film = &film["drawings"][0];
    let changes = film["changes"].as_array().unwrap();
    assert_eq!((film["requests"].as_u64(), changes.len()), (Some(106), 102));
    let numbers: Vec<u64> = changes.iter().map(|c| c["request"].as_u64().unwrap()).collect();
    assert_eq!((numbers[0], numbers[1], numbers[101]), (5, 6, 106));
    assert_eq!(changes[1]["made"][0]["name"], "buf");
    assert_eq!(changes[101]["removed"].as_array().unwrap().len(), 32);
    let at = json(&["draw", "-", "--at", "105", "--json"], last.as_bytes());
    assert_eq!(at["drawings"][0]["columns"][1]["areas"].as_array().unwrap().len(), 100);

    let both = fed(&["draw", "x86-amd", "--json", "--svg", "-"], b"");
    assert_eq!(both.status.code(), Some(2));
}

/// Names of files are bytes: one that cannot be taken is named, one that can be is taken.
#[test]
fn names_that_are_no_text() {
    let odd = temporary("odd-").into_os_string().into_vec();
    let odd = OsString::from_vec([&odd[..], b"\xff.svg"].concat());
    let softvfio =
        |args: &[&OsStr]| Command::new(env!("CARGO_BIN_EXE_softvfio")).args(args).output().unwrap();
    for command in [&["draw"][..], &["explain"], &["replay"], &["trace", "import"]] {
        let args: Vec<&OsStr> = command.iter().map(OsStr::new).chain([odd.as_os_str()]).collect();
        let out = softvfio(&args);
        let said = text(&out.stderr);
        assert_eq!((out.status.code(), said.lines().count()), (Some(2), 1), "{command:?}: {said}");
        assert!(said.contains("odd-\u{fffd}.svg: expected"), "{command:?}: {said}");
    }
    let out = softvfio(
        &["draw", "x86-amd", "--svg"]
            .map(OsStr::new)
            .into_iter()
            .chain([odd.as_os_str()])
            .collect::<Vec<_>>(),
    );
    assert_eq!((text(&out.stderr), out.status.code()), ("", Some(0)));
    assert!(std::fs::read(&odd).unwrap().starts_with(b"<svg"));
    // In the place of a command it is none.
    assert_eq!(softvfio(&[&odd]).status.code(), Some(2));
    std::fs::remove_file(odd).unwrap();
}

/// A plan's picture is that of `draw`, where nothing is refused to the letter.
#[test]
fn plans_are_drawn() {
    let file = temporary("plan.svg");
    let name = file.to_str().unwrap();
    let layout = temporary("plan-layout.json");
    for (host, ram, legal) in
        [("arm-smmuv3-its", "1G@0x40000000", true), ("x86-amd", "2T@0", false)]
    {
        let args = ["plan", "--host", host, "--ram", ram, "--bar", "gpu=16G@0x80000000000"];
        let out = fed(&[&args[..], &["--svg", name]].concat(), b"");
        let plain = fed(&args, b"");
        assert_eq!((out.status.code(), &out.stdout), (plain.status.code(), &plain.stdout));
        let svg = std::fs::read_to_string(&file).unwrap();
        assert_eq!(svg.contains("refused: EINVAL"), !legal, "{svg}");
        assert_eq!(svg.contains("collision"), !legal);
        // The same by way of a layout.
        let json = fed(&[&args[..], &["--json"]].concat(), b"");
        let plan: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        std::fs::write(&layout, plan["layout"].to_string()).unwrap();
        let title = ["--title", "a guest", "--svg", "-"];
        let args = ["draw", layout.to_str().unwrap(), "--host", host];
        let drawn = shown(&[&args[..], &title].concat(), b"");
        if legal {
            assert_eq!(drawn, svg);
        } else {
            assert!(drawn.contains("collision") && drawn != svg);
        }
    }
    let args =
        ["plan", "--host", "arm-smmuv3-its-user", "--ram", "4G@0", "--msi-window", "1M@0x8000000"];
    let out = fed(&[&args[..], &["--svg", "-"]].concat(), b"");
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(1), ""));
    assert!(text(&out.stdout).starts_with("<svg"), "{}", text(&out.stdout));
    let says = "request 2: ram0: EEXIST: the MSI window msi0 is there";
    assert!(text(&out.stdout).contains(says), "{}", text(&out.stdout));
    // Where the aperture ends is said where it matters.
    let high = ["plan", "--host", "x86-intel-39bit", "--bar", "gpu=16G@0x8000000000", "--svg", "-"];
    let says = fed(&high, b"");
    let says = text(&says.stdout);
    assert!(says.contains("gpu lies outside of 0x0\u{2013}0x7fffffffff"), "{says}");
    // Groups that the container has not are not drawn.
    let count = |args: &[&str]| text(&fed(args, b"").stdout).matches("what the IOMMU says").count();
    let some = ["plan", "--host", "mixed", "--ram", "1G@0x40000000", "--svg", "-"];
    assert_eq!((count(&some), count(&[&some[..], &["--group", "2"]].concat())), (3, 1));

    let nowhere = ["plan", "--host", "x86-amd", "--ram", "1G@0", "--svg", "/nonexistent/a.svg"];
    assert!(refused(&nowhere, b"").starts_with("/nonexistent/a.svg: cannot write: "));
    let nameless = ["plan", "--host", "x86-amd", "--ram", "1G@0", "--svg", ""];
    assert_eq!(refused(&nameless, b""), "--svg: expected a file's name, or - for standard output");
    let twice = ["plan", "--host", "x86-amd", "--ram", "1G@0", "--json", "--svg", "-"];
    assert_eq!(refused(&twice, b""), "--svg -: expected a file: standard output has the JSON");
    for file in [file, layout] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn hosts_traces_and_layouts_are_told_apart() {
    assert!(shown(&["draw", "x86-amd"], b"").contains("HyperTransport"));
    assert!(shown(&["draw", FIXED], b"").contains("request 8: map: EINVAL"));
    assert!(shown(&["draw", FIXED, "--at", "8"], b"").contains("container 0 after request 8"));
    assert!(shown(&["draw", GUEST], b"").contains("BAR0 of an NVMe drive"));
    let beside = shown(&["draw", GUEST, "--host", "arm-smmuv3-its", "--width", "120"], b"");
    assert!(beside.contains("RAM lies on the MSI window of the SMMU"), "{beside}");
    assert!(shown(&["draw", "-"], br#"{"built_in":"x86-amd"}"#).contains("HyperTransport"));
    assert!(shown(&["draw", "-"], b"{\n\"built_in\":\n\"x86-amd\"}").contains("amd-vi"));
    let plain = shown(&["draw", FIXED], b"");
    assert!(!plain.contains('\u{1b}'));
}

#[test]
fn pictures_are_files() {
    let file = temporary("a.svg");
    let name = file.to_str().unwrap();
    assert_eq!(shown(&["draw", GUEST, "--svg", name], b""), "");
    let svg = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!(shown(&["draw", GUEST, "--svg", "-"], b""), svg);
}

/// The pictures of the documentation, as anybody makes them.
#[test]
fn pictures_of_the_documentation() {
    let windows = "crates/trace/tests/windows";
    let guest = format!("{windows}/guest-layout.jsonl");
    for (arguments, picture) in [
        (&[GUEST, "--host", "arm-smmuv3-its"][..], "docs/pictures/collision.svg"),
        (&[FIXED], "docs/pictures/kernel-abi-fixed.svg"),
        (&[&guest], "docs/pictures/guest-layout.svg"),
        (&[&guest, "--at", "22"], "docs/pictures/guest-layout-22.svg"),
        (&["x86-amd"], "crates/draw/tests/golden/x86-amd.svg"),
    ] {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let known = std::fs::read_to_string(format!("{root}/{picture}")).unwrap();
        let drawn = shown(&[&["draw", "--svg", "-"], arguments].concat(), b"");
        assert!(drawn == known, "{picture} differs from what {arguments:?} draw");
    }
}

#[test]
fn bad_input_is_one_line_with_a_place() {
    let cases: &[(&[&str], &[u8], &str)] = &[
        (&["draw", "/nowhere"], b"", "/nowhere: expected a readable file: No such file"),
        (&["draw", "moon"], b"", "moon: expected a file, or a host: one of x86-intel"),
        (&["draw", "-"], b"", "-:1: expected a header on the first line, found an empty file"),
        (&["draw", "-"], b"{\"ram\":[{\"start\":0}]}", "-: ram[0]: expected a member size"),
        (&["draw", "-"], b"{\n\"ram\": [\n}", "-:3:1: expected a trace, a host or a layout"),
        (&["draw", "-"], b"[1]", "-:1:1: expected a JSON object, found a list"),
        (&["draw", "-"], b"{\"kernel\":\"6.12.1\",\"devices\":{}}\n{\"op\":\n", "-:2:"),
        (
            &["draw", FIXED, "--at", "99"],
            b"",
            "crates/trace/tests/windows/kernel-abi-fixed.jsonl: expected a request from 1 to 22, found --at 99",
        ),
        (
            &["draw", FIXED, "--at", "0"],
            b"",
            "crates/trace/tests/windows/kernel-abi-fixed.jsonl: expected",
        ),
        (
            &["draw", FIXED, "--container", "7"],
            b"",
            "crates/trace/tests/windows/kernel-abi-fixed.jsonl: nothing happened",
        ),
        (
            &["draw", "x86-amd", "--at", "1"],
            b"",
            "x86-amd: expected a trace with --at, found a host",
        ),
        (&["draw", GUEST, "--host", "moon"], b"", "moon: expected a file, or a built-in host"),
        (&["draw", GUEST, "--svg", "/nowhere/a.svg"], b"", "/nowhere/a.svg: cannot write"),
        (&["explain", "/nowhere:3"], b"", "/nowhere: expected a readable file"),
        (&["explain", "--host", "x86-amd"], b"", "expected a TRACE, or --map"),
        (&["explain", "--map", "1", "--host", "x86-amd"], b"", "--map: expected IOVA+SIZE"),
        (
            &["explain", "--enable-msi", "x", "--host", "x86-amd"],
            b"",
            "expected a device of the host (edu",
        ),
        (
            &["trace", "import", "-"],
            b"hello\n",
            "-: expected strace's or QEMU's log, found neither",
        ),
        (&["trace", "import", "-", "--format", "qemu"], b"", "-: expected the log of QEMU's"),
    ];
    for (arguments, input, expected) in cases {
        let said = refused(arguments, input);
        assert!(said.starts_with(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn an_explanation_has_the_checks_and_what_is_in_the_way() {
    let said = shown(&["explain", "--map", "0x8000000+2M", "--host", "arm-smmuv3-its"], b"");
    for part in [
        "refused: EINVAL",
        "  \u{2717} 11. EINVAL    it lies within one valid range",
        "  0x8000000\u{2013}0x80fffff \u{b7} 1 MiB: the MSI window of the SMMU, since request 5",
        "  0x7e00000, the nearest below",
        "  = 7.3",
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    // Another kernel answers differently.
    let wrap = ["explain", "--map", "0xfffffffffffff000+8K", "--host", "x86-amd"];
    assert!(
        shown(&wrap, b"").contains("\u{2260} 7.3              EOVERFLOW"),
        "{}",
        shown(&wrap, b"")
    );
    // Who mapped what is in the way; and what else would be.
    let twice = shown(&["explain", "--map", "0+4K", "--map", "0+4K", "--host", "x86-amd"], b"");
    assert!(twice.contains("a mapping of buf, since request 6"), "{twice}");
    let json = shown(&["explain", "--json", &format!("{FIXED}:9")], b"");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["format"], "softvfio-explain/1");
    assert_eq!((&json["request"], &json["rules"][10]["verdict"]), (&9.into(), &"failed".into()));
    assert_eq!(json["nearest"]["above"], "0x8100000");
    // Nothing is wrong, or nothing but what looks odd.
    let quiet = b"{\"devices\":{}}\n{\"op\":\"open_container\"}\n";
    assert!(shown(&["explain", "-"], quiet).starts_with("nothing was refused"));
    let odd = ["explain", "--unmap", "0+4K", "--host", "x86-amd"];
    assert!(shown(&odd, b"").contains("removed nothing"));
}

#[test]
fn logs_become_traces() {
    let log = b"vfio_attach_device  (0000:01:00.0) group 7\n\
        vfio_listener_region_add_ram region_add [ram] 0x0 - 0x7fffffff [0x7f0000000000]\n\
        vfio_msix_enable  (0000:01:00.0)\n";
    let out = fed(&["trace", "import", "-", "--host", "x86-amd"], log);
    assert_eq!(out.status.code(), Some(0));
    let said = text(&out.stderr);
    assert!(said.contains("edu takes the place of 0000:01:00.0 (group 7)"), "{said}");
    assert!(said.contains("missing: 1 of MSI-X"), "{said}");
    let picture = shown(&["draw", "-"], &out.stdout);
    assert!(picture.contains("1 mapping made"), "{picture}");
}

#[test]
fn completions_and_man_pages() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(shown(&["completions", shell], b"").contains("explain"), "{shell}");
    }
    let help = shown(&["--help"], b"");
    assert!(help.contains("\n  completions  ") && help.contains("\n  man          "), "{help}");
    let folder = temporary("man");
    shown(&["man", folder.to_str().unwrap()], b"");
    let page = std::fs::read_to_string(folder.join("softvfio-draw.1")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(page.contains("softvfio draw arm\\-smmuv3\\-its"), "{page}");
}
