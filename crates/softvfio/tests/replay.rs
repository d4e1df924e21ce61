//! `softvfio replay` as a command: exit status, messages, formats.

mod common;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use self::common::{fed, text};

const TRACE: &str = r#"{"kernel":"6.12.1","page_size":4096,"devices":{}}
{"note":"hello"}
{"op":"open_container","want":{"ret":0}}
{"op":"check_extension","raw_ext":1,"want":{"ret":1}}
{"op":"get_info","want":{"errno":"EINVAL"}}
"#;

/// Runs `softvfio replay` with `input` on standard input.
fn replay(arguments: &[&str], input: &str) -> Output {
    fed(&[&["replay"], arguments].concat(), input.as_bytes())
}

#[test]
fn all_match_is_0() {
    let out = replay(&["-"], TRACE);
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(text(&out.stdout), "3 answers, 3 matched, 0 known deviations\n");
    assert_eq!(text(&out.stderr), "");
}

#[test]
fn a_mismatch_is_1_with_a_diff() {
    let wrong = TRACE.replace(r#"{"errno":"EINVAL"}"#, r#"{"ret":0,"argsz":24}"#)
        + "{\"op\":\"levitate\",\"want\":{\"ret\":0}}\n";
    let out = replay(&["-"], &wrong);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        text(&out.stdout),
        r#"-:5: request 3 differs
  request:  {"op":"get_info"}
  ret: expected 0, got nothing
  argsz: expected 24, got nothing
  errno: expected nothing, got "EINVAL"
  why ours: the container has no IOMMU yet (SET_IOMMU comes first)
-:6: request 4 differs
  request:  {"op":"levitate"}
  expected: {"ret":0}, got no answer
  why ours: there is no operation "levitate"
4 answers, 2 matched, 0 known deviations
"#
    );
}

#[test]
fn unreadable_input_is_2_with_a_place() {
    let out = replay(&["-"], &TRACE.replace(r#""raw_ext":1"#, r#""raw_ext":"one""#));
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(
        text(&out.stderr),
        "softvfio: -:4:35: expected a number of at most 64 bits, found raw_ext \"one\"\n"
    );
    let out = replay(&["-"], "{\"devices\":{}}\n{\"op\":\n");
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("softvfio: -:2:"), "{}", text(&out.stderr));
    let out = replay(&["/nowhere/at/all"], "");
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).starts_with("softvfio: /nowhere/at/all: expected a readable file"));
    assert_eq!(
        replay(&["--answers", "-"], "{\"devices\":{}}\n{\"op\":\"fly\"}\n").status.code(),
        Some(2)
    );
    assert_eq!(replay(&["--dialect", "5.4", "-"], TRACE).status.code(), Some(2));
}

#[test]
fn explain_says_why() {
    let out = replay(&["--explain", "-"], TRACE);
    assert_eq!(
        text(&out.stdout),
        "-:5: request 3 get_info: EINVAL: the container has no IOMMU yet (SET_IOMMU comes first)\n\
         3 answers, 3 matched, 0 known deviations\n"
    );
}

#[test]
fn what_a_file_names_does_not_reach_the_terminal_as_it_is() {
    let out = replay(&["--explain", "-"], "{\"devices\":{}}\n{\"op\":\"a\\u001b[31m\\n\"}\n");
    let said = text(&out.stdout);
    assert!(said.starts_with("-:2: request 1 a\u{fffd}[31m\u{fffd}: : there is no op"), "{said}");
}

#[test]
fn json_is_json_lines() {
    let wrong = TRACE.replace(r#""want":{"ret":1}"#, r#""want":{"ret":0}"#);
    let out = replay(&["--json", "-"], &wrong);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        text(&out.stdout),
        r#"{"file":"-","line":4,"request":2,"verdict":"mismatch","asked":{"op":"check_extension","raw_ext":1},"want":{"ret":0},"got":{"ret":1},"fields":["ret"],"why":null}
{"summary":{"answers":3,"matched":2,"deviations":0,"mismatches":1}}
"#
    );
}

#[test]
fn answers_are_put_in_and_nothing_else_changes() {
    let script = r#"{"kernel":"7.3","devices":{},"mine":[1]}
{"note":"as is",  "x":1}
{"op":"open_container","mine":{"a": "b"}}
{"op":"api_version","want":"old","value":1}
"#;
    let out = replay(&["--answers", "-"], script);
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(
        text(&out.stdout),
        r#"{"kernel":"7.3","devices":{},"mine":[1]}
{"note":"as is",  "x":1}
{"op":"open_container","mine":{"a": "b"},"want":{"ret":0}}
{"op":"api_version","value":1,"want":{"ret":0}}
"#
    );
}

#[test]
fn a_script_runs_on_the_machine_of_another_header() {
    let file = std::env::temp_dir().join(format!("softvfio-host-{}.jsonl", std::process::id()));
    std::fs::write(&file, r#"{"platform":"x86-intel","qemu":"10","kernel":"6.1.1","devices":{}}"#)
        .unwrap();
    let host = file.to_str().unwrap();
    let script = "{\"script\":\"s\",\"about\":\"b\"}\n{\"op\":\"open_container\"}\n";
    let out = replay(&["--answers", "--host", host, "-"], script);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(
        text(&out.stdout),
        r#"{"trace":"-","platform":"x86-intel","qemu":"10","script":"s","about":"b","kernel":"6.1.1","devices":{}}
{"op":"open_container","want":{"ret":0}}
"#
    );
    assert_eq!(text(&out.stderr), "");
}

#[test]
fn an_old_kernel_is_answered_as_the_nearest_and_that_is_said() {
    let out = replay(&["-"], &TRACE.replace("6.12.1", "5.15.3"));
    assert_eq!(text(&out.stderr), "softvfio: -: kernel 5.15.3: answering as 6.1, the nearest\n");
    let out = replay(&["--dialect", "7.3", "-"], &TRACE.replace("6.12.1", "5.15.3"));
    assert_eq!(text(&out.stderr), "");
}

#[test]
fn a_closed_output_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_softvfio"))
        .args(["replay", "--answers", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut input = child.stdin.take().unwrap();
    let _ = input.write_all(TRACE.as_bytes());
    for _ in 0..20_000 {
        if input.write_all(b"{\"op\":\"api_version\"}\n").is_err() {
            break;
        }
    }
    drop(input);
    let out = child.wait_with_output().unwrap();
    assert!(!text(&out.stderr).contains("panicked"), "{}", text(&out.stderr));
    assert!(out.status.code().is_some());
}

#[test]
fn built_in_hosts_are_listed_by_name() {
    let out = replay(&["--host", "help"], "");
    assert_eq!(out.status.code(), Some(0));
    let list = text(&out.stdout);
    assert!(list.lines().count() >= 10 && list.contains("\narm-two-its-user "), "{list}");
    let out = replay(&["--host", "moon", "-"], "{}");
    assert_eq!(out.status.code(), Some(2));
    let message = text(&out.stderr);
    assert!(
        message.starts_with("softvfio: moon: expected a file, or a built-in host: x86-intel, ")
    );
    assert_eq!(replay(&["--host", "mixed"], "").status.code(), Some(2));
}

#[test]
fn a_built_in_host_answers_in_the_abi_asked_for() {
    let script = "{\"about\":\"mine\"}\n{\"op\":\"open_container\"}\n\
                  {\"op\":\"check_extension\",\"ext\":\"msi_windows\"}\n";
    let answer = |arguments: &[&str]| {
        let out = replay(&[arguments, &["--answers", "-"]].concat(), script);
        assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), ""), "{arguments:?}");
        let text = text(&out.stdout).to_owned();
        assert_eq!(replay(&["-"], &text).status.code(), Some(0), "{text}");
        text
    };
    let default = answer(&["--host", "arm-smmuv3-its-user"]);
    assert!(default.ends_with("{\"ret\":1}}\n"), "{default}");
    let kernel = answer(&["--host", "arm-smmuv3-its-user", "--abi", "kernel"]);
    assert!(
        kernel.contains("\"abi\":\"kernel\"") && kernel.ends_with("{\"ret\":0}}\n"),
        "{kernel}"
    );
    let x86 = answer(&["--host", "x86-amd", "--abi", "reviewed"]);
    assert!(x86.ends_with("{\"ret\":0}}\n"), "{x86}");
    let wrong = replay(&["-"], "{\"devices\":{},\"abi\":\"mine\"}\n");
    assert_eq!(
        text(&wrong.stderr),
        "softvfio: -:1:21: expected abi to be kernel, reviewed or msi-v6, found \"mine\"\n"
    );
}
