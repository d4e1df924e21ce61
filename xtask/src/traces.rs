//! The whole set of recorded traces, where there is one.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{cargo, quiet, root};
use crate::steps::Outcome;

/// Replays every trace; one mismatch is a failure.
pub(crate) fn replay() -> Result<Outcome, String> {
    let folder = match env::var_os("SOFTVFIO_TRACES") {
        Some(folder) => PathBuf::from(folder),
        None => root().join("../shared/traces"),
    };
    let mut files = Vec::new();
    if folder.is_dir() {
        find(&folder, &mut files)?;
    }
    if files.is_empty() {
        return Ok(Outcome::Skipped(
            "no recorded traces here (SOFTVFIO_TRACES names their folder)".into(),
        ));
    }
    files.sort();
    let mut command = cargo(&["run", "--quiet", "--package", "softvfio", "--"]);
    let printed = quiet(command.arg("replay").args(&files))?;
    let last = printed.lines().last().unwrap_or_default();
    Ok(Outcome::Held(format!("{} traces: {last}", files.len())))
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let broken = |e| format!("{}: {e}", folder.display());
    for entry in fs::read_dir(folder).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "jsonl") {
            files.push(path);
        }
    }
    Ok(())
}
