//! What is shown in a terminal: `script` is one, of a width that `stty` sets.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Stdio};

const SOFTVFIO: &str = env!("CARGO_BIN_EXE_softvfio");

/// What a command shows in a terminal of so many columns; `None` where there is no `script`.
fn shown(line: &str, columns: usize, variable: (&str, &str)) -> Option<String> {
    if !Path::new("/usr/bin/script").exists() {
        println!("skipped: there is no script (bsdutils)");
        return None;
    }
    let inside = format!("stty rows 50 cols {columns}; {SOFTVFIO} {line}");
    let mut command = Command::new("script");
    command.args(["-qec", &inside, "/dev/null"]).stdin(Stdio::null());
    command.env_remove("NO_COLOR").env("TERM", "xterm").env(variable.0, variable.1);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let out = command.output().unwrap();
    Some(String::from_utf8(out.stdout).unwrap().replace('\r', ""))
}

const LINES: [&str; 6] = [
    "host",
    "host x86-amd",
    "plan --host arm-smmuv3-its --ram 4G@0",
    "explain --map 0x8000000+2M --host arm-smmuv3-its",
    "draw docs/pictures/guest.json --host arm-smmuv3-its",
    "draw examples/msi-window.jsonl",
];

#[test]
fn lines_end_where_the_terminal_does() {
    for columns in [60, 80, 200] {
        for line in LINES {
            let Some(text) = shown(line, columns, ("A", "")) else { return };
            assert!(text.lines().count() > 5, "{line}: {text}");
            // JSON has no spaces to break at.
            for row in text.lines().filter(|row| !row.starts_with("  {")) {
                let width = console::measure_text_width(row);
                assert!(width <= columns, "{line}, {columns} columns: {row:?}");
            }
        }
    }
}

#[test]
fn colours_are_for_those_who_want_them() {
    let usable = Command::new(SOFTVFIO).args(["run", "-q", "--", "true"]).output().unwrap();
    for line in LINES[1..].iter().chain(usable.status.success().then_some(&"run -- true")) {
        let coloured = |variable| Some(shown(line, 80, variable)?.contains('\u{1b}'));
        let Some(plainly) = coloured(("A", "")) else { return };
        assert!(plainly, "{line}");
        assert_eq!(coloured(("NO_COLOR", "1")), Some(false), "{line}");
        assert_eq!(coloured(("TERM", "dumb")), Some(false), "{line}");
        assert_eq!(coloured(("NO_COLOR", "")), Some(true), "{line}");
    }
}
