//! Every `softvfio` command that the README and docs/ show is run, and prints what they show.
//!
//! trycmd runs the console blocks of the pages and of `tests/commands/*.md`, which has the output of
//! commands that the pages show without it, and the rest of what is printed. `TRYCMD=overwrite cargo
//! test -p softvfio --test commands` writes the output anew. What cannot be run stands in [`NOT_RUN`].

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOFTVFIO: &str = env!("CARGO_BIN_EXE_softvfio");

/// Commands on the pages that trycmd does not run, and why not.
const NOT_RUN: &[(&str, &str)] = &[
    (
        "run --host x86-amd --device edu -- softvfio host --capture",
        "prints of the machine that it runs on; tests/capture.rs runs it",
    ),
    ("explain -- -:17", "reads standard input; tests/explain.rs does that"),
    ("host --capture", "shows the machine that it runs on; tests/commands/capture.md has trees"),
    (
        "run --device nvme,file=disk.img -- qemu-img info nvme://0000:01:00.0/1",
        "needs qemu-img; tests/programs.rs runs it",
    ),
    (
        "run --device ioat -- dpdk-test --no-huge -m 512 --iova-mode=va -a 0000:01:00.0",
        "needs DPDK; tests/programs.rs runs it",
    ),
    (
        "run -v --strict --device edu --host arm-smmuv3-its -- ./my-driver 0000:01:00.0",
        "the program is the reader's",
    ),
    (
        "run --host arm-smmuv3-its-user --device edu --device nvme -- ./msi_window",
        "needs a C compiler; tests/windows.rs runs the page",
    ),
    ("run --device edu -- ./msi_window", "as above"),
    (
        "run --host arm-two-its-user --device edu --device nvme,iommu=edu3 -- ./msi_window",
        "as above",
    ),
    (
        "run --host arm-smmuv3-its-user --device nvme -- qemu-img info nvme://0000:01:00.0/1",
        "as above",
    ),
    (
        "run --control msi.control --host arm-smmuv3-its-user --device edu -- ./msi_window --wait",
        "as above",
    ),
    ("ctl --control msi.control devices", "as above"),
    ("ctl --control msi.control unplug 0000:01:00.0", "as above"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Files of a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|p| p.extension().is_some_and(|e| e == ending)).collect();
    files.sort();
    files
}

fn pages() -> Vec<PathBuf> {
    [files(&root(), "md"), files(&root().join("docs"), "md")].concat()
}

fn own() -> Vec<PathBuf> {
    files(&root().join("crates/softvfio/tests/commands"), "md")
}

/// A block of a page: what its fence says, and its lines.
struct Block<'a> {
    place: String,
    info: &'a str,
    lines: Vec<&'a str>,
}

/// Blocks between fences, and lines that are indented by four.
fn blocks<'a>(page: &Path, text: &'a str) -> Vec<Block<'a>> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = None;
    for (number, line) in (1..).zip(text.lines()) {
        let place = || format!("{}:{number}", page.display());
        let fence = line.trim_start().strip_prefix("```");
        match (open, fence) {
            (None, Some(info)) => {
                blocks.push(Block { place: place(), info, lines: Vec::new() });
                open = Some(());
            }
            (Some(()), Some(_)) => open = None,
            (Some(()), None) => blocks.last_mut().unwrap().lines.push(line),
            (None, None) => {
                if let Some(line) = line.strip_prefix("    ") {
                    blocks.push(Block { place: place(), info: "sh", lines: vec![line] });
                }
            }
        }
    }
    assert!(open.is_none(), "{}: a block has no end", page.display());
    blocks
}

/// The commands of ours in a line of a shell, without redirections and comments.
fn commands(line: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    let mut skip = false;
    let mut end = |words: &mut Vec<&str>| {
        let words = std::mem::take(words);
        let rest = match words.as_slice() {
            ["softvfio", rest @ ..] | ["cargo", "run", "--", rest @ ..] => rest,
            _ => return,
        };
        commands.push(rest.join(" "));
    };
    for word in line.split_whitespace() {
        match word {
            _ if word.starts_with('#') => break,
            "|" | "&" | "&&" | ";" => {
                end(&mut words);
                skip = false;
            }
            ">" | "<" | "2>" => skip = true,
            _ if skip => {}
            _ => words.push(word),
        }
    }
    end(&mut words);
    commands
}

/// A line that begins with `$`, or any line of a block that has only commands.
fn command_lines<'a>(block: &'a Block) -> impl Iterator<Item = &'a str> {
    let console = block.info.starts_with("console");
    block.lines.iter().filter_map(move |line| match console {
        true => line.strip_prefix("$ "),
        false => (block.info == "sh").then_some(*line),
    })
}

/// All that the pages show is run, or says why not; and nothing else says so.
#[test]
fn every_command_is_run() {
    let mut shown = BTreeSet::new();
    let mut run = BTreeSet::new();
    for (page, ours) in pages().iter().map(|p| (p, false)).chain(own().iter().map(|p| (p, true))) {
        let text = fs::read_to_string(page).unwrap();
        for block in blocks(page, &text) {
            let place = &block.place;
            assert!(!block.info.is_empty(), "{place}: say what the block is: sh, console, text");
            for line in command_lines(&block) {
                for command in commands(line) {
                    if block.info == "console" {
                        run.insert(command.clone());
                    }
                    if !ours {
                        shown.insert((command, place.clone()));
                    }
                }
            }
        }
    }
    assert!(shown.len() > 30, "{}", shown.len());
    let reason = |command: &str| NOT_RUN.iter().any(|(c, _)| *c == command);
    for (command, place) in &shown {
        let known = run.contains(command) || reason(command);
        assert!(
            known,
            "{place}: softvfio {command}: put it with its output into tests/commands/shown.md, or \
             with a reason into NOT_RUN"
        );
    }
    for (command, why) in NOT_RUN {
        assert!(shown.iter().any(|(c, _)| c == command), "no page shows {command} ({why})");
        assert!(!run.contains(*command), "{command} is run ({why})");
    }
}

/// A folder that looks like the repository to commands, and that they may write to.
struct Sandbox(PathBuf);

impl Sandbox {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("softvfio-commands-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let link = |from: PathBuf, name: &str| symlink(from, dir.join(name)).unwrap();
        for name in ["crates", "docs", "examples"] {
            link(root().join(name), name);
        }
        for name in ["bad", "trees"] {
            link(root().join("crates/plan/tests").join(name), name);
        }
        link(root().join("examples/msi-window.jsonl"), "trace.jsonl");
        for file in fs::read_dir(root().join("crates/softvfio/tests/commands/files")).unwrap() {
            let file = file.unwrap();
            link(file.path(), file.file_name().to_str().unwrap());
        }
        Self(dir)
    }

    /// `cargo`, for whom the page has `cargo run -- ...`: what it would build is there.
    fn cargo(&self) -> PathBuf {
        let path = self.0.join("cargo");
        let text = format!(
            "#!/bin/sh\n[ \"$1 $2\" = 'run --' ] || exit 9\nshift 2\nexec {SOFTVFIO} \"$@\"\n"
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn console_blocks() {
    let sandbox = Sandbox::new();
    // trycmd runs commands where we are.
    std::env::set_current_dir(&sandbox.0).unwrap();
    let cases = trycmd::TestCases::new();
    cases.register_bin("softvfio", Path::new(SOFTVFIO));
    let mut doctor = Command::new(SOFTVFIO);
    if doctor.arg("doctor").stdout(Stdio::null()).status().unwrap().success() {
        cases.register_bin("cargo", sandbox.cargo());
    } else {
        // A program that trycmd does not know is left out.
        assert!(std::env::var_os("CI").is_none(), "softvfio doctor says what is missing");
        println!("skipped: `cargo run -- demo` of README.md, see `softvfio doctor`");
    }
    for page in pages().iter().chain(&own()) {
        cases.case(page);
    }
    cases.run();
}
