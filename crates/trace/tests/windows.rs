//! MSI windows at the ioctls: scripts that read as their specification, each with the answers that
//! the design asks for. The scripts were written with their answers, not recorded.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use softvfio_trace::{Options, Reader, Session, Step, Tally, Verdict};

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/windows");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_script_gets_the_answers_it_was_written_with() {
    let (mut tally, mut different) = (Tally::default(), Vec::new());
    for file in scripts() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let reader = Reader::new(BufReader::new(File::open(&file).unwrap()), &name);
        let mut session = Session::start(reader, &Options::default()).unwrap();
        assert_eq!(session.notes(), [""; 0], "{name}");
        while let Some(step) = session.step().unwrap() {
            let Step::Request(outcome) = step else { continue };
            tally.add(&outcome);
            assert!(outcome.want().is_some(), "{name}:{} has no answer", outcome.line);
            if !matches!(outcome.verdict, Verdict::Matched) {
                different.push(format!(
                    "{name}:{}: {} {:?}",
                    outcome.line, outcome.text, outcome.verdict
                ));
            }
        }
    }
    assert_eq!(different, [""; 0]);
    assert!(tally.answers > 700, "{tally:?}");
}

#[test]
fn there_is_a_script_for_every_rule() {
    let names: Vec<String> =
        scripts().iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect();
    for rule in 1..=10 {
        let start = format!("rule-{rule:02}-");
        assert!(names.iter().any(|n| n.starts_with(&start)), "{start}");
    }
    for name in ["thread-example", "devices", "late-message", "msi-v6", "kernel-abi"] {
        assert!(names.contains(&format!("{name}.jsonl")), "{name}");
    }
}
