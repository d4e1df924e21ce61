//! Recorded traces, replayed: a part of them lives here; the whole set is replayed where it is.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use softvfio_trace::{Options, Reader, Session, Step, Tally, Verdict, answered};

/// Every trace below a folder.
fn traces(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(traces(&path));
        } else if path.extension().is_some_and(|e| e == "jsonl") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Replays files; the counts, and what differs.
fn replay(files: &[PathBuf]) -> (Tally, Vec<String>) {
    let (mut tally, mut different) = (Tally::default(), Vec::new());
    for file in files {
        let name = file.display().to_string();
        let reader = Reader::new(BufReader::new(File::open(file).unwrap()), &name);
        let mut session = Session::start(reader, &Options::default()).unwrap();
        while let Some(step) = session.step().unwrap() {
            let Step::Request(outcome) = step else { continue };
            tally.add(&outcome);
            if let Verdict::Mismatched(differences) = &outcome.verdict {
                different
                    .push(format!("{name}:{}: {} {differences:?}", outcome.line, outcome.text));
            }
        }
    }
    (tally, different)
}

fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces")
}

#[test]
fn the_traces_here_are_answered_as_recorded() {
    let files = traces(&own());
    assert!(files.len() > 30);
    let (tally, different) = replay(&files);
    assert_eq!(different, [""; 0]);
    assert_eq!((tally.deviations, tally.mismatches()), (0, 0));
    assert!(tally.answers > 5000, "{tally:?}");
}

#[test]
fn every_platform_kernel_and_kind_of_script_is_among_them() {
    let files = traces(&own());
    let has = |part: &str| files.iter().any(|f| f.to_str().is_some_and(|f| f.contains(part)));
    for part in [
        "arm-smmuv3/6.12.107/",
        "arm-smmuv3/6.12.107-16k/",
        "arm-smmuv3-v2m/",
        "arm-virtio/",
        "x86-amd/6.12.107/",
        "x86-amd/7.3.4/",
        "x86-intel/6.1.192/",
        "x86-intel/6.12.107/",
        "x86-intel/7.3.4/",
        "x86-intel-noir/",
        "x86-virtio/",
        "edge-memlock-user",
        "edge-shareddma",
        "edge-window-its",
        "rand-",
    ] {
        assert!(has(part), "{part}");
    }
}

#[test]
fn all_traces_are_answered_as_recorded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let folder = std::env::var_os("SOFTVFIO_TRACES")
        .map_or_else(|| root.join("shared/traces"), PathBuf::from);
    let files = traces(&folder);
    if files.is_empty() {
        println!("skipped: no traces in {} (SOFTVFIO_TRACES names a folder)", folder.display());
        return;
    }
    let (tally, different) = replay(&files);
    println!("{} files: {}", files.len(), tally.line());
    assert_eq!(different.iter().take(20).collect::<Vec<_>>(), [""; 0]);
    // Few, and no more than one answer of 500.
    assert!(tally.deviations * 500 <= tally.answers);
}

/// A recorded trace is what `--answers` makes of its script, byte for byte.
#[test]
fn answers_are_written_as_recorded() {
    for file in traces(&own()) {
        let recorded = std::fs::read_to_string(&file).unwrap();
        let script: String = recorded
            .lines()
            .map(|line| match line.rfind(r#","want":{""#) {
                Some(at) if line.starts_with(r#"{"op""#) => format!("{}}}\n", &line[..at]),
                _ => format!("{line}\n"),
            })
            .collect();
        let mut session =
            Session::start(Reader::new(script.as_bytes(), "s"), &Options::default()).unwrap();
        let mut written = format!("{}\n", session.header());
        while let Some(step) = session.step().unwrap() {
            written += &match step {
                Step::Note(text) => text,
                Step::Request(outcome) => answered(&outcome),
            };
            written.push('\n');
        }
        assert!(written == recorded, "{}", file.display());
    }
}
